/* What every text encoder offers: token ids to states, by a list of blocks.
 *
 *     ids --embed--> state --block 0--> state --block 1--> ... --finish--> outputs
 *
 * Segments are embed, the blocks and finish, as in a denoiser; a block's weights are needed only
 * while it is computed. */
#ifndef TESSERA_MODELS_TEXT_ENCODER_H
#define TESSERA_MODELS_TEXT_ENCODER_H

#include "base/json.h"
#include "models/segment.h"
#include "nn/load.h"

struct text_encoder_output {
    struct tensor last_hidden_state; /* F32 [B, S, C] */
    struct tensor penultimate;       /* F32 [B, S, C]: the state one layer earlier, no final norm; empty where the class has none */
    struct tensor pooled;            /* F32 [B, P]: projected where the class projects; empty where the class has none */
};

/* States of the prompt that an encoder can give: those of text_encoder_output. */
enum { TEXT_STATE_LAST = 1, TEXT_STATE_PENULTIMATE = 2, TEXT_STATE_POOLED = 4 };

/* What blocks read. */
struct text_encoder_state {
    struct tensor x;    /* [B, S, C] */
    struct tensor mask; /* F32 [B, S]: 1 keep, 0 drop; empty: all tokens count */
    struct tensor bias; /* F32 [N, S, S], added to the scores of every block's N heads; empty where the class has none */
};

struct text_encoder {
    const struct text_encoder_class *class;
    const struct segment_watch *watch;            /* or NULL; see component_watch */
    unsigned states;                              /* TEXT_STATE_ bits: what the class gives; the rest of its output is empty */
    int num_blocks;                               /* layers */
    int64_t vocab_size, hidden_size, pooled_size; /* pooled_size 0: none */
    int64_t max_positions;                        /* 0: no limit */
};

struct text_encoder_class {
    const char *name; /* config.json's "architectures"[0] */
    /* The handle and room for its layers; then the tables, one layer, and what follows the last: as
     * a denoiser's (tessera_model.h). */
    struct text_encoder *(*open)(const struct json *config, struct loader *loader);
    void (*load_embed)(struct text_encoder *, struct loader *);
    void (*load_block)(struct text_encoder *, int index, struct loader *);
    void (*load_finish)(struct text_encoder *, struct loader *);
    /* The first block's state, without the mask; ids [batch, tokens]. Errors (an id outside the
     * vocabulary, too many tokens) go to run->error. */
    struct text_encoder_state (*embed)(const struct text_encoder *, struct run *, const int32_t *ids, int64_t batch, int64_t tokens);
    /* x after the block. */
    struct tensor (*block)(const struct text_encoder *, struct run *, int index, const struct text_encoder_state *);
    /* last_hidden_state of `last` and pooled of `x`, what the last block left: both [B, S, C], and
     * the same unless blocks are skipped. */
    struct text_encoder_output (*finish)(const struct text_encoder *, struct run *, struct tensor last, struct tensor x,
                                         const int32_t *ids);
};

/* Prompts to states: ids [batch, tokens]; mask [batch, tokens] of 0 and 1, or NULL. `skip` blocks
 * at the end have no effect on the first two outputs (clip-skip); the pooled state is always the
 * whole model's. Errors go to run->error. */
struct text_encoder_output text_encoder_encode(const struct text_encoder *, struct run *, const int32_t *ids, const float *mask,
                                               int64_t batch, int64_t tokens, int skip);

extern const struct text_encoder_class bert_class, clip_text_class, clip_text_with_projection_class, t5_encoder_class;

#endif
