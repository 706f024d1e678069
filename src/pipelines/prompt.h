/* From a prompt's text to one encoder's states: what the families' encode_prompts are made of. */
#ifndef TESSERA_PIPELINES_PROMPT_H
#define TESSERA_PIPELINES_PROMPT_H

#include "pipelines/pipeline.h"
#include "pipelines/prompt_reading.h"

/* Which encoder reads the text, and how. */
struct prompt_reader {
    const char *encoder, *tokenizer; /* subfolders */
    int max_length;                  /* tokens, padded and cut to; 0: the tokenizer's, or 77 where it names none */
    unsigned states;                 /* TEXT_STATE_ bits: what is wanted of the encoder */
    bool limit_is_requested;         /* max_length is the request's max_sequence_length */
    bool chunked;                    /* CLIP: where the request has long_prompt, a prompt is read in as many chunks as it needs */
    bool masked;                     /* the encoder does not see padding */
    char *(*clean)(const char *text); /* what is read in place of a text; the caller frees it, NULL: memory is out. NULL: the text itself */
    int skip; /* layers left out at the end (clip-skip) for the prompt; the negative one has them all, as in diffusers */
};

/* The states of `prompts` (a NULL reads as ""), in run->arena. */
tessera_status prompt_read(struct pipeline *p, struct run *run, const struct prompt_reader *reader, const struct prompts *prompts,
                           struct prompt_reading *out, tessera_error *error);

/* Copies x F32 [count, tokens, Cx] into rows `first`.. and channels `offset`.. of out F32 [count, T, C]. */
void prompt_place(struct run *run, struct tensor *out, int64_t first, int64_t offset, const struct tensor *x);
/* a [count, A] and b [count, B] side by side: out [count, A + B] in run->arena. */
tessera_status prompt_join_pooled(struct run *run, struct tensor a, struct tensor b, struct tensor *out, tessera_error *error);

#endif
