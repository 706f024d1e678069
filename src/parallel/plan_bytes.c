/* What a rank sends in a step, to the byte. For each meeting of a model's blocks, every strategy of
 * the mesh adds its bytes (strategy.h). This file has the order of a step; plan_pass.c has what
 * strategies know of a pass. */
#include <string.h>

#include "parallel/cut.h"
#include "parallel/strategy.h"

int plan_skips(const struct plan_model *m, const int *first, const int *ranks, int stages, int stage,
               struct denoiser_map skips[PLAN_MAX_SKIPS], int *parcels) {
    int makers[PLAN_MAX_SKIPS], height = 0, here = 0, count = 0, last_user = -1;
    struct denoiser_map maps[PLAN_MAX_SKIPS];
    *parcels = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        while (here < stages - 1 && i >= first[here + 1]) here++;
        for (int k = 0; k < m->blocks[i].pops && height > 0; k++) {
            height--;
            if (makers[height] != stage || here == stage || (ranks != NULL && ranks[here] == ranks[stage])) continue;
            skips[count++] = maps[height];
            if (here != last_user) ++*parcels, last_user = here;
        }
        for (int k = 0; k < m->blocks[i].pushes && height < PLAN_MAX_SKIPS; k++) {
            maps[height] = m->blocks[i].pushed[k];
            makers[height++] = here;
        }
    }
    return count;
}

static void add_meeting(struct plan_pass *p, const struct plan_chain *chain, const struct meeting *meeting) {
    for (int i = 0; i < chain->count; i++)
        if (chain->strategies[i]->meeting_bytes != NULL) chain->strategies[i]->meeting_bytes(p, meeting);
}

/* Adds the pass of one patch (0 of 1: the whole picture) through this rank's stage. */
static void add_patch(struct plan_pass *p, const struct plan_chain *chain, int patch, int patches) {
    const struct plan_model *m = p->m;
    int64_t size = m->patch_size, rows = m->rows / size, columns = m->columns / size;
    int64_t first = rows * patch / patches, end = rows * (patch + 1) / patches, latents = (end - first) * size * m->columns;
    p->first = first * columns, p->count = (end - first) * columns;
    p->has_text = patch == 0;
    for (int b = p->stage_first; b < p->stage_end; b++)
        for (int i = 0; i < m->blocks[b].num_meetings; i++) add_meeting(p, chain, &m->blocks[b].meetings[i]);
    for (int i = 0; i < chain->count; i++)
        if (chain->strategies[i]->end_bytes != NULL) chain->strategies[i]->end_bytes(p, latents);
}

static struct plan_bytes step(const struct plan_model *m, const struct plan_mesh *mesh, int rank, int patches, bool warms_up) {
    struct plan_pass p = {
        .m = m, .members = plan_cut_members(mesh), .batch = m->predictions / mesh->degrees[MESH_CFG], .warms_up = warms_up};
    struct plan_chain chain = plan_chain_of(mesh);
    memcpy(p.degrees, mesh->degrees, sizeof p.degrees);
    for (int a = 0; a < MESH_AXES; a++) p.at[a] = plan_coordinate(mesh, rank, (enum mesh_axis)a);
    p.me = p.at[MESH_PATCH] + p.at[MESH_RING] * p.degrees[MESH_ULYSSES] + p.at[MESH_ULYSSES];
    p.cuts_text = plan_cuts_text(m, mesh);
    p.text = p.cuts_text ? cut_evenly(m->text_tokens, p.members, p.me).count : m->text_tokens;
    for (int i = 0; i < chain.count; i++) {
        p.whole_rows = p.whole_rows || chain.strategies[i]->cuts_whole_rows;
        p.collects = p.collects || (chain.strategies[i]->collects_keys && mesh->patches > 1);
    }
    int first[PLAN_MAX_BLOCKS + 1];
    plan_stages(m, p.degrees[MESH_PIPEFUSION], first);
    p.stage_first = first[p.at[MESH_PIPEFUSION]], p.stage_end = first[p.at[MESH_PIPEFUSION] + 1];
    if (p.at[MESH_DATA] >= m->pictures) return p.sent; /* these ranks have nothing to do */
    p.num_skips = plan_skips(m, first, NULL, p.degrees[MESH_PIPEFUSION], p.at[MESH_PIPEFUSION], p.skips, &p.skip_parcels);
    int predictions = mesh->patches == 1 && p.degrees[MESH_PIPEFUSION] > 1 ? (int)p.batch : 1;
    p.batch /= predictions;
    for (int i = 0; i < predictions; i++) {
        p.is_last_prediction = i == predictions - 1;
        for (int i = 0; i < patches; i++) add_patch(&p, &chain, i, patches);
    }
    for (int a = 0; a < MESH_AXES; a++) p.sent.sum += p.sent.axis[a];
    return p.sent;
}

struct plan_bytes plan_step_bytes(const struct plan_model *m, const struct plan_mesh *mesh, int rank) {
    return step(m, mesh, rank, mesh->patches, false);
}

struct plan_bytes plan_warmup_bytes(const struct plan_model *m, const struct plan_mesh *mesh, int rank) {
    return step(m, mesh, rank, 1, true);
}
