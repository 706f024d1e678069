/* The engine of the key layouts: expands a table for a config and looks names up in it, in both
 * directions.
 *
 *     {each_block, "joint_blocks.{}.x_block.attn.qkv.", "transformer_blocks.{}.attn.to_q.", BAND(0, 1, 3)}
 *       -> row "joint_blocks.7.x_block.attn.qkv."  <->  "transformer_blocks.7.attn.to_q."
 *
 * Of the rows that match a name the longest wins ("resnets.0.conv_shortcut." before "resnets.0.").
 * Numbers are only ever written into names, never read from them, so that no name in a file can do
 * harm. The tables follow the key names of the published checkpoints as the files themselves show
 * them. Left out: controlnets, refiners, inpainting models. */
#include "checkpoint/layout.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/layout_table.h"

#define MAX_NUMBERS_PER_SET 4096 /* more blocks than any model has: a set must end */

struct layout {
    struct layout_row *rows;
    int count, capacity;
    const struct layout_row **by_original, **by_diffusers; /* sorted by name */
};

static const struct layout_line same_lines[] = {{NULL, "", "", SAME}};
static const struct layout_table layout_table_same = LAYOUT_TABLE(same_lines, NULL);

/* `pattern` with its "{}" replaced by numbers, in order; the caller frees. NULL: no memory. */
static char *fill_in(const char *pattern, const int numbers[LAYOUT_MAX_NUMBERS]) {
    char text[192];
    size_t used = 0;
    int next = 0;
    for (const char *c = pattern; *c != 0; c++) {
        assert(used + 12 < sizeof text);
        if (c[0] == '{' && c[1] == '}') {
            assert(next < LAYOUT_MAX_NUMBERS);
            used += (size_t)snprintf(text + used, sizeof text - used, "%d", numbers[next++]);
            c++;
        } else {
            text[used++] = *c;
        }
    }
    text[used] = 0;
    return strdup(text);
}

static bool add_row(struct layout *layout, const struct layout_line *line, const int original[], const int diffusers[]) {
    if (layout->count == layout->capacity) {
        int capacity = layout->capacity > 0 ? 2 * layout->capacity : 64;
        struct layout_row *rows = realloc(layout->rows, (size_t)capacity * sizeof *rows);
        if (rows == NULL) return false;
        layout->rows = rows;
        layout->capacity = capacity;
    }
    struct layout_row *row = &layout->rows[layout->count++];
    *row = (struct layout_row){fill_in(line->original, original), fill_in(line->diffusers, diffusers), line->change};
    return row->original != NULL && row->diffusers != NULL;
}

static bool expand(struct layout *layout, const struct layout_table *table, const struct layout_size *size) {
    for (int i = 0; i < table->count; i++) {
        const struct layout_line *line = &table->lines[i];
        int original[LAYOUT_MAX_NUMBERS] = {0}, diffusers[LAYOUT_MAX_NUMBERS] = {0};
        if (line->set == NULL && !add_row(layout, line, original, diffusers)) return false;
        for (int k = 0; line->set != NULL && k < MAX_NUMBERS_PER_SET && line->set(size, k, original, diffusers); k++)
            if (original[0] >= 0 && !add_row(layout, line, original, diffusers)) return false;
    }
    return true;
}

static int compare_original(const void *a, const void *b) {
    const struct layout_row *const *x = a, *const *y = b;
    int order = strcmp((*x)->original, (*y)->original);
    return order != 0 ? order : strcmp((*x)->diffusers, (*y)->diffusers);
}

static int compare_diffusers(const void *a, const void *b) {
    const struct layout_row *const *x = a, *const *y = b;
    return strcmp((*x)->diffusers, (*y)->diffusers);
}

static bool sort_rows(struct layout *layout) {
    size_t count = (size_t)layout->count;
    layout->by_original = calloc(count + 1, sizeof *layout->by_original);
    layout->by_diffusers = calloc(count + 1, sizeof *layout->by_diffusers);
    if (layout->by_original == NULL || layout->by_diffusers == NULL) return false;
    for (size_t i = 0; i < count; i++) layout->by_original[i] = layout->by_diffusers[i] = &layout->rows[i];
    qsort(layout->by_original, count, sizeof *layout->by_original, compare_original);
    qsort(layout->by_diffusers, count, sizeof *layout->by_diffusers, compare_diffusers);
    return true;
}

static const struct layout_table *table_of(enum layout_kind kind) {
    const struct layout_table *const tables[LAYOUT_KIND_COUNT] = {
        [LAYOUT_SAME] = &layout_table_same,         [LAYOUT_UNET] = &layout_table_unet, [LAYOUT_VAE] = &layout_table_vae,
        [LAYOUT_OPENCLIP] = &layout_table_openclip, [LAYOUT_SDCPP] = &layout_table_sdcpp, [LAYOUT_T5] = &layout_table_t5, [LAYOUT_SD3] = &layout_table_sd3,   [LAYOUT_FLUX] = &layout_table_flux,
    };
    assert(kind < LAYOUT_KIND_COUNT);
    return tables[kind];
}

tessera_status layout_new(enum layout_kind kind, const struct json *config, struct layout **out, tessera_error *error) {
    *out = NULL;
    const struct layout_table *table = table_of(kind);
    struct layout_size size = {0};
    if (table->read_size != NULL) TRY(table->read_size(config, &size, error));
    struct layout *layout = calloc(1, sizeof *layout);
    if (layout == NULL || !expand(layout, table, &size) || !sort_rows(layout)) {
        layout_free(layout);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a table of tensor names");
    }
    *out = layout;
    return TESSERA_OK;
}

enum layout_kind layout_kind_of(const struct json *config) {
    static const struct {
        const char *class_name;
        enum layout_kind kind;
    } kinds[] = {{"UNet2DConditionModel", LAYOUT_UNET},
                 {"AutoencoderKL", LAYOUT_VAE},
                 {"SD3Transformer2DModel", LAYOUT_SD3},
                 {"FluxTransformer2DModel", LAYOUT_FLUX}};
    const char *class_name = NULL;
    if (json_string(config, "_class_name", "", &class_name, NULL) != TESSERA_OK) return LAYOUT_SAME;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(class_name, kinds[i].class_name) == 0) return kinds[i].kind;
    return LAYOUT_SAME;
}

void layout_free(struct layout *layout) {
    if (layout == NULL) return;
    for (int i = 0; i < layout->count; i++) {
        free(layout->rows[i].original);
        free(layout->rows[i].diffusers);
    }
    free(layout->rows);
    free(layout->by_original);
    free(layout->by_diffusers);
    free(layout);
}

static const char *row_name(const struct layout_row *row, bool original) {
    return original ? row->original : row->diffusers;
}

/* The first row whose name on the given side is exactly the first `length` characters of `name`; -1
 * if there is none. */
static int find_row(const struct layout *layout, bool original, const char *name, size_t length) {
    const struct layout_row **rows = original ? layout->by_original : layout->by_diffusers;
    int low = 0, high = layout->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const char *candidate = row_name(rows[middle], original);
        int order = strncmp(candidate, name, length);
        if (order < 0)
            low = middle + 1;
        else
            high = middle; /* equal so far and longer, or equal: the first of those lies here or before */
    }
    if (low == layout->count) return -1;
    const char *found = row_name(rows[low], original);
    return strlen(found) == length && strncmp(found, name, length) == 0 ? low : -1;
}

/* The rows of the longest match: the whole name, then ever shorter parts that end in '.', then the
 * empty name. */
static int find_longest(const struct layout *layout, bool original, const char *name, size_t *matched) {
    size_t length = strlen(name);
    for (;;) {
        int found = find_row(layout, original, name, length);
        *matched = length;
        if (found >= 0 || length == 0) return found;
        length--; /* the next shorter part that ends in '.' */
        while (length > 0 && name[length - 1] != '.') length--;
    }
}

/* The other side's name: the row's, and what follows the matched part of `name`. */
static bool make_match(const struct layout_row *row, bool original, const char *rest, struct layout_match *out) {
    out->change = row->change;
    int length = snprintf(out->name, sizeof out->name, "%s%s", row_name(row, !original), rest);
    return length >= 0 && (size_t)length < sizeof out->name;
}

bool layout_to_original(const struct layout *layout, const char *name, struct layout_match *out) {
    size_t matched;
    int found = find_longest(layout, false, name, &matched);
    return found >= 0 && make_match(layout->by_diffusers[found], false, name + matched, out);
}

int layout_to_diffusers(const struct layout *layout, const char *name, struct layout_match out[LAYOUT_MAX_MATCHES]) {
    size_t matched;
    int found = find_longest(layout, true, name, &matched), count = 0;
    for (int i = found; i >= 0 && i < layout->count && count < LAYOUT_MAX_MATCHES; i++) {
        if (strcmp(layout->by_original[i]->original, layout->by_original[found]->original) != 0) break;
        if (make_match(layout->by_original[i], true, name + matched, &out[count])) count++;
    }
    return count;
}

int layout_count(const struct layout *layout) {
    return layout->count;
}

const struct layout_row *layout_at(const struct layout *layout, int index) {
    return &layout->rows[index];
}
