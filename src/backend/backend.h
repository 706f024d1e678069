/* The operator table: what a device can compute, and its memory. A backend is one device and one
 * stream of it: what is asked of it happens in order, though not at once.
 *
 * Tensors hold addresses of their backend's memory. Unless the backend shares the host's, only
 * operators and the copies below may follow them; backend/memory.h has the host's views of tensors.
 *
 * Each backend fills in a struct backend_ops. Arguments are checked by asserts (models check shapes
 * when weights are loaded). Conventions, the same for every operator:
 *   - x and out hold activations: all F32 or all BF16 (`out` may differ from `x` only in `cast`);
 *   - weights of linear and conv2d have the activations' type, or one that `supports` says; biases, norm weights, modulations, masks and
 *     statistics are F32 always, and every sum, norm and softmax is computed in float32;
 *   - `out` never overlaps an input unless the comment says that it may;
 *   - shapes in brackets; B batch, S tokens, H rows, W columns, C channels, N heads, D head width.
 */
#ifndef TESSERA_BACKEND_BACKEND_H
#define TESSERA_BACKEND_BACKEND_H

#include "base/arena.h"
#include "tensor/tensor.h"
#include "tessera_model/layers.h" /* activations, norms and attention as models ask for them */

struct backend;

struct conv2d_geometry {
    int stride, pad_top, pad_bottom, pad_left, pad_right;
};

/* Operators that a backend may have with weights of other types than the activations'. */
enum backend_product { PRODUCT_LINEAR, PRODUCT_CONV2D };

struct backend_ops {
    /* Has it this product of activations of type `x` with weights of type `w`? Every backend has it
     * where both are the same; where it has not, nn/small_weights.h makes it of the other
     * operators. */
    bool (*supports)(const struct backend *, enum backend_product, enum dtype x, enum dtype w);
    /* out[..., O] = act(x[..., K] w[O, K]^T + bias[O]); bias may be NULL. */
    tessera_status (*linear)(struct backend *, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, enum activation act, tessera_error *);
    /* out[B, H', W', O] = conv(x[B, H, W, C], w[O, kh, kw, C]) + bias[O] (+ residual, same shape as
     * out, or NULL). */
    tessera_status (*conv2d)(struct backend *, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry, tessera_error *);
    /* Softmax(scale q k^T + bias, masked) v -> out[B, Sq, N, D]; if lse is given (F32 [B, N, Sq])
     * the log-sum-exp of each row's scores. */
    tessera_status (*attention)(struct backend *, struct tensor *out, struct tensor *lse, const struct attention_args *, tessera_error *);

    /* Attention over two sets of keys from that over each: sum F32 [B, Sq, N, D] and its
     * log-sum-exp lse F32 [B, N, Sq] take in `more` [B, Sq, N, D] and more_lse: sum = exp(lse - l)
     * sum + exp(more_lse - l) more, l = log(exp(lse) + exp(more_lse)); lse = l. */
    void (*merge_attention)(struct backend *, struct tensor *sum, struct tensor *lse, const struct tensor *more,
                            const struct tensor *more_lse);

    /* Over the last dimension of x[B, S, C] (or any shape if scale and shift are NULL):
     * out = norm(x) * weight + bias, then * (1 + scale[b, :]) + shift[b, :]. weight, bias [C];
     * scale, shift [B, C]; any of the four may be NULL. NORM_RMS divides by the root mean square
     * and subtracts no mean. out may be x. */
    void (*norm)(struct backend *, struct tensor *out, const struct tensor *x, enum norm_kind, const struct tensor *weight,
                 const struct tensor *bias, const struct tensor *scale, const struct tensor *shift, float eps);
    /* Sums for group normalisation, so that those of several ranks can be merged: stats F32 [B,
     * groups, 2] = mean and mean of squared distance from it (float64 inside), over rows, columns
     * and the group's channels of x[B, H, W, C]. */
    void (*group_stats)(struct backend *, struct tensor *stats, const struct tensor *x);
    /* out = act((x - mean) / sqrt(variance + eps) * weight[C] + bias[C]); out may be x. */
    void (*group_norm)(struct backend *, struct tensor *out, const struct tensor *x, const struct tensor *stats,
                       const struct tensor *weight, const struct tensor *bias, float eps, enum activation act);

    /* out = act(x); out may be x. */
    void (*activate)(struct backend *, struct tensor *out, const struct tensor *x, enum activation act);
    /* out = a + b, same shape; out may be a or b. */
    void (*add)(struct backend *, struct tensor *out, const struct tensor *a, const struct tensor *b);
    /* out = a - b, same shape; out may be a or b. */
    void (*subtract)(struct backend *, struct tensor *out, const struct tensor *a, const struct tensor *b);
    /* out F64 [2] = sum |a - b|, sum |b| over all elements: differences in float32, added up in float64 in the order of the
     * elements. */
    void (*distance)(struct backend *, struct tensor *out, const struct tensor *a, const struct tensor *b);
    /* out = act(a) * b, same shape; out may be a or b. */
    void (*multiply)(struct backend *, struct tensor *out, const struct tensor *a, const struct tensor *b, enum activation act);
    /* out[B, S, C] = residual + gate[B, C] * x; out may be residual. */
    void (*gated_add)(struct backend *, struct tensor *out, const struct tensor *residual, const struct tensor *x,
                      const struct tensor *gate);
    /* Rotary positions: each pair of neighbours (a, b) of x[B, S, N, D] becomes (a cos - b sin, b
     * cos + a sin) with the cos and sin of its own element, F32 [S, D]; out may be x. */
    void (*rotary)(struct backend *, struct tensor *out, const struct tensor *x, const struct tensor *cos, const struct tensor *sin);
    /* out[M, C] = table[V, C] row ids[m]; the table has any type that dtype_convert reads, out F32
     * or BF16, ids I32 [M]. */
    void (*embed)(struct backend *, struct tensor *out, const struct tensor *table, const struct tensor *ids);
    /* Nearest neighbour, twice each side, or one less (the last row or column left out): out[B, 2H
     * or 2H - 1, 2W or 2W - 1, C]. */
    void (*upsample)(struct backend *, struct tensor *out, const struct tensor *x);
    /* Element type conversion, from any type that dtype_convert reads. */
    void (*cast)(struct backend *, struct tensor *out, const struct tensor *x);
    /* For each b: copies `rows` rows of C elements, from row `from` of x[b] to row `to` of out[b];
     * x [B, Sx, C], out [B, So, C]. */
    void (*copy_rows)(struct backend *, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows);

    /* An arena of this backend's memory (limit as in arena_new), to be freed before the backend.
     * NULL and `error` on failure. */
    struct arena *(*arena)(struct backend *, size_t limit, tessera_error *);
    /* Memory, 64-byte aligned, not zeroed; NULL and a MEMORY error. Release it with the same size;
     * work on it that was asked for before is still done. */
    void *(*alloc)(struct backend *, size_t bytes, tessera_error *);
    void (*release)(struct backend *, void *memory, size_t bytes);
    /* From host memory, which may be changed at once. */
    tessera_status (*upload)(struct backend *, void *to, const void *host, size_t bytes, tessera_error *);
    /* To host memory, once all that was asked for before is done; returns its errors too. */
    tessera_status (*download)(struct backend *, void *host, const void *from, size_t bytes, tessera_error *);
    /* Within the backend's memory; the two may overlap. */
    void (*copy)(struct backend *, void *to, const void *from, size_t bytes);
    void (*zero)(struct backend *, void *to, size_t bytes);
    /* Waits until all that was asked for is done; the first error of it. */
    tessera_status (*synchronize)(struct backend *, tessera_error *);
};

/* Bytes that crossed between the host's memory and the backend's, that were copied within it, and
 * that came from another backend (run_move; they count as uploaded, too); and calls of operators
 * where a backend counts them (the fenced one does). */
struct backend_counts {
    uint64_t uploaded, downloaded, copied, moved, calls;
};

struct backend {
    const struct backend_ops *ops;
    struct device device;
    bool shares_host;  /* its memory is the host's: both may follow its addresses, and nothing runs late */
    bool reproducible; /* its operators give the same bits everywhere; elementary_of says which functions the host takes beside them */
    int threads;
    struct backend_counts counts;
    char kernel_path[64]; /* e.g. "onednn avx512_core_bf16 + amx", "reproducible avx2" */
    void (*free)(struct backend *);
};

enum cpu_kernels {
    CPU_KERNELS_BEST = TESSERA_KERNELS_BEST, /* oneDNN for products and convolutions, our own kernels for the rest */
    CPU_KERNELS_OWN = TESSERA_KERNELS_OWN,   /* our own kernels alone */
    CPU_KERNELS_REPRODUCIBLE = TESSERA_KERNELS_REPRODUCIBLE /* the same bits on every processor (docs/reproducible.md) */
};
/* "best", "own" or "reproducible"; false for another name. */
bool cpu_kernels_from_name(const char *name, enum cpu_kernels *out);

/* The CPU. Our own kernels are compiled for several instruction sets; this takes the best one that
 * the processor has, or the one that the environment variable TESSERA_ISA names: plain, avx2,
 * avx512, avx512bf16 or amx, for oneDNN too (which plain does without). threads 0:
 * threads_available(). Errors: ARGUMENT for an unknown name, UNSUPPORTED where the processor lacks
 * it. */
struct backend *cpu_backend_open(int threads, enum cpu_kernels kernels, tessera_error *error);
/* What libraries take beside arenas while such a backend computes, in bytes: threads' stacks, and
 * scratch and code of products. */
size_t cpu_library_bytes(void);
/* A device that models can be put on: what tessera_model_options.device points to. */
struct tessera_device {
    const char *name; /* for messages */
    struct backend *(*open)(int threads, tessera_error *error);
};
/* NULL: the CPU, with these kernels. ARGUMENT where there are no such kernels, or a device other
 * than the CPU is to be reproducible. */
struct backend *device_open(const struct tessera_device *device, tessera_kernels kernels, int threads, tessera_error *error);

/* The memory part of a table, for a backend whose memory is the host's. */
void backend_fill_host_memory(struct backend_ops *ops);
void backend_free(struct backend *backend);

#endif
