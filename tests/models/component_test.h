/* What tests of models share: a component, a backend and a run over it. */
#ifndef TESSERA_TESTS_MODELS_COMPONENT_TEST_H
#define TESSERA_TESTS_MODELS_COMPONENT_TEST_H

#include <string.h>

#include "case_io.h"
#include "check.h"
#include "models/registry.h"

struct component_test {
    struct component component;
    struct backend *backend;
    struct run run;
};

/* With this rank's share of the weights; false and `error` where the component does not open. */
static inline bool component_test_open_scope(struct component_test *t, const char *folder, enum dtype dtype, struct load_scope scope,
                                             tessera_error *error) {
    memset(t, 0, sizeof *t);
    struct component_source source = {.folder = folder, .scope = scope};
    if (component_open(&source, dtype, &t->component, error) != TESSERA_OK) return false;
    if (component_load(&t->component, error) != TESSERA_OK) return false;
    /* What was dropped comes back: every test of a model runs on weights that were loaded twice. */
    for (int segment = COMPONENT_EMBED; segment <= t->component.num_blocks; segment++) component_drop_block(&t->component, segment);
    if (component_load(&t->component, error) != TESSERA_OK) return false;
    t->backend = cpu_backend_open(1, CPU_KERNELS_BEST, error);
    struct arena *arena = arena_new((size_t)1 << 30, error);
    t->run = (struct run){.backend = t->backend, .arena = arena, .dtype = dtype, .strip_bytes = (size_t)1 << 30};
    return t->backend != NULL && arena != NULL;
}

static inline bool component_test_open(struct component_test *t, const char *folder, enum dtype dtype) {
    tessera_error error = {0};
    bool opened = component_test_open_scope(t, folder, dtype, (struct load_scope){0}, &error);
    CHECK(opened, "%s: %s", folder, error.message);
    return opened;
}

static inline void component_test_close(struct component_test *t) {
    if (t->run.arena != NULL) arena_free(t->run.arena);
    if (t->backend != NULL) backend_free(t->backend);
    component_close(&t->component);
}

/* In float32 within the case's tolerance, in bfloat16 within 0.03 of relative L2 error. */
static inline void check_close(const struct case_io *c, const char *what, enum dtype dtype, struct tensor got, struct tensor want) {
    struct case_difference d = case_compare(c, &got, &want);
    printf("  %-40s %s worst %.4f of tolerance, relative L2 %.6f\n", what, dtype_name(dtype), d.worst, d.relative_l2);
    if (dtype == DTYPE_F32)
        CHECK(d.worst <= 1.0, "%s: %.3g times the tolerance", what, d.worst);
    else
        CHECK(d.relative_l2 <= 0.03, "%s: relative L2 error %.4f", what, d.relative_l2);
}

/* Skips on the stack behind block `index`, as the blocks' descriptions count them. */
static inline int denoiser_skips_after(const struct denoiser *denoiser, int index) {
    int height = 0;
    for (int i = 0; i <= index; i++) {
        struct denoiser_block_info info;
        denoiser->class->describe(denoiser, i, &info);
        height += info.pushes - info.pops;
    }
    return height;
}

/* Writes text to a new file in `folder`. */
static inline void write_text(const char *folder, const char *name, const char *text) {
    char *path = file_join(folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "cannot write %s", path);
    free(path);
}

#endif
