#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_CHARS = 1024 };

static _Thread_local char message[MESSAGE_CHARS];

/* Names of files may hold anything: the message stays one line, and tells a terminal nothing but itself. */
static void set_message(const char text[MESSAGE_CHARS])
{
    memcpy(message, text, sizeof message);
    for (char *s = message; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            *s = '?';
}

dc_status dc_fail(dc_status code, const char *format, ...)
{
    char text[MESSAGE_CHARS]; /* arguments may point into message */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    set_message(text);
    return code;
}

dc_status dc_fail_within(dc_status code, const char *format, ...)
{
    char text[MESSAGE_CHARS];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (used >= 0 && used < MESSAGE_CHARS - 3)
        snprintf(text + used, sizeof text - (size_t)used, ": %.*s", MESSAGE_CHARS - 3 - used, message);
    set_message(text);
    return code;
}

const char *dc_status_message(void)
{
    return message;
}

int dc_status_exit_code(dc_status code)
{
    switch (code) {
    case DC_OK:
        return 0;
    case DC_ERR_INPUT:
        return 2;
    case DC_INTERRUPTED:
        return 75;
    default:
        return 1;
    }
}

static void *checked(void *p, unsigned long size_bytes)
{
    if (!p && size_bytes)
        dc_fail(DC_ERR_MEMORY, "out of memory: %lu bytes were refused", size_bytes);
    return p;
}

void *dc_alloc(unsigned long size_bytes)
{
    return checked(malloc(size_bytes ? size_bytes : 1), size_bytes);
}

void *dc_alloc_zeroed(unsigned long size_bytes)
{
    return checked(calloc(1, size_bytes ? size_bytes : 1), size_bytes);
}

void *dc_realloc(void *p, unsigned long size_bytes)
{
    return checked(realloc(p, size_bytes ? size_bytes : 1), size_bytes);
}
