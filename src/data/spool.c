#include "data/spool.h"

#include "base/files.h"
#include "base/hash.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_KIND "dcanas import in progress, format 1\n"

enum { MAX_PARTS = 65536, PATH_ROOM = DC_PATH_CHARS + 32, MAX_NAME = 4096 };

typedef struct part_head {
    char kind[40];
    uint64_t identity;
} part_head;

/* In front of each record in its part. */
typedef struct record_head {
    uint64_t check; /* XXH3-64 of the record and its name */
    dc_record record;
} record_head;

struct dc_spool {
    char destination[DC_PATH_CHARS];
    uint64_t identity;
    int fd; /* of this rank's part */
    int64_t end;
    int number;     /* of this rank's part */
    uint64_t bytes; /* of all parts, as last counted */
    int *parts;     /* files by number, -1: not open */
    int n_parts;
    char path[PATH_ROOM]; /* of this rank's part */
};

static void part_path(const char *destination, int number, char out[PATH_ROOM])
{
    snprintf(out, PATH_ROOM, "%s.part-%d", destination, number);
}

static dc_status cannot(const char *what, const char *path)
{
    return dc_fail(DC_ERR_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

static uint64_t check_of(const dc_record *record, const char *name)
{
    dc_hash hash;
    dc_hash_init(&hash);
    dc_hash_bytes(&hash, record, sizeof *record);
    dc_hash_bytes(&hash, name, record->n_name);
    return dc_hash_end(&hash);
}

static bool read_at(int fd, int64_t offset, void *out, size_t n)
{
    uint8_t *at = out;
    while (n) {
        ssize_t got = pread(fd, at, n, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        offset += got;
        n -= (size_t)got;
    }
    return true;
}

static bool has_identity(int fd, uint64_t identity)
{
    part_head head;
    return read_at(fd, 0, &head, sizeof head) && memcmp(head.kind, PART_KIND, sizeof PART_KIND) == 0 &&
           head.identity == identity;
}

/* The record at *offset, and past it; false at the end of what is whole. */
static bool next_record(int fd, int64_t size, int64_t *offset, dc_record_place *place)
{
    record_head head;
    char name[MAX_NAME];
    if (!read_at(fd, *offset, &head, sizeof head) || head.record.n_name > sizeof name ||
        !read_at(fd, *offset + (int64_t)sizeof head, name, head.record.n_name) ||
        check_of(&head.record, name) != head.check)
        return false;
    int64_t payload = *offset + (int64_t)sizeof head + head.record.n_name;
    if (head.record.n_bytes > (uint64_t)(size - payload))
        return false;
    place->record = head.record;
    place->offset = payload;
    *offset = payload + (int64_t)head.record.n_bytes;
    return true;
}

/* ---- opening ---- */

static dc_status begin_part(dc_spool *spool)
{
    part_head head = {.identity = spool->identity};
    memcpy(head.kind, PART_KIND, sizeof PART_KIND);
    if (ftruncate(spool->fd, 0) || lseek(spool->fd, 0, SEEK_SET) < 0)
        return cannot("write", spool->path);
    spool->end = sizeof head;
    return dc_file_write_all(spool->fd, spool->path, &head, sizeof head);
}

/* Behind the last whole record. */
static dc_status go_to_end(dc_spool *spool)
{
    struct stat info;
    if (fstat(spool->fd, &info))
        return cannot("read", spool->path);
    int64_t end = sizeof(part_head);
    dc_record_place place;
    while (next_record(spool->fd, info.st_size, &end, &place))
        ;
    spool->end = end;
    if (ftruncate(spool->fd, end) || lseek(spool->fd, end, SEEK_SET) < 0)
        return cannot("write", spool->path);
    return DC_OK;
}

static dc_status open_part(dc_spool *spool)
{
    spool->fd = open(spool->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (spool->fd < 0)
        return cannot("create", spool->path);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(spool->fd, F_OFD_SETLK, &whole) && (errno == EAGAIN || errno == EACCES))
        return dc_fail(DC_ERR_INPUT, "%s: another import writes this file now", spool->destination);
    return has_identity(spool->fd, spool->identity) ? go_to_end(spool) : begin_part(spool);
}

dc_status dc_spool_open(const char *destination, int rank, uint64_t identity, dc_spool **out)
{
    *out = NULL;
    if (strlen(destination) >= DC_PATH_CHARS - 32)
        return dc_fail(DC_ERR_INPUT, "path too long: %.60s...", destination);
    dc_spool *spool = dc_alloc_zeroed(sizeof *spool);
    if (!spool)
        return DC_ERR_MEMORY;
    spool->fd = -1;
    spool->identity = identity;
    spool->number = rank;
    strcpy(spool->destination, destination);
    part_path(destination, rank, spool->path);
    dc_status status = open_part(spool);
    if (status != DC_OK) {
        dc_spool_close(spool, false);
        return status;
    }
    *out = spool;
    return DC_OK;
}

/* The number of a part's file of this destination, or -1. */
static int part_number(const char *base, const char *name)
{
    size_t n = strlen(base);
    char *end;
    if (strncmp(name, base, n) != 0 || strncmp(name + n, ".part-", 6) != 0 || name[n + 6] < '0' || name[n + 6] > '9')
        return -1;
    long number = strtol(name + n + 6, &end, 10);
    return *end || number >= MAX_PARTS ? -1 : (int)number;
}

/* Calls `act` for the number of each part that is there. */
static dc_status each_part(dc_spool *spool, dc_status (*act)(dc_spool *spool, int number))
{
    char directory[DC_PATH_CHARS];
    const char *slash = strrchr(spool->destination, '/'), *base = slash ? slash + 1 : spool->destination;
    DC_TRY(dc_path_directory(spool->destination, directory));
    DIR *folder = opendir(directory);
    if (!folder)
        return cannot("read", directory);
    dc_status status = DC_OK;
    for (struct dirent *entry; status == DC_OK && (entry = readdir(folder));) {
        int number = part_number(base, entry->d_name);
        if (number >= 0)
            status = act(spool, number);
    }
    closedir(folder);
    return status;
}

static dc_status remove_part(dc_spool *spool, int number)
{
    char path[PATH_ROOM];
    part_path(spool->destination, number, path);
    unlink(path);
    return DC_OK;
}

void dc_spool_close(dc_spool *spool, bool remove)
{
    if (!spool)
        return;
    if (remove)
        each_part(spool, remove_part);
    for (int i = 0; i < spool->n_parts; i++)
        if (spool->parts[i] >= 0)
            close(spool->parts[i]);
    if (spool->fd >= 0)
        close(spool->fd);
    free(spool->parts);
    free(spool);
}

/* ---- reading ---- */

/* Opens a part of the same identity for reading. */
static dc_status open_for_reading(dc_spool *spool, int number)
{
    char path[PATH_ROOM];
    part_path(spool->destination, number, path);
    if (number >= spool->n_parts) {
        int *parts = dc_realloc(spool->parts, ((size_t)number + 1) * sizeof *parts);
        if (!parts)
            return DC_ERR_MEMORY;
        spool->parts = parts;
        while (spool->n_parts <= number)
            parts[spool->n_parts++] = -1;
    }
    if (spool->parts[number] >= 0)
        return DC_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cannot("read", path);
    if (has_identity(fd, spool->identity))
        spool->parts[number] = fd;
    else
        close(fd);
    return DC_OK;
}

dc_status dc_spool_scan(dc_spool *spool, dc_record_place **out, size_t *n_out)
{
    size_t n = 0, capacity = 1024;
    *out = NULL;
    *n_out = 0;
    DC_TRY(each_part(spool, open_for_reading));
    dc_record_place *places = dc_alloc(capacity * sizeof *places);
    if (!places)
        return DC_ERR_MEMORY;
    for (int i = 0; i < spool->n_parts; i++) {
        struct stat info;
        int64_t at = sizeof(part_head);
        dc_record_place place = {.part = i};
        if (spool->parts[i] < 0 || fstat(spool->parts[i], &info))
            continue;
        while (next_record(spool->parts[i], info.st_size, &at, &place)) {
            if (n == capacity) {
                capacity *= 2;
                dc_record_place *larger = dc_realloc(places, capacity * sizeof *places);
                if (!larger) {
                    free(places);
                    return DC_ERR_MEMORY;
                }
                places = larger;
            }
            places[n++] = place;
        }
    }
    *out = places;
    *n_out = n;
    return DC_OK;
}

static dc_status add_bytes(dc_spool *spool, int number)
{
    char path[PATH_ROOM];
    struct stat info;
    part_path(spool->destination, number, path);
    if (stat(path, &info) == 0)
        spool->bytes += (uint64_t)info.st_size;
    return DC_OK;
}

uint64_t dc_spool_bytes(dc_spool *spool)
{
    spool->bytes = 0;
    each_part(spool, add_bytes);
    return spool->bytes;
}

dc_status dc_spool_read(dc_spool *spool, const dc_record_place *place, void *out)
{
    char path[PATH_ROOM];
    if (read_at(spool->parts[place->part], place->offset, out, place->record.n_bytes) &&
        dc_hash_of(out, place->record.n_bytes) == place->record.hash)
        return DC_OK;
    part_path(spool->destination, place->part, path);
    return dc_fail(DC_ERR_IO, "%s is damaged: remove it and import again", path);
}

/* ---- writing ---- */

dc_status dc_spool_append(dc_spool *spool, const dc_record *record, const char *name, const void *payload,
                          dc_record_place *place)
{
    if (record->n_name > MAX_NAME)
        return dc_fail(DC_ERR_INPUT, "the name is too long: %.200s...", name);
    record_head head = {.record = *record, .check = check_of(record, name)};
    int64_t begin = spool->end;
    dc_status status = dc_file_write_all(spool->fd, spool->path, &head, sizeof head);
    if (status == DC_OK)
        status = dc_file_write_all(spool->fd, spool->path, name, record->n_name);
    if (status == DC_OK)
        status = dc_file_write_all(spool->fd, spool->path, payload, record->n_bytes);
    if (status != DC_OK) {
        if (ftruncate(spool->fd, begin) == 0) /* what came through of it is of no use */
            lseek(spool->fd, begin, SEEK_SET);
        return status;
    }
    spool->end += (int64_t)(sizeof head + record->n_name + record->n_bytes);
    if (place)
        *place = (dc_record_place){head.record, spool->number, begin + (int64_t)sizeof head + record->n_name};
    return DC_OK;
}
