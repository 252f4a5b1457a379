#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double REDRAW_INTERVAL_S = 0.2, PLAIN_INTERVAL_S = 30;

struct dc_log {
    pthread_mutex_t mutex;
    int rank, size;
    bool terminal;
    int fd; /* the file, or -1 */
    double interval_s, shown_s;
    int n_drawn;    /* status lines on the screen, above the cursor */
    dc_text status; /* as drawn */
};

typedef enum urgency { INFO, WARNING } urgency;

/* The screen, as far as its kind and width go. Under mpirun a rank's standard output is a pseudo terminal of the
 * launcher's, whatever the launcher itself writes to: its own output decides. -1: none. */
static int screen_width(void)
{
    struct winsize size = {0};
    char path[64];
    int fd = STDOUT_FILENO;
    if (getenv("OMPI_COMM_WORLD_RANK")) {
        snprintf(path, sizeof path, "/proc/%ld/fd/1", (long)getppid());
        fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    }
    int width = fd >= 0 && isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : -1;
    if (fd >= 0 && fd != STDOUT_FILENO)
        close(fd);
    return width;
}

bool dc_log_on_terminal(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDOUT_FILENO) && screen_width() > 0 && kind && strcmp(kind, "dumb");
}

dc_status dc_log_open(int rank, int size, bool terminal, const char *path, dc_log **log)
{
    dc_log *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->rank = rank;
    made->size = size;
    made->terminal = terminal && rank == 0;
    made->interval_s = terminal ? REDRAW_INTERVAL_S : PLAIN_INTERVAL_S;
    made->shown_s = -1e9;
    made->fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (path && made->fd < 0) {
        dc_status status = dc_fail(DC_ERR_IO, "cannot open the log %s: %s", path, strerror(errno));
        free(made);
        return status;
    }
    pthread_mutex_init(&made->mutex, NULL);
    *log = made;
    return DC_OK;
}

/* What cannot be shown or logged is lost: a run does not end for that, and the message of a failure that is about to be
 * told stays. */
static void put(int fd, const dc_text *text)
{
    for (size_t at = 0; at < text->length;) {
        ssize_t n = write(fd, text->s + at, text->length - at);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return;
        at += n > 0 ? (size_t)n : 0;
    }
}

/* Puts what removes the status lines, so that something else can be written in their place. */
static void erase(dc_log *log, dc_text *out)
{
    if (log->n_drawn)
        dc_text_append(out, "\033[%dA\r\033[J", log->n_drawn);
    log->n_drawn = 0;
}

static void draw(dc_log *log, dc_text *out)
{
    dc_text_append(out, "%s", log->status.s ? log->status.s : "");
    for (const char *s = log->status.s; s && *s; s++)
        log->n_drawn += *s == '\n';
}

void dc_log_close(dc_log *log)
{
    if (!log)
        return;
    dc_log_status(log, 0, NULL);
    if (log->fd >= 0)
        close(log->fd);
    dc_text_clear(&log->status);
    pthread_mutex_destroy(&log->mutex);
    free(log);
}

void dc_log_set_interval(dc_log *log, double interval_s)
{
    if (log && !log->terminal)
        log->interval_s = interval_s;
}

/* One message on the screen and in the file; the mutex is held. */
static void emit(dc_log *log, urgency level, const char *message)
{
    char stamp[DC_CLOCK_CHARS], rank[32] = "";
    dc_text screen = {0}, file = {0};
    const char *kind = level == WARNING ? "warning: " : "";
    dc_clock_stamp(stamp);
    if (log->rank)
        snprintf(rank, sizeof rank, "[rank %d] ", log->rank);
    if (log->terminal) {
        erase(log, &screen);
        dc_text_append(&screen, "%s%s\n", kind, message);
        draw(log, &screen);
    } else if (log->rank == 0 || level != INFO) {
        dc_text_append(&screen, "%s  %s%s%s\n", stamp, rank, kind, message);
    }
    if (log->fd >= 0)
        dc_text_append(&file, "%s  %s%s%s\n", stamp, rank, kind, message);
    fflush(stdout);
    put(level == INFO || log->terminal ? STDOUT_FILENO : STDERR_FILENO, &screen);
    put(log->fd, &file);
    dc_text_clear(&screen);
    dc_text_clear(&file);
}

__attribute__((format(printf, 3, 0))) static void say(dc_log *log, urgency level, const char *format, va_list arguments)
{
    char message[2048]; /* longer than any dc_status_message */
    if (!log && level == INFO)
        return;
    vsnprintf(message, sizeof message, format, arguments);
    for (char *s = message; *s; s++) /* names of files may hold anything */
        if (((unsigned char)*s < ' ' && *s != '\n') || *s == 0x7f)
            *s = '?';
    if (!log) {
        fprintf(stderr, "warning: %s\n", message);
        return;
    }
    pthread_mutex_lock(&log->mutex);
    emit(log, level, message);
    pthread_mutex_unlock(&log->mutex);
}

void dc_log_info(dc_log *log, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(log, INFO, format, arguments);
    va_end(arguments);
}

void dc_log_warn(dc_log *log, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(log, WARNING, format, arguments);
    va_end(arguments);
}

void dc_log_end(dc_log *log, dc_status status)
{
    if (!log || log->fd < 0 || status == DC_OK)
        return;
    char stamp[DC_CLOCK_CHARS];
    dc_text line = {0};
    dc_clock_stamp(stamp);
    dc_text_append(&line, "%s  %s%s\n", stamp, status == DC_INTERRUPTED ? "" : "error: ", dc_status_message());
    pthread_mutex_lock(&log->mutex);
    put(log->fd, &line);
    pthread_mutex_unlock(&log->mutex);
    dc_text_clear(&line);
}

bool dc_log_status_due(dc_log *log)
{
    if (!log || log->rank)
        return false;
    pthread_mutex_lock(&log->mutex);
    bool due = dc_clock_seconds() - log->shown_s >= log->interval_s;
    pthread_mutex_unlock(&log->mutex);
    return due;
}

/* Bytes of the first `width` characters of a UTF-8 text. */
static int cut_to(const char *text, int width)
{
    int bytes = 0, characters = 0;
    for (; text[bytes]; bytes++) {
        bool begins = (text[bytes] & 0xC0) != 0x80;
        if (begins && characters++ == width)
            break;
    }
    return bytes;
}

static void redraw(dc_log *log, int n, const char *const *lines)
{
    int width = screen_width();
    dc_text out = {0};
    erase(log, &out);
    dc_text_clear(&log->status);
    for (int i = 0; i < n; i++)
        dc_text_append(&log->status, "%.*s\n", cut_to(lines[i], width > 1 ? width - 1 : 79), lines[i]);
    draw(log, &out);
    fflush(stdout);
    put(STDOUT_FILENO, &out);
    dc_text_clear(&out);
}

void dc_log_status(dc_log *log, int n, const char *const *lines)
{
    if (!log || log->rank)
        return;
    pthread_mutex_lock(&log->mutex);
    double now = dc_clock_seconds();
    bool due = now - log->shown_s >= log->interval_s;
    if (log->terminal && (due || !n)) {
        redraw(log, n, lines);
    } else if (due) {
        for (int i = 0; i < n; i++)
            emit(log, INFO, lines[i]);
    }
    if (due && n)
        log->shown_s = now;
    pthread_mutex_unlock(&log->mutex);
}
