/* Files as other programs write them, made here out of the cases by those programs' own rules of
 * names and shapes: T5 in llama.cpp's names, SDXL as stable-diffusion.cpp converts names, GGUF
 * files without dimensions of 1, U-Nets whose kernels were flattened, float8 with scales. Each is
 * seen as the model folder that it stands for. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "checkpoint/required.h"
#include "checkpoint/single_file.h"
#include "safetensors_write.h"
#include "tensor/scaled_weights.h"

#define CASES "tests/cases/"

struct replacement {
    const char *from, *to;
};

/* Replaces, one after another, the first occurrence of each `from`. */
static void rename_by(const struct replacement *list, const char *name, char out[256]) {
    char text[256];
    snprintf(out, 256, "%s", name);
    for (; list->from != NULL; list++) {
        const char *at = strstr(out, list->from);
        if (at == NULL) continue;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - out), out, list->to, at + strlen(list->from));
        memcpy(out, text, sizeof text);
    }
}

/* Writes the tensors of `from` under other names to a new file `path` (which ends in XXXXXX and
 * then in an ending). */
static void write_renamed(const char *from, const struct replacement *list, char *path, int ending) {
    struct safetensors *source = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(from, &source, &error) == TESSERA_OK, "%s", error.message);
    if (source == NULL) return;
    int count = safetensors_count(source), descriptor = mkstemps(path, ending);
    struct safetensors_entry *entries = calloc((size_t)count, sizeof *entries);
    char(*names)[256] = calloc((size_t)count, sizeof *names);
    for (int i = 0; i < count; i++) {
        entries[i] = *safetensors_at(source, i);
        rename_by(list, entries[i].name, names[i]);
        entries[i].name = names[i];
        struct tensor *t = &entries[i].tensor; /* ggml keeps no dimensions of 1 behind the last other one: in our order, before the first */
        while (ending == 5 && t->ndim > 1 && t->shape[0] == 1) memmove(t->shape, t->shape + 1, (size_t)--t->ndim * sizeof *t->shape);
    }
    CHECK(descriptor >= 0 && safetensors_write(path, entries, count, &error) == TESSERA_OK, "%s", error.message);
    close(descriptor);
    free(names);
    free(entries);
    safetensors_close(source);
}

/* Are the folder's tensors in `view`, those that its model asks for, in shape and bytes? */
static void compare(const struct weights *view, const char *folder) {
    struct weights *want = NULL;
    struct required required = {0};
    tessera_error error = {0};
    int compared = 0;
    CHECK(required_read(folder, NULL, &required, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_open(folder, &want, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; want != NULL && i < weights_count(want); i++) {
        const struct safetensors_entry *entry = weights_at(want, i);
        struct required_tensor *wanted = required_find(&required, entry->name);
        struct tensor t = {0};
        if (wanted == NULL) continue;
        CHECK(weights_get(view, wanted->name, &t, &error) == TESSERA_OK, "%s", error.message);
        void *bytes = malloc(tensor_bytes(&t) + 1);
        weights_read(view, wanted->name, NULL, bytes);
        CHECK(t.dtype == entry->tensor.dtype && t.ndim == wanted->ndim && tensor_bytes(&t) == tensor_bytes(&entry->tensor) &&
                  memcmp(bytes, entry->tensor.data, tensor_bytes(&t)) == 0,
              "%s differs", wanted->name);
        free(bytes);
        compared++;
    }
    CHECK(compared == required.count && compared > 0, "%d of %d tensors", compared, required.count);
    required_free(&required);
    weights_close(want);
}

static void check_lone(const char *path, const char *component, const char *folder) {
    struct weights *view = NULL;
    tessera_error error = {0};
    CHECK(single_file_component(path, component, folder, &view, &error) == TESSERA_OK, "%s", error.message);
    if (view != NULL) compare(view, folder);
    weights_close(view);
}

static void check_part(const char *path, const char *config, const char *component) {
    struct single_file *file = NULL;
    struct weights *view = NULL;
    tessera_error error = {0};
    char folder[512];
    CHECK(single_file_open(path, config, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    snprintf(folder, sizeof folder, "%s/%s", config, component);
    CHECK(single_file_weights(file, component, &view, &error) == TESSERA_OK, "%s", error.message);
    if (view != NULL) compare(view, folder);
    weights_close(view);
    single_file_close(file);
}

/* ComfyUI-GGUF's map (loader.py, T5_SD_MAP), the other way round. */
static void check_t5(void) {
    static const struct replacement list[] = {{"encoder.block.", "enc.blk."},
                                              {"encoder.final_layer_norm", "enc.output_norm"},
                                              {"shared", "token_embd"},
                                              {"layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"},
                                              {"layer.0.SelfAttention.", "attn_"},
                                              {"layer.0.layer_norm", "attn_norm"},
                                              {"layer.1.DenseReluDense.wi_0", "ffn_gate"},
                                              {"layer.1.DenseReluDense.wi_1", "ffn_up"},
                                              {"layer.1.DenseReluDense.wo", "ffn_down"},
                                              {"layer.1.layer_norm", "ffn_norm"},
                                              {NULL, NULL}};
    char path[] = "/tmp/test_foreign_XXXXXX.gguf";
    struct single_file *file = NULL;
    tessera_error error = {0};
    write_renamed(CASES "pipeline_flux/model/text_encoder_2/model.safetensors", list, path, 5);
    check_lone(path, "text_encoder_2", CASES "pipeline_flux/model/text_encoder_2");
    CHECK(single_file_open(path, NULL, &file, &error) == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "--text-encoder-2") != NULL, "%s",
          error.message);
    unlink(path);
}

/* stable-diffusion.cpp's src/name_conversion.cpp: convert_open_clip_to_hf_clip_name and the map of
 * prefixes. */
static void check_sdcpp(void) {
    static const struct replacement list[] = {{"conditioner.embedders.0.", "cond_stage_model."},
                                              {"conditioner.embedders.1.model.text_projection", "cond_stage_model.1.transformer.text_model.text_projection"},
                                              {"conditioner.embedders.1.model.ln_final", "cond_stage_model.1.transformer.text_model.final_layer_norm"},
                                              {"conditioner.embedders.1.model.positional_embedding",
                                               "cond_stage_model.1.transformer.text_model.embeddings.position_embedding.weight"},
                                              {"conditioner.embedders.1.model.token_embedding", "cond_stage_model.1.transformer.text_model.embeddings.token_embedding"},
                                              {"conditioner.embedders.1.model.transformer.resblocks.", "cond_stage_model.1.transformer.text_model.encoder.layers."},
                                              {"attn.in_proj_", "self_attn.in_proj."},
                                              {"1.transformer.text_model.encoder.layers.0.attn.out_proj", "1.transformer.text_model.encoder.layers.0.self_attn.out_proj"},
                                              {"1.transformer.text_model.encoder.layers.1.attn.out_proj", "1.transformer.text_model.encoder.layers.1.self_attn.out_proj"},
                                              {".ln_1.", ".layer_norm1."},
                                              {".ln_2.", ".layer_norm2."},
                                              {"mlp.c_fc", "mlp.fc1"},
                                              {"mlp.c_proj", "mlp.fc2"},
                                              {NULL, NULL}};
    static const char *const components[] = {"unet", "vae", "text_encoder", "text_encoder_2"};
    char path[] = "/tmp/test_foreign_XXXXXX.gguf";
    write_renamed(CASES "single_file/sdxl.safetensors", list, path, 5);
    for (int i = 0; i < 4; i++) check_part(path, CASES "pipeline_sdxl/model", components[i]);
    unlink(path);
}

/* city96's files: the denoiser alone, without a prefix, as GGUF. */
static void check_bare(void) {
    static const struct replacement list[] = {{"model.diffusion_model.", ""}, {NULL, NULL}};
    static const struct {
        const char *file, *config, *component;
    } cases[] = {{CASES "single_file/sd3.safetensors", CASES "pipeline_sd3/model", "transformer"},
                 {CASES "single_file/flux.safetensors", CASES "pipeline_flux/model", "transformer"},
                 {CASES "single_file/sdxl.safetensors", CASES "pipeline_sdxl/model", "unet"},
                 {CASES "single_file/sd15.safetensors", CASES "pipeline_sd15/model", "unet"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[] = "/tmp/test_foreign_XXXXXX.gguf", folder[512];
        write_renamed(cases[i].file, list, path, 5);
        snprintf(folder, sizeof folder, "%s/%s", cases[i].config, cases[i].component);
        check_lone(path, cases[i].component, folder);
        check_part(path, cases[i].config, cases[i].component);
        unlink(path);
    }
}

/* ---- float8 with scales ---- */

static bool is_scaled(const struct safetensors_entry *e) {
    return strncmp(e->name, "model.diffusion_model.", 22) == 0 && e->tensor.ndim == 2 && strstr(e->name, ".weight") != NULL;
}

/* SD3 as ComfyUI's scaled float8: each matrix of the transformer has a scale of its own. */
static void write_scaled(char *path) {
    struct safetensors *source = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(CASES "single_file/sd3.safetensors", &source, &error) == TESSERA_OK, "%s", error.message);
    int count = safetensors_count(source), n = 0, descriptor = mkstemps(path, 12);
    struct safetensors_entry *entries = calloc((size_t)count * 3, sizeof *entries);
    char(*names)[256] = calloc((size_t)count * 2, sizeof *names);
    float *scales = calloc((size_t)count, sizeof *scales);
    for (int i = 0; i < count; i++) {
        struct safetensors_entry e = *safetensors_at(source, i);
        if (is_scaled(&e)) {
            uint8_t *eighths = malloc((size_t)tensor_count(&e.tensor));
            dtype_convert(eighths, DTYPE_F8_E4M3, e.tensor.data, e.tensor.dtype, (size_t)tensor_count(&e.tensor));
            e.tensor.data = eighths;
            e.tensor.dtype = DTYPE_F8_E4M3;
            scales[i] = 0.5f + (float)i / 64;
            snprintf(names[2 * i], sizeof *names, "%.*sscale_weight", (int)strlen(e.name) - 6, e.name);
            snprintf(names[2 * i + 1], sizeof *names, "%.*sscale_input", (int)strlen(e.name) - 6, e.name);
            entries[n++] = (struct safetensors_entry){names[2 * i], tensor_of(&scales[i], DTYPE_F32, 0, NULL)};
            entries[n++] = (struct safetensors_entry){names[2 * i + 1], tensor_of(&scales[i], DTYPE_F32, 0, NULL)};
        }
        entries[n++] = e;
    }
    CHECK(descriptor >= 0 && safetensors_write(path, entries, n, &error) == TESSERA_OK, "%s", error.message);
    close(descriptor);
    for (int i = 0; i < n; i++)
        if (entries[i].tensor.dtype == DTYPE_F8_E4M3) free(entries[i].tensor.data);
    free(names), free(entries), free(scales);
    safetensors_close(source);
}

/* Is each scaled number of the view the original one, rounded to float8 and multiplied by one scale? */
static void check_scaled_view(const struct weights *view, const struct weights *want) {
    int checked = 0;
    for (int i = 0; i < weights_count(want); i++) {
        const struct safetensors_entry *entry = weights_at(want, i);
        struct scaled_weight w;
        bool found;
        tessera_error error = {0};
        CHECK(scaled_weight_find(view, entry->name, &found, &w, &error) == TESSERA_OK, "%s", error.message);
        if (!found) continue;
        int64_t count = tensor_count(&entry->tensor), wrong = 0;
        uint8_t *eighths = malloc((size_t)count), *bytes = malloc(tensor_bytes(&w.tensor));
        float *numbers = malloc((size_t)count * sizeof *numbers), *plain = malloc((size_t)count * sizeof *plain);
        dtype_convert(eighths, DTYPE_F8_E4M3, entry->tensor.data, entry->tensor.dtype, (size_t)count);
        dtype_convert(plain, DTYPE_F32, eighths, DTYPE_F8_E4M3, (size_t)count);
        uint8_t *codes = malloc(tensor_bytes(&w.stored));
        weights_read(view, entry->name, NULL, codes);
        w.stored.data = codes;
        scaled_weight_read(&w, 0, count, bytes);
        dtype_convert(numbers, DTYPE_F32, bytes, w.tensor.dtype, (size_t)count);
        for (int64_t n = 0; n < count; n++) wrong += numbers[n] != plain[n] * w.scale;
        CHECK(wrong == 0 && w.scale > 0.5f && tensor_count(&w.tensor) == count, "%s: %d numbers, scale %g", entry->name, (int)wrong, (double)w.scale);
        free(eighths), free(bytes), free(codes), free(numbers), free(plain);
        checked++;
    }
    CHECK(checked > 20, "%d weights have scales", checked);
}

static void check_scales(void) {
    char path[] = "/tmp/test_foreign_XXXXXX.safetensors";
    struct single_file *file = NULL;
    struct weights *view = NULL, *lone = NULL, *want = NULL;
    tessera_error error = {0};
    write_scaled(path);
    CHECK(single_file_open(path, CASES "pipeline_sd3/model", &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    CHECK(single_file_weights(file, "transformer", &view, &error) == TESSERA_OK, "%s", error.message);
    CHECK(single_file_component(path, "transformer", CASES "pipeline_sd3/model/transformer", &lone, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_open(CASES "pipeline_sd3/model/transformer", &want, &error) == TESSERA_OK, "%s", error.message);
    if (view != NULL && lone != NULL && want != NULL) {
        check_scaled_view(view, want);
        check_scaled_view(lone, want);
    }
    weights_close(view), weights_close(lone), weights_close(want);
    single_file_close(file);
    unlink(path);
}

int main(void) {
    check_t5();
    check_sdcpp();
    check_bare();
    check_scales();
    return CHECK_REPORT();
}
