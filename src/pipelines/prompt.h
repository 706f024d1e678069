/* From a prompt's text to one encoder's states: what the families' encode_prompts are made of. */
#ifndef TESSERA_PIPELINES_PROMPT_H
#define TESSERA_PIPELINES_PROMPT_H

#include "pipelines/pipeline.h"
#include "pipelines/prompt_reading.h"

/* Which encoder reads the text, and how. */
struct prompt_reader {
    const char *encoder, *tokenizer; /* subfolders */
    int max_length;                  /* tokens to which a text is padded and cut; 0: the tokenizer's, or 77 if it names none */
    unsigned states;                 /* TEXT_STATE_ bits: which states the family needs */
    bool limit_is_requested;         /* max_length is the request's max_sequence_length */
    bool chunked;                    /* CLIP: if the request has long_prompt, the encoder reads a prompt in as many chunks as it needs */
    bool masked;                     /* the encoder does not see padding */
    char *(*clean)(
        const char *text); /* returns the text to read in place of `text`; the caller frees it; NULL if memory is out. Field NULL: `text` */
    int skip; /* layers left out at the end (clip-skip) for the prompt; the negative prompt goes through all, as in diffusers */
};

/* Encodes `prompts` (NULL counts as "") in run->arena. */
tessera_status prompt_read(struct pipeline *p, struct run *run, const struct prompt_reader *reader, const struct prompts *prompts,
                           struct prompt_reading *out, tessera_error *error);

/* Copies x F32 [count, tokens, Cx] into rows `first`.. and channels `offset`.. of out F32 [count,
 * T, C]. */
void prompt_place(struct run *run, struct tensor *out, int64_t first, int64_t offset, const struct tensor *x);
/* a [count, A] and b [count, B] side by side: out [count, A + B] in run->arena. */
tessera_status prompt_join_pooled(struct run *run, struct tensor a, struct tensor b, struct tensor *out, tessera_error *error);

#endif
