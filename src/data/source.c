#include "data/source.h"

#include "base/files.h"
#include "base/hash.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { MAX_DEPTH = 32, BLOCK_BYTES = 1 << 20, TAR_BLOCK_BYTES = 512, NAME_CHARS = DC_PATH_CHARS };

/* A folder or an archive that is being gone through; the one it lies in is the level before. */
typedef struct level {
    struct level *outer; /* of an archive inside another one: that one; else NULL */
    size_t name_length;  /* of its name in front of those of its files, with the slash */
    char path[DC_PATH_CHARS];
    struct dirent **list; /* a folder's */
    int n, next;
    struct archive *archive; /* an archive's; NULL: a folder */
    struct archive_entry *entry;
    int fd;                         /* of an archive that is a file; -1: a folder, or inside another archive */
    gzFile gzip;                    /* of that file; NULL: it is not compressed by gzip */
    int64_t size_bytes, read_bytes; /* of that file */
    uint8_t *block;
    uint8_t tail[TAR_BLOCK_BYTES]; /* the last bytes that the archive was given */
} level;

struct dc_source {
    level *levels[MAX_DEPTH];
    int depth;
    char name[NAME_CHARS];
    locale_t locale; /* in which names of zip, which are in UTF-8, can be told */
};

static level *top(const dc_source *source)
{
    return source->levels[source->depth - 1];
}

/* ---- levels ---- */

static void level_close(level *l)
{
    if (!l)
        return;
    for (int i = 0; i < l->n; i++)
        free(l->list[i]);
    free(l->list);
    if (l->archive)
        archive_read_free(l->archive);
    if (l->gzip)
        gzclose(l->gzip);
    else if (l->fd >= 0)
        close(l->fd);
    free(l->block);
    free(l);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && strcmp(entry->d_name, "__MACOSX") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static dc_status list_folder(level *l)
{
    l->n = scandir(l->path, &l->list, is_visible, by_name);
    if (l->n >= 0)
        return DC_OK;
    l->n = 0;
    return dc_fail(DC_ERR_IO, "cannot read the folder %s: %s", l->path, strerror(errno));
}

static dc_status archive_error(const level *l, struct archive *archive)
{
    const char *text = archive_error_string(archive);
    return dc_fail(DC_ERR_INPUT, "%s: damaged, cut short or no archive: %s", l->path, text ? text : "unknown error");
}

static void keep_tail(level *l, size_t n)
{
    size_t keep = n < sizeof l->tail ? n : sizeof l->tail;
    memmove(l->tail, l->tail + keep, sizeof l->tail - keep);
    memcpy(l->tail + sizeof l->tail - keep, l->block + n - keep, keep);
}

static la_ssize_t read_file_block(struct archive *archive, void *data, const void **block)
{
    level *l = data;
    ssize_t n;
    do
        n = read(l->fd, l->block, BLOCK_BYTES);
    while (n < 0 && errno == EINTR);
    *block = l->block;
    if (n < 0) {
        archive_set_error(archive, errno, "%s", strerror(errno));
        return ARCHIVE_FATAL;
    }
    l->read_bytes += n;
    keep_tail(l, (size_t)n);
    return n;
}

/* libarchive does not compare with gzip's checksum. */
static la_ssize_t read_gzip_block(struct archive *archive, void *data, const void **block)
{
    level *l = data;
    int n = gzread(l->gzip, l->block, BLOCK_BYTES), error = Z_OK;
    const char *text = gzerror(l->gzip, &error), *reason = strstr(text, ": "); /* behind a name of the file */
    *block = l->block;
    if (n < 0 || (n == 0 && error != Z_OK && error != Z_STREAM_END)) {
        archive_set_error(archive, EIO, "gzip: %s", error == Z_ERRNO ? strerror(errno) : reason ? reason + 2 : text);
        return ARCHIVE_FATAL;
    }
    l->read_bytes = gzoffset(l->gzip);
    keep_tail(l, (size_t)n);
    return n;
}

static la_int64_t skip_file_bytes(struct archive *archive, void *data, la_int64_t n)
{
    (void)archive;
    level *l = data;
    off_t at = lseek(l->fd, 0, SEEK_CUR);
    if (at < 0) /* a pipe */
        return 0;
    off_t room = (off_t)l->size_bytes - at, step = n < room ? n : room;
    if (step <= 0 || lseek(l->fd, step, SEEK_CUR) < 0)
        return 0;
    l->read_bytes += step;
    memset(l->tail, 0xff, sizeof l->tail); /* unknown: no mark of the end */
    return step;
}

static la_ssize_t read_inner_block(struct archive *archive, void *data, const void **block)
{
    level *l = data;
    struct archive *outer = l->outer->archive;
    la_ssize_t n = archive_read_data(outer, l->block, BLOCK_BYTES);
    if (n < 0)
        archive_set_error(archive, archive_errno(outer), "%s", archive_error_string(outer));
    else
        keep_tail(l, (size_t)n);
    *block = l->block;
    return n;
}

static dc_status open_file(level *l)
{
    struct stat info;
    uint8_t magic[2];
    l->fd = open(l->path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0 || fstat(l->fd, &info) != 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", l->path, strerror(errno));
    l->size_bytes = info.st_size;
    if (pread(l->fd, magic, sizeof magic, 0) != sizeof magic || magic[0] != 0x1f || magic[1] != 0x8b)
        return DC_OK;
    if (!(l->gzip = gzdopen(l->fd, "rb")))
        return dc_fail(DC_ERR_MEMORY, "%s: cannot start reading", l->path);
    gzbuffer(l->gzip, BLOCK_BYTES);
    return DC_OK;
}

static dc_status open_archive(level *l)
{
    if (!(l->block = dc_alloc(BLOCK_BYTES)))
        return DC_ERR_MEMORY;
    if (!(l->archive = archive_read_new()))
        return dc_fail(DC_ERR_MEMORY, "%s: cannot start reading", l->path);
    archive_read_support_filter_all(l->archive);
    archive_read_support_format_tar(l->archive);
    archive_read_support_format_zip(l->archive);
    archive_read_support_format_empty(l->archive);
    /* also behind a mark of the end, which may be a damaged header */
    archive_read_set_format_option(l->archive, "tar", "read_concatenated_archives", "1");
    if (!l->outer)
        DC_TRY(open_file(l));
    archive_read_set_read_callback(l->archive, l->outer  ? read_inner_block
                                               : l->gzip ? read_gzip_block
                                                         : read_file_block);
    if (!l->outer && !l->gzip)
        archive_read_set_skip_callback(l->archive, skip_file_bytes);
    archive_read_set_callback_data(l->archive, l);
    if (archive_read_open1(l->archive) != ARCHIVE_OK)
        return archive_error(l, l->archive);
    return DC_OK;
}

/* Steps into a folder or an archive, whose files' names begin with the first name_length characters of the present.
 * outer: the archive that it lies in; or NULL. */
static dc_status push(dc_source *source, const char *path, size_t name_length, bool folder, level *outer)
{
    if (source->depth == MAX_DEPTH)
        return dc_fail(DC_ERR_INPUT, "%s: folders or archives lie more than %d deep", path, MAX_DEPTH);
    level *l = dc_alloc_zeroed(sizeof *l);
    if (!l)
        return DC_ERR_MEMORY;
    l->fd = -1;
    l->outer = outer;
    l->name_length = name_length;
    snprintf(l->path, sizeof l->path, "%s", path);
    source->levels[source->depth++] = l;
    return folder ? list_folder(l) : open_archive(l);
}

static void pop(dc_source *source)
{
    level_close(source->levels[--source->depth]);
}

dc_status dc_source_open(const char *path, dc_source **out)
{
    struct stat info;
    *out = NULL;
    if (stat(path, &info) != 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    dc_source *source = dc_alloc_zeroed(sizeof *source);
    if (!source)
        return DC_ERR_MEMORY;
    source->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    dc_status status = push(source, path, 0, S_ISDIR(info.st_mode), NULL);
    if (status != DC_OK) {
        dc_source_close(source);
        return status;
    }
    *out = source;
    return DC_OK;
}

void dc_source_close(dc_source *source)
{
    if (!source)
        return;
    while (source->depth)
        pop(source);
    if (source->locale)
        freelocale(source->locale);
    free(source);
}

/* ---- names ---- */

/* Length of the name without the ending of an archive, or 0. */
static size_t archive_stem(const char *name)
{
    static const char *const endings[] = {".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (length > n && name[length - n - 1] != '/' && strcasecmp(name + length - n, endings[i]) == 0)
            return length - n;
    }
    return 0;
}

/* Appends a name's harmless parts to the present name, of which the first `length` characters stay. False: to be left
 * out, or too long. */
static bool append_name(dc_source *source, size_t length, const char *name)
{
    size_t begin = length;
    while (*name) {
        size_t n = strcspn(name, "/");
        bool dots = (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.');
        if (n && !dots) {
            if (name[0] == '.' || (n == 8 && strncmp(name, "__MACOSX", n) == 0) || length + n + 2 > NAME_CHARS)
                return false;
            if (length > begin)
                source->name[length++] = '/';
            memcpy(source->name + length, name, n);
            length += n;
        }
        name += n + (name[n] == '/');
    }
    source->name[length] = '\0';
    return length > begin;
}

static uint64_t stamp_of(const char *name, int64_t size_bytes, int64_t modified_s, int64_t modified_ns)
{
    dc_hash hash;
    dc_hash_init(&hash);
    dc_hash_text(&hash, name);
    dc_hash_i64(&hash, size_bytes);
    dc_hash_i64(&hash, modified_s);
    dc_hash_i64(&hash, modified_ns);
    return dc_hash_end(&hash);
}

/* ---- going on ---- */

/* *done: the entry is to be reported. */
static dc_status next_in_folder(dc_source *source, dc_source_entry *entry, bool *done)
{
    level *l = top(source);
    if (l->next == l->n) {
        pop(source);
        return DC_OK;
    }
    const char *base = l->list[l->next++]->d_name;
    char path[DC_PATH_CHARS];
    struct stat info;
    DC_TRY(dc_path_join(l->path, base, path));
    if (!append_name(source, l->name_length, base))
        return dc_fail(DC_ERR_INPUT, "path too long: %.200s...", path);
    if (stat(path, &info) != 0)
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    size_t length = strlen(source->name), stem = archive_stem(source->name);
    if (S_ISREG(info.st_mode) && stem) {
        source->name[stem] = '/';
        return push(source, path, stem + 1, false, NULL);
    }
    if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode))
        return DC_OK;
    *entry = (dc_source_entry){source->name, S_ISDIR(info.st_mode),
                               stamp_of(source->name, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec)};
    *done = true;
    if (!entry->folder || length + 1 >= NAME_CHARS)
        return DC_OK;
    DC_TRY(push(source, path, length + 1, true, NULL));
    return DC_OK;
}

/* A tar ends with blocks of zeros; libarchive takes one that ends between two files for whole. */
static dc_status check_end(const level *l)
{
    int format = archive_format(l->archive);
    if (format == ARCHIVE_FORMAT_EMPTY)
        return dc_fail(DC_ERR_INPUT, "%s: empty", l->path);
    if (archive_filter_count(l->archive) > 1 || (format & ARCHIVE_FORMAT_BASE_MASK) != ARCHIVE_FORMAT_TAR)
        return DC_OK;
    for (int i = 0; i < TAR_BLOCK_BYTES; i++)
        if (l->tail[i])
            return dc_fail(DC_ERR_INPUT, "%s: cut short: it has no end-of-archive mark", l->path);
    return DC_OK;
}

/* A link, a device, ...: nothing that can be read. */
static bool is_link(struct archive_entry *entry)
{
    return archive_entry_hardlink(entry) || archive_entry_filetype(entry) != AE_IFREG;
}

static dc_status next_in_archive(dc_source *source, dc_source_entry *entry, bool *done)
{
    level *l = top(source);
    int result = archive_read_next_header(l->archive, &l->entry);
    if (result == ARCHIVE_EOF) {
        DC_TRY(check_end(l));
        pop(source);
        return DC_OK;
    }
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) /* warnings: of owners, times, character sets */
        return archive_error(l, l->archive);
    const char *raw = archive_entry_pathname(l->entry);
    bool folder = archive_entry_filetype(l->entry) == AE_IFDIR;
    if (!raw)
        return dc_fail(DC_ERR_INPUT, "%s: holds a file without a name, or with one that is not readable", l->path);
    if (!append_name(source, l->name_length, raw))
        return DC_OK;
    size_t stem = archive_stem(source->name);
    if (!folder && stem && !is_link(l->entry)) {
        char path[DC_PATH_CHARS];
        DC_TRY(dc_path_join(l->path, source->name, path));
        source->name[stem] = '/';
        return push(source, path, stem + 1, false, l);
    }
    *entry = (dc_source_entry){source->name, folder,
                               stamp_of(source->name, archive_entry_size(l->entry), archive_entry_mtime(l->entry),
                                        archive_entry_mtime_nsec(l->entry))};
    *done = true;
    return DC_OK;
}

static dc_status go_on(dc_source *source, dc_source_entry *entry)
{
    bool done = false;
    *entry = (dc_source_entry){0};
    /* a folder that was reported is on top now, its slash still to come */
    if (source->depth && top(source)->name_length && !top(source)->archive)
        source->name[top(source)->name_length - 1] = '/';
    while (source->depth && !done)
        DC_TRY((top(source)->archive ? next_in_archive : next_in_folder)(source, entry, &done));
    return DC_OK;
}

dc_status dc_source_next(dc_source *source, dc_source_entry *entry)
{
    locale_t before = uselocale(source->locale); /* of this thread; 0, where there is none, changes nothing */
    dc_status status = go_on(source, entry);
    uselocale(before);
    return status;
}

/* ---- contents ---- */

static dc_status read_from_folder(const level *l, uint8_t **bytes, size_t *n_bytes)
{
    char path[DC_PATH_CHARS];
    struct stat info;
    DC_TRY(dc_path_join(l->path, l->list[l->next - 1]->d_name, path));
    if (stat(path, &info) == 0 && info.st_size > DC_SOURCE_MAX_BYTES)
        return dc_fail(DC_ERR_INPUT, "%s: a file of more than 1 GiB is no picture", path);
    return dc_file_read(path, (char **)bytes, n_bytes);
}

static dc_status read_from_archive(dc_source *source, level *l, uint8_t **bytes, size_t *n_bytes)
{
    if (is_link(l->entry))
        return dc_fail(DC_ERR_INPUT, "%s: %s is a link, not a file: pack the files themselves (tar -h), or unpack it",
                       l->path, source->name);
    size_t capacity = archive_entry_size_is_set(l->entry) ? (size_t)archive_entry_size(l->entry) : BLOCK_BYTES, n = 0;
    if (capacity > DC_SOURCE_MAX_BYTES)
        return dc_fail(DC_ERR_INPUT, "%s: %s: a file of more than 1 GiB is no picture", l->path, source->name);
    uint8_t *buffer = dc_alloc(capacity + 1);
    if (!buffer)
        return DC_ERR_MEMORY;
    la_ssize_t got;
    while ((got = archive_read_data(l->archive, buffer + n, capacity + 1 - n)) > 0) {
        n += (size_t)got;
        if (n <= capacity)
            continue;
        uint8_t *larger = capacity < DC_SOURCE_MAX_BYTES ? dc_realloc(buffer, (capacity *= 2) + 1) : NULL;
        if (!larger) {
            free(buffer);
            return dc_fail(DC_ERR_INPUT, "%s: %s: larger than its header says", l->path, source->name);
        }
        buffer = larger;
    }
    if (got < 0) {
        free(buffer);
        return archive_error(l, l->archive);
    }
    *bytes = buffer;
    *n_bytes = n;
    return DC_OK;
}

dc_status dc_source_read(dc_source *source, uint8_t **bytes, size_t *n_bytes)
{
    level *l = top(source);
    return l->archive ? read_from_archive(source, l, bytes, n_bytes) : read_from_folder(l, bytes, n_bytes);
}

double dc_source_progress(const dc_source *source)
{
    double progress = 0, part = 1;
    for (int i = 0; i < source->depth; i++) {
        const level *l = source->levels[i];
        if (l->size_bytes) /* what lies inside it has been counted with it */
            return progress + part * (double)l->read_bytes / (double)l->size_bytes;
        if (!l->archive && l->n) {
            /* the entries before the one that is being worked on, which may be the next level */
            progress += part * (l->next - (i + 1 < source->depth)) / l->n;
            part /= l->n;
        }
    }
    return source->depth ? progress : 1;
}
