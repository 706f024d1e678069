/* Operators without sums: activation, addition, product, gating, rotation. Every operation rounds
 * once, but for the rotation's fmaf.
 *
 * Arrays are cut into chunks of ROW_CHUNK numbers. A chunk is read whole before it is written, so
 * `out` may be an input. */
#include "backend/cpu/reproducible/functions.h"
#include "backend/cpu/reproducible/operators.h"

struct elementwise {
    struct tensor *out;
    const struct tensor *a, *b;
    enum activation act;
    int64_t count, channels, per_batch, heads;
    const float *gate, *cosines, *sines;
};

static int64_t chunks_of(int64_t count) {
    return (count + ROW_CHUNK - 1) / ROW_CHUNK;
}

static void run_chunks(struct backend *backend, reproducible_work *work, struct elementwise operation) {
    assert(operation.a->dtype == operation.out->dtype && is_activation(operation.out));
    assert(tensor_count(operation.a) == operation.count && (operation.b == NULL || tensor_count(operation.b) == operation.count));
    reproducible_run(backend, reproducible_threads(backend, operation.count), chunks_of(operation.count), work, &operation);
}

static void activate_chunk(const void *operation, int64_t chunk, int thread) {
    const struct elementwise *o = operation;
    float row[ROW_CHUNK];
    int64_t at = chunk * ROW_CHUNK, n = min64(ROW_CHUNK, o->count - at);
    row_load(row, o->a->data, o->a->dtype, at, n);
    row_activate(row, n, o->act);
    row_store(o->out->data, o->out->dtype, at, row, n);
}

static void activate(struct backend *backend, struct tensor *out, const struct tensor *x, enum activation act) {
    run_chunks(backend, activate_chunk, (struct elementwise){.out = out, .a = x, .act = act, .count = tensor_count(out)});
}

static void add_chunk(const void *operation, int64_t chunk, int thread) {
    const struct elementwise *o = operation;
    float row[ROW_CHUNK], other[ROW_CHUNK];
    int64_t at = chunk * ROW_CHUNK, n = min64(ROW_CHUNK, o->count - at);
    row_load(row, o->a->data, o->a->dtype, at, n);
    row_load(other, o->b->data, o->b->dtype, at, n);
    for (int64_t i = 0; i < n; i++) row[i] += other[i];
    row_store(o->out->data, o->out->dtype, at, row, n);
}

static void add(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b) {
    run_chunks(backend, add_chunk, (struct elementwise){.out = out, .a = a, .b = b, .count = tensor_count(out)});
}

static void multiply_chunk(const void *operation, int64_t chunk, int thread) {
    const struct elementwise *o = operation;
    float row[ROW_CHUNK], other[ROW_CHUNK];
    int64_t at = chunk * ROW_CHUNK, n = min64(ROW_CHUNK, o->count - at);
    row_load(row, o->a->data, o->a->dtype, at, n);
    row_load(other, o->b->data, o->b->dtype, at, n);
    row_activate(row, n, o->act);
    for (int64_t i = 0; i < n; i++) row[i] *= other[i];
    row_store(o->out->data, o->out->dtype, at, row, n);
}

static void multiply(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b, enum activation act) {
    run_chunks(backend, multiply_chunk, (struct elementwise){.out = out, .a = a, .b = b, .act = act, .count = tensor_count(out)});
}

static void gate_row(const void *operation, int64_t r, int thread) {
    const struct elementwise *o = operation;
    const float *gate = o->gate + r / o->per_batch * o->channels;
    for (int64_t c = 0; c < o->channels; c += ROW_CHUNK) {
        float row[ROW_CHUNK], sum[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, o->channels - c), at = r * o->channels + c;
        row_load(sum, o->a->data, o->a->dtype, at, n);
        row_load(row, o->b->data, o->b->dtype, at, n);
        for (int64_t i = 0; i < n; i++) sum[i] += gate[c + i] * row[i];
        row_store(o->out->data, o->out->dtype, at, sum, n);
    }
}

static void gated_add(struct backend *backend, struct tensor *out, const struct tensor *residual, const struct tensor *x,
                      const struct tensor *gate) {
    int64_t channels = last_dim(out), count = tensor_count(out);
    if (count == 0) return;
    int64_t rows = count / channels;
    assert(tensor_count(residual) == count && tensor_count(x) == count && gate->dtype == DTYPE_F32 && last_dim(gate) == channels);
    assert(residual->dtype == out->dtype && x->dtype == out->dtype && rows % gate->shape[0] == 0 && is_activation(out));
    struct elementwise operation = {
        .out = out, .a = residual, .b = x, .gate = gate->data, .channels = channels, .per_batch = rows / gate->shape[0]};
    reproducible_run(backend, reproducible_threads(backend, count), rows, gate_row, &operation);
}

/* One head; ROW_CHUNK is even, so that no pair is cut. The second product rounds, the first one is
 * fused: GCC 12 makes fused additions and subtractions of such pairs even where contraction is off,
 * so the code asks for just that. */
static void rotate_row(const void *operation, int64_t r, int thread) {
    const struct elementwise *o = operation;
    int64_t angles = r / o->heads % o->per_batch * o->channels;
    for (int64_t c = 0; c < o->channels; c += ROW_CHUNK) {
        const float *cosines = o->cosines + angles + c, *sines = o->sines + angles + c;
        float row[ROW_CHUNK], turned[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, o->channels - c), at = r * o->channels + c;
        row_load(row, o->a->data, o->a->dtype, at, n);
        for (int64_t i = 0; i < n; i += 2) {
            turned[i] = fmaf(row[i], cosines[i], -(row[i + 1] * sines[i]));
            turned[i + 1] = fmaf(row[i + 1], cosines[i + 1], row[i] * sines[i + 1]);
        }
        row_store(o->out->data, o->out->dtype, at, turned, n);
    }
}

static void rotary(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *cos,
                   const struct tensor *sin) {
    int64_t tokens = x->shape[1], heads = x->shape[2], width = x->shape[3], rows = x->shape[0] * tokens * heads;
    assert(x->ndim == 4 && width % 2 == 0 && tensor_count(out) == tensor_count(x) && out->dtype == x->dtype && is_activation(x));
    assert(cos->dtype == DTYPE_F32 && sin->dtype == DTYPE_F32);
    assert(tensor_count(cos) == tokens * width && tensor_count(sin) == tokens * width);
    struct elementwise operation = {
        .out = out, .a = x, .channels = width, .per_batch = tokens, .heads = heads, .cosines = cos->data, .sines = sin->data};
    reproducible_run(backend, reproducible_threads(backend, rows * width), rows, rotate_row, &operation);
}

void KERNEL(reproducible_fill_elementwise)(struct backend_ops *ops) {
    ops->activate = activate;
    ops->add = add;
    ops->multiply = multiply;
    ops->gated_add = gated_add;
    ops->rotary = rotary;
}
