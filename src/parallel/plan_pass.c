/* See plan_pass.h. */
#include "parallel/plan_pass.h"

#include "parallel/cut.h"

static int64_t halved(int64_t x, int level) {
    for (int i = 0; i < level; i++) x = (x + 1) / 2;
    return x;
}

/* First position of a member on a level; `members` itself gives the end. */
static int64_t member_bound(const struct plan_model *m, int members, int member, int level) {
    int64_t p = m->patch_size;
    if (m->row_unit == 0) return m->rows / p * (m->columns / p) * member / members;
    int64_t units = (m->rows + m->row_unit - 1) / m->row_unit;
    int64_t row = member == members ? m->rows : units * member / members * m->row_unit;
    return halved(row, level) * halved(m->columns, level);
}

static int64_t bound(const struct plan_pass *p, int member, int level) {
    int64_t columns = p->m->columns / p->m->patch_size;
    if (p->m->row_unit == 0 && p->whole_rows) return p->count / columns * member / p->members * columns;
    if (p->m->row_unit == 0) return p->first + p->count * member / p->members;
    return member_bound(p->m, p->members, member, level);
}

int64_t plan_pass_positions(const struct plan_pass *p, int member, int level) {
    return bound(p, member + 1, level) - bound(p, member, level);
}

void plan_pass_add(struct plan_pass *p, enum mesh_axis axis, int64_t elements, int element_bytes) {
    p->sent.axis[axis] += (uint64_t)elements * (uint64_t)element_bytes;
}

int64_t plan_pass_units(const struct plan_pass *p, const struct meeting *meeting) {
    if (!meeting->is_sliced) return meeting->units;
    return cut_evenly(meeting->units, p->degrees[MESH_TENSOR], p->at[MESH_TENSOR]).count;
}

int64_t plan_pass_tokens(const struct plan_pass *p, const struct meeting *a, int first, int count, bool keys) {
    bool text = (a->of & MEETING_TEXT) && p->has_text && p->cuts_text && (keys || a->text_asks);
    int64_t words = text ? p->m->text_tokens : 0;
    return bound(p, first + count, a->level) - bound(p, first, a->level) + words * (first + count) / p->members -
           words * first / p->members;
}

int64_t plan_pass_rows(const struct plan_pass *p, const struct meeting *meeting) {
    int64_t rows = 0;
    if (meeting->of & MEETING_ONCE) rows += 1;
    if (meeting->of & MEETING_PICTURE) rows += plan_pass_positions(p, p->me, meeting->level);
    if ((meeting->of & MEETING_TEXT) && p->has_text) rows += p->text;
    return rows * p->batch;
}

int64_t plan_pass_halo_rows(const struct plan_pass *p, const struct meeting *halo) {
    return (p->me < p->members - 1 ? halo->above : 0) + (p->me > 0 ? halo->below : 0);
}

int64_t plan_pass_row(const struct plan_pass *p, const struct meeting *halo) {
    return p->batch * halved(p->m->columns, halo->level) * plan_pass_units(p, halo) * halo->width * p->m->element_bytes;
}

void plan_pass_add_gather(struct plan_pass *p, enum mesh_axis axis) {
    int64_t channels = p->m->patch_size * p->m->patch_size * p->m->out_channels;
    plan_pass_add(p, axis, (p->members - 1) * plan_pass_positions(p, p->me, 0) * p->batch * channels, p->m->element_bytes);
}

bool plan_pass_is_last_stage(const struct plan_pass *p) {
    return p->at[MESH_PIPEFUSION] == p->degrees[MESH_PIPEFUSION] - 1;
}
