/* Linear layers and convolutions through oneDNN (https://uxlfoundation.github.io/oneDNN, C
 * interface of version 2.6).
 *
 * Operands stay where and as they are stored: w[O, K] is a transposed matrix, pictures are nhwc,
 * w[O, kh, kw, C] is re-ordered per call into the layout that the convolution wants. A primitive is
 * made once per shape, element type and epilogue and kept in a bounded table. Where oneDNN has no
 * BF16 primitive (no AVX-512), operands are converted to F32; where it refuses altogether, the
 * plain kernel computes.
 *
 * Signals wait while it computes: its AVX2 products (jit_avx_gemm_f32, where K is above 128) make
 * their workspace the stack, and the frame of a signal that arrives meanwhile would be written over
 * the memory before that workspace. */
#include "backend/cpu/cpu.h"

#include <assert.h>
#include <dnnl.h>
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/address_limit.h"

#define PRIMITIVES 256 /* more shapes than one picture needs; the oldest is dropped */

/* Of a BF16 product that is computed in F32. Tiles of 8 MiB, and no fewer rows than amortise the
 * conversion of the other operand's; of a convolution's output channels whole blocks of its
 * layouts. */
enum { TILE_NUMBERS = 2 << 20, TILE_ROWS_MIN = 256, TILE_ROWS_MAX = 1024, SLICE_UNIT = 32 };
#define CONVERTED_KEPT ((size_t)32 << 20) /* bytes; what a large feature map needed is given back */

struct key {
    int64_t x[4], w[4], out[4];
    struct conv2d_geometry geometry;
    int32_t is_conv, dtype, act, has_bias, has_residual;
};

struct entry {
    struct key key;
    bool used;
    dnnl_primitive_t primitive; /* NULL: oneDNN has none */
    dnnl_primitive_t reorder;   /* of the weights, or NULL */
    dnnl_memory_desc_t x, w, stored_w, bias, out, scratchpad;
};

struct buffer {
    void *data;
    size_t bytes;
};

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct entry entries[PRIMITIVES];
    int next;
    struct buffer scratchpad, weights, converted;
    sigset_t *signals; /* [threads] the masks of OpenMP's threads while a product is computed */
};

/* One call's operands. */
struct call {
    struct key key;
    const void *x, *w, *bias;
    void *out;
};

const char *onednn_isa_name(void) {
    switch ((int)dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41:
        return "sse41";
    case dnnl_cpu_isa_avx:
        return "avx";
    case dnnl_cpu_isa_avx2:
        return "avx2";
    case dnnl_cpu_isa_avx2_vnni:
        return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core:
        return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni:
        return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
        return "avx512_core_amx";
    default:
        return "any";
    }
}

void onednn_limit(enum cpu_variant variant) {
    static const dnnl_cpu_isa_t most[CPU_VARIANT_COUNT] = {dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2, dnnl_cpu_isa_avx512_core,
                                                           dnnl_cpu_isa_avx512_core_bf16, dnnl_cpu_isa_avx512_core_amx};
    dnnl_set_max_cpu_isa(most[variant]);
}

static void buffer_clear(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}

static void *buffer_of(struct buffer *buffer, size_t bytes) {
    if (bytes <= buffer->bytes) return buffer->data;
    buffer_clear(buffer);
    buffer->bytes = (bytes + 63) / 64 * 64;
    buffer->data = aligned_alloc(64, buffer->bytes);
    if (buffer->data == NULL) buffer->bytes = 0;
    return buffer->data;
}

static void entry_clear(struct entry *entry) {
    if (entry->primitive != NULL) dnnl_primitive_destroy(entry->primitive);
    if (entry->reorder != NULL) dnnl_primitive_destroy(entry->reorder);
    memset(entry, 0, sizeof *entry);
}

static dnnl_data_type_t type_of(int32_t dtype) {
    switch (dtype) {
    case DTYPE_BF16:
        return dnnl_bf16;
    case DTYPE_F32:
        return dnnl_f32;
    default: /* no primitive is made; the plain kernel refuses it, too */
        return dnnl_data_type_undef;
    }
}

static bool append_activation(dnnl_post_ops_t ops, enum activation act) {
    switch (act) {
    case ACTIVATION_GELU:
        return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_gelu_erf, 0.0f, 0.0f) == dnnl_success;
    case ACTIVATION_GELU_TANH:
        return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_gelu_tanh, 0.0f, 0.0f) == dnnl_success;
    case ACTIVATION_QUICK_GELU:
        return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_swish, 1.702f, 0.0f) == dnnl_success;
    case ACTIVATION_SILU:
        return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_swish, 1.0f, 0.0f) == dnnl_success;
    case ACTIVATION_RELU:
        return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f) == dnnl_success;
    default:
        return true;
    }
}

/* The epilogue and a scratchpad that we lend. NULL on failure. */
static dnnl_primitive_attr_t attributes_new(const struct key *key) {
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t ops = NULL;
    if (dnnl_primitive_attr_create(&attributes) != dnnl_success) return NULL;
    bool good = dnnl_post_ops_create(&ops) == dnnl_success && append_activation(ops, key->act) &&
                (!key->has_residual || dnnl_post_ops_append_sum(ops, 1.0f) == dnnl_success) &&
                dnnl_primitive_attr_set_post_ops(attributes, ops) == dnnl_success &&
                dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ops != NULL) dnnl_post_ops_destroy(ops);
    if (good) return attributes;
    dnnl_primitive_attr_destroy(attributes);
    return NULL;
}

/* out[M, O] = x[M, K] w^T, w[O, K] seen as [K, O] with strides (1, K). */
static bool describe_linear(struct entry *e, dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attributes) {
    const struct key *key = &e->key;
    dnnl_data_type_t type = type_of(key->dtype);
    int64_t rows = key->x[0], depth = key->x[1], columns = key->w[0];
    dnnl_matmul_desc_t desc;
    bool good =
        dnnl_memory_desc_init_by_tag(&e->x, 2, (dnnl_dims_t){rows, depth}, type, dnnl_ab) == dnnl_success &&
        dnnl_memory_desc_init_by_strides(&e->stored_w, 2, (dnnl_dims_t){depth, columns}, type, (dnnl_dims_t){1, depth}) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&e->bias, 2, (dnnl_dims_t){1, columns}, dnnl_f32, dnnl_ab) == dnnl_success &&
        dnnl_memory_desc_init_by_tag(&e->out, 2, (dnnl_dims_t){rows, columns}, type, dnnl_ab) == dnnl_success;
    return good && dnnl_matmul_desc_init(&desc, &e->x, &e->stored_w, key->has_bias ? &e->bias : NULL, &e->out) == dnnl_success &&
           dnnl_primitive_desc_create(out, &desc, attributes, engine, NULL) == dnnl_success;
}

static bool describe_conv(struct entry *e, dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attributes) {
    const struct key *key = &e->key;
    const struct conv2d_geometry *g = &key->geometry;
    dnnl_data_type_t type = type_of(key->dtype);
    dnnl_dims_t x = {key->x[0], key->x[3], key->x[1], key->x[2]}, y = {key->out[0], key->out[3], key->out[1], key->out[2]};
    dnnl_dims_t w = {key->w[0], key->w[3], key->w[1], key->w[2]}, bias = {key->w[0]}, strides = {g->stride, g->stride};
    dnnl_dims_t before = {g->pad_top, g->pad_left}, after = {g->pad_bottom, g->pad_right};
    dnnl_memory_desc_t any;
    dnnl_convolution_desc_t desc;
    bool good = dnnl_memory_desc_init_by_tag(&e->x, 4, x, type, dnnl_nhwc) == dnnl_success &&
                dnnl_memory_desc_init_by_tag(&e->stored_w, 4, w, type, dnnl_ohwi) == dnnl_success &&
                dnnl_memory_desc_init_by_tag(&any, 4, w, type, dnnl_format_tag_any) == dnnl_success &&
                dnnl_memory_desc_init_by_tag(&e->bias, 1, bias, dnnl_f32, dnnl_a) == dnnl_success &&
                dnnl_memory_desc_init_by_tag(&e->out, 4, y, type, dnnl_nhwc) == dnnl_success;
    return good &&
           dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct, &e->x, &any,
                                              key->has_bias ? &e->bias : NULL, &e->out, strides, before, after) == dnnl_success &&
           dnnl_primitive_desc_create(out, &desc, attributes, engine, NULL) == dnnl_success;
}

static bool entry_make_reorder(struct entry *e, dnnl_engine_t engine) {
    dnnl_primitive_desc_t desc = NULL;
    if (dnnl_memory_desc_equal(&e->w, &e->stored_w)) return true;
    if (dnnl_reorder_primitive_desc_create(&desc, &e->stored_w, engine, &e->w, engine, NULL) != dnnl_success) return false;
    bool good = dnnl_primitive_create(&e->reorder, desc) == dnnl_success;
    dnnl_primitive_desc_destroy(desc);
    return good;
}

/* Fills entry->primitive, or leaves it NULL where oneDNN has none. */
static void entry_make(struct entry *e, dnnl_engine_t engine) {
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_attr_t attributes = attributes_new(&e->key);
    if (attributes == NULL) return;
    if (e->key.is_conv ? describe_conv(e, &desc, engine, attributes) : describe_linear(e, &desc, engine, attributes)) {
        e->w = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
        e->scratchpad = *dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
        if (!entry_make_reorder(e, engine) || dnnl_primitive_create(&e->primitive, desc) != dnnl_success) e->primitive = NULL;
        dnnl_primitive_desc_destroy(desc);
    }
    dnnl_primitive_attr_destroy(attributes);
}

static struct entry *entry_find(struct onednn *onednn, const struct key *key) {
    for (int i = 0; i < PRIMITIVES; i++)
        if (onednn->entries[i].used && memcmp(&onednn->entries[i].key, key, sizeof *key) == 0) return &onednn->entries[i];
    struct entry *entry = &onednn->entries[onednn->next];
    onednn->next = (onednn->next + 1) % PRIMITIVES;
    entry_clear(entry);
    entry->key = *key;
    entry->used = true;
    entry_make(entry, onednn->engine);
    return entry;
}

/* Runs a primitive on `count` arguments given as descriptor and pointer. */
static bool run(struct onednn *onednn, dnnl_primitive_t primitive, int count, const int *ids, const dnnl_memory_desc_t *const *descs,
                void *const *data) {
    dnnl_exec_arg_t args[6];
    int made = 0;
    bool good = true;
    for (; made < count; made++) {
        args[made].arg = ids[made];
        if (dnnl_memory_create(&args[made].memory, descs[made], onednn->engine, data[made]) != dnnl_success) break;
    }
    good = made == count && dnnl_primitive_execute(primitive, onednn->stream, count, args) == dnnl_success &&
           dnnl_stream_wait(onednn->stream) == dnnl_success;
    while (made > 0) dnnl_memory_destroy(args[--made].memory);
    return good;
}

/* False if oneDNN does not compute this. */
static bool call_run(struct onednn *onednn, const struct call *call) {
    struct entry *e = entry_find(onednn, &call->key);
    if (e->primitive == NULL) return false;
    void *w = (void *)(uintptr_t)call->w, *scratchpad = NULL;
    size_t scratchpad_bytes = dnnl_memory_desc_get_size(&e->scratchpad);
    if (scratchpad_bytes > 0 && (scratchpad = buffer_of(&onednn->scratchpad, scratchpad_bytes)) == NULL) return false;
    if (e->reorder != NULL) {
        void *ordered = buffer_of(&onednn->weights, dnnl_memory_desc_get_size(&e->w));
        if (ordered == NULL || !run(onednn, e->reorder, 2, (int[]){DNNL_ARG_FROM, DNNL_ARG_TO},
                                    (const dnnl_memory_desc_t *[]){&e->stored_w, &e->w}, (void *[]){w, ordered}))
            return false;
        w = ordered;
    }
    int ids[5] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST}, count = 3;
    const dnnl_memory_desc_t *descs[5] = {&e->x, &e->w, &e->out};
    void *data[5] = {(void *)(uintptr_t)call->x, w, call->out};
    if (call->bias != NULL) {
        ids[count] = DNNL_ARG_BIAS, descs[count] = &e->bias, data[count] = (void *)(uintptr_t)call->bias;
        count++;
    }
    if (scratchpad != NULL) {
        ids[count] = DNNL_ARG_SCRATCHPAD, descs[count] = &e->scratchpad, data[count] = scratchpad;
        count++;
    }
    return run(onednn, e->primitive, count, ids, descs, data);
}

/* ---- the same in F32, for processors without BF16 primitives ---- */

static void convert(struct cpu_backend *cpu, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t count) {
    struct tensor out = tensor_of(to, to_dtype, SHAPE(count)), x = tensor_of((void *)(uintptr_t)from, from_dtype, SHAPE(count));
    cpu->plain.cast(&cpu->base, &out, &x);
}

/* F32 memory for so many numbers of x, w and out; false where it is out. */
static bool converted_memory(struct onednn *onednn, int64_t x, int64_t w, int64_t out, float *rooms[3]) {
    size_t x_room = ((size_t)x + 15) / 16 * 16, w_room = ((size_t)w + 15) / 16 * 16;
    rooms[0] = buffer_of(&onednn->converted, (x_room + w_room + (size_t)out) * sizeof(float));
    rooms[1] = rooms[0] + x_room;
    rooms[2] = rooms[1] + w_room;
    return rooms[0] != NULL;
}

/* How many rows of `depth` numbers are converted at a time, of `count`. */
static int64_t tile_of(int64_t depth, int64_t count) {
    int64_t rows = TILE_NUMBERS / depth;
    rows = rows < TILE_ROWS_MIN ? TILE_ROWS_MIN : rows > TILE_ROWS_MAX ? TILE_ROWS_MAX : rows;
    return rows < count ? rows : count;
}

/* out[rows, columns] of a row of tiles goes to where it belongs among `stride` columns. */
static void store_tile(struct cpu_backend *cpu, uint16_t *to, int64_t stride, const float *from, int64_t rows, int64_t columns) {
    if (columns == stride) {
        convert(cpu, to, DTYPE_BF16, from, DTYPE_F32, rows * columns);
        return;
    }
#pragma omp parallel for num_threads(cpu->base.threads)
    for (int64_t r = 0; r < rows; r++) dtype_convert(to + r * stride, DTYPE_BF16, from + r * columns, DTYPE_F32, (size_t)columns);
}

static void load_tile(struct cpu_backend *cpu, float *to, const uint16_t *from, int64_t stride, int64_t rows, int64_t columns) {
    if (columns == stride) {
        convert(cpu, to, DTYPE_F32, from, DTYPE_BF16, rows * columns);
        return;
    }
#pragma omp parallel for num_threads(cpu->base.threads)
    for (int64_t r = 0; r < rows; r++) dtype_convert(to + r * columns, DTYPE_F32, from + r * stride, DTYPE_BF16, (size_t)columns);
}

/* Tile by tile, so that no more than TILE_NUMBERS (or TILE_ROWS_MIN rows) of x and of w are there
 * in F32 beside themselves. */
static bool linear_converted(struct cpu_backend *cpu, const struct call *call) {
    int64_t rows = call->key.x[0], depth = call->key.x[1], columns = call->key.w[0];
    int64_t high = tile_of(depth, rows), wide = tile_of(depth, columns);
    const uint16_t *x = call->x, *w = call->w;
    float *rooms[3];
    if (!converted_memory(cpu->onednn, high * depth, wide * depth, high * wide, rooms)) return false;
    struct call tile = *call;
    tile.key.dtype = DTYPE_F32;
    tile.x = rooms[0], tile.w = rooms[1], tile.out = rooms[2];
    for (int64_t r = 0; r < rows; r += high) {
        tile.key.x[0] = rows - r < high ? rows - r : high;
        convert(cpu, rooms[0], DTYPE_F32, x + r * depth, DTYPE_BF16, tile.key.x[0] * depth);
        for (int64_t c = 0; c < columns; c += wide) {
            tile.key.w[0] = columns - c < wide ? columns - c : wide;
            tile.bias = call->bias != NULL ? (const float *)call->bias + c : NULL;
            if (r == 0 || wide < columns) convert(cpu, rooms[1], DTYPE_F32, w + c * depth, DTYPE_BF16, tile.key.w[0] * depth);
            if (!call_run(cpu->onednn, &tile)) return false;
            store_tile(cpu, (uint16_t *)call->out + r * columns + c, columns, rooms[2], tile.key.x[0], tile.key.w[0]);
        }
    }
    return true;
}

/* As few equal slices of output channels as keep weights of `depth` numbers each within a tile. */
static int64_t slice_of(int64_t depth, int64_t channels) {
    int64_t most = TILE_NUMBERS / depth > SLICE_UNIT ? TILE_NUMBERS / depth : SLICE_UNIT, slices = (channels + most - 1) / most;
    int64_t units = (channels + slices * SLICE_UNIT - 1) / (slices * SLICE_UNIT);
    return units * SLICE_UNIT < channels ? units * SLICE_UNIT : channels;
}

/* Output channels slice by slice: large weights are in F32 TILE_NUMBERS at a time, the picture is
 * as a whole. */
static bool conv_converted(struct cpu_backend *cpu, const struct call *call) {
    const struct key *key = &call->key;
    int64_t numbers = key->x[0] * key->x[1] * key->x[2] * key->x[3], pixels = key->out[0] * key->out[1] * key->out[2];
    int64_t depth = key->w[1] * key->w[2] * key->w[3], channels = key->w[0], wide = slice_of(depth, channels);
    float *rooms[3];
    if (!converted_memory(cpu->onednn, numbers, wide * depth, pixels * wide, rooms)) return false;
    struct call slice = *call;
    bool good = true;
    slice.key.dtype = DTYPE_F32;
    slice.x = rooms[0], slice.w = rooms[1], slice.out = rooms[2];
    convert(cpu, rooms[0], DTYPE_F32, call->x, DTYPE_BF16, numbers);
    for (int64_t c = 0; c < channels && good; c += wide) {
        int64_t count = channels - c < wide ? channels - c : wide;
        slice.key.w[0] = slice.key.out[3] = count;
        slice.bias = call->bias != NULL ? (const float *)call->bias + c : NULL;
        convert(cpu, rooms[1], DTYPE_F32, (const uint16_t *)call->w + c * depth, DTYPE_BF16, count * depth);
        if (key->has_residual) load_tile(cpu, rooms[2], (const uint16_t *)call->out + c, channels, pixels, count);
        good = call_run(cpu->onednn, &slice);
        if (good) store_tile(cpu, (uint16_t *)call->out + c, channels, rooms[2], pixels, count);
    }
    if (cpu->onednn->converted.bytes > CONVERTED_KEPT) buffer_clear(&cpu->onednn->converted);
    return good;
}

/* Holds signals back in this thread and in those that OpenMP gives it, until release_signals:
 * before [threads] is what their masks were. Faults are not held back. */
static void hold_signals(int threads, sigset_t *before) {
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    int held_in = 1;
    sigset_t held;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&held, faults[i]);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        pthread_sigmask(SIG_BLOCK, &held, &before[omp_get_thread_num()]);
        if (omp_get_thread_num() == 0) held_in = omp_get_num_threads();
    }
    for (int i = held_in; i < threads; i++) before[i] = before[0]; /* threads that OpenMP may start later */
}

static void release_signals(int threads, const sigset_t *before) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    pthread_sigmask(SIG_SETMASK, &before[omp_get_thread_num()], NULL);
}

/* Within the backend's number of threads; oneDNN asks OpenMP for it when a primitive is made and
 * when it runs. */
static bool compute(struct cpu_backend *cpu, const struct call *call) {
    int threads = omp_get_max_threads();
    omp_set_num_threads(cpu->base.threads);
    hold_signals(cpu->base.threads, cpu->onednn->signals);
    bool good = call_run(cpu->onednn, call);
    if (!good && call->key.dtype == DTYPE_BF16) good = call->key.is_conv ? conv_converted(cpu, call) : linear_converted(cpu, call);
    release_signals(cpu->base.threads, cpu->onednn->signals);
    omp_set_num_threads(threads);
    return good;
}

/* What a product may take: a heap of each thread that it starts, beside that its code and its
 * workspaces. oneDNN's code generator ends the process by a signal where it gets no memory. */
#define HEAP_ADDRESSES ((size_t)64 << 20)

static tessera_status check_addresses(const struct cpu_backend *cpu, tessera_error *error) {
    return address_limit_check(HEAP_ADDRESSES * (size_t)cpu->base.threads, error);
}

static tessera_status linear(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, enum activation act, tessera_error *error) {
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    int64_t depth = x->shape[x->ndim - 1], columns = w->shape[0], rows = depth > 0 ? tensor_count(x) / depth : 0;
    assert(w->ndim == 2 && w->shape[1] == depth && out->shape[out->ndim - 1] == columns && tensor_count(out) == rows * columns);
    assert(out->dtype == x->dtype && w->dtype == x->dtype && (bias == NULL || bias->dtype == DTYPE_F32));
    struct call call;
    memset(&call, 0, sizeof call); /* keys are compared byte by byte */
    call.key.x[0] = rows, call.key.x[1] = depth, call.key.w[0] = columns;
    call.key.dtype = x->dtype, call.key.act = act, call.key.has_bias = bias != NULL;
    call.x = x->data, call.w = w->data, call.out = out->data, call.bias = bias == NULL ? NULL : bias->data;
    TRY(check_addresses(cpu, error));
    if (rows > 0 && columns > 0 && compute(cpu, &call)) return TESSERA_OK;
    return cpu->plain.linear(backend, out, x, w, bias, act, error);
}

static tessera_status conv2d(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry geometry,
                             tessera_error *error) {
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    assert(x->ndim == 4 && w->ndim == 4 && out->ndim == 4 && w->shape[3] == x->shape[3] && out->shape[3] == w->shape[0]);
    assert(out->dtype == x->dtype && w->dtype == x->dtype && (bias == NULL || bias->dtype == DTYPE_F32));
    assert(residual == NULL || (residual->dtype == out->dtype && tensor_count(residual) == tensor_count(out)));
    struct call call;
    memset(&call, 0, sizeof call);
    memcpy(call.key.x, x->shape, sizeof call.key.x);
    memcpy(call.key.w, w->shape, sizeof call.key.w);
    memcpy(call.key.out, out->shape, sizeof call.key.out);
    call.key.geometry = geometry, call.key.is_conv = true, call.key.dtype = x->dtype;
    call.key.has_bias = bias != NULL, call.key.has_residual = residual != NULL;
    call.x = x->data, call.w = w->data, call.out = out->data, call.bias = bias == NULL ? NULL : bias->data;
    TRY(check_addresses(cpu, error));
    if (residual != NULL) memcpy(out->data, residual->data, tensor_bytes(out));
    if (tensor_count(out) > 0 && compute(cpu, &call)) return TESSERA_OK;
    return cpu->plain.conv2d(backend, out, x, w, bias, residual, geometry, error);
}

tessera_status onednn_open(struct cpu_backend *backend, tessera_error *error) {
    struct onednn *onednn = calloc(1, sizeof *onednn);
    if (onednn == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for oneDNN's table of primitives");
    backend->onednn = onednn;
    onednn->signals = calloc((size_t)backend->base.threads, sizeof *onednn->signals);
    if (onednn->signals == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for %d threads' signals", backend->base.threads);
    if (dnnl_engine_create(&onednn->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags) != dnnl_success)
        return error_set(error, TESSERA_ERROR_INTERNAL, "oneDNN cannot open its CPU engine; use the plain kernels");
    backend->ops.linear = linear;
    backend->ops.conv2d = conv2d;
    return TESSERA_OK;
}

void onednn_close(struct onednn *onednn) {
    if (onednn == NULL) return;
    for (int i = 0; i < PRIMITIVES; i++) entry_clear(&onednn->entries[i]);
    if (onednn->stream != NULL) dnnl_stream_destroy(onednn->stream);
    if (onednn->engine != NULL) dnnl_engine_destroy(onednn->engine);
    buffer_clear(&onednn->scratchpad);
    buffer_clear(&onednn->weights);
    buffer_clear(&onednn->converted);
    free(onednn->signals);
    free(onednn);
}
