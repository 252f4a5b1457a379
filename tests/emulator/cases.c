/* Runs cases in processes of their own, since what the emulator catches ends the program. */
#include "cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { ORDERS = 3, STREAMS = 3, SEEDS = 2, SETTINGS = ORDERS * STREAMS * SEEDS, CAUGHT = 99 };

static void choose_setting(int setting)
{
    static const char *const orders[ORDERS] = {"ascending", "descending", "random"};
    static const char *const streams[STREAMS] = {"lazy", "eager", "random"};
    char seed[16];
    snprintf(seed, sizeof seed, "%d", setting);
    setenv("EMULATOR_ORDER", orders[setting % ORDERS], 1);
    setenv("EMULATOR_STREAMS", streams[setting / ORDERS % STREAMS], 1);
    setenv("EMULATOR_SEED", seed, 1);
}

/* Exit status, -1 after a signal; what went to standard error in text. */
static int run_once(emulator_case *run, int setting, char *text, size_t bytes)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        choose_setting(setting);
        _exit(run());
    }
    close(pipes[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(pipes[0], text + n, bytes - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(pipes[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void fail_setting(int setting, int status, const char *text)
{
    fail_msg("setting %d: exit status %d, \"%s\"", setting, status, text);
}

void always_right(emulator_case *run)
{
    char text[1024];
    for (int setting = 0; setting < SETTINGS; setting++) {
        int status = run_once(run, setting, text, sizeof text);
        if (status != 0)
            fail_setting(setting, status, text);
    }
}

void always_wrong(emulator_case *run)
{
    char text[1024];
    for (int setting = 0; setting < SETTINGS; setting++) {
        int status = run_once(run, setting, text, sizeof text);
        if (status != 1)
            fail_setting(setting, status, text);
    }
}

void sometimes_wrong(emulator_case *run)
{
    char text[1024];
    int wrong = 0;
    for (int setting = 0; setting < SETTINGS; setting++) {
        int status = run_once(run, setting, text, sizeof text);
        if (status != 0 && status != 1)
            fail_setting(setting, status, text);
        wrong += status;
    }
    assert_true(wrong > 0);
}

void always_caught(emulator_case *run, const char *words)
{
    char text[1024];
    for (int setting = 0; setting < SETTINGS; setting++) {
        int status = run_once(run, setting, text, sizeof text);
        const char *end = strchr(text, '\n');
        if (status != CAUGHT || strncmp(text, "emulated device: ", 17) != 0 || strstr(text, words) == NULL ||
            end == NULL || end[1] != '\0')
            fail_setting(setting, status, text);
    }
}

float *device_floats(const float *values, size_t n)
{
    float *p = NULL;
    if (cudaMalloc((void **)&p, n * sizeof *p) != cudaSuccess)
        return NULL;
    if (values != NULL && (cudaMemcpy(p, values, n * sizeof *p, cudaMemcpyHostToDevice) != cudaSuccess ||
                           cudaDeviceSynchronize() != cudaSuccess))
        return NULL;
    return p;
}

bool device_holds(const float *device, size_t n, float value, float step)
{
    float *host = malloc(n * sizeof *host);
    bool same = host != NULL && cudaMemcpy(host, device, n * sizeof *host, cudaMemcpyDeviceToHost) == cudaSuccess;
    for (size_t i = 0; i < n && same; i++)
        same = host[i] == value + (float)i * step;
    free(host);
    return same;
}

cudaStream_t new_stream(void)
{
    cudaStream_t stream = NULL;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    return stream;
}
