/* A small data set for the program's tests, as IDX files: 8x8 images of four classes (a bright bar across, down, along
 * either diagonal, at a random place, in noise), the same bytes each time.
 * usage: make_data DIRECTORY TRAIN_IMAGES TEST_IMAGES */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIDE = 8, CLASSES = 4 };

static uint32_t state;

static int draw(int below)
{
    state = state * 1664525u + 1013904223u;
    return (int)((state >> 16) % (uint32_t)below);
}

static FILE *create(const char *directory, const char *name, int n, int dimensions)
{
    char path[4096];
    const uint32_t sizes[3] = {(uint32_t)n, SIDE, SIDE};
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    if (!file) {
        perror(path);
        exit(1);
    }
    const unsigned char magic[4] = {0, 0, 8, (unsigned char)dimensions};
    fwrite(magic, 1, sizeof magic, file);
    for (int i = 0; i < dimensions; i++)
        for (int shift = 24; shift >= 0; shift -= 8)
            fputc((int)(sizes[i] >> shift & 255), file);
    return file;
}

static void put_image(FILE *file, int class)
{
    int place = 1 + draw(SIDE - 2);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const int distance[CLASSES] = {y - place, x - place, y - x + place - SIDE / 2, y + x - place - SIDE / 2};
            fputc(distance[class] == 0 ? 160 + draw(96) : draw(120), file);
        }
}

static void make(const char *directory, const char *images, const char *labels, int n, uint32_t seed)
{
    FILE *image_file = create(directory, images, n, 3), *label_file = create(directory, labels, n, 1);
    state = seed;
    for (int i = 0; i < n; i++) {
        int class = i % CLASSES;
        put_image(image_file, class);
        fputc(class, label_file);
    }
    if (fclose(image_file) || fclose(label_file)) {
        perror(directory);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    make(argv[1], "train-images-idx3-ubyte", "train-labels-idx1-ubyte", atoi(argv[2]), 1);
    make(argv[1], "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", atoi(argv[3]), 2);
    return 0;
}
