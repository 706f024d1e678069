/* What the conformance program's kinds of case share: a case being run, and its outcome. */
#ifndef TESSERA_TESTS_CONFORMANCE_H
#define TESSERA_TESTS_CONFORMANCE_H

#include "case_io.h"
#include "comm/mesh.h"
#include "models/registry.h"
#include "nn/run.h"
#include "parallel/parallel.h"
#include "pipelines/shares.h"

#define BF16_RELATIVE_L2 0.03 /* per forward pass; diffusers' own bfloat16 has 0.007 to 0.02 */
#define BF16_PICTURE_DB 35.0  /* of a pipeline's picture to the float32 reference */

/* LEFT_OUT: not a mesh for this case (more ranks than heads, no guidance to share). */
enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP, VERDICT_LEFT_OUT };

/* The ranks that mpirun started; one, without it. */
struct conformance_world {
    struct comm *comm;
    int ranks, rank;
    int wanted[MESH_AXES]; /* degrees asked for; 0: any */
    double *weights;       /* [ranks] speeds in proportion to which everything is cut; NULL: equally, and then work is checked */
};

/* What one rank did in one step, and what it may do (formula.h). Zeros where one rank runs alone. */
struct conformance_work {
    double operations, operations_limit; /* shares of one rank's, without the text's and the conditioning's */
    double text, conditioning;           /* operations that a rule repeats, as shares of all that one rank does */
    double weights, weights_limit;       /* shares of the component's bytes */
    uint64_t bytes, bytes_formula;       /* sent */
    bool has_formula;
};

struct conformance_case {
    const char *folder;
    struct case_io io;
    enum dtype dtype;
    struct run run;     /* a fresh one per case */
    struct arena *host; /* the host's memory for this case: what is given and compared lies there */
    const struct conformance_world *world;
    const struct mesh *mesh;  /* how the case is spread over the world; NULL for kinds that run on rank 0 */
    struct parallel parallel; /* of the mesh */
    struct shares shares;     /* of the world's weights on the mesh */
    /* outcome */
    enum verdict verdict;
    double worst;  /* F32: largest |a - b| / (atol + rtol |b|); BF16: largest relative L2 error */
    double limit;  /* what `worst` may be */
    double psnr;   /* pipelines: of the picture, 0 elsewhere */
    int compared;  /* tensors or lists compared */
    uint32_t bits; /* a hash of the numbers that were compared */
    struct conformance_work work;
    char reason[1100]; /* of FAIL or SKIP */
};

/* Compares and keeps the worst error; `name` is for the reason of a FAIL. Shapes must be equal up
 * to ones in front. */
void case_check(struct conformance_case *c, const char *name, struct tensor got, struct tensor want);
void case_fail(struct conformance_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room in the host's memory until the case ends, and there the elements of a tensor that the run's
 * backend holds; empty after a failure of the run. */
struct tensor case_room(struct conformance_case *c, enum dtype dtype, int ndim, const int64_t *shape);
struct tensor case_host(struct conformance_case *c, struct tensor t);
/* An error of the engine: UNSUPPORTED is a SKIP (the case wants what this build lacks), anything
 * else a FAIL. */
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
void conform_distrifusion(struct conformance_case *c);
void conform_displaced(struct conformance_case *c);
void conform_pipefusion(struct conformance_case *c);
void conform_step_cache(struct conformance_case *c);

#endif
