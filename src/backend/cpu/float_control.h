/* How this thread's floating-point unit rounds: MXCSR on x86-64 (Intel's Software Developer's
 * Manual, volume 1, 10.2.3), FPCR on aarch64 (Arm Architecture Reference Manual, C5.2.8). */
#ifndef TESSERA_BACKEND_CPU_FLOAT_CONTROL_H
#define TESSERA_BACKEND_CPU_FLOAT_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* To nearest, ties to even, with gradual underflow. Elsewhere than on these two kinds of processor:
 * not known, and taken for true. */
static inline bool float_control_is_ieee(void) {
#if defined __SSE__
    const unsigned flush_to_zero = 1u << 15, denormals_are_zero = 1u << 6, rounding = 3u << 13;
    return (_mm_getcsr() & (flush_to_zero | denormals_are_zero | rounding)) == 0;
#elif defined __aarch64__
    const uint64_t flush_to_zero = 1u << 24, flush_inputs = 1u << 0, rounding = 3u << 22;
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (fpcr & (flush_to_zero | flush_inputs | rounding)) == 0;
#else
    return true;
#endif
}

#endif
