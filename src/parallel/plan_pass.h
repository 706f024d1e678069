/* A pass through a rank's blocks as the planner sees it: all that a strategy needs to tell how many
 * bytes it sends (strategy.h). */
#ifndef TESSERA_PARALLEL_PLAN_PASS_H
#define TESSERA_PARALLEL_PLAN_PASS_H

#include "parallel/plan.h"

struct plan_pass {
    const struct plan_model *m;
    int degrees[MESH_AXES], at[MESH_AXES];     /* this rank's coordinates */
    int members, me;                           /* ranks among which positions are cut, and this one's place */
    int64_t first, count;                      /* of the positions of level 0: all, or those of PipeFusion's patch */
    int64_t batch, text;                       /* text tokens on this rank */
    bool cuts_text, has_text;                  /* has_text: the text's stream takes part in this pass */
    bool whole_rows;                           /* tokens are cut between rows only */
    bool collects;                             /* a ring's keys go to all members at once, not round the ring */
    bool warms_up;                             /* a synchronous step */
    int stage_first, stage_end;                /* blocks */
    struct denoiser_map skips[PLAN_MAX_SKIPS]; /* that leave this stage in one unit of work */
    int num_skips, skip_parcels;
    bool is_last_prediction; /* of a step, whose predictions may go through a pipeline one after the other */
    struct plan_bytes sent;
};

void plan_pass_add(struct plan_pass *pass, enum mesh_axis axis, int64_t elements, int element_bytes);
/* Adds the gathering of the prediction: this rank sends its positions to the rest of the cut group.
 */
void plan_pass_add_gather(struct plan_pass *pass, enum mesh_axis axis);
bool plan_pass_is_last_stage(const struct plan_pass *pass);

/* Positions of a member on a level. */
int64_t plan_pass_positions(const struct plan_pass *pass, int member, int level);
/* Units of a meeting on this rank of the tensor axis. */
int64_t plan_pass_units(const struct plan_pass *pass, const struct meeting *meeting);
/* Tokens of members first .. first + count that attention exchanges: keys, or queries. */
int64_t plan_pass_tokens(const struct plan_pass *pass, const struct meeting *attention, int first, int count, bool keys);
/* Tokens of a sum or a join: those of both streams, in all predictions. */
int64_t plan_pass_rows(const struct plan_pass *pass, const struct meeting *meeting);
/* The rows that this rank sends for a halo, and the bytes of one row. */
int64_t plan_pass_halo_rows(const struct plan_pass *pass, const struct meeting *halo);
int64_t plan_pass_row(const struct plan_pass *pass, const struct meeting *halo);

#endif
