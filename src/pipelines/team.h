/* A pipeline's ranks: what the ranks along each axis of the mesh do for one picture.
 *
 *     text        each encoder runs on one rank of the picture's group, which sends its states to the others
 *     denoiser    cfg: each has a prompt; pipefusion: blocks; ring x ulysses: tokens; tensor: heads and channels
 *     autoencoder each has rows (parallel_vae), or the group's first rank has all of it
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
    struct strategy_choice choice; /* what the denoiser's chain is composed of */
    int stages;                    /* of a device map; 0: as many as the pipefusion degree */
    int whole_steps;               /* the first steps, in which the picture goes through the stages as a whole */
    struct shares shares;          /* of unequal ranks */
    struct parallel autoencoder;
};

/* Checks what the options alone tell; ARGUMENT. */
tessera_status team_check_mesh(const tessera_mesh *mesh, tessera_error *error);
/* If options name a world of several ranks, all of them call it. ARGUMENT errors say which degrees
 * are possible. */
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
/* Threads of one rank for cpu_backend_open: `given`, if it is not 0; otherwise the host's
 * processors divided over its ranks, unless each rank was bound to its own. */
int team_threads(const struct team *team, int given);

/* *value becomes the greatest value of the group's ranks. */
tessera_status team_greatest(struct team *team, enum mesh_group group, int *value, tessera_error *error);

/* Makes the denoiser's chain of strategies, with what they keep of a picture (keys, values, rows of
 * other ranks). The job that calls it owns the chain and ends it with parallel_free. */
tessera_status team_compose(const struct team *team, struct parallel *out, tessera_error *error);
/* Do runs over the denoiser go through that chain? */
bool team_needs_chain(const struct team *team);
/* The autoencoder's chain; NULL: each rank computes alone. */
struct parallel *team_autoencoder(struct team *team);
/* What this rank loads of the denoiser if it has the blocks `blocks`. */
struct load_scope team_scope(const struct team *team, struct span blocks);
/* Sets how many patches a picture has on its way through the stages. UNSUPPORTED if a U-Net is to
 * have several. */
tessera_status team_set_patches(struct team *team, const tessera_mesh *mesh, bool is_transformer, tessera_error *error);

/* ARGUMENT if the mesh would divide a sum, whose order reproducible kernels keep: tensor, patch,
 * and several patches of a pipeline. Call it after team_set_patches. */
tessera_status team_check_reproducible(const struct team *team, tessera_error *error);

/* Sends `bytes` at data from the picture's rank `root` to all of its ranks. */
tessera_status team_broadcast(struct team *team, int root, void *data, size_t bytes, tessera_error *error);
/* Sends them from one rank to another; these two call it. */
tessera_status team_pass(struct team *team, int from, int to, void *data, size_t bytes, tessera_error *error);
/* A job of the picture's ranks (comm.h): if one rank fails, all end with its failure. */
tessera_status team_job_begin(struct team *team, tessera_error *error);
void team_job_fail(struct team *team, const tessera_error *error);
tessera_status team_job_end(struct team *team, tessera_status status, tessera_error *error);
/* The failure of another rank in the present job, if one is known. */
tessera_status team_job_status(struct team *team, tessera_error *error);
/* Returns when all of the picture's ranks have come here. */
tessera_status team_meet(struct team *team, tessera_error *error);

#endif
