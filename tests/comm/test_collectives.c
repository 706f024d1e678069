/* Every collective against what it must give, with uneven and empty parts; the bytes of the
 * textbook's formulas; sums that are the same bits on all ranks. With a file name as argument, rank
 * 0 writes the sums there: runs with and without an injected delay must be equal. */
#include "ranks.h"

#include <math.h>
#include <string.h>
#include "comm/stats.h"

enum { LARGEST = 70000 };

static tessera_error error;

/* Lengths that differ, and are 0 for some. */
static size_t uneven(int a, int b) {
    return (size_t)((a * 7 + b * 13) % 5) * 4099;
}

static uint64_t bytes_sent(struct comm *world) {
    uint64_t bytes = comm_stats_read(world, NULL).bytes_sent;
    comm_stats_reset(world);
    return bytes;
}

static void test_all_gather(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    size_t bytes[64], total = 0;
    for (int i = 0; i < size; i++) total += bytes[i] = uneven(i, 1);
    uint8_t *mine = malloc(bytes[rank] + 1), *all = malloc(total + 1);
    fill_bytes(mine, bytes[rank], (uint32_t)rank);
    bytes_sent(world);
    CHECK_OK(comm_all_gather(world, mine, all, bytes, &error), error);
    CHECK(bytes_sent(world) == (uint64_t)(size - 1) * bytes[rank], "all_gather's bytes");
    size_t start = 0;
    for (int i = 0; i < size; start += bytes[i++]) CHECK(wrong_bytes(all + start, bytes[i], (uint32_t)i) == 0, "part %d", i);
    free(all);
    free(mine);
}

static void test_all_to_all(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    size_t out_bytes[64], in_bytes[64], out_total = 0, in_total = 0;
    for (int i = 0; i < size; i++) {
        out_total += out_bytes[i] = uneven(rank, i);
        in_total += in_bytes[i] = uneven(i, rank);
    }
    uint8_t *out = malloc(out_total + 1), *in = malloc(in_total + 1);
    size_t start = 0;
    for (int i = 0; i < size; start += out_bytes[i++]) fill_bytes(out + start, out_bytes[i], (uint32_t)(rank * 64 + i));
    bytes_sent(world);
    CHECK_OK(comm_all_to_all(world, out, out_bytes, in, in_bytes, &error), error);
    CHECK(bytes_sent(world) == out_total - out_bytes[rank], "all_to_all's bytes");
    start = 0;
    for (int i = 0; i < size; start += in_bytes[i++])
        CHECK(wrong_bytes(in + start, in_bytes[i], (uint32_t)(i * 64 + rank)) == 0, "part %d", i);
    free(in);
    free(out);
}

static float term(int rank, size_t i) {
    return sinf((float)(i * 3 + 1) * 0.37f + (float)rank) * ldexpf(1, rank % 5 * 3);
}

/* The sum in rank order, of slice i on one rank after the other. */
static void test_all_reduce(struct comm *world, size_t count) {
    int size = comm_size(world), rank = comm_rank(world);
    float *data = malloc((count + 1) * sizeof *data);
    double *doubles = malloc((count + 1) * sizeof *doubles);
    for (size_t i = 0; i < count; i++) doubles[i] = data[i] = term(rank, i);
    bytes_sent(world);
    CHECK_OK(comm_all_reduce(world, data, count, COMM_F32, &error), error);
    CHECK_OK(comm_all_reduce(world, doubles, count, COMM_F64, &error), error);
    size_t mine = count * (size_t)(rank + 1) / (size_t)size - count * (size_t)rank / (size_t)size;
    CHECK(bytes_sent(world) == (count - mine + (size_t)(size - 1) * mine) * 12, "all_reduce's bytes for %zu", count);
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        float sum = term(0, i);
        double sum64 = sum;
        for (int r = 1; r < size; r++) {
            sum += term(r, i);
            sum64 += term(r, i);
        }
        wrong += data[i] != sum || doubles[i] != sum64;
    }
    CHECK(wrong == 0, "%d of %zu sums differ from the sum in rank order", wrong, count);
    free(doubles);
    free(data);
}

/* Sums in float32, rounded once: 256 + 1 + ... + 1 would stay 256 if each sum were rounded. */
static void test_bf16(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    uint16_t data[3] = {rank == 0 ? 0x4380 : 0x3F80, 0x3F80, 0x7FC0}; /* 256 or 1; 1; a NaN */
    CHECK_OK(comm_all_reduce(world, data, 3, COMM_BF16, &error), error);
    float sum = (float)(255 + size), low = ldexpf(floorf(ldexpf(sum, -1)), 1), rounded = sum < 256 || sum == low ? sum : 0;
    if (rounded == 0) rounded = fmodf(low, 4) == 0 ? low : low + 2; /* odd: halfway, to the even significand */
    uint32_t wide = (uint32_t)data[0] << 16;
    float got;
    memcpy(&got, &wide, sizeof got);
    CHECK(got == rounded, "256 + %d ones is %g, not %g", size - 1, got, rounded);
    wide = (uint32_t)data[1] << 16;
    memcpy(&got, &wide, sizeof got);
    CHECK(got == (float)size, "%d ones are %g", size, got);
    CHECK((data[2] & 0x7FFF) > 0x7F80, "a NaN became %04x", data[2]);
}

static void test_broadcast(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    uint8_t *data = malloc(LARGEST);
    for (int root = 0; root < size; root++) {
        memset(data, 0, LARGEST);
        if (rank == root) fill_bytes(data, LARGEST, (uint32_t)root + 5);
        CHECK_OK(comm_broadcast(world, root, data, LARGEST, &error), error);
        CHECK(wrong_bytes(data, LARGEST, (uint32_t)root + 5) == 0, "from %d", root);
    }
    bytes_sent(world);
    CHECK_OK(comm_broadcast(world, 0, data, LARGEST, &error), error);
    float sent = (float)bytes_sent(world);
    CHECK_OK(comm_all_reduce(world, &sent, 1, COMM_F32, &error), error);
    CHECK(sent == (float)(size - 1) * LARGEST, "broadcast's bytes together");
    free(data);
}

/* Sums of sums through many operations: the bits that a delay must not change. */
static void write_sums(struct comm *world, const char *path) {
    enum { COUNT = 3001, ROUNDS = 8 };
    float *a = malloc(COUNT * sizeof *a), *b = malloc(COUNT * sizeof *b);
    for (size_t i = 0; i < COUNT; i++) b[i] = 1 + (a[i] = term(comm_rank(world), i));
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_OK(comm_all_reduce(world, a, COUNT, COMM_F32, &error), error);
        CHECK_OK(comm_all_reduce(world, b, COUNT, COMM_F32, &error), error);
        for (size_t i = 0; i < COUNT; i++) a[i] = a[i] * 0.3f + b[(i + (size_t)comm_rank(world)) % COUNT] * 1e-2f;
    }
    FILE *stream = comm_rank(world) == 0 ? fopen(path, "wb") : NULL;
    if (stream != NULL) {
        CHECK(fwrite(a, sizeof *a, COUNT, stream) == COUNT, "%s", path);
        fclose(stream);
    }
    free(b);
    free(a);
}

int main(int argc, char **argv) {
    struct comm *world = NULL;
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) return fprintf(stderr, "%s\n", error.message), 1;
    if (argc > 1) {
        write_sums(world, argv[1]);
        return ranks_report(world);
    }
    test_all_gather(world);
    test_all_to_all(world);
    const size_t counts[] = {0, 1, 3, 1023, 1024 * 8 + 5, LARGEST};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) test_all_reduce(world, counts[i]);
    test_bf16(world);
    test_broadcast(world);
    for (int i = 0; i < 20; i++) CHECK_OK(comm_barrier(world, &error), error);
    return ranks_report(world);
}
