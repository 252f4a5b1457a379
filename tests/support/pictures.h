/* Pictures and archives for the tests of importers. Whatever fails here ends the test program. */
#ifndef DC_TESTS_SUPPORT_PICTURES_H
#define DC_TESTS_SUPPORT_PICTURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file in memory. */
typedef struct file_bytes {
    uint8_t *s; /* free() */
    size_t n;
} file_bytes;

/* A smooth picture, another one for each number. */
file_bytes picture_jpeg(int w, int h, int number);
file_bytes picture_grey_jpeg(int w, int h, int number);

/* Progressive, its last scan so many times more. */
file_bytes picture_progressive_jpeg(int w, int h, int n_more_scans);

/* A PNG of these samples: colour_type as libpng has it, depth 8 or 16; palette: of colour type 3, n_palette x RGB. */
file_bytes picture_png(int w, int h, int colour_type, int depth, const uint8_t *samples, const uint8_t *palette,
                       int n_palette);

/* Writes a file, making its folders, and frees the bytes. */
void picture_put(const char *folder, const char *name, file_bytes bytes);

typedef enum pack_format { PACK_TAR, PACK_TAR_GZ, PACK_ZIP } pack_format;

/* Packs n files, by name and contents. */
typedef struct packed_file {
    const char *name;
    file_bytes bytes;
    const char *link; /* a symbolic link, to this; NULL: a file */
} packed_file;
file_bytes pack_files(int n, const packed_file *files, pack_format format);

/* All files below a folder, by their names in it, as an archive; `inner`: folders at this depth become tars of their
 * own, 0: none. */
file_bytes pack_folder(const char *folder, pack_format format, int inner);

#endif
