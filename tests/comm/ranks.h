/* What the tests of this room share: a world for the whole program, numbers that differ from rank
 * to rank, and a verdict that all ranks agree on. Each test runs alone and under mpirun with
 * several numbers of ranks (tests/comm/mpi.cmake). */
#ifndef TESSERA_TESTS_COMM_RANKS_H
#define TESSERA_TESTS_COMM_RANKS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "check.h"
#include "comm/collectives.h"

#define CHECK_OK(call, error) CHECK((call) == TESSERA_OK, "%s", (error).message)

/* Numbers that look random and depend on `seed` alone. */
static inline void fill_bytes(uint8_t *bytes, size_t count, uint32_t seed) {
    uint32_t state = seed * 2654435761u + 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

/* As many wrong bytes as there are in what fill_bytes would have written. */
static inline size_t wrong_bytes(const uint8_t *bytes, size_t count, uint32_t seed) {
    size_t wrong = 0;
    uint32_t state = seed * 2654435761u + 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        wrong += bytes[i] != (uint8_t)(state >> 24);
    }
    return wrong;
}

/* `out` goes to the next member, and `in` comes from the one before. */
static inline tessera_status pass_round(struct comm *group, const void *out, size_t out_bytes, void *in, size_t in_bytes,
                                        tessera_error *error) {
    int size = comm_size(group), me = comm_rank(group);
    if (size == 1) memcpy(in, out, in_bytes);
    if (size == 1) return TESSERA_OK;
    struct comm_request *received = comm_receive_start(group, (me + size - 1) % size, in, in_bytes);
    struct comm_request *sent = comm_send_start(group, (me + 1) % size, out, out_bytes);
    tessera_status status = comm_wait(group, received, error), second = comm_wait(group, sent, status == TESSERA_OK ? error : NULL);
    return status == TESSERA_OK ? second : status;
}

/* The program's exit status: every rank fails if one did. Ends and frees the world. */
static inline int ranks_report(struct comm *world) {
    float failed = (float)check_failed;
    tessera_error error = {0};
    tessera_status status = comm_all_reduce(world, &failed, 1, COMM_F32, &error);
    if (status == TESSERA_OK) status = comm_finish(world, &error);
    if (status != TESSERA_OK) fprintf(stderr, "%s\n", error.message);
    int rank = comm_rank(world);
    comm_free(world);
    if (rank == 0) printf("%d passed, %d failed\n", check_passed, check_failed);
    return status == TESSERA_OK && failed == 0 ? 0 : 1;
}

#endif
