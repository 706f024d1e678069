/* A pass through blocks as the planner estimates its time: all that a strategy needs to tell how
 * long ranks wait for its exchanges (strategy.h). The rank with the largest span counts; of a
 * host's link, what all of its ranks send over it together. docs/planner.md has the equations. */
#ifndef TESSERA_PARALLEL_PLAN_WAIT_H
#define TESSERA_PARALLEL_PLAN_WAIT_H

#include "parallel/plan.h"

struct plan_wait { /* seconds */
    double latency, bandwidth;
};

struct plan_cost {
    double compute;
    struct plan_wait wait, hidden; /* hidden: waits that computing hides, as long as computing takes longer */
};

/* A pass of `share` of the picture (PipeFusion's patch; 1: all of it). */
struct plan_estimate {
    const struct plan_model *m;
    const struct plan_machine *machine;
    const struct plan_mesh *mesh;
    const struct strategy *patch_strategy; /* the mesh's; see plan_mesh_patch_strategy */
    double rate, batch, share;
    bool has_text, hides; /* hides: a strategy of the patch axis, after warm-up */
    double positions;     /* of the largest span */
    double text, tensor;  /* text tokens on a rank; the largest share of what tensor cuts */
    bool cuts_text;
    const int *first; /* block of each stage, and the end */
    const int *ranks; /* of each stage; NULL: each has its own */
};

/* `degree` ranks that are `stride` apart: those along an axis, and the cut group. */
struct plan_group {
    int stride, degree;
};
struct plan_group plan_axis_group(const struct plan_mesh *mesh, enum mesh_axis axis);
struct plan_group plan_cut_group(const struct plan_mesh *mesh);
/* How many of the group's members are among so many neighbouring ranks. */
int plan_group_among(int ranks, struct plan_group group);

/* Every member sends `bytes`: divided equally among all others at once, or to the next one. */
struct plan_wait plan_wait_to_all(const struct plan_estimate *estimate, struct plan_group group, double bytes);
struct plan_wait plan_wait_to_next(const struct plan_estimate *estimate, struct plan_group group, double bytes);
void plan_wait_add(struct plan_wait *sum, double count, struct plan_wait more);
/* The share of a wait that computing meanwhile does not hide. */
double plan_wait_not_behind(struct plan_wait wait, double computing);

/* Of the largest span: positions on a level; bytes of one token in an attention layer's queries,
 * its keys or its values; bytes of a sum or a join. */
double plan_estimate_positions(const struct plan_estimate *estimate, int level);
double plan_estimate_token(const struct plan_estimate *estimate, const struct meeting *attention);
double plan_estimate_bytes(const struct plan_estimate *estimate, const struct meeting *meeting);
/* Does the text's stream take part in an attention layer? Each rank has some of it where cuts_text
 * says so, else all of it. */
bool plan_estimate_has_text(const struct plan_estimate *estimate, const struct meeting *attention);
/* Tokens of the largest span whose keys and values are exchanged. */
double plan_estimate_keys(const struct plan_estimate *estimate, const struct meeting *attention);
/* Patches of the picture that a rank's attention sees. */
double plan_estimate_patches_seen(const struct plan_estimate *estimate);

/* The wait for rows (a halo, or a group norm's statistics) in the cut group; and at a step's end,
 * where the prediction goes to all. */
struct plan_wait plan_wait_of_rows(const struct plan_estimate *estimate, const struct meeting *meeting);
struct plan_wait plan_wait_of_prediction(const struct plan_estimate *estimate);

#endif
