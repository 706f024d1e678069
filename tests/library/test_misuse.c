/* Wrong use of the library, through its public face only: NULLs, options and requests that make no
 * sense, cancelling at every call of the callback, a handle used twice at once or freed while it
 * works, and a model that is removed, cut or rewritten while it is open. Each gives a status and a
 * message; under the sanitizers this program also shows that nothing is left behind. Left out: a
 * file that is cut while a picture is being made, which no program can survive that maps its files
 * (docs/library.md). */
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "tessera.h"

#define TINY "tests/cases/pipeline_sd3/model"
#define OPTIONS .struct_size = sizeof(tessera_model_options)
#define MESH .struct_size = sizeof(tessera_mesh)

static tessera_model *open_tiny(const char *path) {
    tessera_error error;
    tessera_model *model = tessera_model_open(path, &(tessera_model_options){OPTIONS, .threads = 1}, &error);
    CHECK(model != NULL, "%s: %s", path, error.message);
    return model;
}

static tessera_request small_request(const tessera_model *model) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a lion", r.width = r.height = 64, r.num_inference_steps = 2, r.use_resolution_binning = false;
    return r;
}

static void expect_failure(tessera_model *model, tessera_request r, tessera_status status, const char *word) {
    tessera_error error;
    tessera_image image = TESSERA_IMAGE;
    tessera_status got = tessera_generate(model, &r, &image, &error);
    CHECK(got == status && error.status == status && strstr(error.message, word) != NULL, "wanted status %d and \"%s\", got %d: %s", status,
          word, got, error.message);
    CHECK(image.pixels == NULL && image.latents == NULL && image.count == 0, "a failed request leaves no picture (%s)", word);
    tessera_image_free(&image);
}

static void test_nulls(tessera_model *model) {
    tessera_request r = small_request(model);
    tessera_image image = TESSERA_IMAGE;
    tessera_error error = {0};
    tessera_model_free(NULL);
    tessera_image_free(NULL);
    tessera_image_free(&image);
    tessera_image_free(&image);
    CHECK(tessera_generate(NULL, &r, &image, &error) == TESSERA_ERROR_ARGUMENT && error.message[0] != 0, "no model");
    CHECK(tessera_generate(model, NULL, &image, &error) == TESSERA_ERROR_ARGUMENT, "no request");
    CHECK(tessera_generate(model, &r, NULL, &error) == TESSERA_ERROR_ARGUMENT, "no image");
    CHECK(tessera_generate(NULL, NULL, NULL, NULL) == TESSERA_ERROR_ARGUMENT, "nothing at all");
    CHECK(!tessera_request_defaults(NULL, false, &r) && !tessera_request_defaults(model, false, NULL), "defaults of or for nothing");
    tessera_family family = TESSERA_FAMILY, unsized = {0};
    tessera_request known = TESSERA_REQUEST;
    tessera_error why = {0};
    CHECK(tessera_model_describe(NULL, NULL, false, &family, &known, &why) == TESSERA_ERROR_ARGUMENT, "no model is described");
    CHECK(tessera_model_describe("emoji", NULL, false, &unsized, &known, NULL) == TESSERA_ERROR_ARGUMENT, "into a struct without a size");
    CHECK(tessera_model_describe(TINY, NULL, false, &family, &known, &why) == TESSERA_OK && family.flow_matching &&
              known.guidance_scale == r.guidance_scale,
          "a model that is not open has the same defaults: %s", why.message);
    r = (tessera_request)TESSERA_REQUEST;
    CHECK(tessera_generate(model, &r, &image, NULL) == TESSERA_ERROR_ARGUMENT, "an empty request");
    CHECK(strcmp(tessera_model_kernel_path(NULL), "") == 0 && strcmp(tessera_model_pipeline_class(NULL), "") == 0, "strings of no model");
    CHECK(tessera_model_threads(NULL) == 0 && tessera_model_group(NULL) == 0 && tessera_model_groups(NULL) == 0, "numbers of no model");
    CHECK(!tessera_model_gets_pictures(NULL), "no model gets no pictures");
    CHECK(tessera_model_open(NULL, NULL, NULL) == NULL && tessera_model_open("", NULL, NULL) == NULL, "no name");
    CHECK(tessera_model_open("no/such/model", NULL, NULL) == NULL && tessera_model_open("src", NULL, NULL) == NULL, "no model, no error");
}

static void test_worlds(void) {
    tessera_error error;
    CHECK(tessera_world_rank(NULL) == 0 && tessera_world_size(NULL) == 1 && !tessera_world_failed(NULL), "no world is one rank");
    CHECK(tessera_world_finish(NULL, NULL) == TESSERA_OK && tessera_world_check_same(NULL, "a", "b", NULL) == TESSERA_OK,
          "no world agrees");
    tessera_world_abort(NULL, NULL);
    tessera_world_free(NULL);
    tessera_world *world = tessera_world_open(&error);
    CHECK(world != NULL && tessera_world_size(world) == 1, "alone: %s", error.message);
    CHECK(tessera_world_check_same(world, NULL, NULL, &error) == TESSERA_ERROR_ARGUMENT, "nothing to compare");
    CHECK(tessera_world_print_stats(world, NULL, &error) == TESSERA_ERROR_ARGUMENT, "no stream");
    tessera_world_abort(world, NULL);
    CHECK(tessera_world_failed(world), "an abort without a reason is one");
    tessera_world_free(world);
}

static void expect_bad_options(tessera_model_options options, tessera_status status, const char *word) {
    tessera_error error;
    CHECK(tessera_model_open(TINY, &options, &error) == NULL && error.status == status && strstr(error.message, word) != NULL,
          "wanted status %d and \"%s\", got %d: %s", status, word, error.status, error.message);
}

static void expect_bad_mesh(tessera_mesh mesh, const char *word) {
    expect_bad_options((tessera_model_options){OPTIONS, .mesh = &mesh}, TESSERA_ERROR_ARGUMENT, word);
}

static void test_bad_options(void) {
    tessera_lora nowhere = TESSERA_LORA, nameless = TESSERA_LORA, endless = TESSERA_LORA;
    nowhere.path = "no/such/lora.safetensors", endless.path = "x", endless.scale = INFINITY;
    expect_bad_options((tessera_model_options){OPTIONS, .dtype = (tessera_dtype)7}, TESSERA_ERROR_ARGUMENT, "dtype");
    expect_bad_options((tessera_model_options){OPTIONS, .threads = -1}, TESSERA_ERROR_ARGUMENT, "threads");
    expect_bad_options((tessera_model_options){OPTIONS, .threads = INT_MAX}, TESSERA_ERROR_ARGUMENT, "threads");
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = -1}, TESSERA_ERROR_ARGUMENT, "loras");
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = 1}, TESSERA_ERROR_ARGUMENT, "loras");
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = 1, .loras = &nameless}, TESSERA_ERROR_ARGUMENT, "loras[0]");
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = 1, .loras = &endless}, TESSERA_ERROR_ARGUMENT, "loras[0]");
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = 1, .loras = &nowhere}, TESSERA_ERROR_IO, "no/such/lora");
    const struct denoiser_class *const none[] = {NULL};
    expect_bad_options((tessera_model_options){OPTIONS, .num_denoisers = -1}, TESSERA_ERROR_ARGUMENT, "denoisers");
    expect_bad_options((tessera_model_options){OPTIONS, .num_denoisers = 1}, TESSERA_ERROR_ARGUMENT, "denoisers");
    expect_bad_options((tessera_model_options){OPTIONS, .num_denoisers = 1, .denoisers = none}, TESSERA_ERROR_ARGUMENT, "denoisers[0]");
    expect_bad_options((tessera_model_options){OPTIONS, .vae = "no/such/folder"}, TESSERA_ERROR_IO, "no/such/folder");
    expect_bad_mesh((tessera_mesh){MESH, .ring = -2}, "ring");
    expect_bad_mesh((tessera_mesh){MESH, .ring = INT_MAX, .tensor = INT_MAX, .data = INT_MAX}, "ranks");
    expect_bad_mesh((tessera_mesh){MESH, .cfg = 2}, "mpirun");
    expect_bad_mesh((tessera_mesh){MESH, .warmup_steps = -7}, "warm-up");
    expect_bad_mesh((tessera_mesh){MESH, .num_pipeline_patch = -1}, "patches");
    expect_bad_mesh((tessera_mesh){MESH, .sync_mode = "never"}, "never");
}

/* What a program of another age has of a struct: fewer fields, or more. */
static void test_sizes(tessera_model *model) {
    struct {
        tessera_request known;
        void *added;
    } newer = {.known = small_request(model)};
    tessera_request older = newer.known, unset = newer.known, requests[2] = {newer.known, newer.known};
    tessera_image image = TESSERA_IMAGE;
    tessera_error error;
    newer.known.struct_size = sizeof newer;
    CHECK(tessera_generate(model, &newer.known, &image, &error) == TESSERA_OK, "%s", error.message);
    tessera_image_free(&image);
    newer.added = &newer;
    CHECK(tessera_generate(model, &newer.known, &image, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "does not know"), "%s",
          error.message);
    older.struct_size = offsetof(tessera_request, notice_user);
    expect_failure(model, older, TESSERA_ERROR_ARGUMENT, "struct_size");
    older.struct_size = offsetof(tessera_request, step); /* the first version's */
    older.deliver = (tessera_delivery)(uintptr_t)1;      /* behind its end: never looked at */
    CHECK(tessera_generate(model, &older, &image, &error) == TESSERA_OK && image.pixels != NULL, "%s", error.message);
    tessera_image_free(&image);
    unset.struct_size = 0;
    expect_failure(model, unset, TESSERA_ERROR_ARGUMENT, "struct_size");
    requests[0].struct_size = 0;
    CHECK(tessera_job_new(model, requests, 2, &error) == NULL && strstr(error.message, "struct_size"), "%s", error.message);
    image.struct_size = 0;
    CHECK(tessera_generate(model, &requests[1], &image, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "TESSERA_IMAGE"), "%s",
          error.message);
    expect_bad_options((tessera_model_options){.threads = 1}, TESSERA_ERROR_ARGUMENT, "struct_size");
    expect_bad_mesh((tessera_mesh){.ring = 1}, "struct_size");
    const tessera_lora lora = {.path = "x", .scale = 1};
    expect_bad_options((tessera_model_options){OPTIONS, .num_loras = 1, .loras = &lora}, TESSERA_ERROR_ARGUMENT, "struct_size");
}

/* Fields of whole numbers, each given what no model can do. */
static void test_bad_counts(tessera_model *model) {
    const int hostile[] = {-1, INT_MIN, INT_MAX};
    tessera_request good = small_request(model), r;
    int *const fields[] = {&r.width,        &r.height,       &r.num_inference_steps, &r.num_images,
                           &r.first_image,  &r.made_images,  &r.max_sequence_length, &r.clip_skip,
                           &r.crop_left,    &r.crop_top,     &r.original_width,      &r.original_height,
                           &r.target_width, &r.target_height};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (size_t j = 0; j < sizeof hostile / sizeof *hostile; j++) {
            r = good;
            *fields[i] = hostile[j];
            expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "");
        }
    r = good, r.width = 0, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "size");
    r = good, r.height = 4, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "multiples");
    r = good, r.num_inference_steps = 0, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "steps");
    r = good, r.num_images = 0, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "num-images");
    r = good, r.made_images = 2, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "num-images");
}

static void test_bad_values(tessera_model *model) {
    tessera_request good = small_request(model), r;
    uint8_t *picture = calloc(1, 64 * 64 * 3);
    r = good, r.prompt = NULL, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "prompt");
    r = good, r.guidance_scale = NAN, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "guidance-scale");
    r = good, r.true_cfg_scale = INFINITY, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "true-cfg-scale");
    r = good, r.guidance_rescale = 2, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "guidance-rescale");
    r = good, r.strength = NAN, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "strength");
    r = good, r.init_image = picture, r.strength = 1.5f, expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "strength");
    r = good, r.scheduler = "NoSuchScheduler", expect_failure(model, r, TESSERA_ERROR_UNSUPPORTED, "NoSuchScheduler");
    r = good, r.scheduler = "", expect_failure(model, r, TESSERA_ERROR_UNSUPPORTED, "");
    free(picture);
}

/* Prompts that no person types: broken UTF-8 and a very long one. Either answer will do, but it
 * must be an answer. */
static void test_odd_prompts(tessera_model *model) {
    tessera_request r = small_request(model);
    char *endless = malloc(1 << 20);
    memset(endless, 'a', (1 << 20) - 1);
    endless[(1 << 20) - 1] = 0;
    const char *const prompts[] = {"", "\xff\xfe", "\xc3", "a\xed\xa0\x80z", "\xf4\x90\x80\x80", endless};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        tessera_error error;
        tessera_image image = TESSERA_IMAGE;
        r.prompt = prompts[i], r.negative_prompt = prompts[i];
        tessera_status status = tessera_generate(model, &r, &image, &error);
        CHECK(status == TESSERA_OK || error.message[0] != 0, "prompt %zu: status %d and no message", i, status);
        CHECK((status == TESSERA_OK) == (image.pixels != NULL), "prompt %zu: status %d", i, status);
        tessera_image_free(&image);
    }
    free(endless);
}

/* What every family refuses; HunyuanDiT also refuses to start from a picture of a size that it
 * would round. */
static void test_families(void) {
    const char *const families[] = {"sd15", "sdxl", "sd3", "flux", "pixart", "hunyuandit"};
    uint8_t *picture = calloc(1, 72 * 64 * 3);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/cases/pipeline_%s/model", families[i]);
        tessera_model *model = open_tiny(path);
        test_bad_counts(model);
        test_bad_values(model);
        test_odd_prompts(model);
        tessera_request r = small_request(model);
        r.init_image = picture, r.width = 72;
        if (strcmp(families[i], "hunyuandit") == 0) expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "starting picture");
        tessera_model_free(model);
    }
    free(picture);
}

/* A control picture where none is read, and none where one is. */
static void test_control_pictures(void) {
    uint8_t *picture = calloc(1, 64 * 64 * 3);
    const char *const paths[] = {"tests/cases/pipeline_flux/model", "tests/cases/pipeline_flux_control/model"};
    for (int needed = 0; needed < 2; needed++) {
        tessera_model *model = open_tiny(paths[needed]);
        tessera_request r = small_request(model);
        r.control_image = needed ? NULL : picture;
        expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "control-image");
        tessera_model_free(model);
    }
    free(picture);
}

/* ---- the callback ---- */

struct watch {
    int calls, cancel_at;
    bool phases[TESSERA_PHASE_DECODE + 1];
    tessera_phase last;
};

static bool watch_progress(void *user, tessera_phase phase, int done, int total) {
    struct watch *watch = user;
    CHECK(done >= 0 && done <= total && total >= 1, "%d of %d", done, total);
    watch->phases[phase] = true;
    watch->last = phase;
    return watch->calls++ != watch->cancel_at;
}

/* Cancelled at its first call, at its second, and so on until the picture is done; the last one is
 * as if nothing had been. */
static void test_cancelled_at_every_call(tessera_model *model) {
    uint8_t *picture = calloc(1, 64 * 64 * 3);
    tessera_request r = small_request(model);
    tessera_image whole = TESSERA_IMAGE, image = TESSERA_IMAGE;
    tessera_error error;
    bool cancelled[TESSERA_PHASE_DECODE + 1] = {false};
    r.init_image = picture, r.strength = 1, r.num_images = 2;
    CHECK(tessera_generate(model, &r, &whole, &error) == TESSERA_OK, "%s", error.message);
    tessera_status status = TESSERA_ERROR_CANCELLED;
    for (int n = 0; status == TESSERA_ERROR_CANCELLED && n < 100; n++) {
        struct watch watch = {.cancel_at = n};
        r.progress = watch_progress, r.progress_user = &watch;
        status = tessera_generate(model, &r, &image, &error);
        CHECK(status == TESSERA_OK || (image.pixels == NULL && strstr(error.message, "stopped")), "call %d: %s", n, error.message);
        CHECK(status == TESSERA_OK || watch.calls == n + 1, "after \"stop\" the callback was called again: %d, %d", watch.calls, n);
        if (status == TESSERA_ERROR_CANCELLED) cancelled[watch.last] = true;
    }
    for (int i = 0; i <= TESSERA_PHASE_DECODE; i++) CHECK(cancelled[i], "never cancelled in phase %d", i);
    CHECK(status == TESSERA_OK && memcmp(image.pixels, whole.pixels, 2 * 64 * 64 * 3) == 0, "cancelled calls changed the picture");
    tessera_image_free(&image);
    tessera_image_free(&whole);
    free(picture);
}

static bool call_again(void *user, tessera_phase phase, int done, int total) {
    (void)phase, (void)done, (void)total;
    tessera_model *model = user;
    tessera_request r = small_request(model);
    expect_failure(model, r, TESSERA_ERROR_ARGUMENT, "another call");
    return true;
}

static bool free_model(void *user, tessera_phase phase, int done, int total) {
    (void)total;
    if (phase == TESSERA_PHASE_DENOISE && done == 1) tessera_model_free(user);
    return true;
}

static void test_handle_in_use(void) {
    tessera_model *model = open_tiny(TINY);
    tessera_request r = small_request(model);
    tessera_image image = TESSERA_IMAGE;
    tessera_error error;
    r.progress = call_again, r.progress_user = model;
    CHECK(tessera_generate(model, &r, &image, &error) == TESSERA_OK, "%s", error.message);
    tessera_image_free(&image);
    r.progress = free_model;
    CHECK(tessera_generate(model, &r, &image, &error) == TESSERA_OK && image.pixels != NULL, "freed while it works: %s", error.message);
    tessera_image_free(&image);
}

/* ---- the model's files ---- */

static void shell(const char *format, const char *path) {
    char command[512];
    snprintf(command, sizeof command, format, path);
    CHECK(system(command) == 0, "%s", command);
}

/* Opens a copy of the model, makes `before` pictures, lets `command` loose on the copy, and asks
 * for one more. */
static void expect_after(int before, const char *command, tessera_status status, const char *word) {
    char folder[] = "build-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return;
    shell("cp -r " TINY "/. %s", folder);
    tessera_model *model = open_tiny(folder);
    tessera_request r = small_request(model);
    for (int i = 0; i < before; i++) {
        tessera_image image = TESSERA_IMAGE;
        tessera_error error;
        CHECK(tessera_generate(model, &r, &image, &error) == TESSERA_OK, "%s", error.message);
        tessera_image_free(&image);
    }
    shell(command, folder);
    expect_failure(model, r, status, word);
    expect_failure(model, r, status, word); /* the error is not of one call only */
    tessera_model_free(model);
    shell("rm -rf %s", folder);
}

static void test_files_that_change(void) {
    expect_after(0, "rm -r %s", TESSERA_ERROR_IO, "build-test-");
    expect_after(1, "rm -r %s", TESSERA_ERROR_IO, "build-test-");
    expect_after(0, "rm %s/transformer/diffusion_pytorch_model.safetensors", TESSERA_ERROR_IO, "transformer");
    expect_after(0, "truncate -s 4000 %s/transformer/diffusion_pytorch_model.safetensors", TESSERA_ERROR_FORMAT, "transformer");
    expect_after(1, "truncate -s 4000 %s/transformer/diffusion_pytorch_model.safetensors", TESSERA_ERROR_IO, "transformer");
    expect_after(1, "truncate -s 0 %s/vae/diffusion_pytorch_model.safetensors", TESSERA_ERROR_IO, "vae");
    expect_after(1, "truncate -s 4000 %s/text_encoder/model.safetensors", TESSERA_ERROR_IO, "text_encoder");
    expect_after(1, "echo garbage > %s/transformer/config.json", TESSERA_ERROR_FORMAT, "transformer/config.json");
    expect_after(0, "echo '{' > %s/tokenizer/tokenizer.json", TESSERA_ERROR_FORMAT, "tokenizer");
    expect_after(1, "rm %s/scheduler/scheduler_config.json", TESSERA_ERROR_IO, "scheduler");
}

/* ---- what stays ---- */

static int open_files(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL) count++;
    if (folder != NULL) closedir(folder);
    return count;
}

static int mapped_weights(void) {
    char line[4096];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) count += strstr(line, ".safetensors") != NULL;
    if (maps != NULL) fclose(maps);
    return count;
}

static void test_nothing_stays(void) {
    int before = open_files();
    tessera_model *model = open_tiny(TINY);
    tessera_request r = small_request(model);
    tessera_image image = TESSERA_IMAGE;
    CHECK(tessera_generate(model, &r, &image, NULL) == TESSERA_OK, "a picture");
    CHECK(mapped_weights() > 0 && open_files() > before, "weights are mapped while a model is open");
    tessera_image_free(&image);
    tessera_model_free(model);
    CHECK(mapped_weights() == 0 && open_files() == before, "%d maps and %d files stay open", mapped_weights(), open_files() - before);
}

int main(void) {
    tessera_model *model = open_tiny(TINY);
    if (model == NULL) return CHECK_REPORT();
    test_nulls(model);
    test_worlds();
    test_bad_options();
    test_sizes(model);
    test_cancelled_at_every_call(model);
    tessera_model_free(model);
    test_families();
    test_control_pictures();
    test_handle_in_use();
    test_files_that_change();
    test_nothing_stays();
    return CHECK_REPORT();
}
