/* The machine's own limits, measured now on the threads given: what a kernel's speed is a share of. */
#ifndef TESSERA_BENCH_MACHINE_PEAK_H
#define TESSERA_BENCH_MACHINE_PEAK_H

#include "tensor/tensor.h"

/* Operations per second (multiply and add counted apart) of register-only fused multiply-adds:
 * DTYPE_F32 with the widest vectors, DTYPE_BF16 with the machine's BF16 product instruction (AMX
 * tiles, else vdpbf16ps), or the F32 peak if it has none. */
double machine_peak_flops(enum dtype dtype, int threads);
/* Bytes read per second from memory by all processors of this process. */
double machine_peak_bandwidth(void);

#endif
