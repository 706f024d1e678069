/* The reproducible operators: every output is computed in one order, which docs/reproducible.md
 * pins down, so that all processors, numbers of threads and batches give the same bits.
 *
 * The files of this folder are compiled once per instruction set, like kernels_*.c, but without
 * contraction: where a multiplication and an addition round once, the code says fmaf. Vectors run
 * across outputs, never across the terms of a sum, so their width does not matter. */
#ifndef TESSERA_BACKEND_CPU_REPRODUCIBLE_OPERATORS_H
#define TESSERA_BACKEND_CPU_REPRODUCIBLE_OPERATORS_H

#include <omp.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/float_control.h"
#include "backend/cpu/rows.h"

#ifdef __FAST_MATH__
#error "reproducible arithmetic needs IEEE 754: compile without -ffast-math"
#endif

void KERNEL(reproducible_fill)(struct backend_ops *ops);
void KERNEL(reproducible_fill_attention)(struct backend_ops *ops);
void KERNEL(reproducible_fill_elementwise)(struct backend_ops *ops);
void KERNEL(reproducible_fill_norm)(struct backend_ops *ops);
void KERNEL(reproducible_fill_product)(struct backend_ops *ops);

enum { SMALL_COUNT = 8192 }; /* numbers that one thread computes alone */

/* One of an operator's items, which depend on nothing but the operator's inputs; `thread` counts
 * from 0. */
typedef void reproducible_work(const void *operation, int64_t item, int thread);

/* Runs all items. Each thread first checks that it rounds as IEEE 754 says: the backend remembers
 * if one does not. */
static inline void reproducible_run(struct backend *backend, int threads, int64_t items, reproducible_work *work, const void *operation) {
    int wrong = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : wrong)
    {
        wrong |= !float_control_is_ieee();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < items; i++) work(operation, i, omp_get_thread_num());
    }
    if (wrong) ((struct cpu_backend *)backend)->wrong_float_control = true;
}

/* INTERNAL once any thread was found to flush denormals or to round otherwise. */
static inline tessera_status reproducible_status(const struct backend *backend, tessera_error *error) {
    if (!((const struct cpu_backend *)backend)->wrong_float_control) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_INTERNAL,
                     "reproducible kernels: a thread flushes denormal numbers or does not round to nearest (MXCSR or FPCR); "
                     "something in this process, such as a library built with -ffast-math, changed it");
}

static inline int reproducible_threads(const struct backend *backend, int64_t count) {
    return count > SMALL_COUNT ? backend->threads : 1;
}

#endif
