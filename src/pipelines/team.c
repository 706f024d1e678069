/* See team.h. */
#include "pipelines/team.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "parallel/strategy.h"
#include "pipelines/world.h"

enum { DISPLACED_WARMUP = 4, PIPELINE_WARMUP = 1 }; /* DistriFusion's and xDiT's defaults */
enum { MAX_RANKS = 1 << 16 };

/* What tessera_mesh.warmup_steps says of a strategy that has `usual` by default. */
static int warmup_of(const tessera_mesh *mesh, int usual) {
    return mesh->warmup_steps == 0 ? usual : mesh->warmup_steps < 0 ? 0 : mesh->warmup_steps;
}

tessera_status team_compose(const struct team *team, struct parallel *out, tessera_error *error) {
    static struct comm *const alone[MESH_GROUPS];
    TRY(parallel_compose(&team->choice, team->mesh != NULL ? team->mesh->group : alone, out, error));
    out->shares = team->shares.rows;
    out->head_shares = team->shares.heads;
    return TESSERA_OK;
}

/* Sets the mesh's degrees; can there be such a chain? */
static tessera_status check_chain(struct team *team, tessera_error *error) {
    struct parallel chain;
    if (team->mesh != NULL) memcpy(team->choice.degrees, team->mesh->degrees, sizeof team->choice.degrees);
    TRY(team_compose(team, &chain, error));
    parallel_free(&chain);
    return TESSERA_OK;
}

/* The autoencoder's: rows over all ranks of the picture, and a ring for its attention. */
static void compose_autoencoder(struct team *team) {
    struct comm *group = team->mesh->group[MESH_PICTURE];
    team->autoencoder = (struct parallel){.cut_group = group, .shares = team->shares.picture};
    parallel_add(&team->autoencoder, &ring_strategy, group, NULL);
    parallel_add(&team->autoencoder, &rows_strategy, group, NULL);
}

/* The place of `name` (or the first, where it is NULL) among names, whose list ends with NULL; -1:
 * it is none of them. */
static int place_of(const char *name, const char *(*name_at)(int)) {
    if (name == NULL) return 0;
    for (int i = 0; name_at(i) != NULL; i++)
        if (strcmp(name, name_at(i)) == 0) return i;
    return -1;
}

/* What a patch degree means. */
static tessera_status read_patches(struct team *team, const tessera_mesh *mesh, tessera_error *error) {
    int split = place_of(mesh->split_scheme, naive_split_name), mode = place_of(mesh->sync_mode, sync_mode_name);
    if (split < 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "split scheme \"%s\": it must be row, col or alternate", mesh->split_scheme);
    if (mode < 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "sync mode \"%s\": it must be corrected_async_gn, stale_gn, sync_gn, full_sync, separate_gn or no_sync",
                         mesh->sync_mode);
    const struct strategy *patch_strategy = strategy_of_patches(mesh->patch_strategy);
    if (patch_strategy == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "patch strategy \"%s\": it must be one of %s", mesh->patch_strategy,
                         TESSERA_PATCH_STRATEGIES);
    team->choice = (struct strategy_choice){.patch_strategy = patch_strategy,
                                            .split = (enum naive_split)split,
                                            .sync_mode = (enum sync_mode)mode,
                                            .published_group_norm = mesh->published_group_norm,
                                            .comm_checkpoint = mesh->comm_checkpoint,
                                            .split_text = mesh->split_text,
                                            .warmup_steps = warmup_of(mesh, DISPLACED_WARMUP)};
    return TESSERA_OK;
}

tessera_status team_check_mesh(const tessera_mesh *mesh, tessera_error *error) {
    const struct {
        const char *name;
        int value;
    } degrees[] = {
        {"data", mesh->data},       {"cfg", mesh->cfg},       {"ring", mesh->ring},
        {"ulysses", mesh->ulysses}, {"tensor", mesh->tensor}, {"pipefusion", mesh->pipefusion},
        {"patch", mesh->patch},
    };
    int64_t ranks = 1;
    for (size_t i = 0; i < sizeof degrees / sizeof *degrees; i++) {
        if (degrees[i].value < 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s degree %d: must not be negative", degrees[i].name, degrees[i].value);
        ranks *= degrees[i].value > 0 ? degrees[i].value : 1;
        if (ranks > MAX_RANKS)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s degree %d: makes more than %d ranks", degrees[i].name, degrees[i].value,
                             MAX_RANKS);
    }
    if (mesh->warmup_steps < -1) return error_set(error, TESSERA_ERROR_ARGUMENT, "warm-up steps %d: at least -1", mesh->warmup_steps);
    if (mesh->num_pipeline_patch < 0 || mesh->comm_checkpoint < 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "pipeline patches %d, comm checkpoint %d: must not be negative",
                         mesh->num_pipeline_patch, mesh->comm_checkpoint);
    return TESSERA_OK;
}

tessera_status team_open(struct team *team, const tessera_mesh *mesh, tessera_error *error) {
    *team = (struct team){.parallel_vae = mesh->parallel_vae};
    TRY(read_patches(team, mesh, error));
    int given[] = {mesh->data, mesh->cfg, mesh->pipefusion, mesh->patch, mesh->ring, mesh->ulysses, mesh->tensor}, product = 1;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) product *= mesh_degree(given[i]);
    if (tessera_world_size(mesh->world) == 1 && product == 1) return TESSERA_OK;
    if (mesh->world == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "parallel degrees for %d ranks, but there is one: start them with mpirun -n %d",
                         product, product);
    if (mesh_degree(mesh->cfg) > 2) return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg degree %d: guidance has 2 predictions", mesh->cfg);
    if (mesh_degree(mesh->patch) > 1 && mesh_degree(mesh->pipefusion) > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "patch %d with pipefusion %d: displaced patches and a pipeline exclude each other",
                         mesh->patch, mesh->pipefusion);
    const int degrees[MESH_AXES] = {mesh_degree(mesh->data),  mesh_degree(mesh->cfg),  mesh_degree(mesh->pipefusion),
                                    mesh_degree(mesh->patch), mesh_degree(mesh->ring), mesh_degree(mesh->ulysses),
                                    mesh_degree(mesh->tensor)};
    TRY(mesh_open(mesh->world->comm, degrees, &team->mesh, error));
    TRY(shares_open(degrees, mesh->rank_weights, &team->shares, error));
    compose_autoencoder(team);
    return check_chain(team, error);
}

void team_close(struct team *team) {
    parallel_free(&team->autoencoder);
    if (team->mesh != NULL) mesh_free(team->mesh);
    shares_free(&team->shares);
    *team = (struct team){0};
}

int team_degree(const struct team *team, enum mesh_axis axis) {
    return team->mesh != NULL ? team->mesh->degrees[axis] : 1;
}

int team_coordinate(const struct team *team, enum mesh_axis axis) {
    return team->mesh != NULL ? team->mesh->coordinate[axis] : 0;
}

int team_stages(const struct team *team) {
    return team->stages > 0 ? team->stages : team_degree(team, MESH_PIPEFUSION);
}

int team_rank(const struct team *team) {
    return team->mesh != NULL ? comm_rank(team->mesh->group[MESH_PICTURE]) : 0;
}

int team_size(const struct team *team) {
    return team->mesh != NULL ? comm_size(team->mesh->group[MESH_PICTURE]) : 1;
}

int team_local_ranks(const struct team *team) {
    return team->mesh != NULL ? comm_local_size(team->mesh->group[MESH_WORLD]) : 1;
}

int team_threads(const struct team *team, int given) {
    int ranks = team_local_ranks(team), mine = threads_available();
    if (given > 0 || ranks == 1 || (long)mine * ranks <= sysconf(_SC_NPROCESSORS_ONLN)) return given;
    return mine / ranks > 0 ? mine / ranks : 1;
}

bool team_needs_chain(const struct team *team) {
    return team->mesh != NULL || team->choice.patches > 1;
}

struct parallel *team_autoencoder(struct team *team) {
    return team->mesh != NULL && team->parallel_vae ? &team->autoencoder : NULL;
}

struct load_scope team_scope(const struct team *team, struct span blocks) {
    return (struct load_scope){team_coordinate(team, MESH_TENSOR), team_degree(team, MESH_TENSOR), blocks};
}

tessera_status team_set_patches(struct team *team, const tessera_mesh *mesh, bool is_transformer, tessera_error *error) {
    int patches = mesh->num_pipeline_patch;
    if (patches <= 0) patches = is_transformer ? team_degree(team, MESH_PIPEFUSION) : 1;
    if (patches > 1 && !is_transformer)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "num-pipeline-patch %d: convolutions need a picture's rows together: a U-Net goes through a pipeline as a whole",
                         patches);
    if (patches > 1 && team_degree(team, MESH_PATCH) > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "num-pipeline-patch %d with patch %d: displaced patches and a pipeline exclude each other", patches,
                         team_degree(team, MESH_PATCH));
    team->choice.patches = patches;
    team->whole_steps = warmup_of(mesh, PIPELINE_WARMUP);
    return check_chain(team, error);
}

tessera_status team_check_reproducible(const struct team *team, tessera_error *error) {
    const struct {
        const char *what;
        int degree;
    } splits[] = {
        {"tensor", team_degree(team, MESH_TENSOR)}, {"patch", team_degree(team, MESH_PATCH)}, {"num-pipeline-patch", team->choice.patches}};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        if (splits[i].degree <= 1) continue;
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "reproducible kernels: %s %d would divide sums, and with them change bits; use data, cfg, ulysses, ring, or pipefusion with "
                         "num-pipeline-patch 1",
                         splits[i].what, splits[i].degree);
    }
    return TESSERA_OK;
}

tessera_status team_broadcast(struct team *team, int root, void *data, size_t bytes, tessera_error *error) {
    return team->mesh != NULL ? comm_broadcast(team->mesh->group[MESH_PICTURE], root, data, bytes, error) : TESSERA_OK;
}

tessera_status team_pass(struct team *team, int from, int to, void *data, size_t bytes, tessera_error *error) {
    struct comm *comm = team->mesh->group[MESH_PICTURE];
    bool sends = comm_rank(comm) == from;
    struct comm_request *request = sends ? comm_send_start(comm, to, data, bytes) : comm_receive_start(comm, from, data, bytes);
    return comm_wait(comm, request, error);
}

tessera_status team_meet(struct team *team, tessera_error *error) {
    return team->mesh != NULL ? comm_barrier(team->mesh->group[MESH_PICTURE], error) : TESSERA_OK;
}

tessera_status team_greatest(struct team *team, enum mesh_group group, int *value, tessera_error *error) {
    if (team->mesh == NULL) return TESSERA_OK;
    struct comm *comm = team->mesh->group[group];
    int all[comm_size(comm)];
    size_t bytes[comm_size(comm)];
    for (int i = 0; i < comm_size(comm); i++) bytes[i] = sizeof *value;
    TRY(comm_all_gather(comm, value, all, bytes, error));
    for (int i = 0; i < comm_size(comm); i++)
        if (all[i] > *value) *value = all[i];
    return TESSERA_OK;
}

static struct comm *picture_of(const struct team *team) {
    return team->mesh != NULL ? team->mesh->group[MESH_PICTURE] : NULL;
}

tessera_status team_job_begin(struct team *team, tessera_error *error) {
    return comm_job_begin(picture_of(team), error);
}

void team_job_fail(struct team *team, const tessera_error *error) {
    comm_job_fail(picture_of(team), error);
}

tessera_status team_job_end(struct team *team, tessera_status status, tessera_error *error) {
    return comm_job_end(picture_of(team), status, error);
}

tessera_status team_job_status(struct team *team, tessera_error *error) {
    return team->mesh != NULL ? comm_status(picture_of(team), error) : TESSERA_OK;
}
