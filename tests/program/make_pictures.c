/* Class folders of JPEG pictures for the program's tests, all different, the same bytes each time.
 * usage: make_pictures FOLDER CLASSES PICTURES_OF_EACH WIDTH HEIGHT */
#include <stdint.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <sys/stat.h>

#include <jpeglib.h>

static void write_picture(const char *path, int w, int h, uint32_t number)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    FILE *file = fopen(path, "wb");
    uint8_t *row = malloc(3 * (size_t)w);
    uint32_t state = number * 2654435761u + 1;
    if (!file || !row) {
        perror(path);
        exit(1);
    }
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_stdio_dest(&codec, file);
    codec.image_width = (JDIMENSION)w;
    codec.image_height = (JDIMENSION)h;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_start_compress(&codec, TRUE);
    for (int y = 0; y < h; y++) {
        for (int k = 0; k < 3 * w; k++) {
            state = state * 1664525u + 1013904223u;
            row[k] = (uint8_t)((uint32_t)(k + 2 * y) / 3 + number * 40 + (state >> 27));
        }
        JSAMPROW rows = row;
        jpeg_write_scanlines(&codec, &rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    free(row);
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    int classes = atoi(argv[2]), pictures = atoi(argv[3]);
    mkdir(argv[1], 0777);
    for (int c = 0; c < classes; c++)
        for (int i = 0; i < pictures; i++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/class_%d", argv[1], c);
            mkdir(path, 0777);
            snprintf(path, sizeof path, "%s/class_%d/%03d.jpg", argv[1], c, i);
            write_picture(path, atoi(argv[4]), atoi(argv[5]), (uint32_t)(c * pictures + i));
        }
    return 0;
}
