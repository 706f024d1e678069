/* See map_modules.h. The model's own code lists its tensors, segment by segment
 * (load_hooks.record). */
#include "pipelines/map_modules.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/source.h"

/* ---- the list ---- */

/* A component whose tensors are being listed. */
struct listing {
    struct map_modules *modules;
    const char *component;
    int unit; /* -1: nothing is listed */
    bool failed;
};

static bool grow(struct map_modules *m) {
    if (m->count < m->capacity) return true;
    int capacity = m->capacity > 0 ? 2 * m->capacity : 1024;
    struct map_tensor *tensors = realloc(m->tensors, (size_t)capacity * sizeof *tensors);
    if (tensors == NULL) return false;
    m->tensors = tensors;
    m->capacity = capacity;
    return true;
}

static void record(void *user, const char *name, int ndim, const int64_t *shape) {
    struct listing *l = user;
    (void)ndim, (void)shape;
    if (l->unit < 0 || l->failed) return;
    struct map_modules *m = l->modules;
    char *full = NULL;
    l->failed = !grow(m) || asprintf(&full, "%s.%s", l->component, name) < 0;
    if (!l->failed) m->tensors[m->count++] = (struct map_tensor){full, l->unit};
}

/* The unit of a component's segment. */
static int unit_of(const struct map_modules *m, const struct component *c, int encoder, int segment) {
    if (c->denoiser == NULL) return c->autoencoder != NULL ? map_unit_autoencoder(m) : encoder;
    return segment == COMPONENT_EMBED ? map_unit_embed(m) : segment == c->num_blocks ? map_unit_finish(m) : map_unit_block(m, segment);
}

static tessera_status list_component(struct map_modules *m, const struct pipeline *p, const struct pipeline_slot *slot, int encoder,
                                     tessera_error *error) {
    struct listing listing = {.modules = m, .component = slot->name, .unit = -1};
    const struct load_hooks hooks = {.user = &listing, .record = record};
    struct component c;
    TRY(source_describe_with(p, slot, &hooks, &c, error));
    tessera_status status = TESSERA_OK;
    if (c.denoiser != NULL) m->num_blocks = c.num_blocks;
    for (int segment = COMPONENT_EMBED; segment <= c.num_blocks && status == TESSERA_OK; segment++) {
        listing.unit = unit_of(m, &c, encoder, segment);
        status = component_load_block(&c, segment, error);
        listing.unit = -1;
    }
    component_close(&c);
    if (listing.failed) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the names of modules");
    return status;
}

static int by_name(const void *a, const void *b) {
    const struct map_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The denoiser comes last, because its units follow the others'. */
tessera_status map_modules_open(const struct pipeline *p, struct map_modules *out, tessera_error *error) {
    const struct pipeline_slot *denoiser, *autoencoder;
    *out = (struct map_modules){.pipeline = p, .denoiser = p->denoiser, .autoencoder = p->autoencoder};
    TRY(pipeline_need_slot(p, p->denoiser, &denoiser, error));
    TRY(pipeline_need_slot(p, p->autoencoder, &autoencoder, error));
    for (int i = 0; i < p->num_slots; i++)
        if (&p->slots[i] != denoiser && &p->slots[i] != autoencoder) out->encoders[out->num_encoders++] = p->slots[i].name;
    for (int i = 0; i < out->num_encoders; i++)
        TRY(list_component(out, p, &p->slots[pipeline_slot_index(p, out->encoders[i])], i, error));
    TRY(list_component(out, p, autoencoder, 0, error));
    TRY(list_component(out, p, denoiser, 0, error));
    if (out->count > 0) qsort(out->tensors, (size_t)out->count, sizeof *out->tensors, by_name);
    return TESSERA_OK;
}

void map_modules_free(struct map_modules *m) {
    for (int i = 0; i < m->count; i++) free(m->tensors[i].name);
    free(m->tensors);
    *m = (struct map_modules){0};
}

/* ---- names ---- */

/* Is the tensor one of the module that the first `length` bytes of `module` name? */
static bool is_in(const char *tensor, const char *module, size_t length) {
    return strncmp(tensor, module, length) == 0 && (tensor[length] == '.' || tensor[length] == 0);
}

/* Does the module that the first so many bytes of a tensor's name tell hold tensors of other units?
 */
static bool is_shared(const struct map_modules *m, const struct map_tensor *of, size_t length) {
    for (int i = 0; i < m->count; i++)
        if (m->tensors[i].unit != of->unit && is_in(m->tensors[i].name, of->name, length)) return true;
    return false;
}

const char *map_module_name(const struct map_modules *m, int unit, char *out, size_t capacity) {
    out[0] = 0;
    for (int i = 0; i < m->count; i++) {
        if (m->tensors[i].unit != unit) continue;
        const char *name = m->tensors[i].name;
        size_t length = strcspn(name, ".");
        while (name[length] != 0 && is_shared(m, &m->tensors[i], length)) length += 1 + strcspn(name + length + 1, ".");
        snprintf(out, capacity, "%.*s", (int)length, name);
        break;
    }
    return out;
}

/* ---- a map as a text ---- */

struct writing {
    const struct map_modules *m;
    const int *ranks;
    FILE *stream;
    bool begun;
};

/* Tensors first .. end - 1 have their first `length` bytes in common, which name a module: it, or
 * where its ranks differ what is in it. */
static void write_module(struct writing *w, int first, int end, size_t length) {
    const char *name = w->m->tensors[first].name;
    int rank = w->ranks[w->m->tensors[first].unit];
    bool same = true;
    for (int i = first; i < end; i++) same = same && w->ranks[w->m->tensors[i].unit] == rank;
    if (same) {
        fprintf(w->stream, "%s\n  \"%.*s\": %d", w->begun ? "," : "{", (int)length, name, rank);
        w->begun = true;
        return;
    }
    while (first < end) {
        const char *at = w->m->tensors[first].name;
        size_t more = length > 0 ? length + 1 : 0;
        size_t inner = more + strcspn(at + more, ".");
        int next = first + 1;
        while (next < end && is_in(w->m->tensors[next].name, at, inner)) next++;
        write_module(w, first, next, inner);
        first = next;
    }
}

char *map_modules_json(const struct map_modules *m, const int *ranks) {
    char *text = NULL;
    size_t bytes = 0;
    struct writing w = {.m = m, .ranks = ranks, .stream = open_memstream(&text, &bytes)};
    if (w.stream == NULL) return NULL;
    if (m->count > 0) write_module(&w, 0, m->count, 0);
    fputs("\n}\n", w.stream);
    if (fclose(w.stream) == 0) return text;
    free(text);
    return NULL;
}
