/* T5 encoders against transformers' results: gated and plain feed-forward, with and without a mask. */
#include "component_test.h"

static void test_case(const char *folder, enum dtype dtype) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    char *model = file_join(folder, "model");
    printf("%s\n", folder);
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, model, dtype)) {
        const struct text_encoder *encoder = t.component.text_encoder;
        struct tensor ids = case_tensor(&c, "in.input_ids"), mask = case_tensor(&c, "in.attention_mask");
        int32_t *values = case_ids(&ids);
        float *keep = case_floats(&mask);
        struct text_encoder_output out = text_encoder_encode(encoder, &t.run, values, keep, ids.shape[0], ids.shape[1], 0);
        check_close(&c, "last_hidden_state", dtype, out.last_hidden_state, case_tensor(&c, "out.last_hidden_state"));
        out = text_encoder_encode(encoder, &t.run, values, NULL, ids.shape[0], ids.shape[1], 0);
        check_close(&c, "last_hidden_state, no mask", dtype, out.last_hidden_state, case_tensor(&c, "out.last_hidden_state_nomask"));
        CHECK(out.pooled.data == NULL && out.penultimate.data == NULL && encoder->pooled_size == 0, "T5 has states only");
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        free(values);
        free(keep);
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

/* Long prompts reach the logarithmic buckets and the last one; batches and single prompts agree. */
static void test_long_prompt(void) {
    enum { TOKENS = 300 };
    struct component_test t;
    if (component_test_open(&t, "tests/cases/t5/model", DTYPE_F32)) {
        const struct text_encoder *encoder = t.component.text_encoder;
        int32_t ids[2 * TOKENS];
        for (int i = 0; i < 2 * TOKENS; i++) ids[i] = i * 7 % 252;
        struct tensor two = text_encoder_encode(encoder, &t.run, ids, NULL, 2, TOKENS, 0).last_hidden_state;
        struct tensor one = text_encoder_encode(encoder, &t.run, ids + TOKENS, NULL, 1, TOKENS, 0).last_hidden_state;
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        float largest = 0;
        for (int64_t i = 0; one.data != NULL && i < tensor_count(&one); i++) {
            largest = fmaxf(largest, fabsf(((float *)one.data)[i] - ((float *)two.data)[tensor_count(&one) + i]));
        }
        CHECK(largest < 1e-4f, "differs by %g", (double)largest);
        text_encoder_encode(encoder, &t.run, (const int32_t[]){-1}, NULL, 1, 1, 0);
        CHECK(t.run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t.run.error.message, "-1") != NULL, "%s", t.run.error.message);
    }
    component_test_close(&t);
}

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_case("tests/cases/t5", dtypes[i]);
        test_case("tests/cases/t5_relu", dtypes[i]);
    }
    test_long_prompt();
    return CHECK_REPORT();
}
