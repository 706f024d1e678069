/* tessera_world_share and tessera_world_gather on several ranks: mpirun -n N test_share. A failure
 * of one rank is one of all, with its text, and the world goes on; without one, rank 0's data are
 * everybody's. */
#include <string.h>

#include "check.h"
#include "tessera.h"

static void share_well(tessera_world *world, int number) {
    tessera_error error = {0};
    int data[2] = {number, tessera_world_rank(world)};
    CHECK(tessera_world_share(world, TESSERA_OK, data, sizeof data, &error) == TESSERA_OK, "%s", error.message);
    CHECK(data[0] == number && data[1] == 0, "share %d gives %d, %d", number, data[0], data[1]);
    CHECK(tessera_world_share(world, TESSERA_OK, NULL, 0, NULL) == TESSERA_OK, "nothing to share, but how it went");
}

/* Rank `rank` has failed before it comes. */
static void share_badly(tessera_world *world, int rank) {
    bool mine = tessera_world_rank(world) == rank;
    tessera_error error = {.message = ""};
    char data[64] = "as it was";
    if (mine) error.status = TESSERA_ERROR_IO, snprintf(error.message, sizeof error.message, "no such file on rank %d", rank);
    tessera_status status = tessera_world_share(world, mine ? TESSERA_ERROR_IO : TESSERA_OK, data, sizeof data, &error);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "no such file on rank %d", rank);
    CHECK(status == TESSERA_ERROR_IO && strstr(error.message, wanted) != NULL, "rank %d failed, and this one has %d: %s", rank, status,
          error.message);
    CHECK(!tessera_world_failed(world), "a failure ended the world");
}

int main(void) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) return fprintf(stderr, "%s\n", error.message), 1;
    int size = tessera_world_size(world), rank = tessera_world_rank(world), all[size];
    CHECK(tessera_world_is_launched(), "mpirun started it");
    for (int i = 0; i < size; i++) {
        share_well(world, 10 + i);
        share_badly(world, i);
    }
    int mine = 100 + rank;
    CHECK(tessera_world_gather(world, &mine, sizeof mine, all, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < size; i++) CHECK(all[i] == 100 + i, "rank %d gave %d", i, all[i]);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
