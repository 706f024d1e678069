/* What displaced patches make of pictures, against one rank: in every mode, with the engine's and
 * the published group norm, from the smallest latents that so many ranks can cut.
 *
 *     full_sync       one rank's latents, within the cases' tolerance
 *     other modes     finite, and neither flat nor blown up: their deviation is within a factor of one rank's. Where the variance of a
 *                     group norm comes out negative and no rule stands against it, pictures turn to NaN, which is drawn black.
 *     uneven patches    a Stable Diffusion 2 of 4 levels on 96 latent rows (768 pixels): 12 rows of the deepest level over 8 ranks
 *
 *     mpirun -n N test_patch_pictures */
#include <unistd.h>

#include "checkpoint/published.h"
#include "checkpoint/random_component.h"
#include "nn/layers.h"
#include "patch_loop.h"

enum { STEPS = 6 };
#define LARGEST_FACTOR 2.0 /* between deviations of latents; measured: 1.4 */
#define ATOL 2e-3          /* of tests/cases/distrifusion */
#define RTOL 2e-3

static const struct patch_model models[] = {
    {"sd15", "tests/cases/distrifusion/model_sd15", "tests/cases/distrifusion/distrifusion_sd15_single",
     "tests/cases/distrifusion/distrifusion_sd15_single", 5, 4, 0},
    {"sd21", "tests/cases/unet_sd21/model", "tests/cases/unet_sd21", "tests/cases/distrifusion/distrifusion_single", 5, 4, 0},
    {"sdxl", "tests/cases/distrifusion/model", "tests/cases/distrifusion/distrifusion_single",
     "tests/cases/distrifusion/distrifusion_single", 5, 4, 0},
    {"sd3", "tests/cases/pipefusion/model", "tests/cases/displaced/displaced_sd3_p2_w1", "tests/cases/displaced/displaced_sd3_p2_w1", 4, 2,
     1},
    {"pixart", "tests/cases/pixart_sigma/model", "tests/cases/displaced/displaced_pixart_p2_w1",
     "tests/cases/displaced/displaced_pixart_p2_w1", 4, 2, 1},
};

static double deviation(struct tensor x) {
    const float *values = x.data;
    double sum = 0, squares = 0, count = (double)tensor_count(&x);
    for (int64_t i = 0; i < tensor_count(&x); i++) sum += values[i];
    for (int64_t i = 0; i < tensor_count(&x); i++) squares += (values[i] - sum / count) * (values[i] - sum / count);
    return sqrt(squares / count);
}

/* The largest error in shares of the tolerance; not a number where a value is none. */
static double error_of(struct tensor got, struct tensor want) {
    const float *a = got.data, *b = want.data;
    double worst = 0;
    for (int64_t i = 0; i < tensor_count(&want); i++) {
        double e = fabs((double)a[i] - b[i]) / (ATOL + RTOL * fabs(b[i]));
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

/* One loop of patches against `alone`; the factor between their deviations. */
static double run_mode(struct patch_loop *l, struct displaced d, struct tensor alone) {
    struct tensor got = patch_loop_run(l, &d, alone.shape[1], alone.shape[2]);
    displaced_close(&d);
    if (got.data == NULL) return 0;
    double e = error_of(got, alone), factor = deviation(got) / deviation(alone);
    if (factor < 1) factor = 1 / factor;
    bool exact = d.mode == SYNC_FULL_SYNC && !d.published_group_norm;
    CHECK(isfinite(e) && factor < LARGEST_FACTOR, "%s, %d x %d on %d ranks, %s%s: deviation %g, %g on one rank", l->model->name,
          (int)alone.shape[1], (int)alone.shape[2], l->world->size, sync_mode_name(d.mode),
          d.published_group_norm ? " with the published group norm" : "", deviation(got), deviation(alone));
    CHECK(!exact || e <= 1, "%s, %d x %d on %d ranks: full_sync is %g of the tolerance off", l->model->name, (int)alone.shape[1],
          (int)alone.shape[2], l->world->size, e);
    free(got.data);
    return factor;
}

/* All modes at one size. */
static double run_size(struct patch_loop *l, int64_t rows, int64_t columns) {
    struct tensor alone = patch_loop_run(l, NULL, rows, columns);
    double worst = 0;
    if (alone.data == NULL) return 0;
    for (int mode = 0; mode < SYNC_MODES; mode++)
        for (int published = 0; published < 2; published++) {
            if (l->model->attention > 0 && (published || mode % 3 != 0)) continue; /* without group norms: stale, fresh or old */
            struct displaced d = {.mode = (enum sync_mode)mode, .steps = l->steps, .published_group_norm = published};
            worst = fmax(worst, run_mode(l, d, alone));
        }
    free(alone.data);
    return worst;
}

/* From one smallest patch a rank on; narrow and wide. */
static void run_model(const struct patch_world *world, const struct patch_model *model) {
    struct patch_loop l;
    if (!patch_loop_open(&l, world, model, STEPS)) return;
    const int64_t unit = model->unit, ranks = world->size, sizes[][2] = {{ranks, 1}, {ranks, 6}, {ranks + 1, 2}, {2 * ranks, 3}};
    double worst = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) worst = fmax(worst, run_size(&l, unit * sizes[i][0], unit * sizes[i][1]));
    if (world->rank == 0) printf("  %-10s %d ranks: deviations within a factor of %.2f of one rank's\n", model->name, (int)ranks, worst);
    patch_loop_close(&l);
}

/* ---- uneven patches ---- */

/* A U-Net with the config of Stable Diffusion 2's tiny one and random weights, in `folder`. */
static tessera_status write_unet(const char *folder, tessera_error *error) {
    struct tensor_list list = {0};
    char *data = NULL, *config = file_join(folder, "config.json");
    size_t length = 0;
    struct file_output file;
    tessera_status status = file_read("assets/published/sd21/tiny/unet/config.json", 1 << 16, &data, &length, error);
    if (status == TESSERA_OK) status = file_output_open(config, &file, error);
    if (status == TESSERA_OK && fwrite(data, 1, length, file.stream) == length) status = file_output_commit(&file, error);
    if (status == TESSERA_OK) status = tensor_list_read(&list, folder, error);
    const struct random_component component = {
        .folder = folder, .name = "unet", .stem = "diffusion_pytorch_model", .list = &list, .seed = 3, .max_shard_bytes = (size_t)1 << 30};
    if (status == TESSERA_OK) status = random_component_write(&component, error);
    tensor_list_clear(&list);
    free(config);
    free(data);
    return status;
}

static void remove_unet(const char *folder) {
    const char *const names[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *path = file_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    CHECK(rmdir(folder) == 0, "%s is not empty", folder);
}

static void run_uneven(const struct patch_world *world) {
    char folder[64] = "";
    tessera_error error = {0};
    struct patch_loop l;
    snprintf(folder, sizeof folder, "/tmp/test_patch_pictures.XXXXXX");
    if (world->rank == 0) {
        CHECK(mkdtemp(folder) != NULL, "%s", folder);
        CHECK_OK(write_unet(folder, &error), error);
    }
    CHECK_OK(comm_broadcast(world->comm, 0, folder, sizeof folder, &error), error);
    const struct patch_model model = {
        "sd2 of 4 levels", folder, "tests/cases/unet_sd15", "tests/cases/distrifusion/distrifusion_single", 5, 8, 0};
    if (patch_loop_open(&l, world, &model, 4)) {
        double worst = run_size(&l, 96, 16);
        if (world->rank == 0) printf("  %s, 96 rows: deviations within a factor of %.2f of one rank's\n", model.name, worst);
        patch_loop_close(&l);
    }
    CHECK_OK(comm_barrier(world->comm, &error), error);
    if (world->rank == 0) remove_unet(folder);
}

int main(void) {
    struct patch_world world = {0};
    patch_world_open(&world);
    for (size_t i = 0; i < sizeof models / sizeof *models && world.size > 1; i++) run_model(&world, &models[i]);
    if (world.size == 8) run_uneven(&world);
    return patch_world_close(&world);
}
