#include "train/checkpoint.h"

#include "base/version.h"

#include <string.h>

void dc_metrics_pack(const dc_metrics *m, double numbers[DC_METRICS_NUMBERS])
{
    const double values[DC_METRICS_NUMBERS] = {m->loss, m->auxiliary, (double)m->n, (double)m->top1, (double)m->top5};
    memcpy(numbers, values, sizeof values);
}

dc_metrics dc_metrics_unpack(const double numbers[DC_METRICS_NUMBERS])
{
    return (dc_metrics){numbers[0], numbers[1], (int64_t)numbers[2], (int64_t)numbers[3], (int64_t)numbers[4]};
}

dc_status dc_checkpoint_write(const dc_checkpoint *c)
{
    dc_state *state;
    DC_TRY(dc_csv_flush(c->table));
    DC_TRY(dc_state_create(c->path, &state));
    dc_state_put_text(state, "version", DC_VERSION);
    dc_state_put_u64(state, "identity", c->identity);
    c->put(c->context, state);
    dc_status status = dc_params_save(c->params, state, "params", true);
    if (status == DC_OK && c->average)
        status = dc_params_save(c->average, state, "average", false);
    if (status == DC_OK)
        status = dc_lock_check(c->lock);
    if (status != DC_OK) {
        dc_state_abandon(state);
        return status;
    }
    return dc_state_commit(state, true);
}

static dc_status read_state(const dc_checkpoint *c, dc_state *state)
{
    uint64_t identity = 0;
    DC_TRY(dc_state_get_u64(state, "identity", &identity));
    if (identity != c->identity)
        return dc_fail(DC_ERR_INPUT,
                       "%s: this checkpoint of %s was made with another configuration, data set or genotype; give "
                       "another output directory or remove it",
                       dc_state_path(state), c->name);
    DC_TRY(dc_params_load(c->params, state, "params", true));
    if (c->average)
        DC_TRY(dc_params_load(c->average, state, "average", false));
    return c->get(c->context, state);
}

dc_status dc_checkpoint_resume(const dc_checkpoint *c, bool tell, dc_log *log)
{
    if (!c->path || !dc_state_exists(c->path))
        return DC_OK;
    dc_state *state;
    DC_TRY(dc_state_open_newest(c->path, &state));
    if (dc_state_warning(state) && tell)
        dc_log_warn(log, "%s", dc_state_warning(state));
    dc_status status = read_state(c, state);
    if (status != DC_OK) {
        dc_state_abandon(state);
        return status;
    }
    return dc_state_close(state);
}
