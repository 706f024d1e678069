/* One module of an adapter's file: the tensors that its keys name, the kind of change that they
 * make together, and the change itself.
 *
 *     kind   change of the weight W [O, I] or [O, I, kh, kw], times factor                                        source
 *     LoRA   B A                                                  (lora_merge.h)                                   Hu et al. 2021
 *     LoHa   (W1_A W1_B) * (W2_A W2_B), element by element        A [O, r], B [r, I]                               Hyeon-Woo et al. 2021
 *     LoKr   W1 (x) W2, Kronecker's product                       W1 [O1, I1], W2 [O2, I2], each whole or A B      LyCORIS (Yeh et al. 2023)
 *     diff   the difference itself
 *
 * W1 and W2 of convolutions may go through a middle T [r, r, kh, kw] (Tucker's decomposition); then
 * A is stored as [r, O]. factor is scale * alpha / r; where LoKr has both matrices whole, and for a
 * difference, it is the scale alone, as LyCORIS has it.
 *
 * DoRA (Liu et al. 2024) gives each output row (or, in older LyCORIS files, each input) of W +
 * change a length of its own: its magnitude. */
#ifndef TESSERA_CHECKPOINT_LORA_MODULE_H
#define TESSERA_CHECKPOINT_LORA_MODULE_H

#include "checkpoint/lora_key.h"
#include "nn/load.h"

enum lora_kind { LORA_KIND_LORA, LORA_KIND_LOHA, LORA_KIND_LOKR, LORA_KIND_DIFF };

struct lora_module {
    const char *name;                                       /* as struct lora_key has it */
    unsigned components;                                    /* that it may belong to */
    unsigned found;                                         /* those that have its weight */
    const struct safetensors_entry *tensors[LORA_ROLES];    /* NULL where absent */
    enum lora_kind kind;
    float factor; /* of the change */
    float scale;  /* the user's */
    int threads;  /* that merge it; at least 1 */
};

/* Is the tensor's type one that this role may have? An alpha may be any number, matrices F32, F16
 * or BF16. */
bool lora_role_is_readable(enum lora_role role, enum dtype dtype);

/* Finds the kind. FORMAT if tensors are missing or of two kinds. `file` stands for the file in
 * messages. */
tessera_status lora_module_complete(struct lora_module *module, const char *file, tessera_error *error);
/* Some tensor's entry, for messages and for its key. */
const struct safetensors_entry *lora_module_entry(const struct lora_module *module);
/* The rank that alpha is divided by; 0: the change has none. */
int64_t lora_module_rank(const struct lora_module *module);
/* The value of its alpha; `fallback` where it has none. */
double lora_module_alpha(const struct lora_module *module, double fallback);
/* Whether the whole weight must be known to change a piece of it. */
bool lora_module_needs_whole(const struct lora_module *module);

/* The rows of its change. */
int64_t lora_module_rows(const struct lora_module *module);
/* Has its change the form of a weight of `shape`, but with lora_module_rows rows? */
bool lora_module_fits(const struct lora_module *module, int ndim, const int64_t *shape);

/* The rank of a change that is factor B A of two matrices and no more; 0: it is something else. */
int64_t lora_module_low_rank(const struct lora_module *module);
/* Of such a one: these inputs of A as F32 [rank, inputs.count] in rows `stride` apart; these rows
 * of factor B as F32 [rows.count, rank]. */
void lora_module_read_down(const struct lora_module *module, struct span inputs, float *out, int64_t stride);
void lora_module_read_up(const struct lora_module *module, struct span rows, float *out);

/* Adds some rows (of its own) and some inputs of the change to `values`, [rows.count, inputs.count,
 * taps]; `shape` is the whole weight's, which the module must fit. MEMORY. A piece gets the bits
 * that it has in the whole. */
tessera_status lora_module_add(const struct lora_module *module, int ndim, const int64_t *shape, struct span rows, struct span inputs,
                               float *values, tessera_error *error);
/* DoRA: adds to `values` what the module makes of the whole weight `original` (both [rows.count, I
 * * taps]; `rows` of the module's own) less `original`. UNSUPPORTED where the magnitudes belong to
 * inputs and only some of the module's rows are here. */
tessera_status lora_module_add_decomposed(const struct lora_module *module, int ndim, const int64_t *shape, struct span rows,
                                          const float *original, float *values, tessera_error *error);

#endif
