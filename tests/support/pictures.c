#include "tests/support/pictures.h"

#include "base/files.h"
#include "data/picture.h"
#include "data/source.h"
#include "tests/support/temp_dir.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

static void require(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "%s: %s\n", what, dc_status_message());
    abort();
}

static uint8_t sample(int x, int y, int c, int number)
{
    return (uint8_t)(40 + (x * (3 + number % 5) + y * (2 + c) + number * 37 + c * 50) % 160);
}

file_bytes picture_jpeg(int w, int h, int number)
{
    uint8_t *pixels = malloc(3 * (size_t)w * (size_t)h);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                pixels[3 * (y * w + x) + c] = sample(x, y, c, number);
    file_bytes file;
    const dc_rgb rgb = {pixels, 3 * w, w, h};
    require(dc_picture_encode(&rgb, 95, &file.s, &file.n) == DC_OK, "dc_picture_encode");
    free(pixels);
    return file;
}

file_bytes picture_progressive_jpeg(int w, int h, int n_more_scans)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    uint8_t *row = calloc(3, (size_t)w);
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &bytes, &n);
    codec.image_width = (JDIMENSION)w;
    codec.image_height = (JDIMENSION)h;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_simple_progression(&codec);
    jpeg_start_compress(&codec, TRUE);
    for (int y = 0; y < h; y++)
        jpeg_write_scanlines(&codec, &row, 1);
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    free(row);
    size_t scan = n - 2; /* from its mark to that of the end */
    while (bytes[scan] != 0xff || bytes[scan + 1] != 0xda)
        scan--;
    size_t n_scan = n - 2 - scan;
    file_bytes file = {malloc(n + n_scan * (size_t)n_more_scans), 0};
    memcpy(file.s, bytes, file.n = n - 2);
    for (int i = 0; i < n_more_scans; i++, file.n += n_scan)
        memcpy(file.s + file.n, bytes + scan, n_scan);
    memcpy(file.s + file.n, bytes + n - 2, 2);
    file.n += 2;
    free(bytes);
    return file;
}

file_bytes picture_grey_jpeg(int w, int h, int number)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    uint8_t row[1024];
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &bytes, &n);
    codec.image_width = (JDIMENSION)w;
    codec.image_height = (JDIMENSION)h;
    codec.input_components = 1;
    codec.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&codec);
    jpeg_start_compress(&codec, TRUE);
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++)
            row[x] = sample(x, y, 0, number);
        JSAMPROW rows = row;
        jpeg_write_scanlines(&codec, &rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    return (file_bytes){bytes, n};
}

static void png_write(png_structp codec, png_bytep bytes, size_t n)
{
    file_bytes *file = png_get_io_ptr(codec);
    file->s = realloc(file->s, file->n + n);
    memcpy(file->s + file->n, bytes, n);
    file->n += n;
}

static void png_flush_nothing(png_structp codec)
{
    (void)codec;
}

file_bytes picture_png(int w, int h, int colour_type, int depth, const uint8_t *samples, const uint8_t *palette,
                       int n_palette)
{
    file_bytes file = {0};
    png_structp codec = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(codec);
    png_set_write_fn(codec, &file, png_write, png_flush_nothing);
    png_set_IHDR(codec, info, (png_uint_32)w, (png_uint_32)h, depth, colour_type, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_color colours[256];
    for (int i = 0; i < n_palette; i++)
        colours[i] = (png_color){palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]};
    if (n_palette)
        png_set_PLTE(codec, info, colours, n_palette);
    png_write_info(codec, info);
    size_t stride = png_get_rowbytes(codec, info);
    for (int y = 0; y < h; y++)
        png_write_row(codec, samples + (size_t)y * stride);
    png_write_end(codec, NULL);
    png_destroy_write_struct(&codec, &info);
    return file;
}

void picture_put(const char *folder, const char *name, file_bytes bytes)
{
    char path[DC_PATH_CHARS], directory[DC_PATH_CHARS];
    require(dc_path_join(folder, name, path) == DC_OK && dc_path_directory(path, directory) == DC_OK &&
                dc_directory_create(directory) == DC_OK,
            name);
    temp_file_write(path, bytes.s, bytes.n);
    free(bytes.s);
}

static la_ssize_t pack_write(struct archive *archive, void *data, const void *bytes, size_t n)
{
    (void)archive;
    file_bytes *file = data;
    file->s = realloc(file->s, file->n + n);
    memcpy(file->s + file->n, bytes, n);
    file->n += n;
    return (la_ssize_t)n;
}

file_bytes pack_files(int n, const packed_file *files, pack_format format)
{
    file_bytes packed = {0};
    struct archive *archive = archive_write_new();
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), before = uselocale(utf8); /* of names in zip */
    if (format == PACK_ZIP)
        archive_write_set_format_zip(archive);
    else
        archive_write_set_format_gnutar(archive);
    if (format == PACK_TAR_GZ)
        archive_write_add_filter_gzip(archive);
    archive_write_set_bytes_in_last_block(archive, 1);
    require(archive_write_open(archive, &packed, NULL, pack_write, NULL) == ARCHIVE_OK, "archive");
    for (int i = 0; i < n; i++) {
        struct archive_entry *entry = archive_entry_new();
        size_t length = strlen(files[i].name);
        bool folder = files[i].name[length - 1] == '/';
        archive_entry_set_pathname(entry, files[i].name);
        archive_entry_set_filetype(entry, files[i].link ? AE_IFLNK : folder ? AE_IFDIR : AE_IFREG);
        archive_entry_set_symlink(entry, files[i].link);
        archive_entry_set_perm(entry, 0755);
        archive_entry_set_size(entry, files[i].link ? 0 : (int64_t)files[i].bytes.n);
        require(archive_write_header(archive, entry) == ARCHIVE_OK, files[i].name);
        if (!files[i].link)
            archive_write_data(archive, files[i].bytes.s, files[i].bytes.n);
        archive_entry_free(entry);
    }
    archive_write_close(archive);
    archive_write_free(archive);
    uselocale(before);
    if (utf8)
        freelocale(utf8);
    return packed;
}

enum { MAX_FILES = 256 };

static void clear_files(int n, packed_file *files)
{
    for (int i = 0; i < n; i++) {
        free((char *)files[i].name);
        free(files[i].bytes.s);
    }
}

/* The position of the slash after `depth` folders; NULL: there are fewer. */
static const char *slash_at(const char *name, int depth)
{
    for (; depth; depth--, name += *name == '/') {
        name = strchr(name, '/');
        if (!name || depth == 1)
            return name;
    }
    return NULL;
}

static int pack_inner(int n, packed_file *files, int depth, packed_file *outer)
{
    int n_outer = 0;
    for (int i = 0; i < n;) {
        const char *slash = slash_at(files[i].name, depth);
        int begin = i, length = slash ? (int)(slash - files[i].name) : 0;
        packed_file inside[MAX_FILES];
        if (!slash) {
            i++;
            continue;
        }
        for (; i < n && strncmp(files[i].name, files[begin].name, (size_t)length + 1) == 0; i++)
            inside[i - begin] = (packed_file){files[i].name + length + 1, files[i].bytes, NULL};
        char *name = malloc((size_t)length + 5);
        sprintf(name, "%.*s.tar", length, files[begin].name);
        outer[n_outer++] = (packed_file){name, pack_files(i - begin, inside, PACK_TAR), NULL};
    }
    return n_outer;
}

file_bytes pack_folder(const char *folder, pack_format format, int inner)
{
    packed_file files[MAX_FILES], outer[MAX_FILES] = {0};
    dc_source *source;
    dc_source_entry entry;
    int n = 0, n_outer = 0;
    require(dc_source_open(folder, &source) == DC_OK, folder);
    for (;;) {
        require(dc_source_next(source, &entry) == DC_OK && n < MAX_FILES, folder);
        if (!entry.name)
            break;
        char *name = malloc(strlen(entry.name) + 2);
        sprintf(name, "%s%s", entry.name, entry.folder ? "/" : "");
        files[n] = (packed_file){name, {0}, NULL};
        if (!entry.folder)
            require(dc_source_read(source, &files[n].bytes.s, &files[n].bytes.n) == DC_OK, name);
        if (entry.folder && inner) /* tars stand for them */
            free(name);
        else
            n++;
    }
    dc_source_close(source);
    if (inner)
        n_outer = pack_inner(n, files, inner, outer);
    file_bytes packed = inner ? pack_files(n_outer, outer, format) : pack_files(n, files, format);
    clear_files(n, files);
    clear_files(n_outer, outer);
    return packed;
}
