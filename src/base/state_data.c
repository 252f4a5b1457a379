#include "base/state.h"

#include "base/state_hdf5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t CHUNK_BYTES = 1 << 20;

enum { NAME_CHARS = 512, SHAPE_CHARS = 128 };

/* ---- types, shapes, names ---- */

static hid_t type_id(dc_state_type type)
{
    switch (type) {
    case DC_STATE_FLOAT:
        return H5T_IEEE_F32LE;
    case DC_STATE_DOUBLE:
        return H5T_IEEE_F64LE;
    case DC_STATE_INT32:
        return H5T_STD_I32LE;
    case DC_STATE_INT64:
        return H5T_STD_I64LE;
    case DC_STATE_UINT8:
        return H5T_STD_U8LE;
    case DC_STATE_UINT32:
        return H5T_STD_U32LE;
    case DC_STATE_UINT64:
        return H5T_STD_U64LE;
    }
    return -1;
}

static const char *const type_names[] = {"float", "double", "int32", "int64", "uint8", "uint32", "uint64"};
static const int type_bytes[] = {4, 8, 4, 8, 1, 4, 8};

typedef struct shape {
    dc_state_type type;
    int rank;
    int64_t dims[DC_STATE_MAX_RANK];
} shape;

/* "float 14x8" */
static const char *describe(const shape *s, char out[SHAPE_CHARS])
{
    int used = snprintf(out, SHAPE_CHARS, "%s", type_names[s->type]);
    for (int i = 0; i < s->rank; i++)
        used += snprintf(out + used, (size_t)(SHAPE_CHARS - used), "%c%lld", i ? 'x' : ' ', (long long)s->dims[i]);
    return out;
}

static dc_status make_shape(const dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims,
                            shape *out)
{
    int64_t bytes = type_bytes[type];
    if (rank < 0 || rank > DC_STATE_MAX_RANK)
        return dc_fail(DC_ERR_INTERNAL, "%s: array '%s' of rank %d: 0 to %d are possible", state->path, name, rank,
                       DC_STATE_MAX_RANK);
    *out = (shape){type, rank, {1, 1, 1, 1}};
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0 || __builtin_mul_overflow(bytes, dims[i] ? dims[i] : 1, &bytes))
            return dc_fail(DC_ERR_INTERNAL, "%s: array '%s' has an impossible dimension %lld", state->path, name,
                           (long long)dims[i]);
        out->dims[i] = dims[i];
    }
    return DC_OK;
}

static int64_t bytes_of(const shape *s)
{
    int64_t bytes = type_bytes[s->type];
    for (int i = 0; i < s->rank; i++)
        bytes *= s->dims[i];
    return bytes;
}

static dc_status check_name(const dc_state *state, const char *name)
{
    size_t length = strlen(name);
    if (!length || length >= NAME_CHARS || name[0] == '/' || name[length - 1] == '/' || strstr(name, "//"))
        return dc_fail(DC_ERR_INTERNAL, "%s: '%.100s' is no name: a path such as search/alpha expected", state->path,
                       name);
    return DC_OK;
}

/* Is there a group or array of that name? Every part of the path is looked at, as HDF5 demands. */
static bool object_exists(const dc_state *state, const char *name)
{
    char part[NAME_CHARS];
    for (size_t i = 1; i <= strlen(name); i++) {
        if (name[i] && name[i] != '/')
            continue;
        snprintf(part, sizeof part, "%.*s", (int)i, name);
        if (H5Lexists(state->file, part, H5P_DEFAULT) <= 0)
            return false;
    }
    return true;
}

/* Splits "search/epoch" into the object "search" ("/" for the file itself) and the attribute "epoch". */
static const char *split(const char *name, char object[NAME_CHARS])
{
    const char *slash = strrchr(name, '/');
    if (slash)
        snprintf(object, NAME_CHARS, "%.*s", (int)(slash - name), name);
    else
        snprintf(object, NAME_CHARS, "/");
    return slash ? slash + 1 : name;
}

static bool attribute_exists(const dc_state *state, const char *name)
{
    char object[NAME_CHARS];
    const char *attribute = split(name, object);
    bool parent = !strcmp(object, "/") || object_exists(state, object);
    return parent && H5Aexists_by_name(state->file, object, attribute, H5P_DEFAULT) > 0;
}

/* ---- writing ---- */

/* Makes the groups that a name lies in. */
static dc_status make_groups(const dc_state *state, const char *name)
{
    char group[NAME_CHARS];
    dc_status status = DC_OK;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(creation, 0);
    for (const char *slash = strchr(name, '/'); slash && !status; slash = strchr(slash + 1, '/')) {
        snprintf(group, sizeof group, "%.*s", (int)(slash - name), name);
        if (object_exists(state, group))
            continue;
        hid_t made = H5Gcreate2(state->file, group, H5P_DEFAULT, creation, H5P_DEFAULT);
        if (made < 0)
            status = dc_state_hdf5_fail(state, "cannot make the group", group);
        else
            H5Gclose(made);
    }
    H5Pclose(creation);
    return status;
}

/* Equal chunks of about a megabyte, the slowest dimension cut first. */
static void chunks(const shape *s, hsize_t chunk[DC_STATE_MAX_RANK])
{
    int64_t bytes = bytes_of(s);
    for (int i = 0; i < s->rank; i++) {
        int64_t pieces = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES, dim = s->dims[i];
        pieces = pieces > dim ? dim : pieces;
        chunk[i] = (hsize_t)((dim + pieces - 1) / pieces);
        bytes = bytes / dim * (int64_t)chunk[i];
    }
}

static hid_t array_properties(const dc_state *state, const shape *s, bool contiguous)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[DC_STATE_MAX_RANK];
    H5Pset_obj_track_times(list, 0);
    if (!contiguous && s->rank && bytes_of(s)) {
        chunks(s, chunk);
        H5Pset_chunk(list, s->rank, chunk);
        H5Pset_fletcher32(list);
    } else {
        H5Pset_layout(list, H5D_CONTIGUOUS);
        H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);
        /* a file's unwritten bytes are zero already */
        H5Pset_fill_time(list, state->large ? H5D_FILL_TIME_NEVER : H5D_FILL_TIME_ALLOC);
    }
    return list;
}

static hid_t space_of(const shape *s)
{
    hsize_t dims[DC_STATE_MAX_RANK];
    for (int i = 0; i < s->rank; i++)
        dims[i] = (hsize_t)s->dims[i];
    return s->rank ? H5Screate_simple(s->rank, dims, NULL) : H5Screate(H5S_SCALAR);
}

/* Creates an array and, with data, fills it. */
static dc_status put_array(const dc_state *state, const char *name, const shape *s, bool contiguous, const void *data)
{
    DC_TRY(check_name(state, name));
    if (object_exists(state, name) || attribute_exists(state, name))
        return dc_fail(DC_ERR_INTERNAL, "%s: '%s' is put twice", state->path, name);
    DC_TRY(make_groups(state, name));
    hid_t space = space_of(s), list = array_properties(state, s, contiguous), type = type_id(s->type);
    hid_t array = H5Dcreate2(state->file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    dc_status status = array < 0 ? dc_state_hdf5_fail(state, "cannot create the array", name) : DC_OK;
    if (!status && data && bytes_of(s) && H5Dwrite(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = dc_state_hdf5_fail(state, "cannot write the array", name);
    if (array >= 0 && H5Dclose(array) < 0 && !status)
        status = dc_state_hdf5_fail(state, "cannot write the array", name);
    H5Pclose(list);
    H5Sclose(space);
    return status;
}

void dc_state_put(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims,
                  const void *data)
{
    shape s;
    if (state->status || dc_state_keep(state, make_shape(state, name, type, rank, dims, &s)))
        return;
    dc_state_hdf5_enter();
    dc_state_keep(state, put_array(state, name, &s, false, data));
    dc_state_hdf5_leave();
}

void dc_state_reserve(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims)
{
    shape s;
    if (state->status || dc_state_keep(state, make_shape(state, name, type, rank, dims, &s)))
        return;
    dc_state_hdf5_enter();
    dc_state_keep(state, put_array(state, name, &s, true, NULL));
    dc_state_hdf5_leave();
}

static dc_status put_attribute(const dc_state *state, const char *name, hid_t type, const void *data)
{
    char object[NAME_CHARS];
    DC_TRY(check_name(state, name));
    if (object_exists(state, name) || attribute_exists(state, name))
        return dc_fail(DC_ERR_INTERNAL, "%s: '%s' is put twice", state->path, name);
    DC_TRY(make_groups(state, name));
    const char *attribute = split(name, object);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t made = H5Acreate_by_name(state->file, object, attribute, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    dc_status status = DC_OK;
    if (made < 0 || H5Awrite(made, type, data) < 0)
        status = dc_state_hdf5_fail(state, "cannot write", name);
    if (made >= 0)
        H5Aclose(made);
    H5Sclose(space);
    return status;
}

static void put_scalar(dc_state *state, const char *name, dc_state_type type, const void *value)
{
    if (state->status)
        return;
    dc_state_hdf5_enter();
    dc_state_keep(state, put_attribute(state, name, type_id(type), value));
    dc_state_hdf5_leave();
}

void dc_state_put_i64(dc_state *state, const char *name, int64_t value)
{
    put_scalar(state, name, DC_STATE_INT64, &value);
}

void dc_state_put_u64(dc_state *state, const char *name, uint64_t value)
{
    put_scalar(state, name, DC_STATE_UINT64, &value);
}

void dc_state_put_double(dc_state *state, const char *name, double value)
{
    put_scalar(state, name, DC_STATE_DOUBLE, &value);
}

void dc_state_put_text(dc_state *state, const char *name, const char *text)
{
    if (state->status)
        return;
    dc_state_hdf5_enter();
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    dc_state_keep(state, put_attribute(state, name, type, text));
    H5Tclose(type);
    dc_state_hdf5_leave();
}

/* ---- reading ---- */

static dc_status read_type(const dc_state *state, const char *name, hid_t array, shape *out)
{
    hid_t type = H5Dget_type(array);
    bool known = false;
    for (int i = DC_STATE_FLOAT; i <= DC_STATE_UINT64 && !known; i++) {
        known = H5Tequal(type, type_id((dc_state_type)i)) > 0;
        out->type = (dc_state_type)i;
    }
    H5Tclose(type);
    return known ? DC_OK : dc_fail(DC_ERR_INPUT, "%s: array '%s' has a type that is not used here", state->path, name);
}

static dc_status read_shape(const dc_state *state, const char *name, hid_t array, shape *out)
{
    hsize_t dims[H5S_MAX_RANK];
    DC_TRY(read_type(state, name, array, out));
    hid_t space = H5Dget_space(array);
    out->rank = H5Sget_simple_extent_ndims(space);
    if (out->rank >= 0 && out->rank <= DC_STATE_MAX_RANK)
        H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    if (out->rank < 0 || out->rank > DC_STATE_MAX_RANK)
        return dc_fail(DC_ERR_INPUT, "%s: array '%s' has %d dimensions: at most %d are used here", state->path, name,
                       out->rank, DC_STATE_MAX_RANK);
    for (int i = 0; i < DC_STATE_MAX_RANK; i++)
        out->dims[i] = i < out->rank ? (int64_t)dims[i] : 1;
    return DC_OK;
}

/* Opens an array; *array is to be closed by the caller when this succeeds. */
static dc_status open_array(const dc_state *state, const char *name, hid_t *array, shape *found)
{
    DC_TRY(check_name(state, name));
    if (!object_exists(state, name))
        return dc_fail(DC_ERR_INPUT, "%s: it has no array '%s'", state->path, name);
    *array = H5Dopen2(state->file, name, H5P_DEFAULT);
    if (*array < 0)
        return dc_state_hdf5_fail(state, "cannot open the array", name);
    dc_status status = read_shape(state, name, *array, found);
    if (status)
        H5Dclose(*array);
    return status;
}

static dc_status mismatch(const dc_state *state, const char *name, const shape *found, const shape *wanted)
{
    char is[SHAPE_CHARS], should[SHAPE_CHARS];
    return dc_fail(DC_ERR_INPUT, "%s: array '%s' is %s, but %s is expected", state->path, name, describe(found, is),
                   describe(wanted, should));
}

static dc_status get_array(const dc_state *state, const char *name, const shape *wanted, void *data)
{
    hid_t array;
    shape found;
    DC_TRY(open_array(state, name, &array, &found));
    dc_status status = DC_OK;
    if (found.type != wanted->type || found.rank != wanted->rank || memcmp(found.dims, wanted->dims, sizeof found.dims))
        status = mismatch(state, name, &found, wanted);
    else if (bytes_of(&found) && H5Dread(array, type_id(found.type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = dc_state_hdf5_fail(state, "cannot read the array", name);
    H5Dclose(array);
    return status;
}

dc_status dc_state_get(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims, void *data)
{
    shape wanted;
    DC_TRY(dc_state_repeat(state));
    DC_TRY(dc_state_keep(state, make_shape(state, name, type, rank, dims, &wanted)));
    dc_state_hdf5_enter();
    dc_status status = dc_state_keep(state, get_array(state, name, &wanted, data));
    dc_state_hdf5_leave();
    return status;
}

/* Writes some rows of an open array. */
static herr_t write_rows(hid_t array, const shape *found, int64_t first, int64_t n, const void *rows)
{
    hsize_t start[DC_STATE_MAX_RANK] = {(hsize_t)first}, count[DC_STATE_MAX_RANK];
    for (int i = 0; i < found->rank; i++)
        count[i] = (hsize_t)(i ? found->dims[i] : n);
    hid_t file = H5Dget_space(array), memory = H5Screate_simple(found->rank, count, NULL), type = type_id(found->type);
    herr_t result = H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL);
    if (result >= 0)
        result = H5Dwrite(array, type, memory, file, H5P_DEFAULT, rows);
    H5Sclose(memory);
    H5Sclose(file);
    return result;
}

static dc_status check_rows(const dc_state *state, const char *name, const shape *found, int64_t first, int64_t n)
{
    if (found->rank < 1 || first < 0 || n < 0 || n > found->dims[0] || first > found->dims[0] - n)
        return dc_fail(DC_ERR_INPUT, "%s: array '%s' has %lld rows: %lld from %lld on are not there", state->path, name,
                       (long long)(found->rank ? found->dims[0] : 0), (long long)n, (long long)first);
    return DC_OK;
}

static dc_status put_rows(const dc_state *state, const char *name, int64_t first, int64_t n, const void *rows)
{
    hid_t array;
    shape found;
    DC_TRY(open_array(state, name, &array, &found));
    dc_status status = check_rows(state, name, &found, first, n);
    if (!status && n && bytes_of(&found) && write_rows(array, &found, first, n, rows) < 0)
        status = dc_state_hdf5_fail(state, "cannot write the array", name);
    if (H5Dclose(array) < 0 && !status)
        status = dc_state_hdf5_fail(state, "cannot write the array", name);
    return status;
}

void dc_state_put_rows(dc_state *state, const char *name, int64_t first, int64_t n, const void *rows)
{
    if (state->status)
        return;
    dc_state_hdf5_enter();
    dc_state_keep(state, put_rows(state, name, first, n, rows));
    dc_state_hdf5_leave();
}

bool dc_state_has(dc_state *state, const char *name)
{
    dc_state_hdf5_enter();
    bool has = check_name(state, name) == DC_OK && (object_exists(state, name) || attribute_exists(state, name));
    dc_state_hdf5_leave();
    return has;
}

dc_status dc_state_shape(dc_state *state, const char *name, dc_state_type *type, int *rank, int64_t *dims)
{
    hid_t array;
    shape found;
    DC_TRY(dc_state_repeat(state));
    dc_state_hdf5_enter();
    dc_status status = dc_state_keep(state, open_array(state, name, &array, &found));
    if (!status)
        H5Dclose(array);
    dc_state_hdf5_leave();
    DC_TRY(status);
    if (type)
        *type = found.type;
    if (rank)
        *rank = found.rank;
    if (dims)
        memcpy(dims, found.dims, sizeof found.dims);
    return DC_OK;
}

static dc_status open_attribute(const dc_state *state, const char *name, hid_t *attribute)
{
    char object[NAME_CHARS];
    DC_TRY(check_name(state, name));
    if (!attribute_exists(state, name))
        return dc_fail(DC_ERR_INPUT, "%s: it has no value '%s'", state->path, name);
    const char *leaf = split(name, object);
    *attribute = H5Aopen_by_name(state->file, object, leaf, H5P_DEFAULT, H5P_DEFAULT);
    return *attribute < 0 ? dc_state_hdf5_fail(state, "cannot open", name) : DC_OK;
}

static dc_status get_scalar(const dc_state *state, const char *name, dc_state_type type, void *value)
{
    hid_t attribute;
    DC_TRY(open_attribute(state, name, &attribute));
    hid_t found = H5Aget_type(attribute), space = H5Aget_space(attribute);
    dc_status status = DC_OK;
    if (H5Tequal(found, type_id(type)) <= 0 || H5Sget_simple_extent_npoints(space) != 1)
        status = dc_fail(DC_ERR_INPUT, "%s: '%s' is not one value of type %s", state->path, name, type_names[type]);
    else if (H5Aread(attribute, found, value) < 0)
        status = dc_state_hdf5_fail(state, "cannot read", name);
    H5Sclose(space);
    H5Tclose(found);
    H5Aclose(attribute);
    return status;
}

static dc_status locked_scalar(dc_state *state, const char *name, dc_state_type type, void *value)
{
    DC_TRY(dc_state_repeat(state));
    dc_state_hdf5_enter();
    dc_status status = dc_state_keep(state, get_scalar(state, name, type, value));
    dc_state_hdf5_leave();
    return status;
}

dc_status dc_state_get_i64(dc_state *state, const char *name, int64_t *value)
{
    return locked_scalar(state, name, DC_STATE_INT64, value);
}

dc_status dc_state_get_u64(dc_state *state, const char *name, uint64_t *value)
{
    return locked_scalar(state, name, DC_STATE_UINT64, value);
}

dc_status dc_state_get_double(dc_state *state, const char *name, double *value)
{
    return locked_scalar(state, name, DC_STATE_DOUBLE, value);
}

static dc_status get_text(const dc_state *state, const char *name, char **text)
{
    hid_t attribute;
    DC_TRY(open_attribute(state, name, &attribute));
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    dc_status status = DC_OK;
    char *read = NULL;
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) || H5Sget_simple_extent_npoints(space) != 1)
        status = dc_fail(DC_ERR_INPUT, "%s: '%s' is not a text", state->path, name);
    else if (!(read = dc_alloc_zeroed(H5Tget_size(type) + 1)))
        status = DC_ERR_MEMORY;
    else if (H5Aread(attribute, type, read) < 0)
        status = dc_state_hdf5_fail(state, "cannot read", name);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    if (status)
        free(read);
    else
        *text = read;
    return status;
}

dc_status dc_state_get_text(dc_state *state, const char *name, char **text)
{
    DC_TRY(dc_state_repeat(state));
    dc_state_hdf5_enter();
    dc_status status = dc_state_keep(state, get_text(state, name, text));
    dc_state_hdf5_leave();
    return status;
}

static dc_status array_offset(const dc_state *state, const char *name, int64_t *offset_bytes, int64_t *size_bytes)
{
    hid_t array;
    shape found;
    DC_TRY(open_array(state, name, &array, &found));
    hid_t list = H5Dget_create_plist(array);
    bool contiguous = H5Pget_layout(list) == H5D_CONTIGUOUS;
    haddr_t address = H5Dget_offset(array);
    H5Pclose(list);
    H5Dclose(array);
    *size_bytes = bytes_of(&found);
    *offset_bytes = *size_bytes ? (int64_t)address : 0;
    if (!contiguous || (*size_bytes && address == HADDR_UNDEF))
        return dc_fail(DC_ERR_INPUT, "%s: array '%s' is stored in chunks and cannot be mapped", state->path, name);
    return DC_OK;
}

dc_status dc_state_offset(dc_state *state, const char *name, int64_t *offset_bytes, int64_t *size_bytes)
{
    DC_TRY(dc_state_repeat(state));
    dc_state_hdf5_enter();
    dc_status status = dc_state_keep(state, array_offset(state, name, offset_bytes, size_bytes));
    dc_state_hdf5_leave();
    return status;
}
