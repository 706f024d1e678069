/* The CPU backend's inside: instruction set variants of the plain kernels, and the hook of oneDNN.
 *
 * A variant is a whole table of operators, compiled from the same sources for one instruction set. */
#ifndef TESSERA_BACKEND_CPU_CPU_H
#define TESSERA_BACKEND_CPU_CPU_H

#include "backend/backend.h"

enum cpu_variant {
    CPU_VARIANT_PLAIN, /* C for any processor of the architecture */
    CPU_VARIANT_AVX2,
    CPU_VARIANT_AVX512,
    CPU_VARIANT_AVX512_BF16,
    CPU_VARIANT_AMX,
    CPU_VARIANT_COUNT
};

struct onednn;

struct cpu_backend {
    struct backend base;      /* first, so that a struct backend * is one of these */
    struct backend_ops ops;   /* what base.ops points to */
    struct backend_ops plain; /* the chosen variant's own table: what oneDNN falls back on */
    struct onednn *onednn;    /* NULL without it */
    bool wrong_float_control; /* a thread was found that does not round as IEEE 754 says; reproducible operators fail from then on */
};

bool cpu_variant_supported(enum cpu_variant variant);
/* As TESSERA_ISA has it. */
const char *cpu_variant_name(enum cpu_variant variant);
/* As cpu_backend_open with a chosen variant; UNSUPPORTED if this processor lacks it. */
struct backend *cpu_backend_open_variant(int threads, enum cpu_kernels kernels, enum cpu_variant variant, tessera_error *error);

/* onednn.c: no instructions beyond this variant's, for the whole process, if nothing was computed
 * yet. */
void onednn_limit(enum cpu_variant variant);
/* Puts linear and conv2d into backend->ops, and fills backend->onednn. */
tessera_status onednn_open(struct cpu_backend *backend, tessera_error *error);
void onednn_close(struct onednn *onednn);
const char *onednn_isa_name(void);

#endif
