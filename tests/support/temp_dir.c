#include "tests/support/temp_dir.h"

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static void require(bool condition, const char *path)
{
    if (condition)
        return;
    perror(path);
    abort();
}

temp_dir temp_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    temp_dir dir;
    snprintf(dir.path, sizeof dir.path, "%s/dcanas-test-XXXXXX", base ? base : "/tmp");
    require(mkdtemp(dir.path) != NULL, dir.path);
    return dir;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

void temp_dir_remove(const temp_dir *dir)
{
    nftw(dir->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

temp_path temp_dir_path(const temp_dir *dir, const char *name)
{
    temp_path path;
    snprintf(path.s, sizeof path.s, "%s/%s", dir->path, name);
    return path;
}

void temp_file_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    require(file != NULL, path);
    require(fwrite(data, 1, size, file) == size, path);
    require(fclose(file) == 0, path);
}

int temp_dir_count(const char *path)
{
    DIR *dir = opendir(path);
    require(dir != NULL, path);
    int n = -2; /* "." and ".." */
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}
