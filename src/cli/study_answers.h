/* Answers of honest workers and of cheats, to real states of a model: what `tessera verify-study`
 * compares. */
#ifndef TESSERA_CLI_STUDY_ANSWERS_H
#define TESSERA_CLI_STUDY_ANSWERS_H

#include <stdio.h>

#include "tensor/tensor.h"
#include "tessera.h"

enum { STUDY_PICTURES = 2, STUDY_STEPS = 4, STUDY_INPUTS = STUDY_PICTURES * STUDY_STEPS, STUDY_MOST_PATHS = 8, STUDY_MOST_CHEATS = 16 };

struct study_model {
    const char *folder;
    int side;      /* of the pictures, in pixels; 0: the model's own */
    bool no_plain; /* leave out plain C, which takes a hundred times as long on x86-64 */
};

/* Who answers: an honest worker's kernel path, or a way to cheat. */
struct study_source {
    char name[48];
    float *answers[STUDY_INPUTS]; /* [size] each; owned */
};
struct study_answers {
    size_t size; /* numbers of an answer: picture and text */
    struct study_source honest[STUDY_MOST_PATHS], cheats[STUDY_MOST_CHEATS];
    int num_honest, num_cheats;
    double honest_distance; /* the largest between two honest answers to one input, |a - b| / |a| */
    int equal,
        compared; /* answers of reproducible kernels in plain C (or with AVX2 instead) and on the fastest path: equal to the bit; of so many */
};

/* Makes pictures of the model (a transformer of at least six blocks), keeps the states that enter
 * its second block, and has them answered from there to the block before the last one, by each
 * kernel path of this processor and each cheat. The environment loses TESSERA_ISA.
 * study_answers_free either way. */
tessera_status study_answers_make(const struct study_model *study, enum dtype dtype, struct study_answers *out, tessera_error *error);
void study_answers_free(struct study_answers *answers);

#endif
