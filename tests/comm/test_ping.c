/* Links between all pairs: every one measured, the same on all ranks, the same both ways. Runs
 * alone and under mpirun. */
#include "comm/ping.h"

#include <math.h>
#include <string.h>

#include "ranks.h"

static void test_links(struct comm *world) {
    int n = comm_size(world), me = comm_rank(world);
    struct ping_link *links = calloc((size_t)(n * n), sizeof *links), *first = calloc((size_t)(n * n), sizeof *links);
    tessera_error error = {0};
    CHECK_OK(ping_all(world, links, &error), error);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            const struct ping_link *l = &links[a * n + b], *back = &links[b * n + a];
            if (a == b) {
                CHECK(l->latency == 0 && l->bandwidth == 0, "rank %d talks to itself", a);
                continue;
            }
            CHECK(l->latency > 0 && l->latency < 10 && isfinite(l->latency), "%d to %d: %g s", a, b, l->latency);
            CHECK(l->bandwidth > 1e3 && isfinite(l->bandwidth), "%d to %d: %g bytes/s", a, b, l->bandwidth);
            CHECK(l->latency == back->latency && l->bandwidth == back->bandwidth, "%d and %d differ by direction", a, b);
        }
    if (me == 0) memcpy(first, links, (size_t)(n * n) * sizeof *links);
    CHECK_OK(comm_broadcast(world, 0, first, (size_t)(n * n) * sizeof *links, &error), error);
    CHECK(memcmp(first, links, (size_t)(n * n) * sizeof *links) == 0, "rank %d knows other numbers than rank 0", me);
    free(first);
    free(links);
}

/* All at once: alone there is nobody to wait for; the computing that is taken off is not among what
 * is left. */
static void test_together(struct comm *world) {
    int n = comm_size(world), next = (comm_rank(world) + 1) % n, previous = (comm_rank(world) + n - 1) % n;
    double latency = -1;
    tessera_error error = {0};
    CHECK_OK(ping_together(world, next, previous, 1, &latency, &error), error);
    CHECK(latency >= 0 && latency < 10, "%g s", latency);
    CHECK(n > 1 || latency == 0, "alone: %g s", latency);
    CHECK_OK(ping_together(world, next, previous, 1e6, &latency, &error), error);
    CHECK(latency == 0, "%g s beside more computing than there was time for", latency);
}

/* A second group of the same ranks, in the opposite order, has the same ranks behind its numbers. */
static void test_group(struct comm *world) {
    struct comm *reversed = NULL;
    tessera_error error = {0};
    CHECK_OK(comm_split(world, 0, -comm_rank(world), &reversed, &error), error);
    test_links(reversed);
    comm_free(reversed);
}

int main(void) {
    struct comm *world = NULL;
    tessera_error error = {0};
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) return fprintf(stderr, "%s\n", error.message), 1;
    test_links(world);
    test_group(world);
    test_together(world);
    return ranks_report(world);
}
