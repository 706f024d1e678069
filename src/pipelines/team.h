/* A pipeline's ranks: what each of a mesh's groups does for one picture.
 *
 *     text        each encoder runs on one rank of the picture's group, which sends its states to the others
 *     denoiser    cfg: a prompt each; pipefusion: blocks each; ring x ulysses: positions each; tensor: heads and channels each
 *     autoencoder rows each (parallel_vae), or all of it on the group's first rank
 *
 * Without a mesh a team is one rank that does everything. */
#ifndef TESSERA_PIPELINES_TEAM_H
#define TESSERA_PIPELINES_TEAM_H

#include "comm/mesh.h"
#include "nn/load.h"
#include "parallel/parallel.h"
#include "pipelines/shares.h"
#include "tessera.h"

struct team {
    struct mesh *mesh; /* NULL: one rank */
    bool parallel_vae;
    struct strategy_choice choice; /* of what the denoiser's chain is composed; patches: those in which a picture goes through the stages */
    int stages;                    /* of a device map, which has not as many as ranks; 0: as many as the pipefusion degree */
    int whole_steps;               /* the first steps, in which it goes as a whole all the same */
    struct shares shares;          /* of unequal ranks */
    struct parallel autoencoder;
};

/* What can be told wrong of the options alone: ARGUMENT errors. */
tessera_status team_check_mesh(const tessera_mesh *mesh, tessera_error *error);
/* Collective where options name a world of several ranks. ARGUMENT errors say which degrees are possible. */
tessera_status team_open(struct team *team, const tessera_mesh *mesh, tessera_error *error);
void team_close(struct team *team);

int team_degree(const struct team *team, enum mesh_axis axis);
int team_coordinate(const struct team *team, enum mesh_axis axis);
/* Stages of blocks through which a picture goes. */
int team_stages(const struct team *team);
/* Among the ranks of one picture. */
int team_rank(const struct team *team);
int team_size(const struct team *team);
/* How many of the world's ranks are on this rank's host. */
int team_local_ranks(const struct team *team);
/* Threads for one rank, for cpu_backend_open: those `given`, if any; ranks on one host share its processors, unless each was bound to its
 * own. */
int team_threads(const struct team *team, int given);

/* *value becomes the greatest of all values of a group's ranks. */
tessera_status team_greatest(struct team *team, enum mesh_group group, int *value, tessera_error *error);

/* The denoiser's chain of strategies, with what they keep of a picture (keys, values, rows of others): it belongs to the job that asks, which
 * ends it with parallel_free. */
tessera_status team_compose(const struct team *team, struct parallel *out, tessera_error *error);
/* Do runs over the denoiser go through that chain? */
bool team_needs_chain(const struct team *team);
/* What a run over the autoencoder shares with other ranks; NULL: nothing. */
struct parallel *team_autoencoder(struct team *team);
/* This rank's share of the denoiser's weights, where it has the blocks `blocks` of the pipeline. */
struct load_scope team_scope(const struct team *team, struct span blocks);
/* How a picture goes through the pipeline; transformers can take it in patches. UNSUPPORTED where others are asked to. */
tessera_status team_set_patches(struct team *team, const tessera_mesh *mesh, bool is_transformer, tessera_error *error);

/* ARGUMENT where several ranks or patches would share a sum, whose order reproducible kernels keep: tensor, patches, several patches of a pipeline.
 * After team_set_patches. */
tessera_status team_check_reproducible(const struct team *team, tessera_error *error);

/* `bytes` at data, from the picture's rank `root` to all of them. */
tessera_status team_broadcast(struct team *team, int root, void *data, size_t bytes, tessera_error *error);
/* The same from one rank to another, on these two. */
tessera_status team_pass(struct team *team, int from, int to, void *data, size_t bytes, tessera_error *error);
/* A job of the picture's ranks, as comm.h has them: what one of them fails at ends on all. */
tessera_status team_job_begin(struct team *team, tessera_error *error);
void team_job_fail(struct team *team, const tessera_error *error);
tessera_status team_job_end(struct team *team, tessera_status status, tessera_error *error);
/* The failure of another rank in the job under way, if one is known. */
tessera_status team_job_status(struct team *team, tessera_error *error);
/* Returns when all of the picture's ranks have come here. */
tessera_status team_meet(struct team *team, tessera_error *error);

#endif
