#include "data/layout.h"

#include "base/hash.h"
#include "data/imagenet_synsets.h"
#include "data/layout_truth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A part of a name. */
typedef struct span {
    const char *s;
    size_t n;
} span;

typedef enum role { NO_ROLE, TRAIN, VALIDATION, TEST } role;

/* What a picture's name says. */
typedef struct place {
    role role;
    span class; /* n = 0: none, as in a flat folder of validation pictures */
} place;

typedef struct maker {
    const dc_layout_rules *rules;
    size_t n;
    const char *const *pictures;
    const bool *bad; /* these are left out */
    place *places;
    role test_role; /* which folder is the test split; NO_ROLE: none is there */
    dc_layout *layout;
} maker;

/* ---- names ---- */

static bool is(span s, const char *text)
{
    return s.n == strlen(text) && strncasecmp(s.s, text, s.n) == 0;
}

static role role_of(span s)
{
    if (is(s, "train") || is(s, "training") || is(s, "ILSVRC2012_img_train"))
        return TRAIN;
    if (is(s, "val") || is(s, "valid") || is(s, "validation") || is(s, "ILSVRC2012_img_val"))
        return VALIDATION;
    return is(s, "test") || is(s, "testing") || is(s, "ILSVRC2012_img_test") ? TEST : NO_ROLE;
}

/* The i-th folder in a name; n = 0 when there are fewer. */
static span folder_at(const char *name, int i)
{
    for (;; i--) {
        size_t n = strcspn(name, "/");
        if (!name[n])
            return (span){name, 0};
        if (!i)
            return (span){name, n};
        name += n + 1;
    }
}

/* The number of the folder that is called train, val, ...; -1: none. */
static int find_role(const char *name, role *found)
{
    for (int i = 0;; i++) {
        span folder = folder_at(name, i);
        if (!folder.n)
            return -1;
        if ((*found = role_of(folder)) != NO_ROLE)
            return i;
    }
}

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

static int compare_spans(const void *a, const void *b)
{
    const span *x = a, *y = b;
    int order = strncmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The number in ImageNet's own order of "n02119789", from 0; -1: none. */
static int synset_number(span s)
{
    char digits[9] = "", *end;
    if (s.n != 9 || s.s[0] != 'n')
        return -1;
    memcpy(digits, s.s + 1, 8);
    long number = strtol(digits, &end, 10);
    for (int i = 0; !*end && i < DC_IMAGENET_CLASSES; i++)
        if (dc_imagenet_synsets[i] == number)
            return i;
    return -1;
}

bool dc_layout_wants(const dc_layout_rules *rules, const char *name)
{
    /* the last ones are refused when they are read: a class must not lose pictures without a word */
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"};
    const char *dot = strrchr(base_of(name), '.');
    bool picture = false;
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        picture |= strcasecmp(dot, endings[i]) == 0;
    role found = NO_ROLE;
    int at = picture ? find_role(name, &found) : -1;
    if (!picture || (found == TEST && rules->own_test))
        return false;
    if (!rules->imagenet16 || found == VALIDATION)
        return true;
    for (int i = at + 1;; i++) { /* a folder that is one of the 120 */
        span folder = folder_at(name, i);
        int number = synset_number(folder);
        if (!folder.n || number >= 0)
            return number >= 0 && number < DC_IMAGENET16_CLASSES;
    }
}

/* ---- places ---- */

/* How many folders all names begin with alike, but never a picture's last one. */
static int common_depth(const maker *m)
{
    int depth = 0;
    for (;; depth++) {
        span first = folder_at(m->pictures[0], depth);
        for (size_t i = 0; i < m->n; i++) {
            span other = folder_at(m->pictures[i], depth), next = folder_at(m->pictures[i], depth + 1);
            if (!other.n || !next.n || compare_spans(&first, &other) != 0)
                return depth;
        }
    }
}

static dc_status find_places(maker *m)
{
    size_t with = 0, counts[4] = {0}, flat = 0;
    for (size_t i = 0; i < m->n; i++) {
        int at = find_role(m->pictures[i], &m->places[i].role);
        with += at >= 0;
        counts[m->places[i].role]++;
        m->places[i].class = folder_at(m->pictures[i], at + 1);
    }
    if (with && with < m->n)
        for (size_t i = 0; i < m->n; i++)
            if (m->places[i].role == NO_ROLE)
                return dc_fail(DC_ERR_INPUT, "%s: %s lies outside of train/ and test/ (or val/), in which others lie",
                               m->rules->source, m->pictures[i]);
    if (with && !counts[TRAIN])
        return dc_fail(DC_ERR_INPUT, "%s: pictures to test with, but none in a folder train/", m->rules->source);
    if (counts[VALIDATION] && counts[TEST])
        return dc_fail(DC_ERR_INPUT, "%s: holds both val/ and test/: import a folder with one of them",
                       m->rules->source);
    m->test_role = counts[VALIDATION] ? VALIDATION : counts[TEST] ? TEST : NO_ROLE;
    int depth = with ? 0 : common_depth(m);
    for (size_t i = 0; i < m->n; i++) {
        place *p = &m->places[i];
        if (!with)
            *p = (place){TRAIN, folder_at(m->pictures[i], depth)};
        if (p->role == m->test_role && is(p->class, "images"))
            p->class.n = 0;
        flat += p->role == TRAIN && !p->class.n;
        if (p->role == TRAIN && !p->class.n && flat == 1)
            dc_fail(DC_ERR_INPUT, "%s: %s lies in no class folder", m->rules->source, m->pictures[i]);
    }
    return flat ? DC_ERR_INPUT : DC_OK;
}

/* ---- classes ---- */

static dc_status add_class(dc_layout *layout, span name, const dc_layout_rules *rules)
{
    if (name.n >= DC_CLASS_NAME_CHARS)
        return dc_fail(DC_ERR_INPUT, "%s: the class folder %.*s: its name must have at most %d characters",
                       rules->source, (int)name.n, name.s, DC_CLASS_NAME_CHARS - 1);
    memcpy(layout->classes[layout->n_classes++], name.s, name.n);
    return DC_OK;
}

/* ImageNet-16-120's own, in its order. */
static dc_status make_imagenet16_classes(dc_layout *layout)
{
    if (!(layout->classes = dc_alloc_zeroed(DC_IMAGENET16_CLASSES * sizeof *layout->classes)))
        return DC_ERR_MEMORY;
    layout->n_classes = DC_IMAGENET16_CLASSES;
    for (int i = 0; i < DC_IMAGENET16_CLASSES; i++)
        snprintf(layout->classes[i], DC_CLASS_NAME_CHARS, "n%08d", dc_imagenet_synsets[i]);
    return DC_OK;
}

static dc_status make_classes(maker *m)
{
    dc_layout *layout = m->layout;
    if (m->rules->imagenet16)
        return make_imagenet16_classes(layout);
    span *names = dc_alloc(m->n * sizeof *names);
    if (!names)
        return DC_ERR_MEMORY;
    size_t n = 0, distinct = 0;
    for (size_t i = 0; i < m->n; i++)
        if (m->places[i].role == TRAIN)
            names[n++] = m->places[i].class;
    qsort(names, n, sizeof *names, compare_spans);
    for (size_t i = 0; i < n; i++)
        if (!i || compare_spans(&names[i], &names[distinct - 1]) != 0)
            names[distinct++] = names[i];
    size_t most = m->rules->max_classes ? (size_t)m->rules->max_classes : DC_MAX_CLASSES;
    dc_status status = DC_OK;
    if (most < distinct && m->rules->max_classes)
        distinct = most;
    if (distinct > most)
        status = dc_fail(DC_ERR_INPUT, "%s: %zu class folders: at most %d", m->rules->source, distinct, DC_MAX_CLASSES);
    else if (!(layout->classes = dc_alloc_zeroed(distinct * sizeof *layout->classes)))
        status = DC_ERR_MEMORY;
    for (size_t i = 0; status == DC_OK && i < distinct; i++)
        status = add_class(layout, names[i], m->rules);
    free(names);
    return status;
}

/* The label of a class; -1: there is none of that name. */
static int label_of(const maker *m, span name)
{
    const dc_layout *layout = m->layout;
    if (m->rules->imagenet16) {
        int number = synset_number(name);
        return number < layout->n_classes ? number : -1;
    }
    int low = 0, high = layout->n_classes;
    while (low < high) {
        int middle = (low + high) / 2;
        const span other = {layout->classes[middle], strlen(layout->classes[middle])};
        int order = compare_spans(&name, &other);
        if (!order)
            return middle;
        low = order > 0 ? middle + 1 : low;
        high = order < 0 ? middle : high;
    }
    return -1;
}

/* Classes that are left out on purpose may have test pictures. */
static bool leaves_out(const maker *m)
{
    return m->rules->imagenet16 || m->rules->max_classes;
}

static dc_status label_all(maker *m, dc_truth *truth)
{
    for (size_t i = 0; i < m->n; i++) {
        const place *p = &m->places[i];
        span class = p->class;
        m->layout->labels[i] = -1;
        if (m->bad[i])
            continue;
        if (!class.n) {
            DC_TRY(dc_truth_class(truth, base_of(m->pictures[i]), &class.s));
            class.n = strlen(class.s);
        }
        m->layout->labels[i] = label_of(m, class);
        if (m->layout->labels[i] < 0 && !leaves_out(m))
            return dc_fail(DC_ERR_INPUT, "%s: %s is of class %.*s, of which there are no training pictures",
                           p->class.n ? m->rules->source : dc_truth_name(truth), m->pictures[i], (int)class.n, class.s);
        m->layout->splits[i] = (uint8_t)(p->role == TRAIN ? 1 << DC_SPLIT_TRAIN : 1 << DC_SPLIT_TEST);
    }
    return DC_OK;
}

/* The pictures of a flat validation folder, sorted, get their labels from a file. */
static dc_status label_with_truth(maker *m, dc_layout_truth given)
{
    size_t n = 0;
    const char **names = dc_alloc(m->n * sizeof *names), *first = NULL;
    if (!names)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < m->n; i++)
        if (!m->places[i].class.n) {
            first = first ? first : m->pictures[i];
            names[n++] = base_of(m->pictures[i]);
        }
    dc_truth *truth = NULL;
    dc_status status = DC_OK;
    if (n && !given.text)
        status = dc_fail(DC_ERR_INPUT,
                         "%s: %s lies in no class folder, and there is no file of labels (--labels FILE names one)",
                         m->rules->source, first);
    else if (!n && given.required)
        status = dc_fail(DC_ERR_INPUT, "%s: every picture of %s lies in a class folder and needs no file of labels",
                         given.name, m->rules->source);
    else if (n)
        status = dc_truth_make(given, n, names, m->layout->n_classes, m->layout->classes, &truth);
    if (status == DC_OK)
        status = label_all(m, truth);
    dc_truth_destroy(truth);
    free(names);
    return status;
}

/* ---- splits ---- */

typedef struct draw {
    int32_t label;
    uint64_t chance; /* a function of class and name only */
    size_t picture;
} draw;

static int by_label_and_chance(const void *a, const void *b)
{
    const draw *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return (x->chance > y->chance) - (x->chance < y->chance);
}

/* The nearest whole number of each class's share goes to the test split, never the whole class. */
static dc_status hold_out(maker *m)
{
    dc_layout *layout = m->layout;
    draw *draws = dc_alloc(m->n * sizeof *draws);
    if (!draws)
        return DC_ERR_MEMORY;
    size_t held = 0, n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (layout->labels[i] >= 0)
            draws[n++] = (draw){layout->labels[i], dc_hash_of(m->places[i].class.s, strlen(m->places[i].class.s)), i};
    qsort(draws, n, sizeof *draws, by_label_and_chance);
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && draws[end].label == draws[begin].label; end++)
            ;
        size_t count = end - begin, share = (size_t)floor(m->rules->held_out * (double)count + 0.5);
        share = share < count ? share : count - 1;
        for (size_t i = begin; i < begin + share; i++)
            layout->splits[draws[i].picture] = 1 << DC_SPLIT_TEST;
        held += share;
    }
    free(draws);
    if (!held)
        return dc_fail(
            DC_ERR_INPUT,
            "%s: there is no folder of test pictures, and %g of each class is not one picture; --held-out takes "
            "another share, and 0: the training pictures are the test pictures too",
            m->rules->source, m->rules->held_out);
    return DC_OK;
}

static dc_status split(maker *m)
{
    if (m->test_role != NO_ROLE)
        return DC_OK;
    if (m->rules->held_out > 0)
        return hold_out(m);
    memset(m->layout->splits, 1 << DC_SPLIT_TRAIN | 1 << DC_SPLIT_TEST, m->n);
    return DC_OK;
}

/* ---- what is missing ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The depth at which class folders lie, counted in slashes. */
static int class_depth(const maker *m)
{
    const char *end = m->places[0].class.s;
    int depth = 0;
    for (const char *s = m->pictures[0]; s < end; s++)
        depth += *s == '/';
    return depth;
}

/* Does a picture lie in the folder of n characters? sorted: the names of n_sorted. */
static bool holds_pictures(size_t n_sorted, const char *const *sorted, const char *folder, size_t n)
{
    size_t low = 0, high = n_sorted; /* the first picture that does not come before the folder's */
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncmp(sorted[middle], folder, n);
        if (order < 0 || (order == 0 && sorted[middle][n] < '/'))
            low = middle + 1;
        else
            high = middle;
    }
    return low < n_sorted && strncmp(sorted[low], folder, n) == 0 && sorted[low][n] == '/';
}

/* Every folder beside the class folders must hold a picture. */
static dc_status check_folders(const maker *m, size_t n_folders, const char *const *folders)
{
    const char **sorted = m->rules->imagenet16 ? NULL : dc_alloc(m->n * sizeof *sorted);
    if (!sorted)
        return m->rules->imagenet16 ? DC_OK : DC_ERR_MEMORY;
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (!m->bad[i])
            sorted[n++] = m->pictures[i];
    qsort(sorted, n, sizeof *sorted, by_text);
    int depth = class_depth(m);
    dc_status status = DC_OK;
    for (size_t f = 0; f < n_folders && status == DC_OK; f++) {
        const char *folder = folders[f], *slash = strrchr(folder, '/');
        role found = NO_ROLE;
        int slashes = 0, at = find_role(folder, &found);
        for (const char *s = folder; *s; s++)
            slashes += *s == '/';
        bool beside = slashes == depth && at < depth && !(found == TEST && m->rules->own_test) &&
                      (!slash || holds_pictures(n, sorted, folder, (size_t)(slash - folder)));
        if (beside && !holds_pictures(n, sorted, folder, strlen(folder)))
            status = dc_fail(DC_ERR_INPUT, "%s: the folder %s holds no pictures", m->rules->source, folder);
    }
    free(sorted);
    return status;
}

static dc_status check_all_classes(const maker *m)
{
    const dc_layout *layout = m->layout;
    uint8_t *seen = dc_alloc_zeroed((size_t)layout->n_classes);
    if (!seen)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < m->n; i++)
        if (layout->labels[i] >= 0 && m->places[i].role == TRAIN)
            seen[layout->labels[i]] = 1;
    dc_status status = DC_OK;
    for (int c = 0; c < layout->n_classes && status == DC_OK; c++)
        if (!seen[c])
            status =
                dc_fail(DC_ERR_INPUT, "%s: no training pictures of class %s", m->rules->source, layout->classes[c]);
    free(seen);
    return status;
}

/* ---- the whole ---- */

static dc_status make(maker *m, size_t n_folders, const char *const *folders, dc_layout_truth truth)
{
    DC_TRY(find_places(m));
    DC_TRY(make_classes(m));
    DC_TRY(check_folders(m, n_folders, folders));
    DC_TRY(label_with_truth(m, truth));
    DC_TRY(check_all_classes(m));
    return split(m);
}

dc_status dc_layout_make(const dc_layout_rules *rules, size_t n, const char *const *pictures, const bool *bad,
                         size_t n_folders, const char *const *folders, dc_layout_truth truth, dc_layout *layout)
{
    *layout = (dc_layout){0};
    if (!n)
        return dc_fail(DC_ERR_INPUT, "%s: holds no pictures (.jpg, .jpeg, .png) to import%s", rules->source,
                       rules->imagenet16 ? ", none of the 120 classes (n02119789, ...)" : "");
    layout->labels = dc_alloc(n * sizeof *layout->labels);
    layout->splits = dc_alloc_zeroed(n);
    maker m = {.rules = rules, .n = n, .pictures = pictures, .bad = bad, .layout = layout};
    m.places = dc_alloc_zeroed(n * sizeof *m.places);
    dc_status status = DC_ERR_MEMORY;
    if (layout->labels && layout->splits && m.places)
        status = make(&m, n_folders, folders, truth);
    free(m.places);
    return status;
}

void dc_layout_clear(dc_layout *layout)
{
    free(layout->classes);
    free(layout->labels);
    free(layout->splits);
    *layout = (dc_layout){0};
}
