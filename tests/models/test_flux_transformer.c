/* Flux's denoiser against diffusers' results, cut at every block, and with inputs and configs that
 * are wrong.
 *
 * The cases hold packed patches and timesteps of 0..1; the engine takes pictures and timesteps of
 * 0..1000. */
#include "denoiser_test.h"

static void check_state(const struct case_io *c, struct component_test *t, const char *name, struct denoiser_state state) {
    char text[96], picture[96];
    snprintf(text, sizeof text, "mid.%s.0", name);
    snprintf(picture, sizeof picture, "mid.%s.1", name);
    if (case_tensor(c, text).data == NULL) return;
    check_close(c, text, t->run.dtype, nn_cast(&t->run, state.text, DTYPE_F32), case_tensor(c, text));
    check_close(c, picture, t->run.dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, picture));
}

static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    CHECK(m->patch_size == 2 && m->in_channels == 4, "patches are packed inside");
    enum dtype dtype = t->run.dtype;
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    check_close(c, "x_embedder", dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, "mid.x_embedder"));
    check_close(c, "context_embedder", dtype, nn_cast(&t->run, state.text, DTYPE_F32), case_tensor(c, "mid.context_embedder"));
    check_close(c, "time_text_embed", dtype, state.cond, case_tensor(c, "mid.time_text_embed"));
    for (int i = 0; i < m->num_blocks; i++) {
        struct denoiser_block_info info;
        m->class->describe(m, i, &info);
        state = m->class->block(m, &t->run, i, state);
        CHECK((state.text.data != NULL) == ((info.carries & DENOISER_CARRIES_TEXT) != 0), "block %d carries what it says", i);
        CHECK(info.parameters > 0 && info.operations_per_picture_token > 0 && info.operations_per_text_token > 0, "block %d is described",
              i);
        check_state(c, t, info.name, state);
    }
    struct tensor cut = m->class->finish(m, &t->run, state);
    CHECK(cut.data != NULL && whole.data != NULL && memcmp(cut.data, whole.data, tensor_bytes(&whole)) == 0, "cuts change nothing");
}

/* Two pictures in one pass, the second with its own noise: each gets what it gets alone. */
static void test_batch(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    struct denoiser_inputs two = *in;
    struct tensor *const twice[] = {&two.latents, &two.text, &two.pooled, &two.guidance};
    for (int i = 0; i < 4; i++) {
        size_t bytes = tensor_bytes(twice[i]);
        char *data = malloc(2 * bytes);
        memcpy(data, twice[i]->data, bytes);
        memcpy(data + bytes, twice[i]->data, bytes);
        twice[i]->data = data;
        twice[i]->shape[0] = 2;
    }
    int64_t count = tensor_count(&in->latents);
    for (int64_t i = 0; i < count; i++) ((float *)two.latents.data)[count + i] = -((const float *)in->latents.data)[i];
    ((float *)two.guidance.data)[1] = 1.0f;
    two.timesteps = (const float[]){in->timesteps[0], 120.0f};
    struct tensor both = denoiser_forward(t->component.denoiser, &t->run, &two);
    for (int i = 0; i < 2; i++) {
        struct tensor scale = tensor_of((float *)two.guidance.data + i, DTYPE_F32, SHAPE(1)), latents = in->latents;
        latents.data = (float *)two.latents.data + i * count;
        struct denoiser_inputs alone = *in;
        alone.latents = latents;
        alone.guidance = scale;
        alone.timesteps = two.timesteps + i;
        struct tensor want = denoiser_forward(t->component.denoiser, &t->run, &alone), got = want;
        got.data = both.data == NULL ? NULL : (float *)both.data + i * count;
        check_close(c, i == 0 ? "first of a batch" : "second of a batch", DTYPE_F32, got, want);
    }
    for (int i = 0; i < 4; i++) free(twice[i]->data);
}

static void test_wrong_inputs(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    (void)c;
    struct denoiser_inputs wrong = *in;
    wrong.text.shape[2] = 39;
    check_refused(t, &wrong, "[1, 9, 39]");
    wrong = *in;
    wrong.pooled.shape[1] = 23;
    check_refused(t, &wrong, "[1, 23]");
    wrong = *in;
    wrong.guidance = (struct tensor){0};
    check_refused(t, &wrong, "guidance");
    wrong = *in;
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(1, 15, 24, 4));
    check_refused(t, &wrong, "15 rows");
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(1, 16, 24, 3));
    check_refused(t, &wrong, "[1, 16, 24, 3]");
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(1, 1 << 20, 1 << 20, 4));
    check_refused(t, &wrong, "too many");
}

/* Opens the case's weights under another config. */
static void check_config_refused(const char *fields, tessera_status status, const char *names) {
    char text[512];
    struct json *config = NULL;
    struct weights *weights = NULL;
    tessera_error error = {0};
    snprintf(text, sizeof text, "{\"_class_name\": \"FluxTransformer2DModel\", \"num_attention_heads\": 4, \"joint_attention_dim\": 40, \"pooled_projection_dim\": 24, %s}", fields);
    CHECK(json_parse("config.json", text, strlen(text), &config, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_open("tests/cases/flux_schnell/model", &weights, &error) == TESSERA_OK, "%s", error.message);
    struct component component;
    struct component_source source = {.config = config, .weights = weights}; /* which becomes the component's */
    CHECK(component_open(&source, DTYPE_F32, &component, &error) == status, "%s: status %d", names, (int)error.status);
    CHECK(strstr(error.message, names) != NULL, "%s: %s", names, error.message);
    component_close(&component);
}

#define HEADS "\"attention_head_dim\": 16, \"axes_dims_rope\": [4, 6, 6], "

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_denoiser_case("tests/cases/flux_dev", dtypes[i], check_cuts);
        test_denoiser_case("tests/cases/flux_schnell", dtypes[i], check_cuts);
    }
    with_denoiser_case("tests/cases/flux_dev", DTYPE_F32, test_batch);
    with_denoiser_case("tests/cases/flux_dev", DTYPE_F32, test_wrong_inputs);
    check_config_refused("\"attention_head_dim\": 16", TESSERA_ERROR_FORMAT, "axes_dims_rope");
    check_config_refused("\"attention_head_dim\": 16, \"axes_dims_rope\": [5, 5, 6]", TESSERA_ERROR_FORMAT, "axes_dims_rope");
    check_config_refused("\"attention_head_dim\": 16, \"axes_dims_rope\": [8, 8]", TESSERA_ERROR_FORMAT, "axes_dims_rope");
    check_config_refused(HEADS "\"patch_size\": 2", TESSERA_ERROR_UNSUPPORTED, "patch_size");
    check_config_refused(HEADS "\"in_channels\": 18", TESSERA_ERROR_FORMAT, "in_channels");
    check_config_refused(HEADS "\"num_layers\": 0, \"num_single_layers\": 0", TESSERA_ERROR_FORMAT, "num_layers");
    check_config_refused(HEADS "\"in_channels\": 16, \"guidance_embeds\": true", TESSERA_ERROR_FORMAT, "guidance_embedder");
    check_config_refused(HEADS "\"in_channels\": 16, \"num_layers\": 3", TESSERA_ERROR_FORMAT, "\"transformer_blocks.2");
    check_config_refused(HEADS "\"in_channels\": 16, \"num_layers\": 2, \"num_single_layers\": 5", TESSERA_ERROR_FORMAT,
                         "single_transformer_blocks.4");
    return CHECK_REPORT();
}
