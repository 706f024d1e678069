/* What a rank sends in a step, to the byte: the formulas of docs/parallel.md over a model's meetings. A function for each strategy.
 *
 * With S positions (S_i of them on part i of n), T text tokens, N heads or channels of which a rank of the tensor axis has N_me, B
 * predictions, e bytes an element:
 *
 *     Ulysses       e B D (N' - N'_me) (q_me + 2 k_me) + e B D N'_me (sum of the group's q - q_me)      N' of this tensor rank, N'_me of
 * them mine
 *     ring          e B D N'_me 2 (all k - k of the group ahead)
 *     whole text    e B D N'_me (U - 1) T                where it asks
 *     displaced     e B D N' 2 (n - 1) (S_me + T_me)     keys and values to all others
 *     sum           e (count - slice_me) + e (t - 1) slice_me
 *     join          e (t - 1) (positions) N_me
 *     halo          e B W C for each row and neighbour
 *     norm          4 (n - 1) (1 + 2 B groups); 8 where it is displaced
 *     gather        e B (n - 1) S_me c'
 *     guidance      4 (the other half) h w c */
#include <string.h>

#include "parallel/cut.h"
#include "parallel/plan.h"

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

bool plan_cuts_text(const struct plan_model *m, const struct plan_mesh *mesh) {
    int parts = plan_parts(mesh);
    bool has_all = mesh->patches > 1 || (mesh->degrees[MESH_PATCH] > 1 && !mesh->split_text);
    return m->text_stream && parts > 1 && !has_all && m->text_tokens >= parts;
}

/* ---- one rank, one picture or a part of one ---- */

/* A rank's view of a pass. */
struct pass {
    const struct plan_model *m;
    int degrees[MESH_AXES], at[MESH_AXES]; /* this rank's coordinates */
    int parts, me;                         /* positions are cut so */
    int64_t first, count;                  /* of the positions of level 0: all, or PipeFusion's part */
    int64_t batch, text;                   /* text tokens on this rank */
    bool cuts_text, has_text;              /* has_text: the text's stream takes part in this pass */
    bool displaced, patches;
    int stage_first, stage_end;                /* blocks */
    struct denoiser_map skips[PLAN_MAX_SKIPS]; /* that leave this stage in a unit */
    int num_skips, skip_parcels;
    bool is_last_row; /* of guidance, whose rows may go through a pipeline one after the other */
    struct plan_bytes sent;
};

static int64_t bound(const struct pass *p, int part, int level) {
    int64_t columns = p->m->columns / p->m->patch_size;
    if (p->m->row_unit == 0 && p->displaced) return p->count / columns * part / p->parts * columns; /* whole rows */
    if (p->m->row_unit == 0) return p->first + p->count * part / p->parts;
    return plan_bound(p->m, p->parts, part, level);
}

static int64_t positions(const struct pass *p, int part, int level) {
    return bound(p, part + 1, level) - bound(p, part, level);
}

static void add(struct pass *p, enum mesh_axis axis, int64_t elements, int element_bytes) {
    p->sent.axis[axis] += (uint64_t)elements * (uint64_t)element_bytes;
}

static int64_t share(const struct pass *p, const struct meeting *meeting) {
    if (!meeting->is_share) return meeting->units;
    return cut_share(meeting->units, p->degrees[MESH_TENSOR], p->at[MESH_TENSOR]).count;
}

/* Tokens of the text on some ranks of a sequence among those that attention exchanges. */
static int64_t text_among(const struct pass *p, const struct meeting *a, int first, int count, bool keys) {
    bool takes_part = (a->of & MEETING_TEXT) && p->has_text && p->cuts_text && (keys || a->text_asks);
    int64_t tokens = p->m->text_tokens;
    return takes_part ? tokens * (first + count) / p->parts - tokens * first / p->parts : 0;
}

/* Tokens of ring member `round`'s Ulysses group. */
static int64_t group_tokens(const struct pass *p, const struct meeting *a, int round, bool keys) {
    int count = p->degrees[MESH_ULYSSES], first = round * count;
    return bound(p, first + count, a->level) - bound(p, first, a->level) + text_among(p, a, first, count, keys);
}

static void add_ulysses(struct pass *p, const struct meeting *a, int64_t heads, int64_t mine) {
    int64_t queries = positions(p, p->me, a->level) + text_among(p, a, p->me, 1, false),
            keys = positions(p, p->me, a->level) + text_among(p, a, p->me, 1, true);
    int64_t others = group_tokens(p, a, p->at[MESH_RING], false) - queries;
    int64_t sum = (heads - mine) * (queries + 2 * keys) + mine * others;
    if ((a->of & MEETING_TEXT) && p->has_text && !p->cuts_text && a->text_asks) sum += mine * (p->degrees[MESH_ULYSSES] - 1) * p->text;
    add(p, MESH_ULYSSES, a->count * sum * p->batch * a->width, p->m->element_bytes);
}

/* Keys and values of all groups but the one ahead pass through this rank; with PipeFusion's store each member's go to all others at once.
 * */
static void add_ring(struct pass *p, const struct meeting *a, int64_t mine) {
    int ring = p->degrees[MESH_RING], at = p->at[MESH_RING];
    int64_t tokens = (ring - 1) * group_tokens(p, a, at, true);
    if (!p->patches) {
        tokens = 0;
        for (int i = 0; i < ring; i++) tokens += i == (at + 1) % ring ? 0 : group_tokens(p, a, i, true);
    }
    add(p, MESH_RING, a->count * 2 * tokens * mine * p->batch * a->width, p->m->element_bytes);
}

static void add_attention(struct pass *p, const struct meeting *a) {
    int64_t heads = share(p, a), mine = cut_share(heads, p->degrees[MESH_ULYSSES], p->at[MESH_ULYSSES]).count;
    if (p->parts == 1) return;
    if (p->degrees[MESH_PATCH] > 1) {
        int64_t tokens = positions(p, p->me, a->level) + text_among(p, a, p->me, 1, true);
        add(p, MESH_PATCH, a->count * 2 * (p->parts - 1) * tokens * heads * p->batch * a->width, p->m->element_bytes);
        return;
    }
    if (p->degrees[MESH_ULYSSES] > 1) add_ulysses(p, a, heads, mine);
    if (p->degrees[MESH_RING] > 1) add_ring(p, a, mine);
}

/* Rows of a sum or a join: positions of both streams. */
static int64_t meeting_rows(const struct pass *p, const struct meeting *meeting) {
    int64_t rows = 0;
    if (meeting->of & MEETING_ONCE) rows += 1;
    if (meeting->of & MEETING_PICTURE) rows += positions(p, p->me, meeting->level);
    if ((meeting->of & MEETING_TEXT) && p->has_text) rows += p->text;
    return rows * p->batch;
}

static void add_sum(struct pass *p, const struct meeting *meeting) {
    int t = p->degrees[MESH_TENSOR];
    int64_t elements = meeting_rows(p, meeting) * meeting->units * meeting->width, slice = cut_share(elements, t, p->at[MESH_TENSOR]).count;
    if (t > 1) add(p, MESH_TENSOR, meeting->count * (elements - slice + (t - 1) * slice), p->m->element_bytes);
}

static void add_join(struct pass *p, const struct meeting *meeting) {
    int t = p->degrees[MESH_TENSOR];
    int64_t mine = cut_share(meeting->units, t, p->at[MESH_TENSOR]).count * meeting->width;
    add(p, MESH_TENSOR, meeting->count * (t - 1) * meeting_rows(p, meeting) * mine, p->m->element_bytes);
}

/* The axis along which neighbouring rows are apart. */
static enum mesh_axis rows_axis(const struct pass *p) {
    return p->degrees[MESH_PATCH] > 1 ? MESH_PATCH : p->degrees[MESH_ULYSSES] > 1 ? MESH_ULYSSES : MESH_RING;
}

static void add_halo(struct pass *p, const struct meeting *h) {
    int64_t rows = (p->me < p->parts - 1 ? h->above : 0) + (p->me > 0 ? h->below : 0), width = halved(p->m->columns, h->level);
    int64_t row = p->batch * width * share(p, h) * h->width * p->m->element_bytes;
    if (p->displaced) row = (row + 7) / 8 * 8; /* pieces of its messages begin at multiples of 8 */
    add(p, rows_axis(p), h->count * rows * row, 1);
}

static void add_norm(struct pass *p, const struct meeting *norm) {
    add(p, rows_axis(p), norm->count * (p->parts - 1) * (1 + 2 * p->batch * share(p, norm)), p->displaced ? 8 : 4);
}

static void add_block(struct pass *p, const struct plan_block *block) {
    for (int i = 0; i < block->num_meetings; i++) {
        const struct meeting *meeting = &block->meetings[i];
        switch (meeting->kind) {
        case MEETING_ATTENTION:
            add_attention(p, meeting);
            break;
        case MEETING_SUM:
            add_sum(p, meeting);
            break;
        case MEETING_JOIN:
            add_join(p, meeting);
            break;
        case MEETING_HALO:
            add_halo(p, meeting);
            break;
        case MEETING_NORM:
            add_norm(p, meeting);
            break;
        }
    }
}

/* The prediction's positions, to all that share them. */
static void add_gather(struct pass *p) {
    int64_t channels = p->m->patch_size * p->m->patch_size * p->m->out_channels;
    add(p, rows_axis(p), (p->parts - 1) * positions(p, p->me, 0) * p->batch * channels, p->m->element_bytes);
}

/* The predictions of both halves of guidance: of `positions` latents, float32. */
static void add_guidance(struct pass *p, int64_t latents) {
    add(p, MESH_CFG, (p->degrees[MESH_CFG] - 1) * latents * p->m->channels, (int)sizeof(float));
}

/* ---- PipeFusion ---- */

enum { PARCEL_HEAD = 64, PARCEL_ALIGNMENT = 64 }; /* as parcel.h has them */

/* What a tensor takes in a parcel. */
static int64_t parcel_tensor(int64_t elements, int element_bytes) {
    return (elements * element_bytes + PARCEL_ALIGNMENT - 1) / PARCEL_ALIGNMENT * PARCEL_ALIGNMENT;
}

static int64_t parcel_map(const struct pass *p, struct denoiser_map map) {
    return parcel_tensor(p->batch * positions(p, p->me, map.level) * map.channels, p->m->element_bytes);
}

/* A stage's tokens to the next one, with the text where its stream goes on; the last stage's latents to the first. `latents`: of the rows
 * at hand. */
static void add_stage_message(struct pass *p, int64_t latents) {
    const struct plan_model *m = p->m;
    int stages = p->degrees[MESH_PIPEFUSION], stage = p->at[MESH_PIPEFUSION];
    if (stages == 1) return;
    if (stage == stages - 1) {
        if (p->is_last_row) add(p, MESH_PIPEFUSION, PARCEL_HEAD + parcel_tensor(latents * m->channels, (int)sizeof(float)), 1);
        return;
    }
    int64_t bytes = PARCEL_HEAD * (1 + p->skip_parcels) + parcel_map(p, m->blocks[p->stage_end - 1].out);
    for (int i = 0; i < p->num_skips; i++) bytes += parcel_map(p, p->skips[i]);
    bool text = p->has_text && m->text_stream && m->blocks[p->stage_end - 1].carries_text;
    if (text) bytes += parcel_tensor(p->batch * p->text * m->width, m->element_bytes);
    add(p, MESH_PIPEFUSION, bytes, 1);
}

int plan_skips(const struct plan_model *m, const int *first, int stages, int stage, struct denoiser_map skips[PLAN_MAX_SKIPS],
               int *parcels) {
    int makers[PLAN_MAX_SKIPS], height = 0, here = 0, count = 0, last_user = -1;
    struct denoiser_map maps[PLAN_MAX_SKIPS];
    *parcels = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        while (here < stages - 1 && i >= first[here + 1]) here++;
        for (int k = 0; k < m->blocks[i].pops && height > 0; k++) {
            height--;
            if (makers[height] != stage || here == stage) continue;
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

/* Sums of the conditioning, which every stage computes for itself: they are listed with block 0. */
static void add_conditioning(struct pass *p) {
    const struct plan_block *block = &p->m->blocks[0];
    for (int i = 0; i < block->num_meetings; i++)
        if (block->meetings[i].of == MEETING_ONCE) add_sum(p, &block->meetings[i]);
}

/* One part of the picture (of `patches`; 0 of 1: all of it) through this rank's stage. */
static void add_part(struct pass *p, int part, int patches) {
    const struct plan_model *m = p->m;
    int64_t size = m->patch_size, rows = m->rows / size, columns = m->columns / size;
    int stages = p->degrees[MESH_PIPEFUSION], stage = p->at[MESH_PIPEFUSION];
    int64_t first = rows * part / patches, end = rows * (part + 1) / patches, latents = (end - first) * size * m->columns;
    p->first = first * columns, p->count = (end - first) * columns;
    p->has_text = part == 0;
    if (stage > 0) add_conditioning(p);
    for (int i = p->stage_first; i < p->stage_end; i++) add_block(p, &m->blocks[i]);
    if (stage == stages - 1) {
        add_gather(p);
        add_guidance(p, latents);
    }
    add_stage_message(p, latents);
}

/* ---- a step ---- */

static struct plan_bytes step(const struct plan_model *m, const struct plan_mesh *mesh, int rank, int patches) {
    struct pass p = {.m = m, .parts = plan_parts(mesh), .batch = m->predictions / mesh->degrees[MESH_CFG]};
    memcpy(p.degrees, mesh->degrees, sizeof p.degrees);
    for (int a = 0; a < MESH_AXES; a++) p.at[a] = plan_coordinate(mesh, rank, (enum mesh_axis)a);
    p.me = p.at[MESH_PATCH] + p.at[MESH_RING] * p.degrees[MESH_ULYSSES] + p.at[MESH_ULYSSES];
    p.displaced = p.degrees[MESH_PATCH] > 1;
    p.patches = mesh->patches > 1;
    p.cuts_text = plan_cuts_text(m, mesh);
    p.text = p.cuts_text ? cut_share(m->text_tokens, p.parts, p.me).count : m->text_tokens;
    int first[PLAN_MAX_BLOCKS + 1];
    plan_stages(m, p.degrees[MESH_PIPEFUSION], first);
    p.stage_first = first[p.at[MESH_PIPEFUSION]], p.stage_end = first[p.at[MESH_PIPEFUSION] + 1];
    if (p.at[MESH_DATA] >= m->pictures) return p.sent; /* these ranks have nothing to do */
    p.num_skips = plan_skips(m, first, p.degrees[MESH_PIPEFUSION], p.at[MESH_PIPEFUSION], p.skips, &p.skip_parcels);
    int rows = mesh->patches == 1 && p.degrees[MESH_PIPEFUSION] > 1 ? (int)p.batch : 1;
    p.batch /= rows;
    for (int row = 0; row < rows; row++) {
        p.is_last_row = row == rows - 1;
        for (int i = 0; i < patches; i++) add_part(&p, i, patches);
    }
    for (int a = 0; a < MESH_AXES; a++) p.sent.sum += p.sent.axis[a];
    return p.sent;
}

struct plan_bytes plan_step_bytes(const struct plan_model *m, const struct plan_mesh *mesh, int rank) {
    return step(m, mesh, rank, mesh->patches);
}

struct plan_bytes plan_warmup_bytes(const struct plan_model *m, const struct plan_mesh *mesh, int rank) {
    return step(m, mesh, rank, 1);
}
