/* What one encoder made of a request's texts. */
#ifndef TESSERA_PIPELINES_PROMPT_READING_H
#define TESSERA_PIPELINES_PROMPT_READING_H

#include "pipelines/pipeline.h"

struct prompt_reading {
    struct text_encoder_output states;
    struct tensor mask; /* F32 [count, tokens]: 1 a token, 0 padding */
    int length;         /* tokens of a chunk */
    int tokens;         /* of all chunks */
};

/* The tensors of a reading, all F32, empty ones too. */
enum { PROMPT_READING_TENSORS = 4 };
void prompt_reading_tensors(struct prompt_reading *reading, struct tensor *tensors[PROMPT_READING_TENSORS]);

#endif
