/* How a text is cut over ranks: in the same shares as the picture, or not at all.
 *
 *     whole on every rank    where one rank has the whole picture, where a strategy keeps it whole (strategy.h: keeps_text_whole),
 *                            and where the text has fewer tokens than there are ranks
 *     cut                    everywhere else: rank i has the tokens cut_span(tokens, n, i, shares)
 *
 * Nothing is sent: every rank has encoded, or received, the whole text. */
#include "backend/memory.h"
#include "parallel/strategy.h"

/* A text of fewer tokens than ranks stays whole, so that none has an empty span. */
static bool cuts_text(const struct parallel *p, int64_t tokens) {
    bool has_all = false;
    for (int i = 0; p != NULL && i < p->num_links; i++) {
        const struct strategy *s = p->links[i].strategy;
        has_all = has_all || (s->keeps_text_whole != NULL && s->keeps_text_whole(&p->choice));
    }
    return parallel_cuts_positions(p) && !has_all && tokens >= comm_size(p->cut_group);
}

struct span exchange_text_span(const struct run *run, int64_t tokens) {
    const struct parallel *p = run->parallel;
    if (!cuts_text(p, tokens)) return (struct span){0, tokens};
    return cut_span(tokens, comm_size(p->cut_group), comm_rank(p->cut_group), p->shares);
}

struct tensor exchange_text(struct run *run, struct tensor x) {
    if (run_failed(run) || !cuts_text(run->parallel, x.shape[1])) return x;
    struct span mine = exchange_text_span(run, x.shape[1]);
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], mine.count, x.shape[2]));
    if (!run_failed(run)) backend_copy_rows(run->backend, &out, 0, &x, mine.first, mine.count);
    return out;
}
