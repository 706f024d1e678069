/* SD3's denoiser against diffusers' results, cut at every block, and with inputs and folders that
 * are wrong. */
#include <unistd.h>

#include "denoiser_test.h"
#include "safetensors_write.h"

static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    enum dtype dtype = t->run.dtype;
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    check_close(c, "pos_embed", dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, "mid.pos_embed"));
    check_close(c, "context_embedder", dtype, nn_cast(&t->run, state.text, DTYPE_F32), case_tensor(c, "mid.context_embedder"));
    check_close(c, "time_text_embed", dtype, state.cond, case_tensor(c, "mid.time_text_embed"));
    for (int i = 0; i < m->num_blocks; i++) {
        struct denoiser_block_info info;
        m->class->describe(m, i, &info);
        state = m->class->block(m, &t->run, i, state);
        CHECK((state.text.data != NULL) == ((info.carries & DENOISER_CARRIES_TEXT) != 0), "block %d carries what it says", i);
        CHECK(info.parameters > 0 && info.operations_per_picture_token > 0, "block %d is described", i);
        char text[64], picture[64];
        snprintf(text, sizeof text, "mid.transformer_blocks.%d.0", i);
        snprintf(picture, sizeof picture, "mid.transformer_blocks.%d.1", i);
        if (case_tensor(c, text).data == NULL) continue;
        check_close(c, text, dtype, nn_cast(&t->run, state.text, DTYPE_F32), case_tensor(c, text));
        check_close(c, picture, dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, picture));
    }
    struct tensor cut = m->class->finish(m, &t->run, state);
    CHECK(cut.data != NULL && whole.data != NULL && memcmp(cut.data, whole.data, tensor_bytes(&whole)) == 0, "cuts change nothing");
}

static void test_wrong_inputs(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    (void)c;
    struct denoiser_inputs wrong = *in;
    wrong.text.shape[2] = 39;
    check_refused(t, &wrong, "[2, 9, 39]");
    wrong = *in;
    wrong.pooled.shape[1] = 23;
    check_refused(t, &wrong, "[2, 23]");
    wrong = *in;
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(2, 15, 24, 16));
    check_refused(t, &wrong, "15 rows");
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(2, 2, 34, 16));
    check_refused(t, &wrong, "34 columns");
    wrong.latents = tensor_of(in->latents.data, DTYPE_F32, SHAPE(2, 16, 24, 8));
    check_refused(t, &wrong, "[2, 16, 24, 8]");
}

/* Opens the case's weights under another config. */
static void check_config_refused(const char *config, tessera_status status, const char *names) {
    char folder[] = "/tmp/tessera-test-XXXXXX", target[4096], link_path[64], config_path[64];
    CHECK(mkdtemp(folder) != NULL && getcwd(target, sizeof target - 128) != NULL, "no temporary folder");
    strcat(target, "/tests/cases/sd3/model/diffusion_pytorch_model.safetensors");
    snprintf(link_path, sizeof link_path, "%s/diffusion_pytorch_model.safetensors", folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
    CHECK(symlink(target, link_path) == 0, "no link");
    write_text(folder, "config.json", config);
    struct component component;
    tessera_error error = {0};
    CHECK(component_open(&(struct component_source){.folder = folder}, DTYPE_F32, &component, &error) == status &&
              strstr(error.message, names) != NULL,
          "%s: %s", names, error.message);
    component_close(&component);
    unlink(link_path);
    unlink(config_path);
    rmdir(folder);
}

/* A folder without the position table: it is computed, and equals the stored one up to the stored
 * one's bfloat16. */
static void test_computed_positions(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    struct component_test whole, without = {0};
    tessera_error error = {0};
    char *config = NULL, *target = file_join(folder, "config.json"), *path = file_join(folder, "diffusion_pytorch_model.safetensors");
    size_t length = 0;
    CHECK(file_read("tests/cases/sd3/model/config.json", 1 << 20, &config, &length, &error) == TESSERA_OK, "%s", error.message);
    write_text(folder, "config.json", config);
    struct case_io c;
    CHECK(case_open("tests/cases/sd3", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&whole, "tests/cases/sd3/model", DTYPE_F32)) {
        struct safetensors_entry entries[256];
        int count = 0;
        for (int i = 0; i < weights_count(whole.component.weights) && count < 256; i++) {
            entries[count] = *weights_at(whole.component.weights, i);
            if (strcmp(entries[count].name, "pos_embed.pos_embed") != 0) count++;
        }
        CHECK(safetensors_write(path, entries, count, &error) == TESSERA_OK, "%s", error.message);
        if (component_test_open(&without, folder, DTYPE_F32)) {
            struct denoiser_case inputs = denoiser_case_read(&c);
            struct denoiser *a = whole.component.denoiser, *b = without.component.denoiser;
            struct tensor want = a->class->embed(a, &whole.run, &inputs.in, DENOISER_CARRIES_PICTURE).picture,
                          got = b->class->embed(b, &without.run, &inputs.in, DENOISER_CARRIES_PICTURE).picture;
            CHECK(case_compare(&c, &got, &want).relative_l2 < 0.003, "relative L2 %g", case_compare(&c, &got, &want).relative_l2);
            denoiser_case_free(&inputs);
        }
        component_test_close(&without);
    }
    component_test_close(&whole);
    case_close(&c);
    unlink(path);
    unlink(target);
    rmdir(folder);
    free(config);
    free(target);
    free(path);
}

#define SD3_CONFIG(head_dim, caption, rest)                                                                                                \
    "{\"_class_name\": \"SD3Transformer2DModel\", \"attention_head_dim\": " #head_dim ", \"caption_projection_dim\": " #caption            \
    ", \"in_channels\": 16, \"joint_attention_dim\": 40, \"num_attention_heads\": 4, \"pooled_projection_dim\": 24, "                      \
    "\"pos_embed_max_size\": 16, \"sample_size\": 16, " rest "}"

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_denoiser_case("tests/cases/sd3", dtypes[i], check_cuts);
        test_denoiser_case("tests/cases/sd35", dtypes[i], check_cuts);
    }
    with_denoiser_case("tests/cases/sd3", DTYPE_F32, test_wrong_inputs);
    test_computed_positions();
    check_config_refused("{\"_class_name\": \"SomeTransformer\"}", TESSERA_ERROR_UNSUPPORTED, "SD3Transformer2DModel");
    check_config_refused("{}", TESSERA_ERROR_FORMAT, "_class_name");
    check_config_refused(SD3_CONFIG(9, 36, "\"num_layers\": 4"), TESSERA_ERROR_FORMAT, "pos_embed.proj.weight");
    check_config_refused(SD3_CONFIG(8, 31, "\"num_layers\": 4"), TESSERA_ERROR_FORMAT, "caption_projection_dim");
    check_config_refused(SD3_CONFIG(8, 32, "\"num_layers\": 4, \"qk_norm\": \"rms_norm\""), TESSERA_ERROR_FORMAT, "attn.norm_q.weight");
    check_config_refused(SD3_CONFIG(8, 32, "\"num_layers\": 4, \"qk_norm\": \"layer_norm\""), TESSERA_ERROR_UNSUPPORTED, "qk_norm");
    check_config_refused(SD3_CONFIG(8, 32, "\"num_layers\": 5"), TESSERA_ERROR_FORMAT, "transformer_blocks.3");
    return CHECK_REPORT();
}
