/* `--parallel auto`: measures ranks and links, and chooses a mesh. */
#ifndef TESSERA_PIPELINES_PLAN_AUTO_H
#define TESSERA_PIPELINES_PLAN_AUTO_H

#include "pipelines/plan_model.h"

struct plan_auto_options {
    bool allow_displaced;
    double memory; /* bytes for each rank; 0: its share of its host's */
    int threads;   /* as tessera_model_options has it */
    /* [ranks of the world], or NULL. Where ranks are unequal, mesh->rank_weights points to it: it
     * must live as long as *mesh is used. */
    double *weights;
};

/* Call it on all ranks of options->mesh->world. If the mesh has rank_weights, these replace
 * measured speeds. It fills the degrees of *mesh (its world stays) and writes three lines that say
 * why, the same on each rank. Speeds are kept in a file, by machine and model
 * ($XDG_CACHE_HOME/tessera/speed.json, else ~/.cache); links are measured each time. Errors are
 * those of plan_model_open and plan_choose. */
tessera_status plan_auto(const char *model, const tessera_model_options *options, const struct plan_request *request,
                         const struct plan_auto_options *auto_options, tessera_mesh *mesh, char reason[PLAN_REASON_LENGTH],
                         tessera_error *error);

/* Writes a plan's degrees and patches into *mesh, whose other fields stay. */
void plan_mesh_choose(const struct plan_mesh *plan, tessera_mesh *mesh);

/* What all ranks of a group measure together; all of them get the same. */
struct plan_measured {
    struct plan_machine machine;
    double *numbers; /* what machine.speeds and machine.memories point into; owned */
};
tessera_status plan_measure_machine(struct comm *comm, const struct plan_model *model, const struct plan_auto_options *options,
                                    struct plan_measured *out, tessera_error *error);
void plan_measured_free(struct plan_measured *measured);

#endif
