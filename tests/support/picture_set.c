#include "tests/support/picture_set.h"

#include <hdf5.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <cmocka.h>

/* ---- golden ones ---- */

static void *golden_array(const char *group, const char *name, hid_t type, int dims[3])
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", group, name);
    hid_t file = H5Fopen("tests/golden/pictures.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        fail_msg("cannot open tests/golden/pictures.h5: tests run in the repository's root");
    hid_t set = H5Dopen2(file, path, H5P_DEFAULT);
    if (set < 0)
        fail_msg("no golden values '%s': run tests/golden/pictures.py", path);
    hid_t space = H5Dget_space(set);
    hsize_t extent[3] = {1, 1, 1};
    assert_true(H5Sget_simple_extent_ndims(space) <= 3);
    H5Sget_simple_extent_dims(space, extent, NULL);
    for (int i = 0; i < 3; i++)
        dims[i] = (int)extent[i];
    void *data = malloc((size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type));
    assert_non_null(data);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    return data;
}

uint8_t *golden_bytes(const char *group, const char *name, int dims[3])
{
    return golden_array(group, name, H5T_NATIVE_UINT8, dims);
}

int *golden_ints(const char *group, const char *name, int dims[3])
{
    return golden_array(group, name, H5T_NATIVE_INT, dims);
}

float *golden_floats(const char *group, const char *name, int dims[3])
{
    return golden_array(group, name, H5T_NATIVE_FLOAT, dims);
}

golden_picture golden_picture_open(const char *name)
{
    golden_picture p;
    int dims[3];
    p.jpeg = golden_bytes(name, "jpeg", dims);
    p.jpeg_bytes = (size_t)dims[0];
    p.rgb = golden_bytes(name, "rgb", dims);
    p.h = dims[0];
    p.w = dims[1];
    return p;
}

void golden_picture_clear(golden_picture *picture)
{
    free(picture->jpeg);
    free(picture->rgb);
}

/* ---- a data set ---- */

/* free() it. */
static uint8_t *encode(int index, dc_picture_size size, unsigned long *bytes)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    uint8_t *out = NULL, row[3 * 128];
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &out, bytes);
    codec.image_width = (JDIMENSION)size.width;
    codec.image_height = (JDIMENSION)size.height;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_start_compress(&codec, TRUE);
    for (int y = 0; y < size.height; y++) {
        for (int x = 0; x < 3 * size.width; x++)
            row[x] = (uint8_t)(40 + index * (29 + 13 * (x % 3)) % 160 + (x / 3 * 7 + y * 5) % 31);
        JSAMPROW rows[] = {row};
        jpeg_write_scanlines(&codec, rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    return out;
}

static void require(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

void picture_set_write(const char *path, int n, int damaged)
{
    char(*names)[16] = calloc((size_t)n, sizeof *names);
    const char **classes = calloc((size_t)n, sizeof *classes);
    uint8_t **jpegs = calloc((size_t)n, sizeof *jpegs);
    unsigned long *bytes = calloc((size_t)n, sizeof *bytes);
    dc_picture_size *sizes = calloc((size_t)n, sizeof *sizes);
    assert_true(names && classes && jpegs && bytes && sizes);
    dc_dataset_head head = {.name = "pictures",
                            .storage = DC_STORAGE_JPEG,
                            .n_classes = n,
                            .classes = classes,
                            .n = {(uint32_t)n, (uint32_t)n},
                            .mean = {0.4, 0.45, 0.5},
                            .deviation = {0.2, 0.22, 0.24}};
    for (int i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "c%d", i);
        classes[i] = names[i];
        sizes[i] = (dc_picture_size){40 + i * 37 % 64, 40 + i * 23 % 64};
        jpegs[i] = encode(i, sizes[i], &bytes[i]);
        head.jpeg_bytes[DC_SPLIT_TRAIN] += i == damaged ? bytes[i] / 2 : bytes[i];
        head.jpeg_bytes[DC_SPLIT_TEST] += bytes[i];
    }
    dc_dataset_writer *writer;
    require(dc_dataset_writer_create(path, &head, &writer));
    for (int i = 0; i < n; i++)
        require(dc_dataset_writer_put_jpeg(writer, i, sizes[i], jpegs[i], i == damaged ? bytes[i] / 2 : bytes[i]));
    for (int i = 0; i < n; i++)
        require(dc_dataset_writer_put_jpeg(writer, i, sizes[i], jpegs[i], bytes[i]));
    require(dc_dataset_writer_commit(writer));
    for (int i = 0; i < n; i++)
        free(jpegs[i]);
    free(jpegs);
    free(bytes);
    free(sizes);
    free(classes);
    free(names);
}
