/* Group norms of displaced patches whose parts differ in size, in each mode, against the
 * definitions computed directly in float64: who counts how much, whose statistics are fresh, what a
 * negative variance becomes, and the published factor N / (N - 1) of a rank's own elements.
 *
 *     mpirun -n N test_group_stats */
#include <math.h>

#include "comm/ranks.h"
#include "parallel/strategy.h"

enum { GROUPS = 3, STEPS = 4, WARMUP_STEPS = 1, ELEMENTS = 5 };

struct moments {
    double mean, square;
};

struct fixture {
    struct run run;
    struct comm *world;
    int members, me;
};

/* Rank r has r + 1 rows. */
static double rows_of(int rank) {
    return 1.0 + rank;
}

/* A rank's own mean and variance in a step. The last group's means move so fast that a corrected
 * variance comes out negative. */
static void own_stats(int step, int rank, int group, float out[2]) {
    out[0] = (float)(group == GROUPS - 1 ? 3.0 * step * (1 + rank) : sin(step + 2.0 * rank + group));
    out[1] = (float)(0.05 + 0.04 * cos(step * group + rank));
}

static struct moments own(int step, int rank, int group) {
    float s[2];
    own_stats(step, rank, group, s);
    return (struct moments){s[0], (double)s[1] + (double)s[0] * s[0]};
}

/* The mean over all ranks by rows, rank `self` as it was in step `mine` and the others as in step
 * `theirs`. */
static struct moments mean_of(const struct fixture *f, int group, int self, int mine, int theirs) {
    struct moments sum = {0, 0};
    double rows = 0;
    for (int i = 0; i < f->members; i++) {
        struct moments m = own(i == self ? mine : theirs, i, group);
        sum.mean += rows_of(i) * m.mean;
        sum.square += rows_of(i) * m.square;
        rows += rows_of(i);
    }
    return (struct moments){sum.mean / rows, sum.square / rows};
}

/* What the mode makes of a group in a step: mean and variance. */
static void expected(const struct fixture *f, enum sync_mode mode, int step, int group, double out[2]) {
    bool warm = step > WARMUP_STEPS;
    struct moments m = mean_of(f, group, f->me, step, warm && mode <= SYNC_STALE_GN ? step - 1 : step), now = own(step, f->me, group);
    if (warm && mode == SYNC_CORRECTED_ASYNC_GN) {
        struct moments before = own(step - 1, f->me, group);
        m = mean_of(f, group, f->me, step - 1, step - 1);
        m.mean += now.mean - before.mean;
        m.square += now.square - before.square;
    }
    if (warm && (mode == SYNC_SEPARATE_GN || mode == SYNC_NO_SYNC)) m = now;
    out[0] = m.mean;
    out[1] = m.square - m.mean * m.mean;
    if (out[1] < 0) out[1] = now.square - now.mean * now.mean;
}

/* Statistics of all groups as the engine exchanges them. */
static struct tensor exchanged(struct fixture *f, int step, double elements) {
    struct tensor stats = run_tensor(&f->run, DTYPE_F32, SHAPE(1, GROUPS, 2));
    for (int g = 0; g < GROUPS && stats.data != NULL; g++) own_stats(step, f->me, g, (float *)stats.data + 2 * g);
    exchange_group_stats(&f->run, &stats, rows_of(f->me), elements);
    CHECK(!run_failed(&f->run), "%s", f->run.error.message);
    return stats;
}

static double published_factor(enum sync_mode mode, int step, bool published, double elements) {
    bool whole = step <= WARMUP_STEPS || (mode != SYNC_SEPARATE_GN && mode != SYNC_NO_SYNC);
    return published && whole && elements > 1 ? elements / (elements - 1) : 1;
}

/* A loop in one mode; true if a variance was negative. */
static bool run_mode(struct fixture *f, enum sync_mode mode, bool published, double elements) {
    struct displaced d = {.group = f->world, .mode = mode, .warmup_steps = WARMUP_STEPS, .published_group_norm = published};
    struct parallel parallel = {.cut_group = f->world};
    parallel_add(&parallel, &displaced_patches_strategy, f->world, &d);
    bool negative = false;
    f->run.parallel = &parallel;
    for (int step = 0; step < STEPS; step++) {
        size_t scope = run_enter(&f->run);
        displaced_step(&d, step);
        struct tensor stats = exchanged(f, step, elements);
        for (int g = 0; g < GROUPS && stats.data != NULL; g++) {
            const float *got = (const float *)stats.data + 2 * g;
            double want[2], alone = own(step, f->me, g).square - pow(own(step, f->me, g).mean, 2);
            expected(f, mode, step, g, want);
            negative = negative || (mode == SYNC_CORRECTED_ASYNC_GN && fabs(want[1] - alone) < 1e-9);
            want[1] *= published_factor(mode, step, published, elements);
            CHECK(fabs(got[0] - want[0]) < 1e-5 * (1 + fabs(want[0])), "%s, step %d, group %d: mean %g, not %g", sync_mode_name(mode), step,
                  g, got[0], want[0]);
            CHECK(fabs(got[1] - want[1]) < 1e-5 * (1 + fabs(want[1])), "%s, step %d, group %d, N = %g: variance %g, not %g",
                  sync_mode_name(mode), step, g, elements, got[1], want[1]);
        }
        arena_release(f->run.arena, scope);
    }
    displaced_close(&d);
    return negative;
}

int main(void) {
    tessera_error error = {0};
    struct fixture f = {0};
    if (comm_world_open(NULL, &f.world, &error) != TESSERA_OK) return 1;
    f.run = (struct run){.backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error), .arena = arena_new(1 << 20, &error), .dtype = DTYPE_F32};
    f.members = comm_size(f.world);
    f.me = comm_rank(f.world);
    bool negative = false;
    for (int mode = 0; mode < SYNC_MODES && f.members > 1; mode++)
        for (int published = 0; published < 2; published++) {
            negative = run_mode(&f, (enum sync_mode)mode, published, ELEMENTS * rows_of(f.me)) || negative;
            run_mode(&f, (enum sync_mode)mode, published, 1);
        }
    CHECK(negative || f.me == f.members - 1 || f.members == 1, "no variance came out negative");
    backend_free(f.run.backend);
    arena_free(f.run.arena);
    return ranks_report(f.world);
}
