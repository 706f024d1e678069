/* Following a recipe; see recipe.h. Each line is carried out as it is read; the tensors are sorted
 * into the file's order at the end. */
#include "recipes/recipe.h"

#include <math.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "recipes/draw.h"
#include "tensor/safetensors.h"

#define MAX_FILE ((size_t)64 << 20)

struct made_tensor {
    const char *name;
    struct tensor tensor; /* .data is malloc'ed */
    bool stored;
};

struct recipe {
    const char *path; /* of the safetensors file */
    const char *line; /* what is being carried out, for messages */
    const char *sha256, *metadata;
    enum dtype dtype;
    struct random_generator generator;
    struct safetensors *source;
    char *same; /* the file that this one is a copy of, instead of tensors; malloc'ed */
    struct made_tensor *tensors;
    int count;
    int *made;
    tessera_error *error;
};

static tessera_status wrong(const struct recipe *r, const char *what) {
    return error_set(r->error, TESSERA_ERROR_FORMAT, "%s.recipe: \"%s\": %s", r->path, r->line, what);
}

/* "16,4,3,3", or "-" for a single number */
static bool parse_shape(const char *text, struct tensor *t) {
    t->ndim = 0;
    if (strcmp(text, "-") == 0) return true;
    for (char *end;; text = end + 1) {
        if (t->ndim == TENSOR_MAX_DIMS) return false;
        t->shape[t->ndim++] = strtoll(text, &end, 10);
        if (end == text || (*end != ',' && *end != 0)) return false;
        if (*end == 0) return true;
    }
}

/* ------------------------------------------------------------------ the ways in which a tensor comes
 * about */

/* The square root of the numbers per row, or per column of a LoRA's upper matrix. */
static float root(const struct tensor *t, bool of_columns) {
    double numbers = of_columns ? (double)t->shape[1] : (double)tensor_count(t) / (double)t->shape[0];
    return (float)sqrt(numbers);
}

/* Makes weights of the generator's numbers, in place; false if there is no such kind. `bound` is
 * that of "within". */
static bool shape_numbers(const char *kind, float bound, const struct tensor *t, float *x, size_t count) {
    bool matrix = strcmp(kind, "matrix") == 0, up = strcmp(kind, "lora_up") == 0;
    float divisor = (matrix || up) && t->ndim >= 2 ? root(t, up) : 1;
    if ((matrix || up) && t->ndim < 2) return false;
    for (size_t i = 0; i < count; i++) {
        if (matrix)
            x[i] = x[i] / divisor;
        else if (up)
            x[i] = x[i] * 0.3f / divisor;
        else if (strcmp(kind, "bias") == 0)
            x[i] = 0.1f * x[i];
        else if (strcmp(kind, "gain") == 0)
            x[i] = 1 + 0.2f * x[i];
        else if (strcmp(kind, "faint") == 0)
            x[i] = 1e-3f * x[i];
        else if (strcmp(kind, "uniform") == 0)
            x[i] = x[i] * 2 - 1;
        else if (strcmp(kind, "within") == 0)
            x[i] = fmaf(x[i], 2 * bound, -bound);
        else if (strcmp(kind, "normal") != 0)
            return false;
    }
    return true;
}

/* Draws `kind`, "within BOUND", or "kind/N": the number that it is rounded to, divided by N. */
static tessera_status draw(struct recipe *r, struct tensor *t, char *kind) {
    size_t count = (size_t)tensor_count(t);
    char *slash = strchr(kind, '/'), *bound = strchr(kind, ' ');
    float *x = malloc(count * sizeof *x + 1);
    if (slash != NULL) *slash = 0;
    if (bound != NULL) *bound++ = 0;
    if (strcmp(kind, "uniform") == 0 || strcmp(kind, "within") == 0)
        draw_uniform(&r->generator, x, count);
    else
        draw_normal(&r->generator, x, count);
    bool known = dtype_is_float(t->dtype) && shape_numbers(kind, bound != NULL ? strtof(bound, NULL) : 0, t, x, count);
    if (known) dtype_convert(t->data, t->dtype, x, DTYPE_F32, count);
    if (known && slash != NULL) {
        float divisor = strtof(slash + 1, NULL);
        dtype_convert(x, DTYPE_F32, t->data, t->dtype, count);
        for (size_t i = 0; i < count; i++) x[i] /= divisor;
        dtype_convert(t->data, t->dtype, x, DTYPE_F32, count);
    }
    free(x);
    return known ? TESSERA_OK : wrong(r, "no such kind of numbers, or not of this shape or type");
}

/* The bytes of the source's tensors `names`, one after the other. */
static tessera_status copy(struct recipe *r, struct tensor *t, char *names) {
    size_t bytes = tensor_bytes(t), at = 0;
    char *state;
    for (char *name = strtok_r(names, " ", &state); name != NULL; name = strtok_r(NULL, " ", &state)) {
        const struct safetensors_entry *entry = r->source != NULL ? safetensors_find(r->source, name) : NULL;
        if (entry == NULL || at + tensor_bytes(&entry->tensor) > bytes) return wrong(r, "the source has no such tensor of this size");
        memcpy((char *)t->data + at, entry->tensor.data, tensor_bytes(&entry->tensor));
        at += tensor_bytes(&entry->tensor);
    }
    return at == bytes ? TESSERA_OK : wrong(r, "the source's tensors are smaller");
}

static tessera_status fill_ones(struct recipe *r, struct tensor *t) {
    static const float one = 1;
    if (!dtype_is_float(t->dtype)) return wrong(r, "no such kind of numbers, or not of this shape or type");
    for (int64_t i = 0; i < tensor_count(t); i++)
        dtype_convert((char *)t->data + (size_t)i * dtype_size(t->dtype), t->dtype, &one, DTYPE_F32, 1);
    return TESSERA_OK;
}

static void swap_halves(struct tensor *t) {
    size_t half = tensor_bytes(t) / 2;
    char *data = t->data, *first = malloc(half + 1);
    memcpy(first, data, half);
    memmove(data, data + half, half);
    memcpy(data + half, first, half);
    free(first);
}

/* ------------------------------------------------------------------ lines */

/* The path of a file that is named from this one; the caller frees it. */
static char *beside(const struct recipe *r, const char *name) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(r->path, '/') - r->path), r->path);
    return file_join(folder, name);
}

static tessera_status open_source(struct recipe *r, const char *name) {
    char *path = beside(r, name);
    safetensors_close(r->source);
    r->source = NULL;
    tessera_status status = recipe_make(path, r->made, r->error);
    if (status == TESSERA_OK) status = safetensors_open(path, &r->source, r->error);
    free(path);
    return status;
}

static tessera_status add_tensor(struct recipe *r, const char *name, const char *shape, char *how) {
    struct made_tensor *grown = realloc(r->tensors, (size_t)(r->count + 1) * sizeof *grown), *made = grown + r->count;
    if (grown == NULL) return error_set(r->error, TESSERA_ERROR_MEMORY, "%s: no memory", r->path);
    r->tensors = grown;
    *made = (struct made_tensor){.name = name, .tensor.dtype = r->dtype, .stored = strcmp(how, "stored") == 0};
    if (!parse_shape(shape, &made->tensor)) return wrong(r, "no such shape");
    if ((made->tensor.data = calloc(1, tensor_bytes(&made->tensor) + 1)) == NULL)
        return error_set(r->error, TESSERA_ERROR_MEMORY, "%s: no memory", r->path);
    r->count++;
    if (made->stored || strcmp(how, "zero") == 0) return TESSERA_OK;
    if (strcmp(how, "one") == 0) return fill_ones(r, &made->tensor);
    if (strncmp(how, "copy ", 5) == 0) return copy(r, &made->tensor, how + 5);
    if (strncmp(how, "swapped ", 8) != 0) return draw(r, &made->tensor, how);
    TRY(copy(r, &made->tensor, how + 8));
    swap_halves(&made->tensor);
    return TESSERA_OK;
}

/* A line is WORD VALUE or NAME SHAPE HOW; it is cut in place. */
static tessera_status follow_line(struct recipe *r, char *line) {
    char *second = strchr(line, ' ');
    if (second == NULL) return wrong(r, "not WORD VALUE or NAME SHAPE HOW");
    *second++ = 0;
    if (strcmp(line, "sha256") == 0) {
        r->sha256 = second;
    } else if (strcmp(line, "metadata") == 0) {
        r->metadata = second;
    } else if (strcmp(line, "seed") == 0) {
        draw_seed(&r->generator, strtoull(second, NULL, 10));
    } else if (strcmp(line, "skip") == 0) {
        size_t count = strtoull(second, NULL, 10);
        float *dropped = malloc(count * sizeof *dropped + 1);
        draw_normal(&r->generator, dropped, count);
        free(dropped);
    } else if (strcmp(line, "type") == 0) {
        if (!dtype_from_name(second, &r->dtype)) return wrong(r, "no such type");
    } else if (strcmp(line, "same") == 0) {
        free(r->same);
        r->same = beside(r, second);
    } else if (strcmp(line, "from") == 0) {
        return open_source(r, second);
    } else {
        char *how = strchr(second, ' ');
        if (how == NULL) return wrong(r, "says nothing of how the tensor is made");
        *how++ = 0;
        return add_tensor(r, line, second, how);
    }
    return TESSERA_OK;
}

/* Cuts `text` into lines and follows them; names stay in `text`. */
static tessera_status follow(struct recipe *r, char *text) {
    char *state, shown[160];
    for (char *line = strtok_r(text, "\n", &state); line != NULL; line = strtok_r(NULL, "\n", &state)) {
        snprintf(shown, sizeof shown, "%s", line);
        r->line = shown;
        TRY(follow_line(r, line));
    }
    r->line = "sha256";
    return r->sha256 != NULL ? TESSERA_OK : wrong(r, "is missing");
}

/* ------------------------------------------------------------------ the file */

/* The order of the safetensors library: wider types first, then names. */
static int by_type_and_name(const void *a, const void *b) {
    static const char order[][8] = {"BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64"};
    const struct made_tensor *x = a, *y = b;
    int places[2] = {0, 0};
    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++) {
        if (strcmp(order[i], dtype_name(x->tensor.dtype)) == 0) places[0] = i;
        if (strcmp(order[i], dtype_name(y->tensor.dtype)) == 0) places[1] = i;
    }
    return places[0] != places[1] ? places[1] - places[0] : strcmp(x->name, y->name);
}

/* Fills the tensors that were not drawn from FILE.stored, which has them in the file's order. */
static tessera_status fill_stored(struct recipe *r) {
    char path[4096], *data = NULL;
    size_t length = 0, at = 0;
    bool any = false;
    for (int i = 0; i < r->count; i++) any = any || r->tensors[i].stored;
    if (!any) return TESSERA_OK;
    snprintf(path, sizeof path, "%s.stored", r->path);
    TRY(file_read(path, MAX_FILE, &data, &length, r->error));
    for (int i = 0; i < r->count; i++) {
        size_t bytes = tensor_bytes(&r->tensors[i].tensor);
        if (!r->tensors[i].stored) continue;
        if (at + bytes <= length) memcpy(r->tensors[i].tensor.data, data + at, bytes);
        at += bytes;
    }
    free(data);
    return at == length ? TESSERA_OK : error_set(r->error, TESSERA_ERROR_FORMAT, "%s: %zu bytes, but the recipe asks for %zu", path, length, at);
}

/* The whole file, byte for byte as the safetensors library writes it: no spaces in its JSON. */
static void print_file(const struct recipe *r, FILE *out) {
    char *header = NULL;
    size_t length = 0, at = 0;
    FILE *json = open_memstream(&header, &length);
    fprintf(json, "{");
    if (r->metadata != NULL) fprintf(json, "\"__metadata__\":%s", r->metadata);
    for (int i = 0; i < r->count; i++) {
        const struct tensor *t = &r->tensors[i].tensor;
        fprintf(json, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i > 0 || r->metadata != NULL ? "," : "", r->tensors[i].name, dtype_name(t->dtype));
        for (int d = 0; d < t->ndim; d++) fprintf(json, "%s%lld", d > 0 ? "," : "", (long long)t->shape[d]);
        fprintf(json, "],\"data_offsets\":[%zu,%zu]}", at, at + tensor_bytes(t));
        at += tensor_bytes(t);
    }
    fputc('}', json);
    while (ftell(json) % 8 != 0) fputc(' ', json);
    fclose(json);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)length >> (8 * i) & 0xff), out);
    fwrite(header, 1, length, out);
    for (int i = 0; i < r->count; i++) fwrite(r->tensors[i].tensor.data, 1, tensor_bytes(&r->tensors[i].tensor), out);
    free(header);
}

static bool has_checksum(const char *data, size_t length, const char *expected) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char text[2 * SHA256_DIGEST_LENGTH + 1];
    SHA256((const uint8_t *)data, length, digest);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return strcmp(text, expected) == 0;
}

static tessera_status make_bytes(struct recipe *r, char **data, size_t *length) {
    if (r->same != NULL) return file_read(r->same, MAX_FILE, data, length, r->error);
    if (r->count > 0) qsort(r->tensors, (size_t)r->count, sizeof *r->tensors, by_type_and_name);
    TRY(fill_stored(r));
    FILE *memory = open_memstream(data, length);
    print_file(r, memory);
    fclose(memory);
    return TESSERA_OK;
}

static tessera_status write_file(struct recipe *r) {
    char *data = NULL;
    size_t length = 0;
    struct file_output output;
    TRY(make_bytes(r, &data, &length));
    tessera_status status = has_checksum(data, length, r->sha256) ? TESSERA_OK : wrong(r, "the file that was made has another checksum");
    if (status == TESSERA_OK) status = file_output_open(r->path, &output, r->error);
    if (status == TESSERA_OK) {
        fwrite(data, 1, length, output.stream);
        status = file_output_commit(&output, r->error);
    }
    free(data);
    return status;
}

/* Whether the file is there as the recipe's first line has it. */
static bool is_made(const char *path, const char *recipe) {
    char expected[2 * SHA256_DIGEST_LENGTH + 1] = "", *data = NULL;
    size_t length = 0;
    bool same = sscanf(recipe, "sha256 %64s", expected) == 1 && file_exists(path) && file_read(path, MAX_FILE, &data, &length, NULL) == TESSERA_OK &&
                has_checksum(data, length, expected);
    free(data);
    return same;
}

tessera_status recipe_make(const char *path, int *made, tessera_error *error) {
    struct recipe r = {.path = path, .dtype = DTYPE_F32, .made = made, .error = error};
    char name[4096], *text = NULL;
    size_t length = 0;
    snprintf(name, sizeof name, "%s.recipe", path);
    if (!file_exists(name) && file_exists(path)) return TESSERA_OK;
    TRY(file_read(name, MAX_FILE, &text, &length, error));
    if (is_made(path, text)) {
        free(text);
        return TESSERA_OK;
    }
    draw_seed(&r.generator, 0);
    tessera_status status = follow(&r, text);
    if (status == TESSERA_OK) status = write_file(&r);
    if (status == TESSERA_OK) ++*made;
    for (int i = 0; i < r.count; i++) free(r.tensors[i].tensor.data);
    free(r.tensors);
    free(r.same);
    safetensors_close(r.source);
    free(text);
    return status;
}
