/* HunyuanDiT's denoiser, with and without sizes and style, against diffusers' results, cut at every
 * block, with wrong inputs and configs, and the list of the weights it asks for. */
#include <unistd.h>

#include "base/file.h"
#include "denoiser_test.h"

/* Elements of the file's tensors whose names begin so. */
static int64_t stored_parameters(const struct weights *weights, const char *prefix) {
    int64_t sum = 0;
    for (int i = 0; i < weights_count(weights); i++) {
        const struct safetensors_entry *entry = weights_at(weights, i);
        if (strncmp(entry->name, prefix, strlen(prefix)) == 0) sum += tensor_count(&entry->tensor);
    }
    return sum;
}

static void check_description(const struct component_test *t, int index, const struct denoiser_state *state) {
    const struct denoiser *m = t->component.denoiser;
    struct denoiser_block_info info;
    m->class->describe(m, index, &info);
    char prefix[80];
    snprintf(prefix, sizeof prefix, "%s.", info.name);
    CHECK(info.parameters == stored_parameters(t->component.weights, prefix), "block %d has %lld parameters", index,
          (long long)info.parameters);
    CHECK((state->text.data != NULL) == ((info.carries & DENOISER_CARRIES_TEXT) != 0), "block %d carries text as it says", index);
    CHECK(state->num_skips == denoiser_skips_after(m, index), "block %d leaves as many skips as it says", index);
    for (int s = 0; s < state->num_skips; s++) CHECK(state->skips[s].data != state->picture.data, "skip %d is the picture", s);
}

static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    enum dtype dtype = t->run.dtype;
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    check_close(c, "pos_embed", dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, "mid.pos_embed"));
    check_close(c, "time_extra_emb", dtype, state.cond, case_tensor(c, "mid.time_extra_emb"));
    CHECK(state.text_mask.data == NULL, "dropped tokens are replaced, not masked");
    for (int i = 0; i < m->num_blocks; i++) {
        state = m->class->block(m, &t->run, i, state);
        check_description(t, i, &state);
        char name[64];
        snprintf(name, sizeof name, "mid.blocks.%d", i);
        if (case_tensor(c, name).data == NULL) continue;
        check_close(c, name, dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, name));
    }
    CHECK(state.num_skips == 0, "%d skips left", state.num_skips);
    struct tensor cut = m->class->finish(m, &t->run, state);
    CHECK(cut.data != NULL && whole.data != NULL && memcmp(cut.data, whole.data, tensor_bytes(&whole)) == 0, "cuts change nothing");
}

static void test_wrong_inputs(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/hunyuandit_style", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/hunyuandit_style/model", DTYPE_F32)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
        struct denoiser_inputs wrong = inputs.in;
        wrong.text.shape[1] = 6;
        check_refused(&t, &wrong, "text has shape [2, 6, 24]");
        wrong = inputs.in;
        wrong.text_2.shape[2] = 39;
        check_refused(&t, &wrong, "second text has shape [2, 9, 39]");
        wrong = inputs.in;
        wrong.text_mask.shape[1] = 8;
        check_refused(&t, &wrong, "text mask has shape [2, 8]");
        wrong = inputs.in;
        wrong.text_2_mask.shape[1] = 7;
        check_refused(&t, &wrong, "second text mask has shape [2, 7]");
        wrong = inputs.in;
        wrong.size_conditions = (struct tensor){0};
        check_refused(&t, &wrong, "image_meta_size");
        wrong = inputs.in;
        wrong.latents = tensor_of(inputs.in.latents.data, DTYPE_F32, SHAPE(2, 15, 24, 4));
        check_refused(&t, &wrong, "15 rows");
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

/* No mask keeps all tokens. */
static void test_mask(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/hunyuandit", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/hunyuandit/model", DTYPE_F32)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
        float ones[2 * 9];
        for (int i = 0; i < 18; i++) ones[i] = 1.0f;
        struct tensor masked = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        inputs.in.text_mask = tensor_of(ones, DTYPE_F32, SHAPE(2, 7));
        inputs.in.text_2_mask = tensor_of(ones, DTYPE_F32, SHAPE(2, 9));
        struct tensor all = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        inputs.in.text_mask = inputs.in.text_2_mask = (struct tensor){0};
        struct tensor none = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        CHECK(memcmp(all.data, none.data, tensor_bytes(&all)) == 0, "no mask is a mask of ones");
        CHECK(memcmp(all.data, masked.data, tensor_bytes(&all)) != 0, "a dropped token has an effect");
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

/* ---- what the class asks for ---- */

struct recorded {
    const struct weights *weights; /* that must hold what is asked for, or NULL */
    int64_t parameters;
    int tensors;
};

static void record(void *user, const char *name, int ndim, const int64_t *shape) {
    struct recorded *r = user;
    int64_t count = 1;
    for (int i = 0; i < ndim; i++) count *= shape[i];
    r->parameters += count;
    r->tensors++;
    CHECK(r->weights == NULL || weights_has(r->weights, name), "%s is not in the file", name);
}

/* Opens `folder` without weights. */
static tessera_status record_folder(const char *folder, struct recorded *r, tessera_error *error) {
    const struct load_hooks hooks = {.user = r, .record = record};
    struct component component;
    tessera_status status = component_open(&(struct component_source){.folder = folder, .hooks = &hooks}, DTYPE_F32, &component, error);
    component_close(&component);
    return status;
}

/* Each tensor of the case's file is asked for, and no other. */
static void test_names(const char *folder) {
    tessera_error error = {0};
    struct weights *weights = NULL;
    CHECK(weights_open(folder, &weights, &error) == TESSERA_OK, "%s", error.message);
    if (weights == NULL) return;
    struct recorded r = {.weights = weights};
    CHECK(record_folder(folder, &r, &error) == TESSERA_OK, "%s", error.message);
    CHECK(r.tensors == weights_count(weights) && r.parameters == weights_parameters(weights),
          "%s: %d tensors of %d, %lld parameters of %lld", folder, r.tensors, weights_count(weights), (long long)r.parameters,
          (long long)weights_parameters(weights));
    weights_close(weights);
}

/* The published models' shapes; printf adds the rest of the config. */
#define PUBLISHED                                                                                                                          \
    "{\"_class_name\": \"HunyuanDiT2DModel\", \"activation_fn\": \"gelu-approximate\", \"attention_head_dim\": 88, "                       \
    "\"cross_attention_dim\": 1024, \"cross_attention_dim_t5\": 2048, \"hidden_size\": 1408, \"in_channels\": 4, \"learn_sigma\": true, "  \
    "\"mlp_ratio\": 4.3637, \"norm_type\": \"layer_norm\", \"num_attention_heads\": 16, \"num_layers\": 40, \"patch_size\": 2, "           \
    "\"pooled_projection_dim\": 1024, \"sample_size\": 128, \"text_len\": 77, \"text_len_t5\": 256%s}"

/* Records what a config.json of this text asks for. */
static tessera_status record_text(const char *text, struct recorded *r, tessera_error *error) {
    char folder[] = "/tmp/tessera-test-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    snprintf(path, sizeof path, "%s/config.json", folder);
    write_text(folder, "config.json", text);
    tessera_status status = record_folder(folder, r, error);
    unlink(path);
    rmdir(folder);
    return status;
}

static void test_published(const char *style, int64_t parameters) {
    char text[1024], extra[64];
    tessera_error error = {0};
    struct recorded r = {0};
    snprintf(extra, sizeof extra, ", \"use_style_cond_and_image_meta_size\": %s", style);
    snprintf(text, sizeof text, PUBLISHED, extra);
    CHECK(record_text(text, &r, &error) == TESSERA_OK, "%s", error.message);
    CHECK(r.parameters == parameters, "style %s: %lld parameters", style, (long long)r.parameters);
}

/* The published config in which `from` is now `to` must be refused, naming `names`. */
static void check_config_refused(const char *from, const char *to, tessera_status status, const char *names) {
    char good[1024], text[1200];
    tessera_error error = {0};
    struct recorded r = {0};
    snprintf(good, sizeof good, PUBLISHED, "");
    const char *at = strstr(good, from);
    CHECK(at != NULL, "%s is not in the config", from);
    if (at == NULL) return;
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    CHECK(record_text(text, &r, &error) == status && strstr(error.message, names) != NULL, "%s: %s", names, error.message);
}

static void test_wrong_configs(void) {
    const tessera_status format = TESSERA_ERROR_FORMAT;
    check_config_refused("gelu-approximate", "geglu", TESSERA_ERROR_UNSUPPORTED, "activation_fn");
    check_config_refused("\"hidden_size\": 1408", "\"hidden_size\": 1404", format, "hidden_size");
    check_config_refused("\"num_layers\": 40", "\"num_layers\": 39", format, "num_layers");
    check_config_refused("\"num_layers\": 40", "\"num_layers\": 52", format, "num_layers");
    check_config_refused("\"cross_attention_dim_t5\": 2048", "\"cross_attention_dim_t5\": 2044", format, "cross_attention_dim_t5");
    check_config_refused("\"mlp_ratio\": 4.3637", "\"mlp_ratio\": -1", format, "mlp_ratio");
    check_config_refused("\"mlp_ratio\": 4.3637", "\"mlp_ratio\": 1e300", format, "mlp_ratio");
    check_config_refused("\"patch_size\": 2", "\"patch_size\": 65", format, "patch_size");
}

int main(void) {
    const char *const cases[] = {"tests/cases/hunyuandit", "tests/cases/hunyuandit_style", "tests/cases/hunyuandit_tall"};
    for (int i = 0; i < 3; i++) {
        test_denoiser_case(cases[i], DTYPE_F32, check_cuts);
        test_denoiser_case(cases[i], DTYPE_BF16, check_cuts);
    }
    test_wrong_inputs();
    test_mask();
    test_names("tests/cases/hunyuandit/model");
    test_names("tests/cases/hunyuandit_style/model");
    test_published("false", 1499952032);
    test_published("true", 1516534048);
    test_wrong_configs();
    return CHECK_REPORT();
}
