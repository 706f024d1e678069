/* Placements against all that there are: the most even that fits, little on rank 0, ranks filled in
 * order, and what each needs. */
#include "parallel/placement.h"

#include <math.h>
#include <string.h>

#include "check.h"

enum { MAX_RANKS = 4, MAX_BLOCKS = 9 };

static const double blocks_of_two_kinds[MAX_BLOCKS] = {7, 5, 5, 5, 2, 2, 2, 2, 3};

static struct placement_model model_of(int num_blocks) {
    return (struct placement_model){.num_encoders = 3,
                                    .encoders = {{2, 1}, {9, 2}, {4, 1}},
                                    .autoencoder = {3, 2},
                                    .num_blocks = num_blocks,
                                    .blocks = blocks_of_two_kinds,
                                    .text = 1,
                                    .denoise = 3,
                                    .decode = 5};
}

static struct placement placed(const struct placement_model *m, const double *rooms, int ranks, enum placement_way way,
                               enum placement_keep keep) {
    struct placement p = {0};
    CHECK(placement_choose(m, rooms, ranks, way, keep, &p), "out of memory");
    for (int i = 0; i < m->num_blocks; i++)
        CHECK(p.blocks[i] >= 0 && p.blocks[i] < ranks && (i == 0 || p.blocks[i] >= p.blocks[i - 1]), "block %d is on rank %d", i, p.blocks[i]);
    for (int i = 0; i < m->num_encoders; i++) CHECK(p.encoders[i] >= 0 && p.encoders[i] < ranks, "encoder %d is on rank %d", i, p.encoders[i]);
    CHECK(p.autoencoder >= 0 && p.autoencoder < ranks, "the autoencoder is on rank %d", p.autoencoder);
    return p;
}

static double squares_of(const double *loads, int ranks) {
    double sum = 0;
    for (int r = 0; r < ranks; r++) sum += loads[r] * loads[r];
    return sum;
}

/* The smallest sum of squared loads of all cuts whose runs have at most caps[] bytes; INFINITY:
 * there is none. */
static double best_cut(const struct placement_model *m, const double *caps, int ranks, int block, int rank, double *loads) {
    double best = INFINITY;
    if (block == m->num_blocks) return squares_of(loads, ranks);
    for (int r = rank; r < ranks; r++) {
        if (loads[r] + m->blocks[block] > caps[r]) continue;
        loads[r] += m->blocks[block];
        best = fmin(best, best_cut(m, caps, ranks, block + 1, r, loads));
        loads[r] -= m->blocks[block];
    }
    return best;
}

static void add_blocks(const struct placement_model *m, const struct placement *p, double *loads) {
    memset(loads, 0, MAX_RANKS * sizeof *loads);
    for (int i = 0; i < m->num_blocks; i++) loads[p->blocks[i]] += m->blocks[i];
}

/* Stage by stage, so that blocks alone are what a rank's memory is for. */
static void test_most_even(void) {
    static const double rooms[][MAX_RANKS] = {{100, 100, 100, 100}, {10, 100, 100, 100}, {100, 10, 13, 20}, {15, 13, 13, 13}, {25, 4, 4, 25}};
    for (int blocks = 1; blocks <= MAX_BLOCKS; blocks++)
        for (int ranks = 1; ranks <= MAX_RANKS; ranks++)
            for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) {
                struct placement_model m = model_of(blocks);
                double caps[MAX_RANKS], loads[MAX_RANKS], none[MAX_RANKS] = {0};
                for (int r = 0; r < ranks; r++) caps[r] = rooms[k][r] - m.denoise;
                struct placement p = placed(&m, rooms[k], ranks, PLACEMENT_BALANCED, PLACEMENT_STAGES);
                add_blocks(&m, &p, loads);
                double best = best_cut(&m, caps, ranks, 0, 0, none);
                bool fits = true;
                for (int r = 0; r < ranks; r++) fits = fits && loads[r] <= caps[r];
                CHECK(fits == isfinite(best), "%d blocks, %d ranks, rooms %zu: fits %d, possible %d", blocks, ranks, k, fits, isfinite(best));
                if (fits) CHECK(squares_of(loads, ranks) == best, "%d blocks, %d ranks, rooms %zu: %g, possible %g", blocks, ranks, k,
                                squares_of(loads, ranks), best);
                placement_free(&p);
            }
}

static void test_encoders(void) {
    static const double wide[] = {100, 100}, narrow[] = {9, 11};
    struct placement_model m = model_of(4);
    struct placement p = placed(&m, wide, 2, PLACEMENT_BALANCED, PLACEMENT_STAGES);
    CHECK(p.encoders[1] == 0 && p.encoders[2] == 1 && p.encoders[0] == 1 && p.autoencoder == 0, "9 | 4 + 2, then a stage of its own");
    placement_free(&p);
    p = placed(&m, narrow, 2, PLACEMENT_BALANCED, PLACEMENT_STAGES);
    CHECK(p.encoders[1] == 1, "9 and 1 beside it do not fit into 9");
    placement_free(&p);
    p = placed(&m, wide, 2, PLACEMENT_BALANCED_LOW_0, PLACEMENT_STAGES);
    CHECK(placement_bytes(&m, &p, 0) == 0, "rank 0 holds %g, and rank 1 has room for all", placement_bytes(&m, &p, 0));
    placement_free(&p);
    p = placed(&m, wide, 2, PLACEMENT_SEQUENTIAL, PLACEMENT_WHOLE);
    CHECK(placement_bytes(&m, &p, 1) == 0, "rank 1 holds %g, and rank 0 has room for all", placement_bytes(&m, &p, 1));
    placement_free(&p);
    p = placed(&m, wide, 2, PLACEMENT_BALANCED, PLACEMENT_WHOLE); /* 15 of encoders, 22 of blocks, 3 */
    CHECK(placement_bytes(&m, &p, 0) == 19 && placement_bytes(&m, &p, 1) == 21, "%g and %g of 40", placement_bytes(&m, &p, 0),
          placement_bytes(&m, &p, 1));
    placement_free(&p);
}

/* Rank 0 gets what does not fit on the others, and no more. */
static void test_low_0(void) {
    static const double rooms[] = {100, 15, 11};
    struct placement_model m = model_of(MAX_BLOCKS); /* 33 in blocks, 3 beside: 12 and 8 are free */
    double loads[MAX_RANKS];
    struct placement p = placed(&m, rooms, 3, PLACEMENT_BALANCED_LOW_0, PLACEMENT_STAGES);
    add_blocks(&m, &p, loads);
    CHECK(loads[0] == 17 && loads[1] <= 12 && loads[2] <= 8, "%g, %g, %g", loads[0], loads[1], loads[2]);
    placement_free(&p);
}

/* 7, 5, 5 and 5 do not fit into 7 and 11: the smallest excess is 4 on rank 1, not 5 on rank 0. */
static void test_low_0_that_does_not_fit(void) {
    static const double rooms[] = {10, 14};
    struct placement_model m = model_of(4);
    double loads[MAX_RANKS];
    struct placement p = placed(&m, rooms, 2, PLACEMENT_BALANCED_LOW_0, PLACEMENT_STAGES);
    add_blocks(&m, &p, loads);
    CHECK(loads[0] == 7 && loads[1] == 15, "%g and %g", loads[0], loads[1]);
    placement_free(&p);
}

static void test_sequential(void) {
    static const double rooms[] = {15, 15, 100};
    struct placement_model m = model_of(MAX_BLOCKS);
    double loads[MAX_RANKS];
    struct placement p = placed(&m, rooms, 3, PLACEMENT_SEQUENTIAL, PLACEMENT_STAGES);
    add_blocks(&m, &p, loads);
    CHECK(loads[0] == 12 && loads[1] == 12 && loads[2] == 9, "%g, %g, %g", loads[0], loads[1], loads[2]);
    CHECK(p.encoders[0] == 0 && p.encoders[1] == 0 && p.encoders[2] == 0 && p.autoencoder == 0, "each stage begins at rank 0");
    placement_free(&p);
}

/* In the order in which they come, though the second is the largest. */
static void test_encoders_in_sequence(void) {
    static const double rooms[] = {8, 100}; /* 5 beside them: 3 and 95 are free */
    struct placement_model m = model_of(1);
    struct placement p = placed(&m, rooms, 2, PLACEMENT_SEQUENTIAL, PLACEMENT_WHOLE);
    CHECK(p.encoders[0] == 0 && p.encoders[1] == 1 && p.encoders[2] == 1, "2, 9 and 4 are on ranks %d, %d and %d", p.encoders[0],
          p.encoders[1], p.encoders[2]);
    placement_free(&p);
}

/* Encoders that fit on rank 0 alone, one at a time; and some that fit nowhere: each goes where most
 * is left. */
static void test_encoders_that_hardly_fit(void) {
    static const double rooms[] = {11, 9}, small[] = {10, 9};
    struct placement_model m = model_of(1);
    m.num_encoders = 2;
    m.encoders[0] = m.encoders[1] = (struct placement_weight){9, 2};
    struct placement p = placed(&m, rooms, 2, PLACEMENT_BALANCED_LOW_0, PLACEMENT_STAGES);
    CHECK(p.encoders[0] == 0 && p.encoders[1] == 0, "9 and 1 beside it do not fit into 9: ranks %d and %d", p.encoders[0], p.encoders[1]);
    placement_free(&p);
    m.encoders[0].bytes = 20, m.encoders[1].bytes = 15;
    p = placed(&m, small, 2, PLACEMENT_BALANCED, PLACEMENT_WHOLE);
    CHECK(p.encoders[0] == 0 && p.encoders[1] == 1, "20 and 15 into 10 and 9: ranks %d and %d", p.encoders[0], p.encoders[1]);
    placement_free(&p);
}

/* What a rank holds already leaves less room where weights stay: 3 does not go beside 5 into 7. */
static void test_encoders_that_stay(void) {
    static const double rooms[] = {40, 12};
    struct placement_model m = model_of(1);
    for (int i = 0; i < 3; i++) m.encoders[i].bytes = (double[]){6, 5, 3}[i];
    struct placement p = placed(&m, rooms, 2, PLACEMENT_BALANCED, PLACEMENT_WHOLE);
    CHECK(p.encoders[0] == 0 && p.encoders[1] == 1 && p.encoders[2] == 0, "6, 5 and 3 are on ranks %d, %d and %d", p.encoders[0],
          p.encoders[1], p.encoders[2]);
    placement_free(&p);
}

/* Where nothing fits, only what is over counts, not how even the rest is: 3 and 10 into 3, 9 and 8. */
static void test_least_excess(void) {
    static const double rooms[] = {6, 12, 11}, blocks[] = {3, 10};
    struct placement_model m = model_of(2);
    m.blocks = blocks;
    struct placement p = placed(&m, rooms, 3, PLACEMENT_BALANCED, PLACEMENT_STAGES);
    CHECK(p.blocks[0] == 0 && p.blocks[1] == 1, "3 and 10 are on ranks %d and %d", p.blocks[0], p.blocks[1]);
    placement_free(&p);
}

/* 9 in an encoder and blocks of 7, 5 and 5 on one rank. */
static void test_need(void) {
    static const double room[] = {100};
    static const double want[PLACEMENT_KEEPS] = {2 + 9 + 4 + 17 + 3 + 5, 17 + 3, 7 + 3};
    struct placement_model m = model_of(3);
    for (int keep = 0; keep < PLACEMENT_KEEPS; keep++) {
        struct placement p = placed(&m, room, 1, PLACEMENT_BALANCED, (enum placement_keep)keep);
        double need = placement_need(&m, &p, (enum placement_keep)keep, 0);
        CHECK(need == want[keep], "kept %d: %g, not %g", keep, need, want[keep]);
        CHECK(placement_need(&m, &p, (enum placement_keep)keep, 1) == 0, "another rank needs something");
        placement_free(&p);
    }
}

/* What the largest piece takes on its way counts where weights stay; windows have their own sizes. */
static void test_loading(void) {
    static const double room[] = {100}, windows[] = {8, 11, 6};
    static const double want[PLACEMENT_KEEPS] = {2 + 9 + 4 + 17 + 3 + 5 + 7, 17 + 3 + 7, 11 + 3};
    struct placement_model m = model_of(3);
    m.windows = windows, m.loading = 7;
    for (int keep = 0; keep < PLACEMENT_KEEPS; keep++) {
        struct placement p = placed(&m, room, 1, PLACEMENT_BALANCED, (enum placement_keep)keep);
        double need = placement_need(&m, &p, (enum placement_keep)keep, 0);
        CHECK(need == want[keep], "kept %d: %g, not %g", keep, need, want[keep]);
        placement_free(&p);
    }
}

/* In a window all blocks fit anywhere where the largest does. */
static void test_window(void) {
    static const double rooms[] = {9, 11}, exact[] = {10, 100};
    struct placement_model m = model_of(MAX_BLOCKS);
    double loads[MAX_RANKS];
    struct placement p = placed(&m, exact, 2, PLACEMENT_BALANCED, PLACEMENT_WINDOW);
    add_blocks(&m, &p, loads);
    CHECK(loads[0] == 17 && loads[1] == 16, "%g and %g: 7 and 3 beside fit into 10", loads[0], loads[1]);
    placement_free(&p);
    p = placed(&m, rooms, 2, PLACEMENT_BALANCED, PLACEMENT_WINDOW);
    add_blocks(&m, &p, loads);
    CHECK(loads[0] == 0 && loads[1] == 33, "%g and %g: 7 and 3 beside fit on rank 1 alone", loads[0], loads[1]);
    placement_free(&p);
}

int main(void) {
    test_most_even();
    test_encoders();
    test_encoders_in_sequence();
    test_encoders_that_hardly_fit();
    test_encoders_that_stay();
    test_least_excess();
    test_low_0();
    test_low_0_that_does_not_fit();
    test_sequential();
    test_need();
    test_loading();
    test_window();
    return CHECK_REPORT();
}
