/* PixArt's denoiser, with and without size conditions, against diffusers' results, cut at every
 * block, and with wrong inputs. */
#include "denoiser_test.h"

/* The first six chunks of cond are adaln_single's first result, the last its second. */
static void check_cond(const struct case_io *c, struct run *run, struct tensor cond) {
    struct tensor first = case_tensor(c, "mid.adaln_single.0"), second = case_tensor(c, "mid.adaln_single.1");
    int64_t batch = second.shape[0], channels = second.shape[1];
    struct tensor mod = nn_slice_rows(run, nn_reshape(cond, SHAPE(batch, 7, channels)), 0, 6);
    check_close(c, "adaln_single.0", run->dtype, nn_reshape(mod, SHAPE(batch, 6 * channels)), first);
    check_close(c, "adaln_single.1", run->dtype, nn_chunk(run, cond, 7, 6), second);
}

static void check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const struct denoiser *m = t->component.denoiser;
    enum dtype dtype = t->run.dtype;
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
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

static void test_wrong_inputs(void) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/pixart_alpha", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/pixart_alpha/model", DTYPE_F32)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
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
        denoiser_case_free(&inputs);
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
        struct denoiser_case inputs = denoiser_case_read(&c);
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
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
}

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_denoiser_case("tests/cases/pixart_alpha", dtypes[i], check_cuts);
        test_denoiser_case("tests/cases/pixart_sigma", dtypes[i], check_cuts);
    }
    test_wrong_inputs();
    test_mask();
    return CHECK_REPORT();
}
