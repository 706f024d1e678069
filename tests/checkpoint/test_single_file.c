/* Each single-file checkpoint in tests/cases/single_file, seen through the tables, equals the model
 * folder that it was made from, tensor by tensor; and what is no such file, or lacks something, is
 * refused with the names that matter. */
#include "checkpoint/single_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/required.h"
#include "safetensors_write.h"

#define CASES "tests/cases/"

/* Is the tensor of the view, lent or made, `want`? */
static bool same_tensor(const struct weights *view, const char *name, const struct tensor *want) {
    struct tensor got = {0};
    tessera_error error = {0};
    if (weights_get(view, name, &got, &error) != TESSERA_OK || got.dtype != want->dtype || tensor_bytes(&got) != tensor_bytes(want))
        return false;
    void *bytes = malloc(tensor_bytes(want) + 1);
    if (bytes != NULL) weights_read(view, name, NULL, bytes);
    bool same = bytes != NULL && memcmp(bytes, want->data, tensor_bytes(want)) == 0;
    free(bytes);
    return same;
}

/* All of the folder's tensors that its model asks for are in `view`, and nothing else. */
static void compare(const char *name, const struct weights *view, const char *folder) {
    struct weights *want = NULL;
    struct required required;
    tessera_error error = {0};
    CHECK(required_read(folder, NULL, &required, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_open(folder, &want, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; want != NULL && i < weights_count(want); i++) {
        const struct safetensors_entry *entry = weights_at(want, i);
        struct required_tensor *wanted = required_find(&required, entry->name);
        if (wanted == NULL) continue;
        CHECK(same_tensor(view, wanted->name, &entry->tensor), "%s: %s differs", name, wanted->name);
    }
    CHECK(weights_count(view) == required.count, "%s: %d tensors, the model asks for %d", name, weights_count(view), required.count);
    required_free(&required);
    weights_close(want);
}

static void check_component(const struct single_file *file, const char *component, const char *folder) {
    struct weights *view = NULL;
    tessera_error error = {0};
    CHECK(single_file_has(file, component), "the file has no %s", component);
    CHECK(single_file_weights(file, component, &view, &error) == TESSERA_OK, "%s", error.message);
    if (view != NULL) compare(component, view, folder);
    weights_close(view);
}

/* Opens CASES single_file/NAME with the configs of `folder` and compares the components of the list
 * (ends with NULL). */
static void check_file(const char *name, const char *folder, const char *const *components) {
    char path[256], component_folder[512];
    struct single_file *file = NULL;
    tessera_error error = {0};
    snprintf(path, sizeof path, CASES "single_file/%s.safetensors", name);
    CHECK(single_file_open(path, folder, &file, &error) == TESSERA_OK, "%s", error.message);
    for (; file != NULL && *components != NULL; components++) {
        snprintf(component_folder, sizeof component_folder, "%s/%s", folder, *components);
        check_component(file, *components, component_folder);
    }
    single_file_close(file);
}

/* SD2 as generative-models writes it: its text encoder lies where SDXL's refiner has one. */
static void check_sgm(const char *folder) {
    char path[] = "/tmp/test_single_file_XXXXXX";
    static const char old[] = "cond_stage_model.model.", new[] = "conditioner.embedders.0.model.";
    struct safetensors *source = NULL;
    struct single_file *file = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(CASES "single_file/sd21.safetensors", &source, &error) == TESSERA_OK, "%s", error.message);
    int count = safetensors_count(source), descriptor = mkstemp(path);
    close(descriptor);
    struct safetensors_entry *entries = calloc((size_t)count, sizeof *entries);
    char(*names)[256] = calloc((size_t)count, sizeof *names);
    for (int i = 0; i < count; i++) {
        const struct safetensors_entry *entry = safetensors_at(source, i);
        bool moved = strncmp(entry->name, old, strlen(old)) == 0;
        snprintf(names[i], sizeof names[i], "%s%s", moved ? new : "", entry->name + (moved ? strlen(old) : 0));
        entries[i] = (struct safetensors_entry){names[i], entry->tensor};
    }
    CHECK(safetensors_write(path, entries, count, &error) == TESSERA_OK, "%s", error.message);
    CHECK(single_file_open(path, folder, &file, &error) == TESSERA_OK, "%s", error.message);
    char component[512];
    snprintf(component, sizeof component, "%s/text_encoder", folder);
    if (file != NULL) check_component(file, "text_encoder", component);
    single_file_close(file);
    safetensors_close(source);
    unlink(path);
    free(names);
    free(entries);
}

/* A folder of configs made of two cases, by links. */
static void check_sd21(void) {
    char folder[] = "/tmp/test_single_file_XXXXXX", link[128], target[4096 + 64], here[4096];
    static const char *const parts[][2] = {{"unet", "unet_sd21"}, {"text_encoder", "clip_g"}};
    CHECK(mkdtemp(folder) != NULL && getcwd(here, sizeof here) != NULL, "no temporary folder");
    for (int i = 0; i < 2; i++) {
        snprintf(link, sizeof link, "%s/%s", folder, parts[i][0]);
        snprintf(target, sizeof target, "%s/" CASES "%s/model", here, parts[i][1]);
        CHECK(symlink(target, link) == 0, "no link");
    }
    check_file("sd21", folder, (const char *const[]){"unet", "text_encoder", NULL});
    check_sgm(folder);
    for (int i = 0; i < 2; i++) {
        snprintf(link, sizeof link, "%s/%s", folder, parts[i][0]);
        unlink(link);
    }
    rmdir(folder);
}

static void check_lone_component(const char *path, const char *component, const char *folder) {
    struct weights *view = NULL;
    tessera_error error = {0};
    CHECK(single_file_component(path, component, folder, &view, &error) == TESSERA_OK, "%s", error.message);
    if (view != NULL) compare(path, view, folder);
    weights_close(view);
}

static void check_lone_components(void) {
    check_lone_component(CASES "single_file/flux_ae.safetensors", "vae", CASES "pipeline_flux/model/vae");
    check_lone_component(CASES "pipeline_flux/model/vae/diffusion_pytorch_model.safetensors", "vae", CASES "pipeline_flux/model/vae");
    check_lone_component(CASES "single_file/sd15.safetensors", "vae", CASES "pipeline_sd15/model/vae");
    check_lone_component(CASES "pipeline_flux/model/text_encoder/model.safetensors", "text_encoder",
                         CASES "pipeline_flux/model/text_encoder");
    check_lone_component(CASES "pipeline_flux/model/text_encoder_2/model.safetensors", "text_encoder_2",
                         CASES "pipeline_flux/model/text_encoder_2");
    check_lone_component(CASES "single_file/sd3.safetensors", "text_encoder_3", CASES "pipeline_sd3/model/text_encoder_3");
}

static void check_open_error(const char *path, const char *config, tessera_status want, const char *words) {
    struct single_file *file = NULL;
    tessera_error error = {0};
    tessera_status status = single_file_open(path, config, &file, &error);
    CHECK(status == want && strstr(error.message, words) != NULL, "status %d, message: %s", status, error.message);
    single_file_close(file);
}

/* Writes small tensors of the given names and last dimensions to a new file. */
static void write_tensors(char *path, int count, const char *const *names, const int64_t (*shapes)[2]) {
    struct safetensors_entry entries[4];
    int descriptor = mkstemp(path);
    CHECK(descriptor >= 0, "no temporary file");
    close(descriptor);
    float *data = calloc(1 << 19, sizeof *data);
    for (int i = 0; i < count; i++) entries[i] = (struct safetensors_entry){names[i], tensor_of(data, DTYPE_F32, 2, shapes[i])};
    CHECK(safetensors_write(path, entries, count, NULL) == TESSERA_OK, "cannot write %s", path);
    free(data);
}

static void check_one_tensor(const char *name, int64_t rows, int64_t columns, const char *words) {
    char path[] = "/tmp/test_single_file_XXXXXX";
    write_tensors(path, 1, &name, (const int64_t[][2]){{rows, columns}});
    check_open_error(path, NULL, TESSERA_ERROR_UNSUPPORTED, words);
    unlink(path);
}

/* Which published model do two tensors of a file tell? */
static void check_published(const char *want, const char *name, const int64_t *shape, const char *other_name, const int64_t *other_shape) {
    char path[] = "/tmp/test_single_file_XXXXXX";
    struct single_file *file = NULL;
    tessera_error error = {0};
    write_tensors(path, 2, (const char *const[]){name, other_name},
                  (const int64_t[][2]){{shape[0], shape[1]}, {other_shape[0], other_shape[1]}});
    CHECK(single_file_open(path, NULL, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file != NULL) {
        const char *slash = strrchr(single_file_folder(file), '/');
        CHECK(slash != NULL && strcmp(slash + 1, want) == 0, "%s, not %s", single_file_folder(file), want);
        char *tokenizer = NULL;
        CHECK(single_file_folder_of(file, "tokenizer", &tokenizer, &error) == TESSERA_OK, "%s", error.message);
        free(tokenizer);
    }
    single_file_close(file);
    unlink(path);
}

#define IN(a, b) ((const int64_t[]){a, b})

static void check_published_models(void) {
    static const char conv_in[] = "model.diffusion_model.input_blocks.0.0.weight",
                      key[] = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
    check_published("sd15", conv_in, IN(320, 4), key, IN(320, 768));
    check_published("sd21", conv_in, IN(320, 4), key, IN(320, 1024));
    check_published("sdxl", conv_in, IN(320, 4), "model.diffusion_model.label_emb.0.0.weight", IN(1, 1));
    check_published("sd35-large", "model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias", IN(1, 1),
                    "model.diffusion_model.context_embedder.weight", IN(2432, 1));
    check_published("flux-schnell", "double_blocks.0.img_attn.norm.key_norm.scale", IN(1, 128), "img_in.weight", IN(1, 64));
    check_published("flux-depth", "double_blocks.0.img_attn.norm.key_norm.scale", IN(1, 128), "img_in.weight", IN(1, 128));
}

/* Fewer blocks than the published model has: the config follows. */
static void check_counts(void) {
    char path[] = "/tmp/test_single_file_XXXXXX";
    static const char *const names[] = {"double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight",
                                        "double_blocks.0.img_attn.proj.weight", "single_blocks.0.linear2.weight"};
    struct single_file *file = NULL;
    struct json *config = NULL;
    tessera_error error = {0};
    int64_t layers = 0, single_layers = 0;
    write_tensors(path, 4, names, (const int64_t[][2]){{1, 128}, {1, 64}, {1, 1}, {1, 1}});
    CHECK(single_file_open(path, NULL, &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(single_file_config(file, "transformer", &config, &error) == TESSERA_OK && config != NULL, "no changed config: %s", error.message);
    if (config != NULL) {
        json_int(config, "num_layers", 0, 0, 100, &layers, &error);
        json_int(config, "num_single_layers", 0, 0, 100, &single_layers, &error);
        CHECK(layers == 1 && single_layers == 1, "%d and %d layers", (int)layers, (int)single_layers);
    }
    json_free(config);
    single_file_close(file);
    CHECK(single_file_open(path, CASES "pipeline_flux/model", &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(single_file_config(file, "transformer", &config, &error) == TESSERA_OK && config == NULL, "the user's config was changed");
    single_file_close(file);
    unlink(path);
}

/* Marks of an SDXL file: its scheduler predicts v and ends in noise alone; a configuration of the
 * user's stays as it is. */
static void check_marks(void) {
    static const char path[] = "tests/reports/15-sdxl-v-pred/vpred-marks.safetensors";
    struct single_file *file = NULL;
    struct json *config = NULL;
    tessera_error error = {0};
    const char *prediction = "", *spacing = "";
    bool rescaled = false;
    CHECK(single_file_open(path, NULL, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    struct single_file_marks marks = single_file_marks(file);
    CHECK(marks.zero_terminal_snr && marks.because != NULL && strcmp(marks.because, "v_pred") == 0, "%s", marks.because);
    CHECK(single_file_scheduler(file, &config, &error) == TESSERA_OK && config != NULL, "%s", error.message);
    if (config != NULL) {
        json_string(config, "prediction_type", "", &prediction, &error);
        json_string(config, "timestep_spacing", "", &spacing, &error);
        json_bool(config, "rescale_betas_zero_snr", false, &rescaled, &error);
        CHECK(strcmp(prediction, "v_prediction") == 0 && strcmp(spacing, "trailing") == 0 && rescaled, "%s, %s", prediction, spacing);
    }
    json_free(config);
    single_file_close(file);
    CHECK(single_file_open(path, CASES "pipeline_sdxl/model", &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(single_file_scheduler(file, &config, &error) == TESSERA_OK && config == NULL, "the user's configuration was changed");
    single_file_close(file);
    CHECK(single_file_open(CASES "single_file/sdxl.safetensors", CASES "pipeline_sdxl/model", &file, &error) == TESSERA_OK, "%s",
          error.message);
    CHECK(single_file_marks(file).because == NULL, "no marks");
    single_file_close(file);
}

/* SD 3.5 Large Turbo: few steps, and the scheduler's configuration stays as it is. */
static void check_flow_turbo(void) {
    char folder[] = "/tmp/test_single_file_XXXXXX", path[128];
    static const char *const names[] = {"model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias", "model.diffusion_model.context_embedder.weight"};
    char scratch[] = "/tmp/test_single_file_XXXXXX";
    struct single_file *file = NULL;
    struct json *config = NULL;
    tessera_error error = {0};
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    snprintf(path, sizeof path, "%s/sd3.5_large_turbo.safetensors", folder);
    write_tensors(scratch, 2, names, (const int64_t[][2]){{1, 1}, {2432, 1}});
    CHECK(rename(scratch, path) == 0 && single_file_open(path, NULL, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file != NULL) {
        struct single_file_marks marks = single_file_marks(file);
        CHECK(marks.distilled != NULL && strcmp(marks.distilled, "Turbo") == 0 && marks.steps == 4, "%d steps", marks.steps);
        CHECK(marks.prediction_type == NULL, "%s", marks.prediction_type);
        CHECK(single_file_scheduler(file, &config, &error) == TESSERA_OK && config == NULL, "%s", error.message);
    }
    single_file_close(file);
    unlink(path);
    rmdir(folder);
}

/* A file of SDXL's form with that name: its marks. */
static void check_distilled(const char *name, const char *kind, int steps, const char *prediction) {
    static const char *const names[] = {"model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"};
    char folder[] = "/tmp/test_single_file_XXXXXX", path[128], scratch[] = "/tmp/test_single_file_XXXXXX";
    struct single_file *file = NULL;
    struct json *config = NULL;
    tessera_error error = {0};
    const char *spacing = "";
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_tensors(scratch, 2, names, (const int64_t[][2]){{320, 4}, {1, 1}});
    CHECK(rename(scratch, path) == 0 && single_file_open(path, NULL, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file != NULL) {
        struct single_file_marks marks = single_file_marks(file);
        bool same = kind == NULL ? marks.distilled == NULL : marks.distilled != NULL && strcmp(marks.distilled, kind) == 0;
        CHECK(same && marks.steps == steps, "%s: %s, %d steps", name, marks.distilled, marks.steps);
        if (kind != NULL) CHECK(strcmp(marks.prediction_type, prediction) == 0, "%s", marks.prediction_type);
        CHECK(single_file_scheduler(file, &config, &error) == TESSERA_OK, "%s", error.message);
        if (config != NULL) json_string(config, "timestep_spacing", "", &spacing, &error);
        CHECK((kind != NULL) == (strcmp(spacing, "trailing") == 0), "%s: %s", name, spacing);
    }
    json_free(config);
    single_file_close(file);
    unlink(path);
    rmdir(folder);
}

static void check_errors(void) {
    check_open_error(CASES "single_file/flux_ae.safetensors", NULL, TESSERA_ERROR_UNSUPPORTED, "autoencoder alone");
    check_open_error(CASES "pipeline_sd15/model/unet/diffusion_pytorch_model.safetensors", NULL, TESSERA_ERROR_UNSUPPORTED,
                     "diffusers' layout");
    check_open_error(CASES "single_file/sd15.safetensors", NULL, TESSERA_ERROR_UNSUPPORTED, "--config");
    check_open_error(CASES "nowhere.safetensors", NULL, TESSERA_ERROR_IO, "nowhere");
    check_one_tensor("lora_unet_down_blocks_0.lora_down.weight", 4, 4, "LoRA");
    check_one_tensor("model.diffusion_model.input_blocks.0.0.weight", 384, 4, "refiner");
    check_one_tensor("model.diffusion_model.input_blocks.0.0.weight", 320, 9, "inpainting");
    char path[] = "/tmp/test_single_file_XXXXXX";
    static const char *const names[] = {"input_blocks.0.0.weight", "label_emb.0.0.weight", "edm_mean"};
    write_tensors(path, 3, names, (const int64_t[][2]){{320, 4}, {1, 1}, {1, 1}});
    check_open_error(path, NULL, TESSERA_ERROR_UNSUPPORTED, "edm_mean");
    unlink(path);
    static const char *const cosxl[] = {"input_blocks.0.0.weight", "label_emb.0.0.weight", "edm_vpred.sigma_max"};
    char other[] = "/tmp/test_single_file_XXXXXX";
    write_tensors(other, 3, cosxl, (const int64_t[][2]){{320, 4}, {1, 1}, {1, 1}});
    check_open_error(other, NULL, TESSERA_ERROR_UNSUPPORTED, "edm_vpred.sigma_max");
    unlink(other);
    check_one_tensor("anything.at.all", 1, 1, "layout");
    check_one_tensor("input_blocks.99999999999999999999.0.in_layers.{}.-1..", 1, 1, "layout");
}

static void check_component_error(const char *path, const char *config, const char *component, tessera_status want, const char *words) {
    struct single_file *file = NULL;
    struct weights *view = NULL;
    tessera_error error = {0};
    CHECK(single_file_open(path, config, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    tessera_status status = single_file_weights(file, component, &view, &error);
    CHECK(status == want && strstr(error.message, words) != NULL, "status %d, message: %s", status, error.message);
    weights_close(view);
    single_file_close(file);
}

int main(void) {
    check_file("sd15", CASES "pipeline_sd15/model", (const char *const[]){"unet", "vae", "text_encoder", NULL});
    check_file("sdxl", CASES "pipeline_sdxl/model", (const char *const[]){"unet", "vae", "text_encoder", "text_encoder_2", NULL});
    check_file("sd3", CASES "pipeline_sd3/model",
               (const char *const[]){"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", NULL});
    check_file("flux", CASES "pipeline_flux/model", (const char *const[]){"transformer", NULL});
    check_sd21();
    check_lone_components();
    check_lone_component(CASES "single_file/sd35.safetensors", "transformer", CASES "sd35/model");
    check_published_models();
    check_counts();
    check_marks();
    check_distilled("sdxl_lightning_8step.safetensors", "Lightning", 8, "epsilon");
    check_distilled("SDXL-Lightning-1step_x0.safetensors", "Lightning", 1, "sample");
    check_distilled("sd_xl_turbo_1.0_fp16.safetensors", "Turbo", 4, "epsilon");
    check_flow_turbo();
    check_distilled("sd_xl_base_1.0.safetensors", NULL, 0, NULL);
    check_errors();
    check_component_error(CASES "single_file/flux.safetensors", CASES "pipeline_flux/model", "text_encoder_2", TESSERA_ERROR_ARGUMENT,
                          "--text-encoder-2");
    check_component_error(CASES "single_file/sd3.safetensors", CASES "pipeline_sd3_dynamic/model", "transformer", TESSERA_ERROR_FORMAT,
                          "in diffusers' layout");
    return CHECK_REPORT();
}
