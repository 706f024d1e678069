/* Whole numbers of up to 8 bytes in messages and files, the lowest byte first. */
#ifndef TESSERA_BASE_LITTLE_ENDIAN_H
#define TESSERA_BASE_LITTLE_ENDIAN_H

#include <stdint.h>

static inline void little_endian_put(uint8_t *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t little_endian_get(const uint8_t *from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

#endif
