/* Parcels in a ring: each rank sends to the next one and receives from the one before, several on
 * their way at a time, expected early, late or not at all; every byte arrives as it was, the one
 * before lasts while the next one is read, and what is sent is the messages and nothing else.
 *
 *     mpirun -n N test_parcel */
#include <string.h>

#include "comm/ranks.h"
#include "comm/stats.h"
#include "parallel/parcel.h"

enum { PARCELS = 24, AHEAD = 4 };

/* Lengths that are multiples of the alignment, that are not, one byte, and nothing. */
static size_t length_of(int number) {
    static const size_t lengths[] = {4096, 140, 1, 0, 70000, 64};
    return lengths[number * number % 7 % (sizeof lengths / sizeof *lengths)];
}

static uint32_t seed_of(int rank, int number) {
    return (uint32_t)(rank * PARCELS + number + 1);
}

static void send(struct parcel_line *line, int rank, int number) {
    tessera_error error = {0};
    void *room = parcel_room(line, length_of(number), &error);
    CHECK(room != NULL && (uintptr_t)room % 64 == 0, "parcel %d: %s", number, error.message);
    if (room == NULL) return;
    fill_bytes(room, length_of(number), seed_of(rank, number));
    parcel_send(line);
}

static void check_parcel(const void *got, int from, int number) {
    CHECK((uintptr_t)got % 64 == 0, "parcel %d is not aligned", number);
    CHECK(wrong_bytes(got, length_of(number), seed_of(from, number)) == 0, "parcel %d has other bytes", number);
}

static void run_ring(struct comm *world) {
    int me = comm_rank(world), n = comm_size(world), from = (me - 1 + n) % n;
    struct parcel_line *out = parcel_line_open(world, (me + 1) % n, "out"), *in = parcel_line_open(world, from, "in");
    const void *parcels[2];
    tessera_error error = {0};
    CHECK(out != NULL && in != NULL, "memory");
    for (int i = 0; i < AHEAD; i++) send(out, me, i);
    for (int i = 0; i < PARCELS; i++) {
        if (i % 3 == 1) CHECK_OK(parcel_expect(in, length_of(i), &error), error);
        if (i % 6 == 1) CHECK_OK(parcel_expect(in, length_of(i), &error), error); /* twice is as once */
        CHECK_OK(parcel_receive(in, length_of(i), &parcels[i % 2], &error), error);
        if (i + AHEAD < PARCELS) send(out, me, i + AHEAD);
        check_parcel(parcels[i % 2], from, i);
        if (i > 0) check_parcel(parcels[(i + 1) % 2], from, i - 1);
        if (i + 1 < PARCELS && i % 3 == 2) CHECK_OK(parcel_expect(in, length_of(i + 1), &error), error);
    }
    parcel_line_close(in);
    parcel_line_close(out);
}

/* A line that is closed while a parcel is expected waits for it; one whose room was never sent
 * gives it back. */
static void run_left_over(struct comm *world) {
    int me = comm_rank(world), n = comm_size(world);
    struct parcel_line *out = parcel_line_open(world, (me + 1) % n, "out"), *in = parcel_line_open(world, (me - 1 + n) % n, "in");
    tessera_error error = {0};
    send(out, me, 1);
    CHECK_OK(parcel_expect(in, length_of(1), &error), error);
    CHECK(parcel_room(out, 1, &error) != NULL, "%s", error.message);
    parcel_line_close(out);
    parcel_line_close(in);
    parcel_line_close(NULL);
}

/* What is held goes when it is told to, the oldest first. */
static void run_held(struct comm *world) {
    int me = comm_rank(world), n = comm_size(world), from = (me - 1 + n) % n;
    struct parcel_line *out = parcel_line_open(world, (me + 1) % n, "out"), *in = parcel_line_open(world, from, "in");
    tessera_error error = {0};
    const void *got = NULL;
    for (int i = 0; i < AHEAD; i++) {
        void *room = parcel_room(out, length_of(i), &error);
        CHECK(room != NULL, "%s", error.message);
        if (room != NULL) fill_bytes(room, length_of(i), seed_of(me, i)), parcel_hold(out);
    }
    uint64_t before = comm_stats_read(world, "out").messages_sent;
    for (int i = 0; i < AHEAD; i++) parcel_send_held(out);
    parcel_send_held(out); /* of which there is none left */
    CHECK(comm_stats_read(world, "out").messages_sent - before == AHEAD, "what was held was sent before");
    for (int i = 0; i < AHEAD; i++) {
        CHECK_OK(parcel_receive(in, length_of(i), &got, &error), error);
        check_parcel(got, from, i);
    }
    parcel_line_close(in);
    parcel_line_close(out);
}

/* A line to oneself: parcels wait in their order, the one before lasts, nothing is counted, and
 * what was not taken is given back. */
static void run_own(struct comm *world) {
    int me = comm_rank(world);
    struct parcel_line *line = parcel_line_open(world, me, "own");
    const void *parcels[2];
    tessera_error error = {0};
    for (int i = 0; i < AHEAD; i++) send(line, me, i);
    for (int i = 0; i < PARCELS - AHEAD; i++) {
        CHECK_OK(parcel_expect(line, length_of(i), &error), error);
        CHECK_OK(parcel_receive(line, length_of(i), &parcels[i % 2], &error), error);
        send(line, me, i + AHEAD);
        check_parcel(parcels[i % 2], me, i);
        if (i > 0) check_parcel(parcels[(i + 1) % 2], me, i - 1);
    }
    CHECK(comm_stats_read(world, "own").bytes_sent == 0, "parcels to oneself are counted");
    parcel_line_close(line);
}

int main(void) {
    struct comm *world = NULL;
    tessera_error error = {0};
    uint64_t bytes = 0;
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (int i = 0; i < PARCELS; i++) bytes += length_of(i);
    if (comm_size(world) > 1) {
        run_ring(world);
        struct comm_stats_row row = comm_stats_read(world, "out");
        CHECK(row.messages_sent == PARCELS, "%llu messages, %d are right", (unsigned long long)row.messages_sent, PARCELS);
        CHECK(row.bytes_sent == bytes, "%llu bytes, %llu are right", (unsigned long long)row.bytes_sent, (unsigned long long)bytes);
        run_left_over(world);
        run_held(world);
    }
    run_own(world);
    return ranks_report(world);
}
