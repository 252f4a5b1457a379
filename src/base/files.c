#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool dc_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

dc_status dc_path_join(const char *directory, const char *name, char out[DC_PATH_CHARS])
{
    size_t length = strlen(directory);
    const char *slash = length && directory[length - 1] != '/' ? "/" : "";
    int used = snprintf(out, DC_PATH_CHARS, "%s%s%s", directory, slash, name);
    if (used < 0 || used >= DC_PATH_CHARS)
        return dc_fail(DC_ERR_INPUT, "path too long (at most %d characters): %.60s...%s%.60s", DC_PATH_CHARS - 1,
                       directory, slash, name);
    return DC_OK;
}

dc_status dc_path_directory(const char *path, char out[DC_PATH_CHARS])
{
    const char *slash = strrchr(path, '/');
    size_t length = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);
    if (length >= DC_PATH_CHARS)
        return dc_fail(DC_ERR_INPUT, "path too long (at most %d characters): %.60s...", DC_PATH_CHARS - 1, path);
    memcpy(out, slash ? path : ".", length);
    out[length] = 0;
    return DC_OK;
}

/* One level; an existing directory is fine. */
static dc_status make_directory(const char *path)
{
    struct stat info;
    if (mkdir(path, 0777) == 0)
        return DC_OK;
    int error = errno;
    if (stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode))
            return DC_OK;
        return dc_fail(DC_ERR_IO, "cannot create the directory %s: a file of that name stands there", path);
    }
    return dc_fail(DC_ERR_IO, "cannot create the directory %s: %s", path, strerror(error));
}

dc_status dc_directory_create(const char *path)
{
    char partial[DC_PATH_CHARS];
    if (!*path)
        return dc_fail(DC_ERR_INPUT, "cannot create a directory without a name");
    DC_TRY(dc_path_join(path, "", partial));
    for (char *s = partial + 1; *s; s++) {
        if (*s != '/')
            continue;
        *s = 0;
        DC_TRY(make_directory(partial));
        *s = '/';
    }
    return DC_OK;
}

dc_status dc_directory_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot open the directory %s: %s", path, strerror(errno));
    /* some file systems cannot sync a directory and say EINVAL: there is nothing more to do then */
    int failed = fsync(fd) && errno != EINVAL ? errno : 0;
    close(fd);
    return failed ? dc_fail(DC_ERR_IO, "cannot sync the directory %s: %s", path, strerror(failed)) : DC_OK;
}

static dc_status read_all(int fd, const char *path, char **data, size_t *size)
{
    struct stat info;
    if (fstat(fd, &info))
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return dc_fail(DC_ERR_IO, "cannot read %s: it is a directory", path);
    size_t capacity = info.st_size > 0 ? (size_t)info.st_size : 4096, used = 0;
    char *buffer = dc_alloc(capacity + 1);
    if (!buffer)
        return dc_fail_within(DC_ERR_MEMORY, "%s", path);
    for (;;) {
        ssize_t n = read(fd, buffer + used, capacity + 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(buffer);
            return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > capacity) { /* no regular file, or one that grows */
            capacity *= 2;
            char *larger = dc_realloc(buffer, capacity + 1);
            if (!larger) {
                free(buffer);
                return dc_fail_within(DC_ERR_MEMORY, "%s", path);
            }
            buffer = larger;
        }
    }
    buffer[used] = 0;
    *data = buffer;
    if (size)
        *size = used;
    return DC_OK;
}

dc_status dc_file_read(const char *path, char **data, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    dc_status status = read_all(fd, path, data, size);
    close(fd);
    return status;
}

dc_status dc_file_write_all(int fd, const char *path, const void *data, size_t size)
{
    const char *bytes = data;
    while (size) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return dc_fail(DC_ERR_IO, "cannot write %s: %s", path, n < 0 ? strerror(errno) : "nothing was taken");
        bytes += n;
        size -= (size_t)n;
    }
    return DC_OK;
}

static dc_status write_durably(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot create %s: %s", path, strerror(errno));
    dc_status status = dc_file_write_all(fd, path, data, size);
    if (!status && fsync(fd))
        status = dc_fail(DC_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    if (close(fd) && !status)
        status = dc_fail(DC_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    return status;
}

dc_status dc_file_check_writable(const char *path)
{
    char folder[DC_PATH_CHARS];
    DC_TRY(dc_path_directory(path, folder));
    if (access(folder, W_OK) != 0)
        return dc_fail(DC_ERR_IO, "%s: cannot write in %s: %s", path, folder, strerror(errno));
    struct stat info;
    if (!*path || (stat(path, &info) == 0 && !S_ISREG(info.st_mode)))
        return dc_fail(DC_ERR_INPUT, "'%s' is no file that could be replaced: a folder, a device or nothing", path);
    return DC_OK;
}

dc_status dc_file_replace(const char *path, const void *data, size_t size)
{
    char temporary[DC_PATH_CHARS + 8], directory[DC_PATH_CHARS];
    DC_TRY(dc_path_directory(path, directory));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    dc_status status = write_durably(temporary, data, size);
    if (!status && rename(temporary, path))
        status = dc_fail(DC_ERR_IO, "cannot rename %s to %s: %s", temporary, path, strerror(errno));
    if (status) {
        unlink(temporary);
        return status;
    }
    return dc_directory_sync(directory);
}

dc_status dc_file_replace_text(const char *path, const char *text)
{
    return dc_file_replace(path, text, strlen(text));
}
