/* What a plan's mesh means: its strategies, its name, and the options that choose it. */
#include <stdio.h>
#include <string.h>

#include "parallel/strategy.h"

const struct strategy *plan_mesh_patch_strategy(const struct plan_mesh *mesh) {
    if (mesh->degrees[MESH_PATCH] == 1) return NULL;
    return mesh->patch_strategy > 0 ? strategy_at(mesh->patch_strategy) : strategy_of_patches(NULL);
}

/* The choice of strategies that a mesh makes. */
static struct strategy_choice choice_of(const struct plan_mesh *mesh) {
    struct strategy_choice choice = {
        .patches = mesh->patches, .patch_strategy = plan_mesh_patch_strategy(mesh), .split_text = mesh->split_text};
    memcpy(choice.degrees, mesh->degrees, sizeof choice.degrees);
    return choice;
}

bool plan_cuts_text(const struct plan_model *m, const struct plan_mesh *mesh) {
    struct strategy_choice choice = choice_of(mesh);
    int members = plan_cut_members(mesh);
    bool has_all = false;
    for (int i = 0; strategy_at(i) != NULL; i++) {
        const struct strategy *s = strategy_at(i);
        has_all = has_all || (s->applies(&choice) && s->keeps_text_whole != NULL && s->keeps_text_whole(&choice));
    }
    return m->text_stream && members > 1 && !has_all && m->text_tokens >= members;
}

struct plan_chain plan_chain_of(const struct plan_mesh *mesh) {
    struct strategy_choice choice = choice_of(mesh);
    struct plan_chain chain = {.count = 0};
    for (int i = 0; strategy_at(i) != NULL; i++)
        if (strategy_at(i)->applies(&choice)) chain.strategies[chain.count++] = strategy_at(i);
    return chain;
}

bool plan_mesh_is_exact(const struct plan_mesh *mesh) {
    return mesh->patches == 1 && mesh->degrees[MESH_PATCH] == 1;
}

int plan_mesh_ranks(const struct plan_mesh *mesh) {
    int ranks = 1;
    for (int a = 0; a < MESH_AXES; a++) ranks *= mesh->degrees[a];
    return ranks;
}

/* Appends to `out` at *used, cut at its end. */
static void append(char *out, size_t capacity, size_t *used, const char *between, const char *name, int number) {
    if (*used >= capacity) return;
    int more = snprintf(out + *used, capacity - *used, "%s%s %d", *used > 0 ? between : "", name, number);
    *used += more > 0 ? (size_t)more : 0;
}

const char *plan_mesh_text(const struct plan_mesh *mesh, char *out, size_t capacity) {
    size_t used = 0;
    snprintf(out, capacity, "one rank");
    for (int a = 0; a < MESH_AXES; a++)
        if (mesh->degrees[a] > 1)
            append(out, capacity, &used, " x ", a == MESH_PATCH ? plan_mesh_patch_strategy(mesh)->name : mesh_axis_name((enum mesh_axis)a),
                   mesh->degrees[a]);
    if (mesh->patches > 1) append(out, capacity, &used, ", ", "patches", mesh->patches);
    if (mesh->split_text && used < capacity) snprintf(out + used, capacity - used, ", text split");
    return out;
}

const char *plan_mesh_options(const struct plan_mesh *mesh, char *out, size_t capacity) {
    static const char *const names[MESH_AXES] = {
        "--data-parallel-degree",  NULL, "--pipefusion-parallel-degree", NULL, "--ring-degree", "--ulysses-degree",
        "--tensor-parallel-degree"};
    size_t used = 0;
    out[0] = 0;
    for (int a = 0; a < MESH_AXES; a++)
        if (names[a] != NULL && mesh->degrees[a] > 1) append(out, capacity, &used, " ", names[a], mesh->degrees[a]);
    if (mesh->patches > 1 || mesh->degrees[MESH_PIPEFUSION] > 1) append(out, capacity, &used, " ", "--num-pipeline-patch", mesh->patches);
    if (mesh->degrees[MESH_CFG] > 1 && used < capacity)
        used += (size_t)snprintf(out + used, capacity - used, "%s--use-cfg-parallel", used > 0 ? " " : "");
    if (mesh->degrees[MESH_PATCH] > 1 && used < capacity)
        snprintf(out + used, capacity - used, "%s--parallelism %s%s%s", used > 0 ? " " : "", plan_mesh_patch_strategy(mesh)->name,
                 mesh->degrees[MESH_CFG] > 1 ? "" : " --no-split-batch", mesh->split_text ? " --split-text" : "");
    return out;
}
