#include "base/signals.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* The one thing that a handler can reach. */
static volatile sig_atomic_t received;

static const int stopping[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
static const int ignored[] = {SIGPIPE, SIGXFSZ};

static void note(int number)
{
    received = number;
}

/* What a mapped file's pages raise when they cannot be read (any more): a disk that fails, a file that was cut. There
 * is nothing to go on with, and little that a handler may do. */
static void end_unreadable(int number)
{
    static const char line[] =
        "dcanas: the data set can no longer be read (its file was changed, or its disk failed)\n";
    (void)number;
    (void)!write(STDERR_FILENO, line, sizeof line - 1);
    _exit(dc_status_exit_code(DC_ERR_IO));
}

static dc_status handle(const int *numbers, size_t n, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < n; i++) {
        if (sigaction(numbers[i], &action, NULL))
            return dc_fail(DC_ERR_IO, "cannot handle signal %d: %s", numbers[i], strerror(errno));
    }
    return DC_OK;
}

dc_status dc_signals_install(void)
{
    static const int unreadable[] = {SIGBUS};
    DC_TRY(handle(stopping, sizeof stopping / sizeof stopping[0], note));
    DC_TRY(handle(unreadable, 1, end_unreadable));
    return handle(ignored, sizeof ignored / sizeof ignored[0], SIG_IGN);
}

int dc_signals_received(void)
{
    return received;
}

void dc_signals_clear(void)
{
    received = 0;
}
