/* What layers ask of the chain of strategies, and the cuts that a run keeps: a model asks for the
 * same few grids at every step. */
#include "parallel/strategy.h"

/* The cut of those rows of a picture. */
static struct cut *find(const struct parallel *parallel, int64_t rows, int64_t columns, struct span rows_held) {
    for (int i = 0; i < parallel->num_cuts; i++) {
        struct cut *cut = parallel->cuts[i];
        bool same_rows =
            cut->bounds[0] == rows_held.first * columns && cut->bounds[cut->members] == (rows_held.first + rows_held.count) * columns;
        if (cut->rows == rows && cut->columns == columns && same_rows) return cut;
    }
    return NULL;
}

/* Keeps a new cut; the oldest goes where there is no room. */
static struct cut *keep(struct parallel *parallel, struct cut *cut) {
    const int capacity = (int)(sizeof parallel->cuts / sizeof parallel->cuts[0]);
    if (parallel->num_cuts == capacity) {
        cut_free(parallel->cuts[0]);
        for (int i = 1; i < capacity; i++) parallel->cuts[i - 1] = parallel->cuts[i];
        parallel->num_cuts--;
    }
    parallel->cuts[parallel->num_cuts++] = cut;
    return cut;
}

/* The rows of a picture that this rank works on now. */
static struct span rows_held_of(const struct parallel *p, int64_t rows) {
    for (int i = 0; i < p->num_links; i++)
        if (p->links[i].strategy->held_rows != NULL) return p->links[i].strategy->held_rows(p->links[i].state, rows);
    return (struct span){0, rows};
}

static tessera_status new_cut(struct run *run, int64_t rows, int64_t columns, struct span rows_held, struct cut **out) {
    const struct parallel *p = run->parallel;
    for (int i = 0; i < p->num_links; i++)
        if (p->links[i].strategy->cut != NULL) return p->links[i].strategy->cut(run, &p->links[i], rows, columns, out);
    return cut_tokens(rows, columns, rows_held, comm_size(p->cut_group), comm_rank(p->cut_group), p->shares, out, &run->error);
}

const struct cut *exchange_cut_tokens(struct run *run, int64_t rows, int64_t columns) {
    struct parallel *p = run->parallel;
    if (run_failed(run) || p == NULL) return NULL;
    if (!parallel_cuts_positions(p) && p->choice.patches <= 1) return NULL;
    struct span rows_held = rows_held_of(p, rows);
    struct cut *cut = find(p, rows, columns, rows_held);
    if (cut != NULL) return cut;
    return new_cut(run, rows, columns, rows_held, &cut) == TESSERA_OK ? keep(p, cut) : NULL;
}

const struct cut *exchange_cut_rows(struct run *run, int64_t rows, int64_t columns, int64_t unit, int levels) {
    if (run_failed(run) || !parallel_cuts_positions(run->parallel)) return NULL;
    struct cut *cut = find(run->parallel, rows, columns, (struct span){0, rows});
    if (cut != NULL) return cut;
    struct comm *group = run->parallel->cut_group;
    tessera_status status =
        cut_rows(rows, columns, unit, levels, comm_size(group), comm_rank(group), run->parallel->shares, &cut, &run->error);
    return status == TESSERA_OK ? keep(run->parallel, cut) : NULL;
}

struct tensor exchange_split(struct run *run, struct tensor latents, int64_t unit) {
    const struct parallel *p = run->parallel;
    for (int i = 0; p != NULL && i < p->num_links && !run_failed(run); i++)
        if (p->links[i].strategy->split != NULL) return p->links[i].strategy->split(run, &p->links[i], latents, unit);
    return run_failed(run) ? (struct tensor){0} : latents;
}

struct tensor exchange_unite(struct run *run, struct tensor mine, struct tensor latents, int64_t unit) {
    const struct parallel *p = run->parallel;
    for (int i = 0; p != NULL && i < p->num_links && !run_failed(run); i++)
        if (p->links[i].strategy->unite != NULL) return p->links[i].strategy->unite(run, &p->links[i], mine, latents, unit);
    return run_failed(run) ? (struct tensor){0} : mine;
}

/* ---- rows ---- */

struct halo exchange_halo_start(struct run *run, struct tensor x, int64_t above, int64_t below) {
    const struct parallel *p = run->parallel;
    for (int i = 0; parallel_cuts_positions(p) && i < p->num_links && !run_failed(run); i++)
        if (p->links[i].strategy->halo != NULL) return p->links[i].strategy->halo(run, &p->links[i], x, above, below);
    return (struct halo){0};
}

void exchange_halo_wait(struct run *run, struct halo *halo) {
    transfer_wait(run, &halo->transfer);
}

void exchange_group_stats(struct run *run, struct tensor *stats, double weight, double elements) {
    const struct parallel *p = run->parallel;
    for (int i = 0; parallel_cuts_positions(p) && i < p->num_links && !run_failed(run); i++) {
        if (p->links[i].strategy->group_stats == NULL) continue;
        p->links[i].strategy->group_stats(run, &p->links[i], stats, weight, elements);
        return;
    }
}
