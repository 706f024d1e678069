/* Opening a model folder and its components: a model that is worked through phase by phase, and
 * folders that lie. */
#include "pipelines/pipeline.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "pipelines/denoise.h"

#define MODEL "models/emoji"

static int open_components(const struct pipeline *p) {
    int count = 0;
    for (int i = 0; i < p->num_slots; i++) count += p->slots[i].is_open;
    return count;
}

/* Encode, free, denoise, free, decode, free: the same picture as with everything kept open. */
static void test_components_close_after_their_phase(void) {
    tessera_error error = {0};
    struct pipeline *p = NULL;
    CHECK(pipeline_open(MODEL, NULL, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p == NULL) return;
    tessera_request request = p->defaults;
    request.prompt = "strawberry", request.num_inference_steps = 2;
    const struct generation_control control = {0};
    tessera_image kept = TESSERA_IMAGE, freed = TESSERA_IMAGE;
    CHECK(p->offload == OFFLOAD_NONE && pipeline_generate(p, &request, &control, &kept, &error) == TESSERA_OK, "%s", error.message);
    CHECK(open_components(p) == 4, "a small model stays open: %d of 4 components", open_components(p));
    p->offload_asked = OFFLOAD_STAGES, p->is_judged = false;
    CHECK(pipeline_generate(p, &request, &control, &freed, &error) == TESSERA_OK, "%s", error.message);
    CHECK(open_components(p) == 0, "%d components left open", open_components(p));
    CHECK(memcmp(kept.pixels, freed.pixels, (size_t)kept.width * (size_t)kept.height * 3) == 0, "the pictures differ");
    tessera_image_free(&kept);
    tessera_image_free(&freed);
    pipeline_free(p);
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (file == NULL) return;
    fputs(text, file);
    fclose(file);
}

static void test_folders_that_lie(void) {
    char folder[] = "build-test-XXXXXX", path[64];
    if (mkdtemp(folder) == NULL) return;
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    struct {
        const char *text, *word;
    } indexes[] = {
        {"{", "model_index.json"},
        {"{}", "_class_name"},
        {"{\"_class_name\": \"NoSuchPipeline\"}", "NoSuchPipeline"},
        {"{\"_class_name\": 3}", "_class_name"},
        {"{\"_class_name\": \"StableDiffusion3Pipeline\"}", "field transformer"},
    };
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        tessera_error error = {0};
        struct pipeline *p = NULL;
        write_text(path, indexes[i].text);
        CHECK(pipeline_open(folder, NULL, &p, &error) != TESSERA_OK && p == NULL, "opened %s", indexes[i].text);
        CHECK(strstr(error.message, indexes[i].word) != NULL && strstr(error.message, folder) != NULL, "%s", error.message);
    }
    remove(path);
    remove(folder);
}

/* A T5 in the place of a CLIP whose pooled state is wanted. */
static void test_states_that_an_encoder_lacks(void) {
    tessera_error error = {0};
    struct pipeline *p = NULL;
    const tessera_model_options options = {.struct_size = sizeof(tessera_model_options),
                                           .text_encoder = "tests/cases/pipeline_flux/model/text_encoder_2"};
    CHECK(pipeline_open("tests/cases/pipeline_flux/model", &options, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p == NULL) return;
    tessera_request request = p->defaults;
    tessera_image image = TESSERA_IMAGE;
    request.prompt = "a", request.num_inference_steps = 1;
    const struct generation_control control = {0};
    CHECK(pipeline_generate(p, &request, &control, &image, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "pooled") != NULL &&
              strstr(error.message, "T5EncoderModel") != NULL,
          "%s", error.message);
    pipeline_free(p);
}

/* A component is found by its class, whatever model_index.json calls it; one of a class that is not
 * known is left out. */
static void test_slots_from_the_index(void) {
    static const char *const parts[][2] = {
        {"scheduler", "scheduler"}, {"text_encoder", "text_encoder"}, {"text_encoder_2", "text_encoder_2"},
        {"tokenizer", "tokenizer"}, {"tokenizer_2", "tokenizer_2"},   {"transformer", "denoiser"},
        {"vae", "first_stage"}};
    enum { PARTS = sizeof parts / sizeof *parts };
    char folder[] = "build-test-XXXXXX", from[512], to[512], here[256];
    tessera_error error = {0};
    struct pipeline *p = NULL;
    if (mkdtemp(folder) == NULL || getcwd(here, sizeof here) == NULL) return;
    for (int i = 0; i < PARTS; i++) {
        snprintf(from, sizeof from, "%s/" MODEL "/%s", here, parts[i][0]);
        snprintf(to, sizeof to, "%s/%s", folder, parts[i][1]);
        CHECK(symlink(from, to) == 0, "%s", to);
    }
    snprintf(to, sizeof to, "%s/model_index.json", folder);
    write_text(to, "{\"_class_name\": \"StableDiffusion3Pipeline\", \"denoiser\": [\"diffusers\", \"SD3Transformer2DModel\"], "
                   "\"first_stage\": [\"diffusers\", \"AutoencoderKL\"], \"scheduler\": [\"diffusers\", "
                   "\"FlowMatchEulerDiscreteScheduler\"], \"text_encoder\": [\"transformers\", \"CLIPTextModelWithProjection\"], "
                   "\"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"], \"tokenizer\": [\"transformers\", "
                   "\"CLIPTokenizer\"], \"tokenizer_2\": [\"transformers\", \"CLIPTokenizer\"], "
                   "\"watcher\": [\"elsewhere\", \"NoSuchModel\"]}");
    CHECK(pipeline_open(folder, NULL, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p != NULL) {
        CHECK(strcmp(p->denoiser, "denoiser") == 0 && strcmp(p->autoencoder, "first_stage") == 0 && p->num_slots == 4, "%s, %s, %d slots",
              p->denoiser, p->autoencoder, p->num_slots);
        tessera_request request = p->defaults;
        tessera_image image = TESSERA_IMAGE;
        request.prompt = "strawberry", request.num_inference_steps = 1;
        const struct generation_control control = {0};
        CHECK(pipeline_generate(p, &request, &control, &image, &error) == TESSERA_OK, "%s", error.message);
        tessera_image_free(&image);
        pipeline_free(p);
    }
    for (int i = 0; i < PARTS; i++) {
        snprintf(to, sizeof to, "%s/%s", folder, parts[i][1]);
        unlink(to);
    }
    snprintf(to, sizeof to, "%s/model_index.json", folder);
    unlink(to);
    rmdir(folder);
}

/* As many pictures as keep every stage at work, and no more: one is back at the first stage when
 * each of its rows has gone through all. */
static void test_pictures_at_once(void) {
    static const struct {
        int stages, cfg, patches, pictures;
        bool guided, has_cache;
        int wanted;
    } cases[] = {
        {1, 1, 1, 9, true, false, 1}, {2, 1, 1, 9, true, false, 2}, {3, 1, 1, 9, true, false, 2}, {4, 1, 1, 9, true, false, 3},
        {5, 1, 1, 9, true, false, 3}, {4, 1, 1, 9, false, false, 4}, {4, 2, 1, 9, true, false, 4}, {4, 1, 1, 9, true, true, 4},
        {4, 1, 2, 9, true, false, 1}, {4, 1, 1, 2, true, false, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mesh mesh = {.degrees = {1, 1, 1, 1, 1, 1, 1}};
        struct team team = {.mesh = &mesh, .choice.patches = cases[i].patches};
        mesh.degrees[MESH_PIPEFUSION] = cases[i].stages, mesh.degrees[MESH_CFG] = cases[i].cfg;
        int pictures = denoise_at_once(&team, NULL, cases[i].guided, cases[i].has_cache, cases[i].pictures);
        CHECK(pictures == cases[i].wanted, "case %zu, %d stages: %d pictures", i, cases[i].stages, pictures);
    }
}

int main(void) {
    test_states_that_an_encoder_lacks();
    test_slots_from_the_index();

    test_components_close_after_their_phase();
    test_folders_that_lie();
    test_pictures_at_once();
    return CHECK_REPORT();
}
