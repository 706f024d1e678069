/* A case on many ranks: a denoiser of which this rank holds its share, and what a prediction costs
 * each rank. */
#ifndef TESSERA_TESTS_SPREAD_H
#define TESSERA_TESTS_SPREAD_H

#include "conformance.h"
#include "formula.h"

struct spread_denoiser {
    struct component whole; /* what one rank holds */
    struct component mine;  /* this rank's share; empty where the mesh is one rank */
    const struct denoiser *denoiser;
    double alone; /* operations of a prediction on one rank that has both halves of guidance; 0 until the first */
};

#define SPREAD_OPERATIONS_SLACK 1.15 /* of its share is the most that a rank may compute */
#define SPREAD_WEIGHTS_SLACK 1.01    /* for biases, which are not cut */

/* FAILs the case where c->work is more than its limits, or other bytes than the formula's were sent
 * ("in a prediction"). */
void spread_check_work(struct conformance_case *c, const char *what);

/* The case cannot have its mesh: it is left out where all meshes are tried, skipped where this one
 * was asked for. */
void spread_cannot_have(struct conformance_case *c, const char *reason);

/* Opens the case's model for its mesh. False, with the outcome set, where that fails or the case
 * cannot have the mesh's degrees. guided: it has two predictions a step, which two ranks can share;
 * latents: [B, H, W, C], for their size. */
bool spread_open(struct conformance_case *c, bool guided, struct tensor latents, struct spread_denoiser *d);
void spread_close(struct spread_denoiser *d);

/* One prediction by the ranks of this half of guidance: F32 [B, H, W, C] on each. It sets c->work,
 * and FAILs the case where this rank did more, sent something else or holds more than the formulas
 * say. Empty on failure. */
struct tensor spread_predict(struct conformance_case *c, struct spread_denoiser *d, const struct denoiser_inputs *inputs);
/* Predictions of both halves of guidance: [2 B, H, W, C]; `mine` where the mesh does not cut the
 * batch. */
struct tensor spread_join(struct conformance_case *c, struct tensor mine);

/* Runs a case on every mesh of the world that it can have, one line each; counts[verdict] grows on
 * all ranks alike. False after a failure of communication, which is printed. */
bool spread_run(struct conformance_case *c, void (*run)(struct conformance_case *), void (*print)(const struct conformance_case *),
                int counts[3]);

/* From now on the ranks of the case's ring axis are patches, as `choice` says. */
tessera_status spread_patches(struct conformance_case *c, const struct strategy_choice *choice, tessera_error *error);

#endif
