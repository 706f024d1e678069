/* BERT against transformers' results, with a mask and with wrong ids. */
#include "component_test.h"

static void check_refused(struct component_test *t, const int32_t *ids, int64_t tokens, const char *names) {
    const struct text_encoder *encoder = t->component.text_encoder;
    text_encoder_encode(encoder, &t->run, ids, NULL, 1, tokens, 0);
    CHECK(t->run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t->run.error.message, names) != NULL, "%s", t->run.error.message);
    t->run.error = (tessera_error){0};
}

static void test_case(enum dtype dtype) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open("tests/cases/bert", &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, "tests/cases/bert/model", dtype)) {
        const struct text_encoder *encoder = t.component.text_encoder;
        struct tensor ids = case_tensor(&c, "in.input_ids"), mask = case_tensor(&c, "in.attention_mask");
        int32_t *values = case_ids(&ids), too_many[65] = {0};
        float *keep = case_floats(&mask);
        struct tensor want = case_tensor(&c, "out.last_hidden_state");
        struct text_encoder_output out = text_encoder_encode(encoder, &t.run, values, keep, ids.shape[0], ids.shape[1], 0);
        check_close(&c, "last_hidden_state", dtype, out.last_hidden_state, want);
        CHECK(out.pooled.data == NULL && out.penultimate.data == NULL && encoder->pooled_size == 0, "states only");
        out = text_encoder_encode(encoder, &t.run, values, NULL, ids.shape[0], ids.shape[1], 0);
        CHECK(case_compare(&c, &out.last_hidden_state, &want).relative_l2 > 0.03, "the mask has an effect");
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        check_refused(&t, (const int32_t[]){252}, 1, "252");
        check_refused(&t, (const int32_t[]){-1}, 1, "-1");
        check_refused(&t, too_many, 65, "65 tokens");
        free(values);
        free(keep);
    }
    component_test_close(&t);
    case_close(&c);
}

int main(void) {
    test_case(DTYPE_F32);
    test_case(DTYPE_BF16);
    return CHECK_REPORT();
}
