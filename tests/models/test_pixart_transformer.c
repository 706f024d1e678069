/* PixArt's denoiser, with and without size conditions, against diffusers' results, cut at every block, and with wrong inputs. */
#include "component_test.h"

struct inputs {
    struct denoiser_inputs in;
    float *timesteps, *sizes;
};

/* in.resolution [B, 2] and in.aspect_ratio [B, 1] side by side. */
static struct tensor read_sizes(const struct case_io *c, float **sizes) {
    struct tensor resolution = case_tensor(c, "in.resolution"), ratio = case_tensor(c, "in.aspect_ratio");
    if (resolution.data == NULL || ratio.data == NULL) return (struct tensor){0};
    int64_t batch = resolution.shape[0];
    *sizes = malloc((size_t)batch * 3 * sizeof **sizes);
    for (int64_t b = 0; b < batch; b++) {
        memcpy(*sizes + 3 * b, (const float *)resolution.data + 2 * b, 2 * sizeof(float));
        (*sizes)[3 * b + 2] = ((const float *)ratio.data)[b];
    }
    return tensor_of(*sizes, DTYPE_F32, SHAPE(batch, 3));
}

static struct inputs read_inputs(const struct case_io *c) {
    struct tensor latents = case_tensor(c, "in.hidden_states"), timesteps = case_tensor(c, "in.timestep");
    struct inputs inputs = {.timesteps = case_floats(&timesteps)};
    inputs.in = (struct denoiser_inputs){.latents = case_channels_last(&latents),
                                         .timesteps = inputs.timesteps,
                                         .text = case_tensor(c, "in.encoder_hidden_states"),
                                         .text_mask = case_tensor(c, "in.encoder_attention_mask"),
                                         .size_conditions = read_sizes(c, &inputs.sizes)};
    return inputs;
}

static void free_inputs(struct inputs *inputs) {
    free(inputs->in.latents.data);
    free(inputs->timesteps);
    free(inputs->sizes);
}

/* The first six parts of cond are adaln_single's first result, the last its second. */
static void check_cond(const struct case_io *c, struct run *run, struct tensor cond) {
    struct tensor first = case_tensor(c, "mid.adaln_single.0"), second = case_tensor(c, "mid.adaln_single.1");
    int64_t batch = second.shape[0], channels = second.shape[1];
    struct tensor mod = nn_slice_rows(run, nn_reshape(cond, SHAPE(batch, 7, channels)), 0, 6);
    check_close(c, "adaln_single.0", run->dtype, nn_reshape(mod, SHAPE(batch, 6 * channels)), first);
    check_close(c, "adaln_single.1", run->dtype, nn_chunk(run, cond, 7, 6), second);
}

/* embed, blocks one by one and finish: named middles, then the same result as `whole`. */
static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    enum dtype dtype = t->run.dtype;
    struct denoiser_state state = m->class->embed(m, &t->run, in);
    check_close(c, "pos_embed", dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, "mid.pos_embed"));
    check_close(c, "caption_projection", dtype, nn_cast(&t->run, state.text, DTYPE_F32), case_tensor(c, "mid.caption_projection"));
    check_cond(c, &t->run, state.cond);
    for (int i = 0; i < m->num_blocks; i++) {
        struct denoiser_block_info info;
        m->class->describe(m, i, &info);
        state = m->class->block(m, &t->run, i, state);
        CHECK((state.text.data != NULL) == ((info.carries & DENOISER_CARRIES_TEXT) != 0), "block %d carries what it says", i);
        /* 8 (c^2 + c) of two attentions, 8 c^2 + 5 c of the feed-forward, 6 c of the table */
        CHECK(info.parameters == 16 * 48 * 48 + 19 * 48, "block %d has %lld parameters", i, (long long)info.parameters);
        char name[64];
        snprintf(name, sizeof name, "mid.transformer_blocks.%d", i);
        if (case_tensor(c, name).data == NULL) continue;
        check_close(c, name, dtype, nn_cast(&t->run, state.picture, DTYPE_F32), case_tensor(c, name));
    }
    struct tensor cut = m->class->finish(m, &t->run, state);
    CHECK(cut.data != NULL && whole.data != NULL && memcmp(cut.data, whole.data, tensor_bytes(&whole)) == 0, "cuts change nothing");
}

static void test_case(const char *folder, enum dtype dtype) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    char *model = file_join(folder, "model");
    printf("%s\n", folder);
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, model, dtype)) {
        struct inputs inputs = read_inputs(&c);
        struct tensor sample = case_tensor(&c, "out.sample"), want = case_channels_last(&sample);
        struct tensor whole = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        CHECK(arena_mark(t.run.arena) <= tensor_bytes(&want) + 64, "a pass leaves its result only");
        check_close(&c, "sample", dtype, whole, want);
        check_cuts(&c, &t, &inputs.in, whole);
        free(want.data);
        free_inputs(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

static void check_refused(struct component_test *t, const struct denoiser_inputs *in, const char *names) {
    struct tensor out = denoiser_forward(t->component.denoiser, &t->run, in);
    CHECK(out.data == NULL && t->run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t->run.error.message, names) != NULL, "%s: %s", names,
          t->run.error.message);
    t->run.error = (tessera_error){0};
}

static void test_wrong_inputs(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/pixart_alpha", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/pixart_alpha/model", DTYPE_F32)) {
        struct inputs inputs = read_inputs(&c);
        struct denoiser_inputs wrong = inputs.in;
        wrong.text.shape[2] = 39;
        check_refused(&t, &wrong, "[2, 9, 39]");
        wrong = inputs.in;
        wrong.text_mask.shape[1] = 8;
        check_refused(&t, &wrong, "text mask has shape [2, 8]");
        wrong = inputs.in;
        wrong.size_conditions = (struct tensor){0};
        check_refused(&t, &wrong, "size conditions");
        wrong = inputs.in;
        wrong.latents = tensor_of(inputs.in.latents.data, DTYPE_F32, SHAPE(2, 15, 24, 4));
        check_refused(&t, &wrong, "15 rows");
        wrong.latents = tensor_of(inputs.in.latents.data, DTYPE_F32, SHAPE(2, 16, 24, 3));
        check_refused(&t, &wrong, "[2, 16, 24, 3]");
        free_inputs(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

/* Dropped text changes nothing, kept text does. */
static void test_mask(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/pixart_sigma", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/pixart_sigma/model", DTYPE_F32)) {
        struct inputs inputs = read_inputs(&c);
        struct tensor text = inputs.in.text;
        int64_t values = tensor_count(&text), last = values / text.shape[0] - text.shape[2];
        float *changed = malloc((size_t)values * sizeof *changed), mask[2 * 9];
        memcpy(changed, text.data, (size_t)values * sizeof *changed);
        for (int64_t i = 0; i < text.shape[2]; i++) changed[last + i] += 1.0f;
        for (int i = 0; i < 18; i++) mask[i] = i == 8 ? 0.0f : 1.0f;
        inputs.in.text_mask = tensor_of(mask, DTYPE_F32, SHAPE(2, 9));
        struct tensor a = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        inputs.in.text.data = changed;
        struct tensor b = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        inputs.in.text_mask = (struct tensor){0};
        struct tensor kept = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        CHECK(memcmp(a.data, b.data, tensor_bytes(&a)) == 0, "a dropped token has no effect");
        CHECK(memcmp(a.data, kept.data, tensor_bytes(&a)) != 0, "a kept token has");
        free(changed);
        free_inputs(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_case("tests/cases/pixart_alpha", dtypes[i]);
        test_case("tests/cases/pixart_sigma", dtypes[i]);
    }
    test_wrong_inputs();
    test_mask();
    return CHECK_REPORT();
}
