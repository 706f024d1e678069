/* Parcels in a ring: each rank sends to the next one and receives from the one before, several on their way at a time, expected early,
 * late or not at all; every tensor arrives as it was, the one before lasts while the next one is read, and messages and bytes are as
 * parcel.h says.
 *
 *     mpirun -n N test_parcel */
#include <string.h>

#include "comm/ranks.h"
#include "comm/stats.h"
#include "parallel/parcel.h"

enum { KINDS = 3, PARCELS = 24, MOST_TENSORS = 3, ROOM = 4096, AHEAD = 4, SHAPES_BYTES = 1256 };

/* Shapes of each kind; a tensor without dimensions is empty. The second kind has an empty one between, the third one of no elements. */
static struct tensor shape_of(int kind, int i) {
    const struct tensor shapes[KINDS][MOST_TENSORS] = {
        {tensor_of(NULL, DTYPE_F32, SHAPE(1, 5, 7)), tensor_of(NULL, DTYPE_BF16, SHAPE(1, 3, 7)), {0}},
        {tensor_of(NULL, DTYPE_BF16, SHAPE(2, 16, 32)), {0}, tensor_of(NULL, DTYPE_F32, SHAPE(1))},
        {tensor_of(NULL, DTYPE_F32, SHAPE(2, 4, 2, 2, 8)), tensor_of(NULL, DTYPE_F32, SHAPE(1, 0, 8)), {0}}};
    return shapes[kind][i];
}

static int kind_of(int number) {
    return number * number % 7 % KINDS;
}

static bool is_skipped(int number) {
    return number % 5 == 3;
}

static uint32_t seed_of(int rank, int number, int i) {
    return (uint32_t)((rank * PARCELS + number) * MOST_TENSORS + i + 1);
}

/* Sends parcel `number`, and writes over what was sent at once. */
static void send(struct parcel_line *line, int rank, int number, uint8_t *room) {
    struct parcel parcel = {.skipped = is_skipped(number), .count = MOST_TENSORS};
    tessera_error error = {0};
    for (int i = 0; i < MOST_TENSORS; i++) {
        struct tensor *t = &parcel.tensors[i];
        *t = shape_of(kind_of(number), i);
        if (t->ndim == 0) continue;
        t->data = room + (size_t)i * ROOM;
        fill_bytes(t->data, tensor_bytes(t), seed_of(rank, number, i));
    }
    CHECK_OK(parcel_send(line, kind_of(number), &parcel, &error), error);
    memset(room, 0xA5, (size_t)MOST_TENSORS * ROOM);
}

static void check_parcel(const struct parcel *got, int from, int number) {
    CHECK(got->count == MOST_TENSORS && got->skipped == is_skipped(number), "parcel %d: %d tensors, skipped %d", number, got->count,
          got->skipped);
    for (int i = 0; i < MOST_TENSORS; i++) {
        const struct tensor *t = &got->tensors[i], want = shape_of(kind_of(number), i);
        CHECK((t->data != NULL) == (want.ndim > 0), "parcel %d: tensor %d is%s there", number, i, t->data != NULL ? "" : " not");
        if (t->data == NULL || want.ndim == 0) continue;
        bool same = t->dtype == want.dtype && t->ndim == want.ndim && tensor_bytes(t) == tensor_bytes(&want);
        for (int j = 0; same && j < t->ndim; j++) same = t->shape[j] == want.shape[j];
        CHECK(same, "parcel %d: tensor %d has another shape", number, i);
        CHECK((uintptr_t)t->data % 64 == 0, "parcel %d: tensor %d is not aligned", number, i);
        if (same)
            CHECK(wrong_bytes(t->data, tensor_bytes(t), seed_of(from, number, i)) == 0, "parcel %d: tensor %d has other bytes", number, i);
    }
}

/* Head, tensors one after another in multiples of 64 bytes, and, once for each kind, the shapes. */
static void count_wanted(uint64_t *messages, uint64_t *bytes) {
    bool known[KINDS] = {false};
    for (int number = 0; number < PARCELS; number++, ++*messages, *bytes += PARCEL_HEAD_BYTES) {
        int kind = kind_of(number);
        for (int i = 0; i < MOST_TENSORS; i++) {
            struct tensor t = shape_of(kind, i);
            if (t.ndim > 0) *bytes += (tensor_bytes(&t) + 63) / 64 * 64;
        }
        if (!known[kind]) ++*messages, *bytes += SHAPES_BYTES;
        known[kind] = true;
    }
}

static void run_ring(struct comm *world) {
    int me = comm_rank(world), n = comm_size(world), from = (me - 1 + n) % n;
    struct parcel_line *out = parcel_line_open(world, (me + 1) % n, KINDS, "out"), *in = parcel_line_open(world, from, KINDS, "in");
    uint8_t *room = malloc((size_t)MOST_TENSORS * ROOM);
    struct parcel parcels[2];
    tessera_error error = {0};
    CHECK(out != NULL && in != NULL && room != NULL, "memory");
    for (int i = 0; i < AHEAD; i++) send(out, me, i, room);
    for (int i = 0; i < PARCELS; i++) {
        if (i % 3 == 1) CHECK_OK(parcel_expect(in, kind_of(i), &error), error);
        if (i % 6 == 1) CHECK_OK(parcel_expect(in, kind_of(i), &error), error); /* twice is as once */
        CHECK_OK(parcel_receive(in, kind_of(i), &parcels[i % 2], &error), error);
        if (i + AHEAD < PARCELS) send(out, me, i + AHEAD, room);
        check_parcel(&parcels[i % 2], from, i);
        if (i > 0) check_parcel(&parcels[(i + 1) % 2], from, i - 1);
        if (i + 1 < PARCELS && i % 3 == 2) CHECK_OK(parcel_expect(in, kind_of(i + 1), &error), error);
    }
    parcel_line_close(in);
    parcel_line_close(out);
    free(room);
}

/* A line that is closed while a parcel is expected and none has come waits for it. */
static void run_left_over(struct comm *world) {
    int me = comm_rank(world), n = comm_size(world);
    struct parcel_line *out = parcel_line_open(world, (me + 1) % n, 1, "out"), *in = parcel_line_open(world, (me - 1 + n) % n, 1, "in");
    struct parcel parcel = {.count = 1, .tensors = {tensor_of(&me, DTYPE_I32, SHAPE(1))}}, got;
    tessera_error error = {0};
    CHECK_OK(parcel_expect(in, 0, &error), error); /* the shapes are not known: nothing is expected */
    for (int i = 0; i < 2; i++) CHECK_OK(parcel_send(out, 0, &parcel, &error), error);
    CHECK_OK(parcel_receive(in, 0, &got, &error), error);
    CHECK(*(const int *)got.tensors[0].data == (me - 1 + n) % n, "another rank's number");
    CHECK_OK(parcel_expect(in, 0, &error), error);
    parcel_line_close(out);
    parcel_line_close(in);
    parcel_line_close(NULL);
}

int main(void) {
    struct comm *world = NULL;
    tessera_error error = {0};
    uint64_t messages = 0, bytes = 0;
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (comm_size(world) > 1) {
        run_ring(world);
        count_wanted(&messages, &bytes);
        struct comm_stats_row row = comm_stats_read(world, "out");
        CHECK(row.messages_sent == messages, "%llu messages, %llu are right", (unsigned long long)row.messages_sent,
              (unsigned long long)messages);
        CHECK(row.bytes_sent == bytes, "%llu bytes, %llu are right", (unsigned long long)row.bytes_sent, (unsigned long long)bytes);
        run_left_over(world);
    }
    return ranks_report(world);
}
