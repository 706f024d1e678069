/* Weights whose scales lie in tensors of their own, beside "X.weight":
 *
 *     float8         X.scale_weight or X.weight_scale: one number, or one for each row; x = q s (ComfyUI's scaled float8). X.scale_input, a
 *                    scale of activations for products in float8, is not needed: products are computed in a wider type.
 *     int8           X.SCB [out]: x = q s / 127 (bitsandbytes' LLM.int8, Dettmers et al. 2022); X.weight_format must be 0, "row"
 *     nf4            packed by twos; X.weight.absmax, a scale for each 64 numbers or more, itself float32 or quantised to 8 bits
 *                    (X.weight.nested_absmax, nested_quant_map); X.weight.quant_state.bitsandbytes__nf4, JSON with the shape and the
 *                    block sizes (Dettmers et al. 2023, QLoRA)
 *
 * They are read as blocks of 64 numbers that begin with their scale (DTYPE_..._SCALED, DTYPE_NF4),
 * so that whatever knows block formats knows them too. Where 64 numbers in a row of the file do not
 * share a scale, the weight is read as float32. Sources: bitsandbytes 0.50, functional.py
 * (QuantState) and backends/default/ops.py; ComfyUI, comfy/ops.py. */
#ifndef TESSERA_TENSOR_SCALED_WEIGHTS_H
#define TESSERA_TENSOR_SCALED_WEIGHTS_H

#include "tensor/weights.h"

struct scaled_weight {
    struct tensor tensor; /* as it is seen: shape; a block type, or F32; its data are not there, but not NULL */
    struct tensor stored; /* as it lies in the file; without data where a recipe makes it (weights.h): bring it before reading */
    bool packed;          /* nf4: two numbers in a byte, the first one high */
    float scale;          /* of the whole weight, where it has one */
    struct tensor scales; /* else: F32 [rows]; of nf4 absmax [blocks], F32 or U8 */
    int64_t numbers;      /* that share a scale */
    struct tensor nested_scales, nested_values; /* of U8 absmax: F32 [absmax' blocks], F32 [256] */
    int64_t nested_numbers;                     /* of absmax that share one of them */
    float offset;                               /* is added to each absmax */
};

/* Has the weight `name` such scales? Then *out describes it and lends their data. FORMAT or
 * UNSUPPORTED errors name the tensor: shapes that do not belong together, or a format that is not
 * read (fp4, other block sizes). */
tessera_status scaled_weight_find(const struct weights *weights, const char *name, bool *found, struct scaled_weight *out,
                                  tessera_error *error);
/* Numbers [first, first + count) in the type of ->tensor; of block types `first` and `count` are
 * multiples of 64. */
void scaled_weight_read(const struct scaled_weight *weight, int64_t first, int64_t count, void *to);

#endif
