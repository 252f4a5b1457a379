/* A directory of a test's own. Whatever fails here ends the test program. */
#ifndef DC_TESTS_SUPPORT_TEMP_DIR_H
#define DC_TESTS_SUPPORT_TEMP_DIR_H

#include <stddef.h>

typedef struct temp_dir {
    char path[256];
} temp_dir;

/* Made under TMPDIR or /tmp. */
temp_dir temp_dir_make(void);

/* Removes it with everything in it. */
void temp_dir_remove(const temp_dir *dir);

/* "<dir>/<name>" by value. */
typedef struct temp_path {
    char s[512];
} temp_path;

temp_path temp_dir_path(const temp_dir *dir, const char *name);

/* Writes a file. */
void temp_file_write(const char *path, const void *data, size_t size);

/* Entries of a directory. */
int temp_dir_count(const char *path);

#endif
