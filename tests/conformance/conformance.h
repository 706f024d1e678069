/* What the conformance program's kinds of case share: a case being run, and its outcome. */
#ifndef TESSERA_TESTS_CONFORMANCE_H
#define TESSERA_TESTS_CONFORMANCE_H

#include "case_io.h"
#include "models/registry.h"
#include "nn/run.h"

#define BF16_RELATIVE_L2 0.03 /* per forward pass; diffusers' own bfloat16 has 0.007 to 0.02 */
#define BF16_PICTURE_DB 35.0  /* of a pipeline's picture to the float32 reference */

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP };

struct conformance_case {
    const char *folder;
    struct case_io io;
    enum dtype dtype;
    struct run run; /* a fresh one per case */
    /* outcome */
    enum verdict verdict;
    double worst;      /* F32: largest |a - b| / (atol + rtol |b|); BF16: largest relative L2 error */
    double limit;      /* what `worst` may be */
    double psnr;       /* pipelines: of the picture, 0 elsewhere */
    int compared;      /* tensors or lists compared */
    char reason[1100]; /* of FAIL or SKIP */
};

/* Compares and keeps the worst error; `name` is for the reason of a FAIL. Shapes must be equal up to ones in front. */
void case_check(struct conformance_case *c, const char *name, struct tensor got, struct tensor want);
void case_fail(struct conformance_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* An error of the engine: UNSUPPORTED is a SKIP (the case wants what this build lacks), anything else a FAIL. */
void case_error(struct conformance_case *c, const tessera_error *error);
/* The case's model folder: case.json's "model" relative to the case, or model/. The caller frees. */
char *case_model_folder(const struct conformance_case *c);
/* Opens it; false (with the outcome set) on failure. */
bool case_component(struct conformance_case *c, struct component *component);

void conform_rng(struct conformance_case *c);
void conform_scheduler(struct conformance_case *c);
void conform_tokenizer(struct conformance_case *c);
void conform_text_encoder(struct conformance_case *c);
void conform_vae(struct conformance_case *c);
void conform_denoiser(struct conformance_case *c);
void conform_pipeline(struct conformance_case *c);

#endif
