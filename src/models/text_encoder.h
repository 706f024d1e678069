/* What every text encoder offers: token ids to states. */
#ifndef TESSERA_MODELS_TEXT_ENCODER_H
#define TESSERA_MODELS_TEXT_ENCODER_H

#include "base/json.h"
#include "nn/load.h"

struct text_encoder_output {
    struct tensor last_hidden_state; /* F32 [B, S, C] */
    struct tensor penultimate;       /* F32 [B, S, C]: the state one layer earlier, no final norm; empty where the class has none */
    struct tensor pooled;            /* F32 [B, P]: projected where the class projects; empty where the class has none */
};

/* States of the prompt that an encoder can give: those of text_encoder_output. */
enum { TEXT_STATE_LAST = 1, TEXT_STATE_PENULTIMATE = 2, TEXT_STATE_POOLED = 4 };

struct text_encoder {
    const struct text_encoder_class *class;
    unsigned states;                              /* TEXT_STATE_ bits: what encode gives; the rest of its output is empty */
    int num_blocks;                               /* layers */
    int64_t vocab_size, hidden_size, pooled_size; /* pooled_size 0: none */
    int64_t max_positions;                        /* 0: no limit */
};

struct text_encoder_class {
    const char *name; /* config.json's "architectures"[0] */
    /* The handle and room for its layers; then the tables, one layer, and what follows the last: as a denoiser's (tessera_model.h). */
    struct text_encoder *(*open)(const struct json *config, struct loader *loader);
    void (*load_embed)(struct text_encoder *, struct loader *);
    void (*load_block)(struct text_encoder *, int index, struct loader *);
    void (*load_finish)(struct text_encoder *, struct loader *);
    /* ids [batch, tokens]; mask [batch, tokens] of 0 and 1, or NULL. `skip` layers at the end have no part in the first two outputs
     * (clip-skip; CLIP only, the others take 0); the pooled state is always the whole model's. Errors (an id outside the vocabulary, too
     * many tokens) go to run->error. */
    struct text_encoder_output (*encode)(const struct text_encoder *, struct run *, const int32_t *ids, const float *mask, int64_t batch,
                                         int64_t tokens, int skip);
};

extern const struct text_encoder_class bert_class, clip_text_class, clip_text_with_projection_class, t5_encoder_class;

#endif
