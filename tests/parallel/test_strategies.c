/* The table of strategies and the chains that meshes get of it: every name once, the public list of
 * patch strategies, who takes part, from the outermost to the innermost; and PCPP's bytes, which do
 * not grow with the ranks, against a count of its own.
 *
 *     test_strategies */
#include <string.h>

#include "check.h"
#include "parallel/plan.h"
#include "parallel/strategy.h"

/* "cfg ulysses ring": the links of a mesh's chain. */
static void check_chain(const struct strategy_choice *choice, const char *wanted) {
    struct comm *const alone[MESH_GROUPS] = {0};
    struct parallel parallel;
    tessera_error error = {0};
    char got[256] = "";
    CHECK(parallel_compose(choice, alone, &parallel, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < parallel.num_links; i++) {
        if (i > 0) strcat(got, " ");
        strcat(got, parallel.links[i].strategy->name);
    }
    CHECK(strcmp(got, wanted) == 0, "the chain is \"%s\", not \"%s\"", got, wanted);
    parallel_free(&parallel);
}

static void test_chains(void) {
    check_chain(&(struct strategy_choice){.degrees[MESH_ULYSSES] = 2, .degrees[MESH_RING] = 2}, "ulysses ring rows");
    check_chain(&(struct strategy_choice){.degrees[MESH_ULYSSES] = 2, .degrees[MESH_RING] = 2, .degrees[MESH_PIPEFUSION] = 2, .patches = 3},
                "ulysses pipefusion ring rows");
    check_chain(&(struct strategy_choice){.degrees[MESH_RING] = 1, .degrees[MESH_ULYSSES] = 1, .patches = 4}, "pipefusion");
    check_chain(&(struct strategy_choice){.degrees[MESH_CFG] = 2, .degrees[MESH_PATCH] = 2}, "cfg patch");
    for (int i = 0; strategy_at(i) != NULL; i++)
        if (strategy_at(i)->group == MESH_PATCH)
            check_chain(&(struct strategy_choice){.degrees[MESH_PATCH] = 2, .patch_strategy = strategy_at(i)}, strategy_at(i)->name);
}

/* The table's patch strategies are those of the public list, the usual one first. */
static void test_names(void) {
    char list[] = TESSERA_PATCH_STRATEGIES;
    int listed = 0, there = 0;
    CHECK(strategy_of_patches(NULL) == strategy_of_patches("patch") && strategy_of_patches("ring") == NULL, "names");
    for (char *name = strtok(list, "|"); name != NULL; name = strtok(NULL, "|")) {
        CHECK(strategy_of_patches(name) != NULL, "%s is not in the table", name);
        listed++;
    }
    for (int i = 0; strategy_at(i) != NULL; i++) {
        there += strategy_at(i)->group == MESH_PATCH;
        for (int j = 0; j < i; j++) CHECK(strcmp(strategy_at(i)->name, strategy_at(j)->name) != 0, "%s twice", strategy_at(i)->name);
    }
    CHECK(listed == there, "%d patch strategies in tessera.h, %d in the table", listed, there);
}

enum { ROWS = 16, COLUMNS = 4, HEADS = 6, WIDTH = 8, LAYERS = 3, CHANNELS = 4, BATCH = 2 };

/* Keys and values to both neighbours, or in a warm-up step to all; the prediction to all. */
static void test_pcpp_bytes(void) {
    struct meeting attention = {
        .kind = MEETING_ATTENTION, .count = LAYERS, .of = MEETING_PICTURE, .is_sliced = true, .units = HEADS, .width = WIDTH};
    struct plan_block block = {.work = 1, .num_meetings = 1, .meetings = &attention};
    struct plan_model model = {.rows = ROWS,
                               .columns = COLUMNS,
                               .channels = CHANNELS,
                               .out_channels = CHANNELS,
                               .patch_size = 1,
                               .heads = HEADS,
                               .predictions = BATCH,
                               .element_bytes = 2,
                               .pictures = 1,
                               .num_blocks = 1,
                               .blocks = &block};
    for (int ranks = 2; ranks <= 8; ranks *= 2)
        for (int rank = 0; rank < ranks; rank++) {
            struct plan_mesh mesh = {.degrees = {1, 1, 1, ranks, 1, 1, 1}, .patches = 1, .patch_strategy = strategy_place(&pcpp_strategy)};
            uint64_t tokens = ROWS / ranks * COLUMNS, neighbours = rank == 0 || rank == ranks - 1 ? 1 : 2;
            uint64_t block_bytes = LAYERS * 2 * BATCH * tokens * HEADS * WIDTH * 2,
                     gather = (uint64_t)(ranks - 1) * BATCH * tokens * CHANNELS * 2;
            uint64_t later = plan_step_bytes(&model, &mesh, rank).sum, warmup = plan_warmup_bytes(&model, &mesh, rank).sum;
            CHECK(later == neighbours * block_bytes + gather, "%d ranks: rank %d sends %d bytes", ranks, rank, (int)later);
            CHECK(warmup == (uint64_t)(ranks - 1) * block_bytes + gather, "%d ranks, warm-up: rank %d sends %d bytes", ranks, rank,
                  (int)warmup);
        }
}

static void test_pcpp_patches(void) {
    for (int patches = 1; patches <= 8; patches++)
        CHECK(pcpp_strategy.patches_seen(patches) == (patches < 3 ? patches : 3), "%d of %d patches are seen",
              pcpp_strategy.patches_seen(patches), patches);
}

int main(void) {
    test_pcpp_patches();
    test_names();
    test_chains();
    test_pcpp_bytes();
    return CHECK_REPORT();
}
