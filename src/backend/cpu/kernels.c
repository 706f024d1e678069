/* Gathers one instruction set's operators into the table. Compiled once per instruction set, like
 * all kernels_*.c. */
#include "backend/cpu/kernels.h"

void KERNEL(kernels_fill)(struct backend_ops *ops) {
    KERNEL(kernels_fill_attention)(ops);
    KERNEL(kernels_fill_elementwise)(ops);
    KERNEL(kernels_fill_norm)(ops);
    KERNEL(kernels_fill_product)(ops);
}
