/* Errors. Every function that can fail returns a dc_status; the one line for the user is kept beside it, per thread.
 *
 * A message says what was wrong, where (file, key, value) and what would be right. Only main() prints it and exits. */
#ifndef DC_BASE_STATUS_H
#define DC_BASE_STATUS_H

typedef enum dc_status {
    DC_OK = 0,
    DC_ERR_INPUT,    /* what the user gave is wrong: a key, a value, a file's contents */
    DC_ERR_IO,       /* the operating system refused: open, read, write, rename, space */
    DC_ERR_MEMORY,   /* an allocation failed */
    DC_ERR_COMM,     /* MPI (or NCCL) failed, or another rank reported an error */
    DC_ERR_DEVICE,   /* the compute device failed */
    DC_ERR_STALLED,  /* nothing moves: a rank that hangs, starts that bring nothing */
    DC_ERR_INTERNAL, /* a bug of ours */
    DC_INTERRUPTED   /* a signal asked to stop: state is saved, run again to go on (exit 75) */
} dc_status;

/* Sets this thread's message and returns code, so that `return dc_fail(...)` reads well. */
dc_status dc_fail(dc_status code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Puts "<context>: " before the present message and returns code. */
dc_status dc_fail_within(dc_status code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* This thread's last message, never NULL; valid until its next failure. */
const char *dc_status_message(void);

/* The process's exit status for a code: 0, 2 (input), 75 (interrupted: "requeue me"), 1 (all else). */
int dc_status_exit_code(dc_status code);

#define DC_TRY(expression)                                                                                             \
    do {                                                                                                               \
        dc_status dc_try_status_ = (expression);                                                                       \
        if (dc_try_status_ != DC_OK)                                                                                   \
            return dc_try_status_;                                                                                     \
    } while (0)

/* Allocation that never returns NULL for size > 0 without a message: 64-byte aligned where aligned is asked for. */
void *dc_alloc(unsigned long size_bytes);        /* malloc, message on failure */
void *dc_alloc_zeroed(unsigned long size_bytes); /* calloc, message on failure */
void *dc_realloc(void *p, unsigned long size_bytes);

#endif
