/* See plan_wait.h: links between groups of ranks, and sizes of messages. */
#include "parallel/plan_wait.h"

#include <math.h>

#include "parallel/strategy.h"

/* ---- links ---- */

void plan_wait_add(struct plan_wait *sum, double count, struct plan_wait more) {
    sum->latency += count * more.latency;
    sum->bandwidth += count * more.bandwidth;
}

struct plan_group plan_axis_group(const struct plan_mesh *mesh, enum mesh_axis axis) {
    return (struct plan_group){plan_stride(mesh, axis), mesh->degrees[axis]};
}

struct plan_group plan_cut_group(const struct plan_mesh *mesh) {
    return (struct plan_group){plan_stride(mesh, mesh->degrees[MESH_PATCH] > 1 ? MESH_PATCH : MESH_ULYSSES), plan_cut_members(mesh)};
}

int plan_group_among(int ranks, struct plan_group g) {
    int members = g.stride < ranks ? ranks / g.stride : 1;
    return members < g.degree ? members : g.degree;
}

static int ranks_on_host(const struct plan_machine *machine) {
    return machine->per_host < machine->ranks ? machine->per_host : machine->ranks;
}

struct plan_wait plan_wait_to_all(const struct plan_estimate *e, struct plan_group g, double bytes) {
    const struct plan_machine *machine = e->machine;
    struct plan_wait wait = {0, 0};
    if (g.degree < 2) return wait;
    int here = plan_group_among(machine->per_host, g), away = g.degree - here;
    double each = bytes / (g.degree - 1), inside = each * (here - 1) / machine->inside.bandwidth;
    double across = each * away * ranks_on_host(machine) / machine->between.bandwidth;
    wait.latency = away > 0 ? machine->between.latency : machine->inside.latency;
    wait.bandwidth = fmax(here > 1 ? inside : 0, away > 0 ? across : 0);
    return wait;
}

struct plan_wait plan_wait_to_next(const struct plan_estimate *e, struct plan_group g, double bytes) {
    const struct plan_machine *machine = e->machine;
    struct plan_wait wait = {0, 0};
    if (g.degree < 2) return wait;
    int here = plan_group_among(machine->per_host, g);
    bool crosses = here < g.degree;
    double crossing = (double)ranks_on_host(machine) / here; /* of a host's ranks: the last of each group */
    wait.latency = crosses ? machine->between.latency : machine->inside.latency;
    wait.bandwidth = crosses ? crossing * bytes / machine->between.bandwidth : bytes / machine->inside.bandwidth;
    return wait;
}

double plan_wait_not_behind(struct plan_wait wait, double computing) {
    double whole = wait.latency + wait.bandwidth;
    return whole > computing ? (whole - computing) / whole : 0;
}

/* ---- sizes ---- */

double plan_estimate_positions(const struct plan_estimate *e, int level) {
    return e->positions / (double)((int64_t)1 << (2 * level));
}

double plan_estimate_token(const struct plan_estimate *e, const struct meeting *a) {
    return e->batch * (double)a->width * (double)a->units * e->m->element_bytes * (a->is_sliced ? e->tensor : 1.0);
}

double plan_estimate_bytes(const struct plan_estimate *e, const struct meeting *meeting) {
    double rows = meeting->of & MEETING_ONCE ? 1.0 : 0.0;
    if (meeting->of & MEETING_PICTURE) rows += plan_estimate_positions(e, meeting->level);
    if ((meeting->of & MEETING_TEXT) && e->has_text) rows += e->text;
    return rows * e->batch * (double)(meeting->units * meeting->width) * e->m->element_bytes;
}

bool plan_estimate_has_text(const struct plan_estimate *e, const struct meeting *a) {
    return (a->of & MEETING_TEXT) && e->has_text;
}

double plan_estimate_keys(const struct plan_estimate *e, const struct meeting *a) {
    return plan_estimate_positions(e, a->level) + (plan_estimate_has_text(e, a) && e->cuts_text ? e->text : 0);
}

double plan_estimate_patches_seen(const struct plan_estimate *e) {
    int members = plan_cut_members(e->mesh);
    return e->hides ? e->patch_strategy->patches_seen(members) : members;
}

struct plan_wait plan_wait_of_rows(const struct plan_estimate *e, const struct meeting *meeting) {
    struct plan_group group = plan_cut_group(e->mesh);
    double units = (double)meeting->units, columns = (double)e->m->columns / (double)((int64_t)1 << meeting->level);
    if (meeting->kind == MEETING_HALO)
        return plan_wait_to_next(e, group, e->batch * columns * (double)(meeting->units * meeting->width) * e->m->element_bytes);
    return plan_wait_to_all(e, group, 4.0 * (group.degree - 1) * (1 + 2 * e->batch * units));
}

struct plan_wait plan_wait_of_prediction(const struct plan_estimate *e) {
    struct plan_group group = plan_cut_group(e->mesh);
    double token = (double)(e->m->patch_size * e->m->patch_size) * (double)e->m->out_channels * e->m->element_bytes;
    return plan_wait_to_all(e, group, (group.degree - 1) * e->batch * e->positions * token);
}
