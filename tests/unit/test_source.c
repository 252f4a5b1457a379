/* Where importers read from: folders and archives of every form hold the same files, and no damage passes. */
#include "base/files.h"
#include "base/hash.h"
#include "data/source.h"
#include "tests/support/pictures.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_FILES = 9, TEXT_CHARS = 16384 };

/* In the order of a folder. The first of them are text, some beyond the C locale, which zip marks as UTF-8. */
enum { N_TEXT = 8 };
static const char *const names[N_FILES] = {"a b/1.jpg",
                                           "a b/2.jpg",
                                           "a b/3.txt",
                                           "z/.hidden.x",
                                           "z/large.jpg",
                                           "z/z z.png",
                                           "\xc3\x9c\xe2\x98\x83/1.jpg",
                                           "\xc3\x9c\xe2\x98\x83/in/2.jpg",
                                           "\xe9t\xe9/old.jpg"};

typedef struct fixture {
    temp_dir dir;
    temp_path source;
    packed_file files[N_FILES];
} fixture;

/* Contents that do not compress, so that a flipped bit changes nothing but them; some more than is read at a time. */
static file_bytes contents(int number)
{
    file_bytes bytes = {NULL, number == 4 ? 3000000 : 700 * ((size_t)number + 1)};
    bytes.s = malloc(bytes.n);
    uint64_t x = (uint64_t)number + 1;
    for (size_t i = 0; i < bytes.n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        bytes.s[i] = (uint8_t)(x >> 56);
    }
    return bytes;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir_make();
    f->source = temp_dir_path(&f->dir, "source");
    for (int i = 0; i < N_FILES; i++) {
        f->files[i] = (packed_file){names[i], contents(i), NULL};
        picture_put(f->source.s, names[i], contents(i));
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < N_FILES; i++)
        free(f->files[i].bytes.s);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

/* All files of a source, in its order, as a text of names and hashes. */
static dc_status list(const char *path, char text[TEXT_CHARS])
{
    dc_source *source;
    dc_source_entry entry;
    size_t used = 0;
    text[0] = '\0';
    DC_TRY(dc_source_open(path, &source));
    dc_status status;
    while ((status = dc_source_next(source, &entry)) == DC_OK && entry.name) {
        uint8_t *bytes;
        size_t n;
        if (entry.folder)
            continue;
        if ((status = dc_source_read(source, &bytes, &n)) != DC_OK)
            break;
        used += (size_t)snprintf(text + used, TEXT_CHARS - used, "%s %016llx\n", entry.name,
                                 (unsigned long long)dc_hash_of(bytes, n));
        free(bytes);
        assert_true(used < TEXT_CHARS - 1);
    }
    dc_source_close(source);
    return status;
}

static temp_path put(const fixture *f, const char *name, file_bytes bytes)
{
    temp_path path = temp_dir_path(&f->dir, name);
    picture_put(f->dir.path, name, bytes);
    return path;
}

static void assert_lists(const char *path, const char *expected)
{
    char text[TEXT_CHARS];
    if (list(path, text) != DC_OK)
        fail_msg("%s", dc_status_message());
    assert_string_equal(text, expected);
}

/* Refused with one line. */
static void assert_refused(const fixture *f, const char *name, file_bytes bytes, const char *what)
{
    char text[TEXT_CHARS];
    assert_int_equal(list(put(f, name, bytes).s, text), DC_ERR_INPUT);
    if (!strstr(dc_status_message(), what) || !strstr(dc_status_message(), name) || strchr(dc_status_message(), '\n'))
        fail_msg("the message should be one line about %s and '%s': %s", name, what, dc_status_message());
}

static void test_every_form_holds_the_same_files(void **state)
{
    fixture *f = *state;
    char expected[TEXT_CHARS];
    assert_int_equal(list(f->source.s, expected), DC_OK);
    assert_non_null(strstr(expected, "\n\xc3\x9c\xe2\x98\x83/in/2.jpg "));
    assert_null(strstr(expected, "hidden"));
    assert_lists(put(f, "a.tar", pack_folder(f->source.s, PACK_TAR, 0)).s, expected);
    assert_lists(put(f, "a.tar.gz", pack_folder(f->source.s, PACK_TAR_GZ, 0)).s, expected);
    assert_lists(put(f, "inner.tar", pack_folder(f->source.s, PACK_TAR, 1)).s, expected);
    assert_lists(put(f, "inner.tgz", pack_folder(f->source.s, PACK_TAR_GZ, 1)).s, expected);
    file_bytes zip = pack_files(N_TEXT, f->files, PACK_ZIP);
    *strstr(expected, "\xe9t\xe9/old.jpg") = '\0';
    assert_lists(put(f, "a.zip", zip).s, expected);
}

/* ImageNet's archives packed once more: a tar of a tar of tars. */
static void test_archives_in_archives(void **state)
{
    fixture *f = *state;
    char plain[TEXT_CHARS], expected[TEXT_CHARS] = "";
    assert_int_equal(list(f->source.s, plain), DC_OK);
    for (char *rest = NULL, *line = strtok_r(plain, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        snprintf(expected + strlen(expected), TEXT_CHARS - strlen(expected), "in/train/%s\n", line);
    for (int k = 0; k < 2; k++) {
        packed_file train = {"train.tar", pack_folder(f->source.s, PACK_TAR, 1), NULL};
        packed_file in = {"in.tar", pack_files(1, &train, PACK_TAR), NULL};
        assert_lists(put(f, "all.tar", pack_files(1, &in, k ? PACK_TAR_GZ : PACK_TAR)).s, expected);
        free(train.bytes.s);
        free(in.bytes.s);
    }
}

static void test_damage_shows(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 12; i++) { /* a bit of compressed data: gzip's checksum tells */
        file_bytes gzip = pack_files(N_FILES, f->files, PACK_TAR_GZ);
        gzip.s[gzip.n * (size_t)(i + 1) / 14] ^= 0x08;
        assert_refused(f, "flipped.tar.gz", gzip, "gzip: ");
    }
    file_bytes cut = pack_files(N_FILES, f->files, PACK_TAR_GZ);
    cut.n /= 2;
    assert_refused(f, "cut.tar.gz", cut, "gzip: unexpected end of file");
    /* a block of zeros where a header was is no end: what follows must not be lost without a word */
    file_bytes hole = pack_files(N_FILES, f->files, PACK_TAR);
    memset(hole.s + 512 + 1024, 0, 512); /* the second file's, behind 700 bytes of the first one */
    assert_refused(f, "hole.tar", hole, "damaged");
    file_bytes zip = pack_files(N_TEXT, f->files, PACK_ZIP);
    zip.s[zip.n / 2] ^= 0x08;
    assert_refused(f, "flipped.zip", zip, "damaged");
}

/* cat a.tar b.tar: both */
static void test_tars_end_to_end(void **state)
{
    fixture *f = *state;
    char expected[TEXT_CHARS];
    assert_int_equal(list(f->source.s, expected), DC_OK);
    file_bytes first = pack_files(4, f->files, PACK_TAR), second = pack_files(N_FILES - 4, f->files + 4, PACK_TAR);
    first.s = realloc(first.s, first.n + second.n);
    memcpy(first.s + first.n, second.s, second.n);
    first.n += second.n;
    free(second.s);
    assert_lists(put(f, "both.tar", first).s, expected);
}

static void test_links_are_no_files(void **state)
{
    fixture *f = *state;
    f->files[2].link = "../../etc/passwd";
    file_bytes tar = pack_files(N_FILES, f->files, PACK_TAR);
    assert_refused(f, "linked.tar", tar, "a b/3.txt is a link");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_form_holds_the_same_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_archives_in_archives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_shows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tars_end_to_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links_are_no_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
