/* The UNets of Stable Diffusion 1 and 2 and of SDXL against diffusers' results, cut at every level,
 * with wrong inputs and configs. */
#include <unistd.h>

#include "base/file.h"
#include "denoiser_test.h"

/* A map against the case's tensor `name`, if the case has it. */
static void check_map(const struct case_io *c, struct component_test *t, const char *name, struct tensor got) {
    struct tensor stored = case_tensor(c, name);
    if (stored.data == NULL) return;
    struct tensor want = case_channels_last(&stored);
    check_close(c, name, t->run.dtype, nn_cast(&t->run, got, DTYPE_F32), want);
    free(want.data);
}

static void check_description(const struct denoiser *m, int index, const struct denoiser_state *state, char *name) {
    struct denoiser_block_info info;
    m->class->describe(m, index, &info);
    CHECK(info.parameters > 0 && info.operations_per_picture_token > 0, "block %d is described", index);
    CHECK(state->num_skips == denoiser_skips_after(m, index), "block %d leaves as many skips as it says", index);
    for (int s = 0; s < state->num_skips; s++) CHECK(state->skips[s].data != state->picture.data, "skip %d is the picture", s);
    snprintf(name, 96, "mid.%s", info.name);
    char *piece = strstr(name, ".resnets."); /* a level's last piece gives what the level gives */
    if (piece == NULL) piece = strstr(name, ".attentions.");
    if (piece != NULL) *piece = '\0';
    struct denoiser_block_info next = {.name = ""};
    if (index + 1 < m->num_blocks) m->class->describe(m, index + 1, &next);
    if (strncmp(next.name, name + 4, strlen(name + 4)) == 0) name[0] = '\0';
}

static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    check_map(c, t, "mid.conv_in", state.picture);
    if (in->size_conditions.data == NULL) /* SDXL's conditioning is more than the timestep's */
        check_close(c, "mid.time_embedding", t->run.dtype, state.cond, case_tensor(c, "mid.time_embedding"));
    int checked = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        char name[96];
        state = m->class->block(m, &t->run, i, state);
        check_description(m, i, &state, name);
        checked += name[0] != '\0' && case_tensor(c, name).data != NULL;
        if (name[0] != '\0') check_map(c, t, name, state.picture);
    }
    CHECK(checked == 3 && state.num_skips == 0, "%d middles checked, %d skips left", checked, state.num_skips);
    struct tensor cut = m->class->finish(m, &t->run, state);
    CHECK(cut.data != NULL && whole.data != NULL && memcmp(cut.data, whole.data, tensor_bytes(&whole)) == 0, "cuts change nothing");
}

static void test_wrong_inputs(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/unet_sdxl", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/unet_sdxl/model", DTYPE_F32)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
        struct denoiser_inputs wrong = inputs.in;
        wrong.text.shape[2] = 63;
        check_refused(&t, &wrong, "[2, 11, 63]");
        wrong = inputs.in;
        wrong.pooled.shape[1] = 31;
        check_refused(&t, &wrong, "[2, 31]");
        wrong = inputs.in;
        wrong.size_conditions = (struct tensor){0};
        check_refused(&t, &wrong, "time_ids");
        wrong = inputs.in;
        wrong.latents = tensor_of(inputs.in.latents.data, DTYPE_F32, SHAPE(2, 16, 14, 3));
        check_refused(&t, &wrong, "[2, 16, 14, 3]");
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

static void check_degree_refused(tessera_status status, const tessera_error *error, const char *names) {
    CHECK(status == TESSERA_ERROR_ARGUMENT && strstr(error->message, names) != NULL, "%s: %s", names, error->message);
}

/* SDXL's first level has two heads, but does not attend. */
static void test_degrees(void) {
    struct component_test t;
    tessera_error e = {0};
    if (!component_test_open(&t, "tests/cases/unet_sdxl/model", DTYPE_F32)) return;
    const struct denoiser *m = t.component.denoiser;
    CHECK(denoiser_check_degrees(m, 1, 4, &e) == TESSERA_OK && denoiser_check_degrees(m, 2, 2, &e) == TESSERA_OK, "%s", e.message);
    check_degree_refused(denoiser_check_degrees(m, 1, 5, &e), &e, "1 to 4");
    check_degree_refused(denoiser_check_degrees(m, 4, 2, &e), &e, "1 to 2");
    component_test_close(&t);
    struct load_scope fifth = {4, 5, {0, 0}};
    CHECK(!component_test_open_scope(&t, "tests/cases/unet_sdxl/model", DTYPE_F32, fifth, &e), "a fifth of four heads");
    check_degree_refused(e.status, &e, "at most 4");
}

/* unet_sd15's config in which the first `from` is now `to` must be refused, naming `names`. The
 * weights are never reached. */
static void check_config_refused(const char *from, const char *to, tessera_status status, const char *names) {
    char folder[] = "/tmp/tessera-test-XXXXXX", text[8192], link_path[64], config_path[64], target[4096];
    char *config = NULL;
    size_t length = 0;
    tessera_error error = {0};
    CHECK(mkdtemp(folder) != NULL && getcwd(target, sizeof target - 128) != NULL, "no temporary folder");
    strcat(target, "/tests/cases/unet_sd15/model/diffusion_pytorch_model.safetensors");
    CHECK(file_read("tests/cases/unet_sd15/model/config.json", 4096, &config, &length, &error) == TESSERA_OK, "%s", error.message);
    const char *at = config != NULL ? strstr(config, from) : NULL;
    CHECK(at != NULL, "%s is not in the config", from);
    if (at != NULL) snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    snprintf(link_path, sizeof link_path, "%s/diffusion_pytorch_model.safetensors", folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
    CHECK(symlink(target, link_path) == 0, "no link");
    write_text(folder, "config.json", at != NULL ? text : "{}");
    struct component component;
    CHECK(component_open(&(struct component_source){.folder = folder}, DTYPE_F32, &component, &error) == status &&
              strstr(error.message, names) != NULL,
          "%s: %s", names, error.message);
    component_close(&component);
    unlink(link_path);
    unlink(config_path);
    rmdir(folder);
    free(config);
}

static void test_wrong_configs(void) {
    const tessera_status unsupported = TESSERA_ERROR_UNSUPPORTED, format = TESSERA_ERROR_FORMAT;
    check_config_refused("\"class_embed_type\": null", "\"class_embed_type\": \"timestep\"", unsupported, "class_embed_type");
    check_config_refused("\"encoder_hid_dim\": null", "\"encoder_hid_dim\": 768", unsupported, "encoder_hid_dim");
    check_config_refused("\"resnet_time_scale_shift\": \"default\"", "\"resnet_time_scale_shift\": \"scale_shift\"", unsupported,
                         "resnet_time_scale_shift");
    check_config_refused("\"addition_embed_type\": null", "\"addition_embed_type\": \"image\"", unsupported, "addition_embed_type");
    check_config_refused("\"dual_cross_attention\": false", "\"dual_cross_attention\": true", unsupported, "dual_cross_attention");
    check_config_refused("\"only_cross_attention\": false", "\"only_cross_attention\": true", unsupported, "only_cross_attention");
    check_config_refused("\"DownBlock2D\"", "\"AttnDownBlock2D\"", unsupported, "down_block_types[2]");
    check_config_refused("\"layers_per_block\": 2", "\"layers_per_block\": 7.5", format, "layers_per_block");
    check_config_refused("\"layers_per_block\": 2", "\"layers_per_block\": [2, 2]", format, "layers_per_block");
    check_config_refused("\"layers_per_block\": 2", "\"layers_per_block\": 7", format, "down_blocks.0.resnets.2");
    check_config_refused("\"norm_num_groups\": 8", "\"norm_num_groups\": 7", format, "norm_num_groups");
    check_config_refused("\"attention_head_dim\": 4", "\"attention_head_dim\": 5", format, "attention_head_dim");
    check_config_refused("\"cross_attention_dim\": 32", "\"cross_attention_dim\": 31", format, "attn2.to_k.weight");
}

int main(void) {
    const char *const cases[] = {"tests/cases/unet_sd15",     "tests/cases/unet_sd21",      "tests/cases/unet_sdxl",
                                 "tests/cases/unet_odd_size", "tests/cases/unet_sd15_tall", "tests/cases/unet_sdxl_tall"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_denoiser_case(cases[i], DTYPE_F32, check_cuts);
        test_denoiser_case(cases[i], DTYPE_BF16, check_cuts);
    }
    test_wrong_inputs();
    test_degrees();
    test_wrong_configs();
    return CHECK_REPORT();
}
