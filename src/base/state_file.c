#include "base/state_file.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIND  "dcanas state file (HDF5 from byte 512), format 1\n"
#define ABOUT "about "

static const size_t PIECE_BYTES = 1 << 20;

/* Text that is about something is hashed with what it is about. */
void dc_state_header(uint64_t size_bytes, uint64_t hash, const char *about, char header[DC_STATE_HEADER_BYTES])
{
    memset(header, 0, DC_STATE_HEADER_BYTES);
    if (*about) {
        dc_hash both;
        dc_hash_init(&both);
        dc_hash_u64(&both, hash);
        dc_hash_text(&both, about);
        hash = dc_hash_end(&both);
    }
    snprintf(header, DC_STATE_HEADER_BYTES, KIND "bytes %llu\nxxh3-64 %016llx\n%s%.*s%s",
             (unsigned long long)size_bytes, (unsigned long long)hash, *about ? ABOUT : "", DC_STATE_ABOUT_CHARS - 1,
             about, *about ? "\n" : "");
}

/* The last line of a header, "" where there is none. */
static void about_of(const char header[DC_STATE_HEADER_BYTES], char about[DC_STATE_ABOUT_CHARS])
{
    char text[DC_STATE_HEADER_BYTES + 1] = {0};
    memcpy(text, header, DC_STATE_HEADER_BYTES);
    const char *line = strstr(text, "\n" ABOUT);
    line = line ? line + 1 + strlen(ABOUT) : "";
    snprintf(about, DC_STATE_ABOUT_CHARS, "%.*s", (int)strcspn(line, "\n"), line);
}

static dc_status check_kind_and_size(const char *path, const char *header, size_t available, uint64_t size_bytes)
{
    unsigned long long written = 0;
    size_t kind = strlen(KIND);
    if (available < kind || memcmp(header, KIND, kind)) {
        if (available < DC_STATE_HEADER_BYTES)
            return dc_fail(DC_ERR_INPUT, "%s is damaged or no state file: it has only %llu bytes", path,
                           (unsigned long long)size_bytes);
        return dc_fail(DC_ERR_INPUT, "%s is damaged or no state file: it does not begin as one", path);
    }
    if (available < DC_STATE_HEADER_BYTES || sscanf(header + kind, "bytes %20llu", &written) != 1 ||
        written != size_bytes)
        return dc_fail(DC_ERR_INPUT, "%s is damaged: it has %llu bytes, not the %llu that were written", path,
                       (unsigned long long)size_bytes, written);
    return DC_OK;
}

static dc_status check_header(const char *path, const char *header, uint64_t size_bytes, uint64_t hash)
{
    char expected[DC_STATE_HEADER_BYTES], about[DC_STATE_ABOUT_CHARS];
    about_of(header, about);
    dc_state_header(size_bytes, hash, about, expected);
    if (memcmp(expected, header, sizeof expected))
        return dc_fail(DC_ERR_INPUT, "%s is damaged: its checksum does not match what it holds", path);
    return DC_OK;
}

dc_status dc_state_verify_bytes(const char *path, const char *bytes, size_t size_bytes)
{
    size_t available = size_bytes < DC_STATE_HEADER_BYTES ? size_bytes : DC_STATE_HEADER_BYTES;
    DC_TRY(check_kind_and_size(path, bytes, available, size_bytes));
    return check_header(path, bytes, size_bytes,
                        dc_hash_of(bytes + DC_STATE_HEADER_BYTES, size_bytes - DC_STATE_HEADER_BYTES));
}

/* Reads the header (as much as there is) and the file's size. */
static dc_status read_header(int fd, const char *path, char header[DC_STATE_HEADER_BYTES], uint64_t *size_bytes)
{
    struct stat info;
    ssize_t n = fstat(fd, &info) ? -1 : pread(fd, header, DC_STATE_HEADER_BYTES, 0);
    if (n < 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    *size_bytes = (uint64_t)info.st_size;
    return check_kind_and_size(path, header, (size_t)n, *size_bytes);
}

static dc_status hash_rest(int fd, const char *path, uint64_t *hash)
{
    char *piece = dc_alloc(PIECE_BYTES);
    if (!piece)
        return dc_fail_within(DC_ERR_MEMORY, "%s", path);
    dc_hash state;
    dc_hash_init(&state);
    off_t at = DC_STATE_HEADER_BYTES;
    ssize_t n;
    while ((n = pread(fd, piece, PIECE_BYTES, at)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0) {
            dc_hash_bytes(&state, piece, (size_t)n);
            at += n;
        }
    }
    int error = errno;
    free(piece);
    *hash = dc_hash_end(&state);
    return n < 0 ? dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(error)) : DC_OK;
}

dc_status dc_state_about(const char *path, char about[DC_STATE_ABOUT_CHARS])
{
    char header[DC_STATE_HEADER_BYTES];
    uint64_t size_bytes = 0;
    *about = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    dc_status status = read_header(fd, path, header, &size_bytes);
    close(fd);
    if (status == DC_OK)
        about_of(header, about);
    return status;
}

static dc_status verify(const char *path, int whole)
{
    char header[DC_STATE_HEADER_BYTES];
    uint64_t size_bytes = 0, hash = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    dc_status status = read_header(fd, path, header, &size_bytes);
    if (!status && whole)
        status = hash_rest(fd, path, &hash);
    if (!status && whole)
        status = check_header(path, header, size_bytes, hash);
    close(fd);
    return status;
}

dc_status dc_state_verify_file(const char *path)
{
    return verify(path, 1);
}

dc_status dc_state_verify_size(const char *path)
{
    return verify(path, 0);
}

static dc_status sync_and_close(int fd, const char *path, dc_status status)
{
    if (!status && fsync(fd))
        status = dc_fail(DC_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    if (close(fd) && !status)
        status = dc_fail(DC_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    return status;
}

dc_status dc_state_seal_file(const char *path, const char *about)
{
    char header[DC_STATE_HEADER_BYTES];
    uint64_t hash = 0;
    struct stat info;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    dc_status status = fstat(fd, &info) ? dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno)) : DC_OK;
    if (!status)
        status = hash_rest(fd, path, &hash);
    if (!status) {
        dc_state_header((uint64_t)info.st_size, hash, about, header);
        status = dc_file_write_all(fd, path, header, sizeof header); /* nothing has moved the offset from 0 */
    }
    return sync_and_close(fd, path, status);
}

dc_status dc_state_write_file(const char *path, const char *about, char *bytes, size_t size_bytes)
{
    dc_state_header(size_bytes, dc_hash_of(bytes + DC_STATE_HEADER_BYTES, size_bytes - DC_STATE_HEADER_BYTES), about,
                    bytes);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot create %s: %s", path, strerror(errno));
    return sync_and_close(fd, path, dc_file_write_all(fd, path, bytes, size_bytes));
}

static dc_status rename_file(const char *from, const char *to)
{
    return rename(from, to) ? dc_fail(DC_ERR_IO, "cannot rename %s to %s: %s", from, to, strerror(errno)) : DC_OK;
}

dc_status dc_state_install(const char *temporary, const char *path, int keep_previous)
{
    char directory[DC_PATH_CHARS], previous[DC_PATH_CHARS + 16];
    DC_TRY(dc_path_directory(path, directory));
    snprintf(previous, sizeof previous, "%s.previous", path);
    int moved = keep_previous && dc_state_verify_file(path) == DC_OK;
    if (moved)
        DC_TRY(rename_file(path, previous));
    dc_status status = rename_file(temporary, path);
    if (status && moved && rename(previous, path))
        return status; /* what stood at `path` stands at `previous`, where a reader looks next */
    DC_TRY(status);
    return dc_directory_sync(directory);
}
