/* CLIP text encoders against transformers' results, in both layouts of weight names and both rules
 * for the end token. */
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
        struct tensor ids = case_tensor(&c, "in.input_ids");
        int32_t *values = case_ids(&ids);
        struct text_encoder_output out = text_encoder_encode(encoder, &t.run, values, NULL, ids.shape[0], ids.shape[1], 0);
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        check_close(&c, "last_hidden_state", dtype, out.last_hidden_state, case_tensor(&c, "out.last_hidden_state"));
        check_close(&c, "penultimate", dtype, out.penultimate, case_tensor(&c, "out.penultimate"));
        check_close(&c, "pooled", dtype, out.pooled, case_tensor(&c, "out.pooled"));
        CHECK(encoder->pooled_size == out.pooled.shape[1], "pooled_size %lld", (long long)encoder->pooled_size);
        CHECK(t.run.operations > 0, "operations are counted");
        free(values);
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

static void test_wrong_ids(void) {
    struct component_test t;
    if (component_test_open(&t, "tests/cases/clip_l/model", DTYPE_F32)) {
        const struct text_encoder *encoder = t.component.text_encoder;
        struct text_encoder_output out = text_encoder_encode(encoder, &t.run, (const int32_t[]){1, 252}, NULL, 1, 2, 0);
        CHECK(t.run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t.run.error.message, "252") != NULL, "%s", t.run.error.message);
        CHECK(out.last_hidden_state.data == NULL, "nothing is computed");
        t.run.error = (tessera_error){0};
        int32_t many[17] = {0};
        text_encoder_encode(encoder, &t.run, many, NULL, 1, 17, 0);
        CHECK(t.run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t.run.error.message, "17 tokens") != NULL, "%s", t.run.error.message);
    }
    component_test_close(&t);
}

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_case("tests/cases/clip_l", dtypes[i]);
        test_case("tests/cases/clip_g", dtypes[i]);
        test_case("tests/cases/clip_legacy_eos", dtypes[i]);
    }
    test_wrong_ids();
    return CHECK_REPORT();
}
