/* See fenced.h. A call is its operator, its tensors and its numbers: one struct for all, so that
 * one queue, one check and one translation serve every operator. */
#include "fenced/fenced.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum operator{
    LINEAR,
    CONV2D,
    ATTENTION,
    MERGE_ATTENTION,
    NORM,
    GROUP_STATS,
    GROUP_NORM,
    ACTIVATE,
    ADD,
    SUBTRACT,
    DISTANCE,
    MULTIPLY,
    GATED_ADD,
    ROTARY,
    EMBED,
    UPSAMPLE,
    CAST,
    COPY_ROWS,
    UPLOAD,
    COPY,
    ZERO,
    RELEASE,
    OPERATORS
};

static const char *const names[OPERATORS] = {"linear",     "conv2d",   "attention", "merge_attention", "norm",     "group_stats",
                                             "group_norm", "activate", "add",       "subtract",        "distance", "multiply",
                                             "gated_add",  "rotary",   "embed",     "upsample",        "cast",     "copy_rows",
                                             "upload",     "copy",     "zero",      "release"};

enum { MOST_TENSORS = 8, DEFAULT_ARENA_GIB = 64 };

struct call {
    enum operator operator;
    int count; /* of tensors; a missing one has no data */
    struct tensor tensors[MOST_TENSORS];
    enum activation act;
    enum norm_kind norm;
    struct conv2d_geometry geometry;
    float eps, scale;
    bool causal;
    int64_t to_row, from_row, rows;
    /* moves of bytes: a tensor of U8 is the target, and the source where that is the device's */
    void *host; /* upload: a copy of what was given */
};

/* One allocation. */
struct memory {
    char *fence, *bytes;
    size_t size;
    bool live;
};

struct fenced {
    struct backend base;
    struct backend_ops ops;
    struct backend *cpu;
    bool deferred;
    struct memory *memory;
    size_t num_memory;
    struct call *queue;
    size_t queued, capacity;
    tessera_error error; /* the first of the operators' */
};

static struct fenced *fenced_of(struct backend *backend) {
    return (struct fenced *)backend;
}

/* ---- memory ---- */

static struct memory *memory_of(struct fenced *f, const void *address) {
    for (size_t i = f->num_memory; i > 0; i--) {
        struct memory *m = &f->memory[i - 1];
        if ((uintptr_t)address - (uintptr_t)m->fence < m->size) return m;
    }
    return NULL;
}

static void *map_pages(size_t size, int protection) {
    void *pages = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static void *fenced_alloc(struct backend *backend, size_t bytes, tessera_error *error) {
    enum { PAGE = 4096 };
    struct fenced *f = fenced_of(backend);
    struct memory m = {.size = (bytes / PAGE + 1) * PAGE, .live = true};
    struct memory *grown = realloc(f->memory, (f->num_memory + 1) * sizeof *grown);
    if (grown != NULL) f->memory = grown;
    m.fence = map_pages(m.size, PROT_NONE);
    m.bytes = map_pages(m.size, PROT_READ | PROT_WRITE);
    if (grown == NULL || m.fence == NULL || m.bytes == NULL) {
        if (m.fence != NULL) munmap(m.fence, m.size);
        if (m.bytes != NULL) munmap(m.bytes, m.size);
        error_set(error, TESSERA_ERROR_MEMORY, "the fenced backend has no memory for %zu bytes", bytes);
        return NULL;
    }
    f->memory[f->num_memory++] = m;
    return m.fence;
}

/* The addresses stay reserved, so that whoever follows one still meets the fence. */
static void release_memory(struct fenced *f, struct memory *m) {
    munmap(m->bytes, m->size);
    m->live = false;
}

void *fenced_peek(struct backend *backend, const void *address) {
    struct memory *m = memory_of(fenced_of(backend), address);
    return m != NULL && m->live ? m->bytes + ((const char *)address - m->fence) : NULL;
}

/* ---- running a call ---- */

/* The tensor as the CPU's operators take it; false with the backend's error if it is not in live
 * memory of this backend. */
static bool translate(struct fenced *f, const struct call *c, int index, struct tensor *t) {
    if (t->data == NULL) return true;
    struct memory *m = memory_of(f, t->data);
    size_t offset = m != NULL ? (size_t)((char *)t->data - m->fence) : 0;
    const char *what = m == NULL ? "is not in this backend's memory" : !m->live ? "is in released memory" : NULL;
    if (what == NULL && tensor_bytes(t) > m->size - offset) what = "reaches beyond its memory";
    if (what != NULL && f->error.status == TESSERA_OK)
        error_set(&f->error, TESSERA_ERROR_INTERNAL, "fenced backend: tensor %d of %s %s", index, names[c->operator], what);
    if (what != NULL) return false;
    t->data = m->bytes + offset;
    t->device = f->cpu->device;
    return true;
}

static const struct tensor *given(const struct call *c, int index) {
    return c->tensors[index].data != NULL ? &c->tensors[index] : NULL;
}

static tessera_status compute(struct fenced *f, struct call *c, tessera_error *error) {
    struct tensor *t = c->tensors;
    struct backend *cpu = f->cpu;
    const struct backend_ops *ops = cpu->ops;
    struct attention_args args = {
        .q = &t[2], .k = &t[3], .v = &t[4], .bias = given(c, 5), .mask = given(c, 6), .causal = c->causal, .scale = c->scale};
    switch (c->operator) {
    case LINEAR:
        return ops->linear(cpu, &t[0], &t[1], &t[2], given(c, 3), c->act, error);
    case CONV2D:
        return ops->conv2d(cpu, &t[0], &t[1], &t[2], given(c, 3), given(c, 4), c->geometry, error);
    case ATTENTION:
        return ops->attention(cpu, &t[0], t[1].data != NULL ? &t[1] : NULL, &args, error);
    case MERGE_ATTENTION:
        ops->merge_attention(cpu, &t[0], &t[1], &t[2], &t[3]);
        break;
    case NORM:
        ops->norm(cpu, &t[0], &t[1], c->norm, given(c, 2), given(c, 3), given(c, 4), given(c, 5), c->eps);
        break;
    case GROUP_STATS:
        ops->group_stats(cpu, &t[0], &t[1]);
        break;
    case GROUP_NORM:
        ops->group_norm(cpu, &t[0], &t[1], &t[2], &t[3], &t[4], c->eps, c->act);
        break;
    case ACTIVATE:
        ops->activate(cpu, &t[0], &t[1], c->act);
        break;
    case ADD:
        ops->add(cpu, &t[0], &t[1], &t[2]);
        break;
    case SUBTRACT:
        ops->subtract(cpu, &t[0], &t[1], &t[2]);
        break;
    case DISTANCE:
        ops->distance(cpu, &t[0], &t[1], &t[2]);
        break;
    case MULTIPLY:
        ops->multiply(cpu, &t[0], &t[1], &t[2], c->act);
        break;
    case GATED_ADD:
        ops->gated_add(cpu, &t[0], &t[1], &t[2], &t[3]);
        break;
    case ROTARY:
        ops->rotary(cpu, &t[0], &t[1], &t[2], &t[3]);
        break;
    case EMBED:
        ops->embed(cpu, &t[0], &t[1], &t[2]);
        break;
    case UPSAMPLE:
        ops->upsample(cpu, &t[0], &t[1]);
        break;
    case CAST:
        ops->cast(cpu, &t[0], &t[1]);
        break;
    case COPY_ROWS:
        ops->copy_rows(cpu, &t[0], c->to_row, &t[1], c->from_row, c->rows);
        break;
    case UPLOAD:
        memcpy(t[0].data, c->host, tensor_bytes(&t[0]));
        break;
    case COPY:
        memmove(t[0].data, t[1].data, tensor_bytes(&t[0]));
        break;
    case ZERO:
        memset(t[0].data, 0, tensor_bytes(&t[0]));
        break;
    default:
        assert(!"an operator of the list");
    }
    return TESSERA_OK;
}

/* After a failure nothing more is computed; what was kept for a call goes in any case. */
static void run_call(struct fenced *f, struct call *c) {
    if (c->operator== RELEASE) {
        struct memory *m = memory_of(f, c->tensors[0].data);
        assert(m != NULL && m->live && m->fence == c->tensors[0].data);
        release_memory(f, m);
        return;
    }
    bool right = f->error.status == TESSERA_OK;
    for (int i = 0; i < c->count && right; i++) right = translate(f, c, i, &c->tensors[i]);
    tessera_error error = {0};
    if (right && compute(f, c, &error) != TESSERA_OK) f->error = error;
    free(c->host);
}

static tessera_status fenced_synchronize(struct backend *backend, tessera_error *error) {
    struct fenced *f = fenced_of(backend);
    for (size_t i = 0; i < f->queued; i++) run_call(f, &f->queue[i]);
    f->queued = 0;
    if (f->error.status == TESSERA_OK) return TESSERA_OK;
    if (error != NULL) *error = f->error;
    tessera_status status = f->error.status;
    f->error = (tessera_error){0};
    return status;
}

/* Runs the call, or queues it. An operator that returns a status says what is known of it so far. */
static tessera_status ask(struct backend *backend, struct call c, tessera_error *error) {
    struct fenced *f = fenced_of(backend);
    if (c.operator<UPLOAD) backend->counts.calls++;
    if (f->deferred && f->queued == f->capacity) {
        size_t capacity = f->capacity > 0 ? 2 * f->capacity : 256;
        struct call *grown = realloc(f->queue, capacity * sizeof *grown);
        if (grown == NULL) fenced_synchronize(backend, &f->error); /* then there is room */
        if (grown != NULL) f->queue = grown, f->capacity = capacity;
    }
    if (f->deferred && f->queued < f->capacity) {
        f->queue[f->queued++] = c;
        return TESSERA_OK;
    }
    run_call(f, &c);
    if (f->error.status != TESSERA_OK && error != NULL) *error = f->error;
    return f->error.status;
}

/* ---- the table ---- */

static struct call call_of(enum operator operator, int count, const struct tensor *const *tensors) {
    struct call c = {.operator= operator, .count = count };
    assert(count <= MOST_TENSORS);
    for (int i = 0; i < count; i++)
        if (tensors[i] != NULL) c.tensors[i] = *tensors[i];
    return c;
}

/* CALL(ADD, out, a, b): the operator's tensors in order. */
#define CALL(operator, ...)                                                                                                                \
    call_of(operator, sizeof((const struct tensor *[]){__VA_ARGS__}) / sizeof(const struct tensor *),                                      \
            (const struct tensor *[]){__VA_ARGS__})

static tessera_status fenced_linear(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, enum activation act, tessera_error *error) {
    struct call c = CALL(LINEAR, out, x, w, bias);
    c.act = act;
    return ask(b, c, error);
}

static tessera_status fenced_conv2d(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry geometry,
                                    tessera_error *error) {
    struct call c = CALL(CONV2D, out, x, w, bias, residual);
    c.geometry = geometry;
    return ask(b, c, error);
}

static tessera_status fenced_attention(struct backend *b, struct tensor *out, struct tensor *lse, const struct attention_args *args,
                                       tessera_error *error) {
    struct call c = CALL(ATTENTION, out, lse, args->q, args->k, args->v, args->bias, args->mask);
    c.causal = args->causal, c.scale = args->scale;
    return ask(b, c, error);
}

static void fenced_merge_attention(struct backend *b, struct tensor *sum, struct tensor *lse, const struct tensor *more,
                                   const struct tensor *more_lse) {
    ask(b, CALL(MERGE_ATTENTION, sum, lse, more, more_lse), NULL);
}

static void fenced_norm(struct backend *b, struct tensor *out, const struct tensor *x, enum norm_kind kind, const struct tensor *weight,
                        const struct tensor *bias, const struct tensor *scale, const struct tensor *shift, float eps) {
    struct call c = CALL(NORM, out, x, weight, bias, scale, shift);
    c.norm = kind, c.eps = eps;
    ask(b, c, NULL);
}

static void fenced_group_stats(struct backend *b, struct tensor *stats, const struct tensor *x) {
    ask(b, CALL(GROUP_STATS, stats, x), NULL);
}

static void fenced_group_norm(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *stats,
                              const struct tensor *weight, const struct tensor *bias, float eps, enum activation act) {
    struct call c = CALL(GROUP_NORM, out, x, stats, weight, bias);
    c.eps = eps, c.act = act;
    ask(b, c, NULL);
}

static void fenced_activate(struct backend *b, struct tensor *out, const struct tensor *x, enum activation act) {
    struct call c = CALL(ACTIVATE, out, x);
    c.act = act;
    ask(b, c, NULL);
}

static void fenced_add(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *y) {
    ask(b, CALL(ADD, out, x, y), NULL);
}

static void fenced_multiply(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *y, enum activation act) {
    struct call c = CALL(MULTIPLY, out, x, y);
    c.act = act;
    ask(b, c, NULL);
}

static void fenced_gated_add(struct backend *b, struct tensor *out, const struct tensor *residual, const struct tensor *x,
                             const struct tensor *gate) {
    ask(b, CALL(GATED_ADD, out, residual, x, gate), NULL);
}

static void fenced_subtract(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *y) {
    ask(b, CALL(SUBTRACT, out, x, y), NULL);
}

static void fenced_distance(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *y) {
    ask(b, CALL(DISTANCE, out, x, y), NULL);
}

static bool fenced_supports(const struct backend *b, enum backend_product product, enum dtype x, enum dtype w) {
    const struct backend *cpu = ((const struct fenced *)b)->cpu;
    return cpu->ops->supports(cpu, product, x, w);
}

static void fenced_rotary(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *cos,
                          const struct tensor *sin) {
    ask(b, CALL(ROTARY, out, x, cos, sin), NULL);
}

static void fenced_embed(struct backend *b, struct tensor *out, const struct tensor *table, const struct tensor *ids) {
    ask(b, CALL(EMBED, out, table, ids), NULL);
}

static void fenced_upsample(struct backend *b, struct tensor *out, const struct tensor *x) {
    ask(b, CALL(UPSAMPLE, out, x), NULL);
}

static void fenced_cast(struct backend *b, struct tensor *out, const struct tensor *x) {
    ask(b, CALL(CAST, out, x), NULL);
}

static void fenced_copy_rows(struct backend *b, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows) {
    struct call c = CALL(COPY_ROWS, out, x);
    c.to_row = to, c.from_row = from, c.rows = rows;
    ask(b, c, NULL);
}

/* ---- the table's memory ---- */

static struct tensor bytes_at(const void *address, size_t bytes) {
    return tensor_of((void *)(uintptr_t)address, DTYPE_U8, SHAPE((int64_t)bytes));
}

static void fenced_release(struct backend *b, void *memory, size_t bytes) {
    if (memory == NULL) return;
    struct tensor t = bytes_at(memory, bytes);
    ask(b, CALL(RELEASE, &t), NULL);
}

static void release_arena(void *backend, void *memory, size_t limit) {
    fenced_release(backend, memory, limit);
}

static struct arena *fenced_arena(struct backend *b, size_t limit, tessera_error *error) {
    if (limit == 0) limit = (size_t)DEFAULT_ARENA_GIB << 30;
    void *memory = fenced_alloc(b, limit, error);
    if (memory == NULL) return NULL;
    struct arena *arena = arena_over(memory, limit, release_arena, b, error);
    if (arena == NULL) fenced_release(b, memory, limit);
    return arena;
}

static tessera_status fenced_upload(struct backend *b, void *to, const void *host, size_t bytes, tessera_error *error) {
    struct tensor t = bytes_at(to, bytes);
    struct call c = CALL(UPLOAD, &t);
    c.host = malloc(bytes > 0 ? bytes : 1);
    if (c.host == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory to upload %zu bytes", bytes);
    memcpy(c.host, host, bytes);
    return ask(b, c, error);
}

static tessera_status fenced_download(struct backend *b, void *host, const void *from, size_t bytes, tessera_error *error) {
    TRY(fenced_synchronize(b, error));
    const void *there = fenced_peek(b, from);
    if (there == NULL) return error_set(error, TESSERA_ERROR_INTERNAL, "fenced backend: a download from memory that is not its own");
    memcpy(host, there, bytes);
    return TESSERA_OK;
}

static void fenced_copy(struct backend *b, void *to, const void *from, size_t bytes) {
    struct tensor t = bytes_at(to, bytes), x = bytes_at(from, bytes);
    ask(b, CALL(COPY, &t, &x), NULL);
}

static void fenced_zero(struct backend *b, void *to, size_t bytes) {
    struct tensor t = bytes_at(to, bytes);
    ask(b, CALL(ZERO, &t), NULL);
}

/* ---- opening ---- */

static void fenced_free(struct backend *backend) {
    struct fenced *f = fenced_of(backend);
    for (size_t i = 0; i < f->queued; i++) run_call(f, &f->queue[i]);
    for (size_t i = 0; i < f->num_memory; i++) {
        if (f->memory[i].live) munmap(f->memory[i].bytes, f->memory[i].size);
        munmap(f->memory[i].fence, f->memory[i].size);
    }
    backend_free(f->cpu);
    free(f->memory);
    free(f->queue);
    free(f);
}

/* Every entry, so that a new one is not forgotten here: it is missing from this list, or the count
 * is wrong. */
static const struct backend_ops fenced_ops = {
    .linear = fenced_linear,
    .conv2d = fenced_conv2d,
    .attention = fenced_attention,
    .merge_attention = fenced_merge_attention,
    .norm = fenced_norm,
    .group_stats = fenced_group_stats,
    .group_norm = fenced_group_norm,
    .activate = fenced_activate,
    .supports = fenced_supports,
    .add = fenced_add,
    .subtract = fenced_subtract,
    .distance = fenced_distance,
    .multiply = fenced_multiply,
    .gated_add = fenced_gated_add,
    .rotary = fenced_rotary,
    .embed = fenced_embed,
    .upsample = fenced_upsample,
    .cast = fenced_cast,
    .copy_rows = fenced_copy_rows,
    .arena = fenced_arena,
    .alloc = fenced_alloc,
    .release = fenced_release,
    .upload = fenced_upload,
    .download = fenced_download,
    .copy = fenced_copy,
    .zero = fenced_zero,
    .synchronize = fenced_synchronize,
};
static_assert(sizeof(struct backend_ops) == 27 * sizeof(void *), "an entry of the table that the fenced backend does not know");

struct backend *fenced_backend_open(int threads, bool deferred, tessera_error *error) {
    struct fenced *f = calloc(1, sizeof *f);
    if (f == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "no memory for the fenced backend");
        return NULL;
    }
    f->cpu = cpu_backend_open(threads, CPU_KERNELS_BEST, error);
    if (f->cpu == NULL) {
        free(f);
        return NULL;
    }
    f->ops = fenced_ops;
    f->deferred = deferred;
    f->base = (struct backend){.ops = &f->ops, .device = {DEVICE_FENCED, 0}, .threads = f->cpu->threads, .free = fenced_free};
    snprintf(f->base.kernel_path, sizeof f->base.kernel_path, "fenced%s %.40s", deferred ? ", late," : "", f->cpu->kernel_path);
    return &f->base;
}

static struct backend *open_deferred(int threads, tessera_error *error) {
    return fenced_backend_open(threads, true, error);
}

const struct tessera_device fenced_device = {"fenced", open_deferred};
