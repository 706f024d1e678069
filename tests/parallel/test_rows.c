/* Layers of convolutional models over a picture that is cut by rows, against the same layers over
 * the whole of it: convolutions of both strides and paddings, whose halos come from the neighbours,
 * and group norms; and the cuts themselves.
 *
 *     mpirun -n N test_rows */
#include <math.h>
#include <string.h>

#include "comm/ranks.h"
#include "nn/layers.h"
#include "parallel/strategy.h"

enum { BATCH = 2, COLUMNS = 7, CHANNELS = 6, OUTPUTS = 4, UNIT = 4, LEVELS = 3 };

static struct tensor random_tensor(struct run *run, int ndim, const int64_t *shape, uint32_t seed) {
    struct tensor t = run_tensor(run, DTYPE_F32, ndim, shape);
    uint32_t state = seed;
    for (int64_t i = 0; t.data != NULL && i < tensor_count(&t); i++) {
        state = state * 1664525u + 1013904223u;
        ((float *)t.data)[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    return t;
}

/* The whole picture [B, rows, W, C] of what this rank has of it, cut at the places of `cut`. */
static struct tensor whole_of(struct run *run, struct tensor part, const struct cut *cut) {
    if (run_failed(run)) return (struct tensor){0};
    CHECK(part.shape[1] * part.shape[2] == cut_count(cut, cut->me), "%d rows come out", (int)part.shape[1]);
    struct tensor positions = tensor_reshape(part, SHAPE(part.shape[0], part.shape[1] * part.shape[2], part.shape[3]));
    struct tensor all = exchange_gather(run, positions, cut);
    return nn_reshape(all, SHAPE(part.shape[0], cut->rows, cut->columns, part.shape[3]));
}

static void check_equal(const struct run *run, const char *what, int64_t rows, struct tensor got, struct tensor want) {
    double worst = 0;
    CHECK(!run_failed(run), "%s of %d rows: %s", what, (int)rows, run->error.message);
    if (run_failed(run)) return;
    CHECK(got.shape[1] == want.shape[1] && got.shape[2] == want.shape[2], "%s of %d rows: the size", what, (int)rows);
    for (int64_t i = 0; i < tensor_count(&want); i++) worst = fmax(worst, fabsf(((float *)got.data)[i] - ((float *)want.data)[i]));
    CHECK(worst < 2e-5, "%s of %d rows: %g off", what, (int)rows, worst);
}

/* A whole picture, this rank's rows of it, and a layer's weights. */
struct subject {
    struct run *run;
    struct parallel *parallel;
    const struct cut *cut;
    struct tensor whole, mine;
};

static void check_conv(struct subject *s, const char *what, int kernel, const struct conv2d_geometry *g) {
    struct run *run = s->run;
    struct conv layer = {.weight = random_tensor(run, SHAPE(OUTPUTS, kernel, kernel, CHANNELS), 5)};
    run->parallel = NULL;
    struct tensor want = g != NULL ? nn_conv_strided(run, &layer, s->whole, *g) : nn_conv(run, &layer, s->whole, NULL);
    run->parallel = s->parallel;
    struct tensor got = g != NULL ? nn_conv_strided(run, &layer, s->mine, *g) : nn_conv(run, &layer, s->mine, NULL);
    check_equal(run, what, s->cut->rows, whole_of(run, got, g != NULL ? s->cut->coarser : s->cut), want);
}

static void check_group_norm(struct subject *s) {
    struct run *run = s->run;
    struct norm layer = {.weight = random_tensor(run, SHAPE(CHANNELS), 6), .bias = random_tensor(run, SHAPE(CHANNELS), 7), .eps = 1e-5f};
    run->parallel = NULL;
    struct tensor want = nn_group_norm(run, &layer, 3, s->whole, ACTIVATION_SILU);
    run->parallel = s->parallel;
    struct tensor got = nn_group_norm(run, &layer, 3, s->mine, ACTIVATION_SILU);
    check_equal(run, "group norm", s->cut->rows, whole_of(run, got, s->cut), want);
}

/* All layers over a picture of `rows` rows. An even picture may be halved with padding below only,
 * as autoencoders do. */
static void test_layers(struct run *run, struct parallel *parallel, int64_t rows) {
    size_t scope = run_enter(run);
    const struct conv2d_geometry around = {2, 1, 1, 1, 1}, below = {2, 0, 1, 1, 1};
    run->parallel = parallel;
    struct subject s = {.run = run, .parallel = parallel, .cut = exchange_cut_rows(run, rows, COLUMNS, UNIT, LEVELS)};
    CHECK(!run_failed(run), "%s", run->error.message);
    if (s.cut == NULL) return;
    struct span mine = cut_mine(s.cut, rows * COLUMNS);
    struct tensor positions = random_tensor(run, SHAPE(BATCH, rows * COLUMNS, CHANNELS), (uint32_t)rows);
    s.whole = nn_reshape(positions, SHAPE(BATCH, rows, COLUMNS, CHANNELS));
    s.mine = nn_reshape(nn_slice_rows(run, positions, mine.first, mine.count), SHAPE(BATCH, mine.count / COLUMNS, COLUMNS, CHANNELS));
    check_conv(&s, "1x1", 1, NULL);
    check_conv(&s, "3x3", 3, NULL);
    if (rows % UNIT != 1) check_conv(&s, "5x5", 5, NULL); /* it reaches over two rows: no part may have just one */
    check_conv(&s, "halving", 3, &around);
    if (rows % 2 == 0) check_conv(&s, "halving, padded below", 3, &below);
    check_group_norm(&s);
    arena_release(run->arena, scope);
}

/* Parts begin at multiples of the unit, on each level at half the rows of the one before;
 * impossible cuts say what is possible. */
static void test_cuts(void) {
    tessera_error error = {0};
    const double shares[] = {0, 0.34, 0.34, 1}; /* of the ranks before; bounds are rounded to the nearest unit, and no part is empty */
    for (int i = 0; i <= 3; i++) {
        const int64_t bounds[] = {0, 3, 4, 10};
        CHECK(cut_bound(10, 3, i, shares) == bounds[i], "bound %d is %lld", i, (long long)cut_bound(10, 3, i, shares));
    }
    for (int64_t rows = 1; rows <= 70; rows++)
        for (int members = 1; members <= 9; members++) {
            struct cut *cut = NULL;
            tessera_status status = cut_rows(rows, COLUMNS, UNIT, LEVELS, members, 0, NULL, &cut, &error);
            if ((rows + UNIT - 1) / UNIT < members) {
                CHECK(status == TESSERA_ERROR_ARGUMENT && strstr(error.message, "at most") != NULL, "%s", error.message);
                continue;
            }
            int64_t unit = UNIT;
            for (const struct cut *level = cut; level != NULL; level = level->coarser, unit /= 2) {
                bool right = level->bounds[0] == 0 && level->bounds[members] == level->rows * level->columns;
                for (int i = 0; i < members; i++)
                    right = right && cut_count(level, i) > 0 &&
                            cut_first(level, i) == cut_first(cut, i) / COLUMNS / (UNIT / unit) * level->columns;
                CHECK(right && level->rows == (rows + UNIT / unit - 1) / (UNIT / unit), "%d rows over %d", (int)rows, members);
            }
            CHECK(unit == 0 && cut->coarser->finer == cut, "all levels");
            cut_free(cut);
        }
}

/* Unequal ranks, of which the first is as fast as all others together: positions and text of each
 * are in proportion, whether each has its part of the text or, where patches are displaced, all of
 * it. */
static void test_unequal(struct run *run, struct comm *world) {
    enum { POSITIONS = 400, TEXT = 35 };
    const int members = comm_size(world), me = comm_rank(world);
    double shares[members + 1];
    shares[0] = 0;
    for (int i = 1; i <= members; i++) shares[i] = 0.5 + 0.5 * (i - 1) / (members - 1);
    double share = shares[me + 1] - shares[me];
    for (int is_displaced = 0; is_displaced < 2; is_displaced++) {
        struct displaced displaced = {.group = world};
        struct parallel parallel = {.cut_group = world, .shares = shares, .text_tokens = TEXT};
        if (is_displaced) parallel_add(&parallel, &displaced_patches_strategy, world, &displaced);
        run->parallel = &parallel;
        const struct cut *cut = exchange_cut_tokens(run, POSITIONS, 1);
        double text = (double)exchange_text(run, run_tensor(run, DTYPE_F32, SHAPE(1, TEXT, 1))).shape[1];
        double wanted_text = is_displaced ? TEXT : share * TEXT;
        double wanted = is_displaced ? share * (POSITIONS + members * TEXT) - TEXT : share * POSITIONS;
        double got = cut != NULL ? (double)cut_count(cut, me) : 0;
        CHECK(fabs(text - wanted_text) <= 1, "%g of the text's tokens instead of %g, displaced %d", text, wanted_text, is_displaced);
        CHECK(fabs(got - wanted) <= 1, "%g positions instead of %g, displaced %d", got, wanted, is_displaced);
        int64_t few = exchange_text(run, run_tensor(run, DTYPE_F32, SHAPE(1, members - 1, 1))).shape[1];
        CHECK(few == members - 1, "a text of fewer tokens than ranks is cut to %d", (int)few);
        parallel_free(&parallel);
    }
    run->parallel = NULL;
}

int main(void) {
    tessera_error error = {0};
    struct comm *world = NULL;
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) return 1;
    struct run run = {.backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error),
                      .arena = arena_new(1 << 24, &error),
                      .dtype = DTYPE_F32,
                      .strip_bytes = 1 << 24};
    struct parallel parallel = {.cut_group = world};
    parallel_add(&parallel, &rows_strategy, world, NULL);
    const int members = comm_size(world);
    if (comm_rank(world) == 0) test_cuts();
    if (members > 1) test_unequal(&run, world);
    for (int64_t rows = UNIT * (members - 1) + 1; members > 1 && rows <= UNIT * members * 2; rows++) test_layers(&run, &parallel, rows);
    parallel_free(&parallel);
    backend_free(run.backend);
    arena_free(run.arena);
    return ranks_report(world);
}
