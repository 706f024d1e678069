/* What a rank of a pipeline of stages holds: its resident memory at its highest, against 1.15 times
 * the weights of its stage and the activations that it measured.
 *
 *     mpirun -n 2 test_memory FOLDER
 *
 * Rank 0 makes a transformer of the width of SD3 medium in FOLDER, 6 blocks of its 24 (1 GB);
 * both ranks denoise a picture with it in 4 parts, a stage each, through files that they map.
 * Everything counts that the process holds: libraries, MPI and kernels' scratch too. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "checkpoint/random_component.h"
#include "models/registry.h"
#include "pipelines/denoise.h"
#include "team_of_mesh.h"

enum { SIDE = 64, PATCH = 2, TEXT = 77, PARTS = 4, STEPS = 3, CHANNELS = 16, TEXT_WIDTH = 4096, POOLED_WIDTH = 2048, WIDTH = 1536 };

#define LIMIT 1.15
#define LARGEST_STAGE 0.65 /* of the model, among 2: the first has the embeddings, too, and the last block is smaller */

static const char config[] = "{\"_class_name\": \"SD3Transformer2DModel\", \"attention_head_dim\": 64, \"caption_projection_dim\": 1536,\n"
                             " \"in_channels\": 16, \"joint_attention_dim\": 4096, \"num_attention_heads\": 24, \"num_layers\": 6,\n"
                             " \"out_channels\": 16, \"patch_size\": 2, \"pooled_projection_dim\": 2048, \"pos_embed_max_size\": 64,\n"
                             " \"sample_size\": 64}\n";

/* One rank's way through a picture. */
struct rank {
    struct comm *comm;
    struct mesh *mesh;
    struct team team;
    struct stages stages;
    struct component described, mine;
    struct scheduler *scheduler;
    struct run run;
    const char *folder;
};

/* ---- the model ---- */

static tessera_status write_weights(const char *folder, tessera_error *error) {
    struct tensor_list list = {0};
    struct random_component component = {
        .folder = folder, .name = "transformer", .stem = "diffusion_pytorch_model", .list = &list, .seed = 1, .max_shard_bytes = SIZE_MAX};
    tessera_status status = tensor_list_read(&list, folder, error);
    if (status == TESSERA_OK) status = random_component_write(&component, error);
    tensor_list_clear(&list);
    return status;
}

static tessera_status make_model(const char *folder, tessera_error *error) {
    char path[1024];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *file = fopen(path, "w");
    if (file == NULL) return error_set_errno(error, "%s", path);
    fputs(config, file);
    fclose(file);
    return write_weights(folder, error);
}

static void remove_model(const char *folder) {
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    char path[1024];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        remove(path);
    }
    rmdir(folder);
}

/* ---- the picture ---- */

static tessera_status open_rank(struct rank *r, tessera_error *error) {
    int degrees[MESH_AXES];
    for (int i = 0; i < MESH_AXES; i++) degrees[i] = i == MESH_PIPEFUSION ? comm_size(r->comm) : 1;
    struct component_source source = {.folder = r->folder};
    TRY(mesh_open(r->comm, degrees, &r->mesh, error));
    r->team = team_of_mesh(r->mesh, PARTS);
    r->team.whole_steps = 1;
    TRY(component_describe(&source, DTYPE_BF16, &r->described, error));
    TRY(stages_open(r->described.denoiser, comm_size(r->comm), comm_rank(r->comm), NULL, NULL, &r->stages, error));
    source.scope = team_scope(&r->team, stages_blocks(&r->stages));
    TRY(component_open(&source, DTYPE_BF16, &r->mine, error));
    TRY(component_load(&r->mine, error));
    TRY(scheduler_open("assets/published/sd3-medium/scheduler", NULL, &r->scheduler, error));
    TRY(scheduler_set_timesteps(r->scheduler, STEPS, 0.0f, error));
    r->run = (struct run){.backend = cpu_backend_open(1, CPU_KERNELS_BEST, error), .arena = arena_new(0, error), .dtype = DTYPE_BF16};
    return r->run.backend != NULL && r->run.arena != NULL ? TESSERA_OK : error->status;
}

static void close_rank(struct rank *r) {
    scheduler_free(r->scheduler);
    component_close(&r->described);
    component_close(&r->mine);
    stages_free(&r->stages);
    arena_free(r->run.arena);
    if (r->run.backend != NULL) backend_free(r->run.backend);
    mesh_free(r->mesh);
}

static struct tensor filled(struct run *run, int64_t tokens, int64_t width) {
    struct tensor t = tokens > 0 ? run_tensor(run, DTYPE_F32, SHAPE(1, tokens, width)) : run_tensor(run, DTYPE_F32, SHAPE(1, width));
    for (int64_t i = 0; t.data != NULL && i < tensor_count(&t); i++) ((float *)t.data)[i] = (float)(i % 7) / 7.0f - 0.4f;
    return t;
}

static tessera_status denoise(struct rank *r, tessera_error *error) {
    struct tensor x = filled(&r->run, SIDE * SIDE, CHANNELS);
    struct denoising d = {.denoiser = r->mine.denoiser,
                          .stages = &r->stages,
                          .scheduler = r->scheduler,
                          .team = &r->team,
                          .run = &r->run,
                          .inputs = {.text = filled(&r->run, TEXT, TEXT_WIDTH), .pooled = filled(&r->run, 0, POOLED_WIDTH)},
                          .rows = SIDE,
                          .columns = SIDE,
                          .channels = CHANNELS};
    TRY(run_status(&r->run, error));
    return denoise_pictures(&d, 1, (float *[]){x.data}, error);
}

/* ---- the measure ---- */

/* Keys and values that are kept from part to part, and what else lies outside of the arena. */
static size_t kept_bytes(const struct rank *r) {
    size_t tokens = (SIDE / PATCH) * (SIDE / PATCH) + TEXT, layers = (size_t)stages_blocks(&r->stages).count;
    size_t latents = (size_t)SIDE * SIDE * CHANNELS * sizeof(float);
    return layers * 2 * tokens * WIDTH * 2 + 4 * latents;
}

static void check_memory(const struct rank *r) {
    size_t weights = r->mine.weight_bytes, whole = 0, activations = arena_peak(r->run.arena) + kept_bytes(r), peak = memory_peak_resident();
    double share = (double)peak / (double)(weights + activations);
    struct stat file;
    char path[1024];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", r->folder);
    if (stat(path, &file) == 0) whole = (size_t)file.st_size;
    printf("  rank %d of %d: weights %.0f MiB, activations %.0f MiB, peak %.0f MiB: %.3f\n", comm_rank(r->comm), comm_size(r->comm),
           (double)weights / 0x1p20, (double)activations / 0x1p20, (double)peak / 0x1p20, share);
    CHECK(peak > 0 && share <= LIMIT, "rank %d holds %.3f times its stage's weights and activations", comm_rank(r->comm), share);
    CHECK(weights > 0 && (double)weights < LARGEST_STAGE * (double)whole, "rank %d has %zu of %zu bytes of weights", comm_rank(r->comm),
          weights, whole);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct rank r = {.folder = argc == 2 ? argv[1] : ""};
    if (argc != 2 || comm_world_open(NULL, &r.comm, &error) != TESSERA_OK) {
        fprintf(stderr, "test_memory FOLDER: %s\n", error.message);
        return 1;
    }
    bool made = comm_rank(r.comm) == 0 && make_model(r.folder, &error) == TESSERA_OK;
    if (comm_rank(r.comm) == 0 && !made) fprintf(stderr, "%s\n", error.message);
    tessera_status status = comm_broadcast(r.comm, 0, &made, sizeof made, &error);
    if (status == TESSERA_OK && !made) status = error_set(&error, TESSERA_ERROR_IO, "rank 0 could not make %s", r.folder);
    if (status == TESSERA_OK) status = open_rank(&r, &error);
    if (status == TESSERA_OK) status = denoise(&r, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    if (status == TESSERA_OK) check_memory(&r);
    if (status != TESSERA_OK) comm_abort(r.comm, &error);
    close_rank(&r);
    comm_finish(r.comm, &error); /* all ranks are here */
    if (comm_rank(r.comm) == 0) remove_model(r.folder);
    comm_free(r.comm);
    return CHECK_REPORT();
}
