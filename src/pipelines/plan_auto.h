/* `--parallel auto`: measures ranks and links, and chooses a mesh. */
#ifndef TESSERA_PIPELINES_PLAN_AUTO_H
#define TESSERA_PIPELINES_PLAN_AUTO_H

#include "pipelines/plan_model.h"

struct plan_auto_options {
    bool allow_displaced;
    double memory; /* bytes for each rank; 0: its share of its host's */
    int threads;   /* as tessera_model_options has it */
    /* [ranks of the world], or NULL. Where ranks are unequal, mesh->rank_weights points to it: it must live as long as *mesh is used. */
    double *weights;
};

/* On all ranks of options->mesh->world, which may have rank_weights: speeds that stand in for measured ones. Fills the degrees of *mesh
 * (its world stays), and on each rank the same three lines of why. Speeds are kept in a file, by machine and model, for the next time
 * ($XDG_CACHE_HOME/tessera/speed.json, else ~/.cache); links are measured each time. Errors as plan_model_open's and plan_choose's. */
tessera_status plan_auto(const char *model, const tessera_model_options *options, const struct plan_request *request,
                         const struct plan_auto_options *auto_options, tessera_mesh *mesh, char reason[PLAN_REASON_LENGTH],
                         tessera_error *error);

/* A plan's mesh as options: its degrees and patches are put into *mesh, the rest of which stays. */
void plan_mesh_choose(const struct plan_mesh *plan, tessera_mesh *mesh);

/* What is measured for it, by all ranks of a group together and known to all of them. */
struct plan_measured {
    struct plan_machine machine;
    double *numbers; /* what machine.speeds and machine.memories point into; owned */
};
tessera_status plan_measure_machine(struct comm *comm, const struct plan_model *model, const struct plan_auto_options *options,
                                    struct plan_measured *out, tessera_error *error);
void plan_measured_free(struct plan_measured *measured);

#endif
