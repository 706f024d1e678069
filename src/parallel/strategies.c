/* The strategies in order, and the chain of those that a mesh has. See strategy.h. */
#include <assert.h>
#include <string.h>

#include "parallel/strategy.h"

#define STRATEGY_ADDRESS(strategy) &strategy,
static const struct strategy *const strategies[] = {STRATEGY_TABLE(STRATEGY_ADDRESS)};
enum { STRATEGIES = sizeof strategies / sizeof *strategies };
static_assert((int)STRATEGIES <= (int)PARALLEL_MAX_LINKS, "a chain has room for every strategy");

const struct strategy *strategy_at(int place) {
    return place >= 0 && place < STRATEGIES ? strategies[place] : NULL;
}

const struct strategy *strategy_of_patches(const char *name) {
    if (name == NULL) return &displaced_patches_strategy;
    for (int i = 0; i < STRATEGIES; i++)
        if (strategies[i]->group == MESH_PATCH && strcmp(strategies[i]->name, name) == 0) return strategies[i];
    return NULL;
}

int strategy_place(const struct strategy *strategy) {
    int place = 0;
    while (strategies[place] != strategy) place++;
    return place;
}

/* ---- a chain ---- */

static void insert(struct parallel *p, struct strategy_link link) {
    int at = p->num_links;
    assert(p->num_links < PARALLEL_MAX_LINKS);
    for (; at > 0 && strategy_place(p->links[at - 1].strategy) > strategy_place(link.strategy); at--) p->links[at] = p->links[at - 1];
    p->links[at] = link;
    p->num_links++;
}

void parallel_add(struct parallel *parallel, const struct strategy *strategy, struct comm *group, void *state) {
    if (comm_size(group) > 1 || state != NULL)
        insert(parallel, (struct strategy_link){.strategy = strategy, .group = group, .state = state});
}

tessera_status parallel_compose(const struct strategy_choice *choice, struct comm *const group[MESH_GROUPS], struct parallel *out,
                                tessera_error *error) {
    *out = (struct parallel){.cut_group = group[MESH_CUT], .tensor = group[MESH_TENSOR], .choice = *choice};
    for (int i = 0; i < STRATEGIES; i++) {
        const struct strategy *s = strategies[i];
        if (!s->applies(choice)) continue;
        struct strategy_link link = {.strategy = s, .group = group[s->group]};
        if (s->open != NULL) {
            tessera_status status = s->open(choice, link.group, &link.state, error);
            if (status != TESSERA_OK) parallel_free(out);
            if (status != TESSERA_OK) return status;
            link.owned = true;
        }
        insert(out, link);
    }
    if (parallel_splits_pictures(out)) out->cut_group = group[MESH_SEQUENCE];
    return TESSERA_OK;
}

void parallel_free(struct parallel *p) {
    if (p == NULL) return;
    for (int i = 0; i < p->num_cuts; i++) cut_free(p->cuts[i]);
    for (int i = 0; i < p->num_links; i++)
        if (p->links[i].owned) p->links[i].strategy->close(p->links[i].state);
    p->num_cuts = p->num_links = 0;
}

/* ---- a picture ---- */

void parallel_begin(struct parallel *p, const struct strategy_moment *moment) {
    for (int i = 0; i < p->num_links; i++)
        if (p->links[i].strategy->begin != NULL) p->links[i].strategy->begin(p->links[i].state, moment);
}

tessera_status parallel_reset(struct parallel *p, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < p->num_links; i++) {
        const struct strategy_link *link = &p->links[i];
        if (link->strategy->reset == NULL) continue;
        tessera_status one = link->strategy->reset(link->state, status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
    }
    return status;
}

bool parallel_splits_pictures(const struct parallel *p) {
    for (int i = 0; p != NULL && i < p->num_links; i++)
        if (p->links[i].strategy->split != NULL) return true;
    return false;
}
