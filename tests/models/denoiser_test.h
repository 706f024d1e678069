/* What tests of denoisers share: a case's forward pass, and inputs that must be refused. */
#ifndef TESSERA_TESTS_MODELS_DENOISER_TEST_H
#define TESSERA_TESTS_MODELS_DENOISER_TEST_H

#include <math.h>

#include "component_test.h"
#include "denoiser_case.h"

/* embed, blocks one by one and finish: named middles, then the same result as `whole`. */
typedef void denoiser_check_cuts(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole);

/* The case's model folder, its own or another case's; the caller frees. */
static inline char *denoiser_case_model(const struct case_io *c, const char *folder) {
    const char *relative = "model";
    tessera_error error = {0};
    if (c->json != NULL) CHECK(json_string(c->json, "model", "model", &relative, &error) == TESSERA_OK, "%s", error.message);
    return file_join(folder, relative);
}

/* Something to be done with a case's model and inputs, which are freed after it. */
typedef void denoiser_look(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in);

static inline void with_denoiser_case(const char *folder, enum dtype dtype, denoiser_look *look) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    char *model = denoiser_case_model(&c, folder);
    if (component_test_open(&t, model, dtype)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
        look(&c, &t, &inputs.in);
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

/* A pass that holds one segment's weights at a time gives the same bits as one that holds all. */
static inline void check_segment_by_segment(struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    const unsigned both = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT;
    struct component *c = &t->component;
    const struct denoiser_class *class = c->denoiser->class;
    struct denoiser_state state = {0};
    struct tensor out = {0};
    tessera_error error = {0};
    size_t scope = run_enter(&t->run);
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) component_drop_block(c, segment);
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) {
        CHECK(component_load_block(c, segment, &error) == TESSERA_OK, "segment %d: %s", segment, error.message);
        if (segment == COMPONENT_EMBED)
            state = class->embed(c->denoiser, &t->run, in, both);
        else if (segment < c->num_blocks)
            state = class->block(c->denoiser, &t->run, segment, state);
        else
            out = class->finish(c->denoiser, &t->run, state);
        component_drop_block(c, segment);
    }
    CHECK(out.data != NULL && memcmp(out.data, whole.data, tensor_bytes(&whole)) == 0, "segment by segment: %s", t->run.error.message);
    CHECK(component_load(c, &error) == TESSERA_OK, "%s", error.message);
    arena_release(t->run.arena, scope);
}

/* A pass in an arena of its own: its result, and the arena's peak. The caller frees .data. */
static inline struct tensor forward_apart(struct component_test *t, const struct denoiser_inputs *in, size_t chunk_bytes, size_t *peak) {
    tessera_error error = {0};
    struct run run = t->run;
    run.chunk_bytes = chunk_bytes;
    run.arena = run.backend->ops->arena(run.backend, 0, &error);
    struct tensor out = denoiser_forward(t->component.denoiser, &run, in);
    CHECK(out.data != NULL, "%s", run.error.message);
    void *copy = malloc(tensor_bytes(&out));
    if (out.data != NULL) memcpy(copy, out.data, tensor_bytes(&out));
    out.data = copy;
    *peak = arena_peak(run.arena);
    arena_free(run.arena);
    return out;
}

/* With our own kernels, where in F32 each row of a product is a sum of its own on every processor. */
static inline void check_rows_exactly(struct component_test *t, const struct denoiser_inputs *in) {
    tessera_error error = {0};
    struct component_test own = *t;
    size_t peak;
    own.run.backend = cpu_backend_open(1, CPU_KERNELS_OWN, &error);
    struct tensor all = forward_apart(&own, in, 0, &peak), some = forward_apart(&own, in, 1, &peak);
    CHECK(memcmp(all.data, some.data, tensor_bytes(&all)) == 0, "by rows: other bits with our own kernels");
    free(all.data);
    free(some.data);
    backend_free(own.run.backend);
}

/* A pass that works on some rows at a time holds less, and its numbers are the same but for
 * rounding: oneDNN's kernels may add in another order where a product has fewer rows. */
static inline void check_by_rows(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in, struct tensor whole) {
    size_t peak, least;
    struct tensor all = forward_apart(t, in, 0, &peak), some = forward_apart(t, in, 1, &least);
    float worst = 0;
    for (int64_t i = 0; i < tensor_count(&whole); i++) worst = fmaxf(worst, fabsf(((float *)some.data)[i] - ((float *)whole.data)[i]));
    CHECK(memcmp(all.data, whole.data, tensor_bytes(&whole)) == 0, "the same pass twice");
    CHECK(least < peak || (in->text_2.data != NULL && least == peak), "by rows: %zu bytes, %zu without", least, peak); /* its text may need most */
    printf("by rows: %zu of %zu bytes, off by %g\n", least, peak, worst);
    check_close(c, "sample, by rows", t->run.dtype, some, whole);
    if (t->run.dtype == DTYPE_F32) check_rows_exactly(t, in);
    free(all.data);
    free(some.data);
}

static inline void test_denoiser_case(const char *folder, enum dtype dtype, denoiser_check_cuts *check_cuts) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    printf("%s\n", folder);
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    char *model = denoiser_case_model(&c, folder);
    if (component_test_open(&t, model, dtype)) {
        struct denoiser_case inputs = denoiser_case_read(&c);
        struct tensor want = case_picture(&c, "out.sample");
        struct tensor whole = denoiser_forward(t.component.denoiser, &t.run, &inputs.in);
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        CHECK(arena_mark(t.run.arena) <= tensor_bytes(&want) + 64, "a pass leaves its result only");
        check_close(&c, "sample", dtype, whole, want);
        check_cuts(&c, &t, &inputs.in, whole);
        check_segment_by_segment(&t, &inputs.in, whole);
        check_by_rows(&c, &t, &inputs.in, whole);
        free(want.data);
        denoiser_case_free(&inputs);
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

static inline void check_refused(struct component_test *t, const struct denoiser_inputs *in, const char *names) {
    struct tensor out = denoiser_forward(t->component.denoiser, &t->run, in);
    CHECK(out.data == NULL && t->run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t->run.error.message, names) != NULL, "%s: %s", names,
          t->run.error.message);
    t->run.error = (tessera_error){0};
}

#endif
