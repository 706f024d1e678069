/* What a rank sends in a step, to the byte: every strategy of a mesh is asked, for each meeting of a model's blocks (strategy.h). Here is
 * what they are told of a pass (plan_pass.h), and the order of a step. */
#include <string.h>

#include "parallel/cut.h"
#include "parallel/strategy.h"

/* ---- places ---- */

int plan_stride(const struct plan_mesh *mesh, enum mesh_axis axis) {
    int stride = 1;
    for (int a = MESH_AXES - 1; a > (int)axis; a--) stride *= mesh->degrees[a];
    return stride;
}

int plan_coordinate(const struct plan_mesh *mesh, int rank, enum mesh_axis axis) {
    return rank / plan_stride(mesh, axis) % mesh->degrees[axis];
}

int plan_parts(const struct plan_mesh *mesh) {
    return mesh->degrees[MESH_PATCH] * mesh->degrees[MESH_RING] * mesh->degrees[MESH_ULYSSES];
}

static int64_t halved(int64_t x, int level) {
    for (int i = 0; i < level; i++) x = (x + 1) / 2;
    return x;
}

int64_t plan_bound(const struct plan_model *m, int parts, int part, int level) {
    int64_t p = m->patch_size;
    if (m->row_unit == 0) return m->rows / p * (m->columns / p) * part / parts;
    int64_t units = (m->rows + m->row_unit - 1) / m->row_unit;
    int64_t row = part == parts ? m->rows : units * part / parts * m->row_unit;
    return halved(row, level) * halved(m->columns, level);
}

/* What a mesh says of its strategies. */
static struct strategy_choice choice_of(const struct plan_mesh *mesh) {
    struct strategy_choice choice = {.parts = mesh->patches, .patch = plan_mesh_patch(mesh), .split_text = mesh->split_text};
    memcpy(choice.degrees, mesh->degrees, sizeof choice.degrees);
    return choice;
}

bool plan_cuts_text(const struct plan_model *m, const struct plan_mesh *mesh) {
    struct strategy_choice choice = choice_of(mesh);
    int parts = plan_parts(mesh);
    bool has_all = false;
    for (int i = 0; strategy_at(i) != NULL; i++) {
        const struct strategy *s = strategy_at(i);
        has_all = has_all || (s->takes_part(&choice) && s->keeps_text_whole != NULL && s->keeps_text_whole(&choice));
    }
    return m->text_stream && parts > 1 && !has_all && m->text_tokens >= parts;
}

/* ---- one rank, one picture or a part of one ---- */

static int64_t bound(const struct plan_pass *p, int part, int level) {
    int64_t columns = p->m->columns / p->m->patch_size;
    if (p->m->row_unit == 0 && p->whole_rows) return p->count / columns * part / p->parts * columns;
    if (p->m->row_unit == 0) return p->first + p->count * part / p->parts;
    return plan_bound(p->m, p->parts, part, level);
}

int64_t plan_pass_positions(const struct plan_pass *p, int part, int level) {
    return bound(p, part + 1, level) - bound(p, part, level);
}

void plan_pass_add(struct plan_pass *p, enum mesh_axis axis, int64_t elements, int element_bytes) {
    p->sent.axis[axis] += (uint64_t)elements * (uint64_t)element_bytes;
}

int64_t plan_pass_share(const struct plan_pass *p, const struct meeting *meeting) {
    if (!meeting->is_share) return meeting->units;
    return cut_share(meeting->units, p->degrees[MESH_TENSOR], p->at[MESH_TENSOR]).count;
}

int64_t plan_pass_tokens(const struct plan_pass *p, const struct meeting *a, int first, int count, bool keys) {
    bool text = (a->of & MEETING_TEXT) && p->has_text && p->cuts_text && (keys || a->text_asks);
    int64_t words = text ? p->m->text_tokens : 0;
    return bound(p, first + count, a->level) - bound(p, first, a->level) + words * (first + count) / p->parts - words * first / p->parts;
}

int64_t plan_pass_rows(const struct plan_pass *p, const struct meeting *meeting) {
    int64_t rows = 0;
    if (meeting->of & MEETING_ONCE) rows += 1;
    if (meeting->of & MEETING_PICTURE) rows += plan_pass_positions(p, p->me, meeting->level);
    if ((meeting->of & MEETING_TEXT) && p->has_text) rows += p->text;
    return rows * p->batch;
}

int64_t plan_pass_halo_rows(const struct plan_pass *p, const struct meeting *halo) {
    return (p->me < p->parts - 1 ? halo->above : 0) + (p->me > 0 ? halo->below : 0);
}

int64_t plan_pass_row(const struct plan_pass *p, const struct meeting *halo) {
    return p->batch * halved(p->m->columns, halo->level) * plan_pass_share(p, halo) * halo->width * p->m->element_bytes;
}

void plan_pass_add_gather(struct plan_pass *p, enum mesh_axis axis) {
    int64_t channels = p->m->patch_size * p->m->patch_size * p->m->out_channels;
    plan_pass_add(p, axis, (p->parts - 1) * plan_pass_positions(p, p->me, 0) * p->batch * channels, p->m->element_bytes);
}

bool plan_pass_is_last_stage(const struct plan_pass *p) {
    return p->at[MESH_PIPEFUSION] == p->degrees[MESH_PIPEFUSION] - 1;
}

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

/* ---- a step ---- */

struct plan_chain plan_chain_of(const struct plan_mesh *mesh) {
    struct strategy_choice choice = choice_of(mesh);
    struct plan_chain chain = {.count = 0};
    for (int i = 0; strategy_at(i) != NULL; i++)
        if (strategy_at(i)->takes_part(&choice)) chain.strategies[chain.count++] = strategy_at(i);
    return chain;
}

static void add_meeting(struct plan_pass *p, const struct plan_chain *chain, const struct meeting *meeting) {
    for (int i = 0; i < chain->count; i++)
        if (chain->strategies[i]->meeting_bytes != NULL) chain->strategies[i]->meeting_bytes(p, meeting);
}

/* One part of the picture (of `patches`; 0 of 1: all of it) through this rank's stage. */
static void add_part(struct plan_pass *p, const struct plan_chain *chain, int part, int patches) {
    const struct plan_model *m = p->m;
    int64_t size = m->patch_size, rows = m->rows / size, columns = m->columns / size;
    int64_t first = rows * part / patches, end = rows * (part + 1) / patches, latents = (end - first) * size * m->columns;
    p->first = first * columns, p->count = (end - first) * columns;
    p->has_text = part == 0;
    for (int b = p->stage_first; b < p->stage_end; b++)
        for (int i = 0; i < m->blocks[b].num_meetings; i++) add_meeting(p, chain, &m->blocks[b].meetings[i]);
    for (int i = 0; i < chain->count; i++)
        if (chain->strategies[i]->part_bytes != NULL) chain->strategies[i]->part_bytes(p, latents);
}

static struct plan_bytes step(const struct plan_model *m, const struct plan_mesh *mesh, int rank, int patches, bool warms_up) {
    struct plan_pass p = {.m = m, .parts = plan_parts(mesh), .batch = m->predictions / mesh->degrees[MESH_CFG], .warms_up = warms_up};
    struct plan_chain chain = plan_chain_of(mesh);
    memcpy(p.degrees, mesh->degrees, sizeof p.degrees);
    for (int a = 0; a < MESH_AXES; a++) p.at[a] = plan_coordinate(mesh, rank, (enum mesh_axis)a);
    p.me = p.at[MESH_PATCH] + p.at[MESH_RING] * p.degrees[MESH_ULYSSES] + p.at[MESH_ULYSSES];
    p.cuts_text = plan_cuts_text(m, mesh);
    p.text = p.cuts_text ? cut_share(m->text_tokens, p.parts, p.me).count : m->text_tokens;
    for (int i = 0; i < chain.count; i++) {
        p.whole_rows = p.whole_rows || chain.strategies[i]->cuts_whole_rows;
        p.collects = p.collects || (chain.strategies[i]->collects_keys && mesh->patches > 1);
    }
    int first[PLAN_MAX_BLOCKS + 1];
    plan_stages(m, p.degrees[MESH_PIPEFUSION], first);
    p.stage_first = first[p.at[MESH_PIPEFUSION]], p.stage_end = first[p.at[MESH_PIPEFUSION] + 1];
    if (p.at[MESH_DATA] >= m->pictures) return p.sent; /* these ranks have nothing to do */
    p.num_skips = plan_skips(m, first, NULL, p.degrees[MESH_PIPEFUSION], p.at[MESH_PIPEFUSION], p.skips, &p.skip_parcels);
    int rows = mesh->patches == 1 && p.degrees[MESH_PIPEFUSION] > 1 ? (int)p.batch : 1;
    p.batch /= rows;
    for (int row = 0; row < rows; row++) {
        p.is_last_row = row == rows - 1;
        for (int i = 0; i < patches; i++) add_part(&p, &chain, i, patches);
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
