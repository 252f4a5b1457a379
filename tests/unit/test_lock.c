/* One writer: who holds a lock, who may take it over and when, what its owner then learns. */
#include "base/clock.h"
#include "base/files.h"
#include "base/lock.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static temp_dir directory;
static char path[DC_PATH_CHARS], beat_path[DC_PATH_CHARS + 8];
static const double timeout_s = 0.5;

static int set_up(void **context)
{
    (void)context;
    directory = temp_dir_make();
    if (dc_path_join(directory.path, "lock", path))
        return 1;
    snprintf(beat_path, sizeof beat_path, "%s.beat", path);
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    return 0;
}

static int tear_down(void **context)
{
    (void)context;
    temp_dir_remove(&directory);
    return 0;
}

static void assert_ok(dc_status status)
{
    if (status)
        fail_msg("%s", dc_status_message());
}

static void assert_message(const char *part)
{
    if (!strstr(dc_status_message(), part))
        fail_msg("'%s' does not say '%s'", dc_status_message(), part);
}

static dc_status acquire(dc_lock **lock)
{
    return dc_lock_acquire(path, "output/x", timeout_s, NULL, lock);
}

/* A child that holds the lock until it is killed; its exit status is 7 when it is told that the lock is lost. */
static void lost_in_child(dc_status status)
{
    _exit(status == DC_ERR_IO && strstr(dc_status_message(), "taken over") ? 7 : 8);
}

static pid_t child_with_lock(void)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        dc_lock *lock;
        char byte = dc_lock_acquire(path, "output/x", timeout_s, lost_in_child, &lock) == DC_OK;
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    char byte = 0;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

/* What a job on another machine has left. */
static void write_foreign(int generation, int beat)
{
    char text[256];
    snprintf(text, sizeof text,
             "{\"generation\":%d,\"host\":\"elsewhere\",\"process\":1,\"job\":\"77\",\"restarts\":0}\n", generation);
    assert_ok(dc_file_replace_text(path, text));
    snprintf(text, sizeof text, "{\"generation\":%d,\"beat\":%d,\"ended\":false}\n", generation, beat);
    assert_ok(dc_file_replace_text(beat_path, text));
}

static void a_lock_has_one_owner(void **context)
{
    (void)context;
    dc_lock *lock, *second;
    char process[64];
    pid_t child = child_with_lock();
    assert_int_equal(acquire(&second), DC_ERR_INPUT);
    snprintf(process, sizeof process, "process %ld)", (long)child);
    assert_message("output/x is in use by another job (host ");
    assert_message(process);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_LIVES);
    kill(child, SIGKILL);
    siginfo_t info;
    waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_DEAD); /* a zombie writes no more */
    waitpid(child, NULL, 0);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_DEAD);
    double began = dc_clock_seconds();
    assert_ok(acquire(&lock)); /* ends with its process: nobody waits */
    assert_true(dc_clock_seconds() - began < timeout_s);
    assert_int_equal(dc_lock_generation(lock), 2);
    assert_int_equal(acquire(&second), DC_ERR_INPUT);
    dc_lock_release(lock);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_FREE);
    assert_ok(acquire(&lock));
    assert_int_equal(dc_lock_generation(lock), 3);
    dc_lock_release(lock);
    dc_lock_release(NULL);
    assert_ok(dc_lock_check(NULL));
    assert_int_equal(dc_lock_acquire("/nowhere/lock", "x", timeout_s, NULL, &lock), DC_ERR_IO);
}

static void silence_elsewhere_is_death(void **context)
{
    (void)context;
    dc_lock *lock;
    write_foreign(4, 17);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_UNKNOWN);
    double began = dc_clock_seconds();
    assert_ok(acquire(&lock));
    assert_true(dc_clock_seconds() - began >= timeout_s);
    assert_int_equal(dc_lock_generation(lock), 5);
    dc_lock_release(lock);
}

static void life_elsewhere_is_respected_whatever_the_clocks_say(void **context)
{
    (void)context;
    dc_lock *lock;
    static const long offsets[] = {0, 1000000, -1000000};
    for (int i = 0; i < 3; i++) {
        write_foreign(4, 17);
        const struct timespec shifted[2] = {{.tv_sec = (time_t)dc_clock_wall() + offsets[i]},
                                            {.tv_sec = (time_t)dc_clock_wall() + offsets[i]}};
        pid_t child = fork();
        if (!child)
            for (int beat = 18;; beat++) {
                write_foreign(4, beat);
                utimensat(0, beat_path, shifted, 0);
                usleep(100000);
            }
        assert_int_equal(acquire(&lock), DC_ERR_INPUT);
        assert_message("host elsewhere, process 1, job 77");
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        write_foreign(4, 99);
        assert_int_equal(utimensat(0, beat_path, shifted, 0), 0);
        assert_true(dc_lock_look(path).beat_age_s >= 0);
        assert_ok(acquire(&lock)); /* silent now, though its file is of the future */
        dc_lock_release(lock);
    }
}

static void a_requeued_job_replaces_its_predecessor(void **context)
{
    (void)context;
    dc_lock *lock, *joined;
    setenv("SLURM_JOB_ID", "123", 1);
    pid_t child = child_with_lock();
    assert_ok(dc_lock_join(path, "output/x", 1, &joined)); /* another rank of the child's job */
    assert_ok(dc_lock_check(joined));
    assert_int_equal(acquire(&lock), DC_ERR_INPUT); /* a second step of the same start */
    assert_message("job 123");
    setenv("SLURM_RESTART_COUNT", "1", 1);
    double began = dc_clock_seconds();
    assert_ok(acquire(&lock));
    assert_true(dc_clock_seconds() - began >= 2 * timeout_s); /* time to end, and for a write that had begun */
    assert_int_equal(dc_lock_generation(lock), 2);
    assert_ok(dc_lock_check(lock));
    assert_int_equal(dc_lock_check(joined), DC_ERR_IO);
    assert_message("taken over by a later start (generation 2)");
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_ok(dc_lock_check(lock)); /* what the child did last has not hurt */
    dc_lock_release(joined);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_LIVES);
    dc_lock_release(lock);
    assert_int_equal(dc_lock_look(path).life, DC_LOCK_FREE);
}

static void damaged_records_lock_nobody_out(void **context)
{
    (void)context;
    static const char *const texts[] = {"", "{\"genera", "null", "[]", "{\"generation\":\"x\"}", "{\"generation\":-3}"};
    dc_lock *lock;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        unlink(beat_path);
        assert_ok(dc_file_replace_text(path, texts[i]));
        assert_ok(acquire(&lock));
        assert_ok(dc_lock_check(lock));
        assert_ok(dc_file_replace_text(path, texts[i]));
        assert_ok(dc_lock_check(lock)); /* says nothing of another owner */
        dc_lock_release(lock);
    }
    write_foreign(6, 1);
    assert_ok(dc_file_replace_text(path, "")); /* the sign of life still tells the generation */
    double began = dc_clock_seconds();
    assert_ok(acquire(&lock));
    assert_true(dc_clock_seconds() - began >= timeout_s);
    assert_int_equal(dc_lock_generation(lock), 7);
    dc_lock_release(lock);
}

static void a_claim_that_was_left_is_stepped_over(void **context)
{
    (void)context;
    dc_lock *lock;
    char claim[DC_PATH_CHARS + 16];
    snprintf(claim, sizeof claim, "%s.claim-1", path);
    assert_ok(dc_file_replace_text(claim, ""));
    assert_ok(acquire(&lock));
    assert_int_equal(dc_lock_generation(lock), 2);
    assert_false(dc_file_exists(claim));
    dc_lock_release(lock);
}

/* Of a process that was killed while it took the lock: it is known to be gone. */
static void nobody_waits_for_the_claim_of_the_dead(void **context)
{
    (void)context;
    dc_lock *lock;
    char claim[DC_PATH_CHARS + 16], *record;
    pid_t child = child_with_lock();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_ok(dc_file_read(path, &record, NULL));
    snprintf(claim, sizeof claim, "%s.claim-2", path);
    assert_ok(dc_file_replace_text(claim, record));
    free(record);
    double began = dc_clock_seconds();
    assert_ok(acquire(&lock));
    assert_true(dc_clock_seconds() - began < timeout_s);
    assert_int_equal(dc_lock_generation(lock), 3);
    assert_false(dc_file_exists(claim));
    dc_lock_release(lock);
}

static void of_many_one_wins(void **context)
{
    (void)context;
    enum { RACERS = 12 };
    for (int round = 0; round < 5; round++) {
        int won = 0, go[2], done[2];
        assert_int_equal(pipe(go), 0);
        assert_int_equal(pipe(done), 0);
        pid_t racers[RACERS];
        for (int i = 0; i < RACERS; i++)
            if (!(racers[i] = fork())) {
                char byte;
                dc_lock *lock;
                close(go[1]);
                (void)!read(go[0], &byte, 1); /* until all begin */
                byte = acquire(&lock) == DC_OK;
                (void)!write(done[1], &byte, 1);
                pause();
            }
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < RACERS; i++) {
            char byte;
            assert_int_equal(read(done[0], &byte, 1), 1);
            won += byte;
        }
        assert_int_equal(won, 1);
        assert_int_equal(dc_lock_look(path).generation, round + 1);
        for (int i = 0; i < RACERS; i++) {
            kill(racers[i], SIGKILL);
            waitpid(racers[i], NULL, 0);
        }
        close(done[0]);
        close(done[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_lock_has_one_owner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(silence_elsewhere_is_death, set_up, tear_down),
        cmocka_unit_test_setup_teardown(life_elsewhere_is_respected_whatever_the_clocks_say, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_requeued_job_replaces_its_predecessor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_records_lock_nobody_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_claim_that_was_left_is_stepped_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_waits_for_the_claim_of_the_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_many_one_wins, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
