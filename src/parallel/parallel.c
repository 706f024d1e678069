/* The cuts that a run keeps: a model asks for the same few grids at every step. */
#include "parallel/exchange.h"

void parallel_free(struct parallel *parallel) {
    if (parallel == NULL) return;
    for (int i = 0; i < parallel->num_cuts; i++) cut_free(parallel->cuts[i]);
    parallel->num_cuts = 0;
}

/* The one of a part of a picture that begins at `first_row` and has part_rows rows. */
static struct cut *find(const struct parallel *parallel, int64_t rows, int64_t columns, struct span part_rows) {
    for (int i = 0; i < parallel->num_cuts; i++) {
        struct cut *cut = parallel->cuts[i];
        bool same_part =
            cut->bounds[0] == part_rows.first * columns && cut->bounds[cut->members] == (part_rows.first + part_rows.count) * columns;
        if (cut->rows == rows && cut->columns == columns && same_part) return cut;
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

/* Where the parts of a picture end, [members + 1], if each rank's positions and all of the text, where displaced patches do not split that,
 * are to be in proportion to the shares s: s (positions + n text) of all lie before the end of i members' parts, i text of them
 * are text. */
static const double *leave_room(const struct parallel *p, int64_t positions, double *ends) {
    int members = comm_size(p->rows);
    double text = (double)p->text_tokens;
    if (p->shares == NULL || p->displaced == NULL || p->displaced->split_text) return p->shares;
    for (int i = 0; i <= members; i++) ends[i] = (p->shares[i] * ((double)positions + members * text) - i * text) / (double)positions;
    return ends;
}

const struct cut *exchange_cut_tokens(struct run *run, int64_t rows, int64_t columns) {
    struct parallel *p = run->parallel;
    if (run_failed(run) || p == NULL || (!parallel_cuts_rows(p) && p->patches == NULL)) return NULL;
    struct span part = p->patches != NULL ? patches_rows(p->patches, rows) : (struct span){0, rows};
    struct cut *cut = find(p, rows, columns, part);
    if (cut != NULL) return cut;
    int members = comm_size(p->rows), me = comm_rank(p->rows);
    double ends[members + 1];
    const double *shares = leave_room(p, rows * columns, ends);
    tessera_status status = p->displaced != NULL ? cut_rows(rows, columns, 1, 1, members, me, shares, &cut, &run->error)
                                                 : cut_part(rows, columns, part, members, me, shares, &cut, &run->error);
    return status == TESSERA_OK ? keep(run->parallel, cut) : NULL;
}

const struct cut *exchange_cut_rows(struct run *run, int64_t rows, int64_t columns, int64_t unit, int levels) {
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return NULL;
    struct cut *cut = find(run->parallel, rows, columns, (struct span){0, rows});
    if (cut != NULL) return cut;
    struct comm *group = run->parallel->rows;
    tessera_status status =
        cut_rows(rows, columns, unit, levels, comm_size(group), comm_rank(group), run->parallel->shares, &cut, &run->error);
    return status == TESSERA_OK ? keep(run->parallel, cut) : NULL;
}
