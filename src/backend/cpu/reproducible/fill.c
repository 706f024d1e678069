/* Gathers one instruction set's reproducible operators. What is not here only moves numbers (embed,
 * upsample, cast, copy_rows), or belongs to the ring, which reproducible runs refuse
 * (merge_attention): the table keeps the usual ones. */
#include "backend/cpu/reproducible/operators.h"

void KERNEL(reproducible_fill)(struct backend_ops *ops) {
    KERNEL(reproducible_fill_attention)(ops);
    KERNEL(reproducible_fill_elementwise)(ops);
    KERNEL(reproducible_fill_norm)(ops);
    KERNEL(reproducible_fill_product)(ops);
}
