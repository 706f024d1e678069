/* A denoiser: inputs, the state between blocks, the blocks as data, and the class that an author
 * fills in. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_DENOISER_H
#define TESSERA_MODEL_DENOISER_H

#include <assert.h>

#include "tessera_model/config.h"
#include "tessera_model/loading.h"
#include "tessera_model/tokens.h"

/* What a denoiser is given for one prediction. Tensors lie in the run's memory (run_upload). What the
 * host reads may lie in the host's memory: timesteps always do, guidance, size_conditions and
 * HunyuanDiT's masks may. */
struct denoiser_inputs {
    struct tensor latents;  /* F32 [B, H, W, C] */
    const float *timesteps; /* [B], the scheduler's: 0..1000 */
    struct tensor text;     /* F32 [B, T, Ct] */
    struct tensor pooled;   /* F32 [B, P] */
    /* The rest is empty (data NULL) where the class does not ask for it. */
    struct tensor text_mask;   /* F32 [B, T]: 1 keep, 0 drop */
    struct tensor text_2;      /* F32 [B, T2, Ct2]: HunyuanDiT's T5 states */
    struct tensor text_2_mask; /* F32 [B, T2] */
    struct tensor guidance;    /* F32 [B]: Flux's embedded guidance scale */
    /* F32 [B, n]: SDXL's time_ids (6), PixArt's resolution and aspect ratio (3), HunyuanDiT's
     * image_meta_size (6) */
    struct tensor size_conditions;
};

enum { DENOISER_MAX_SKIPS = 24 };
/* What one block hands to the next. */
struct denoiser_state {
    struct tensor picture;                   /* [B, S, C]; convolutional models: [B, rows, columns, C] */
    struct tensor text;                      /* [B, T, C]; empty where the text's stream has ended */
    struct tensor text_mask;                 /* F32 [B, T]: the inputs' own; empty: all text counts */
    struct tensor cond;                      /* conditioning, F32 [B, the class's width] */
    int64_t rows, columns;                   /* of tokens, of the whole picture */
    const struct cut *cut;                   /* the S tokens in `picture`; NULL: rows * columns */
    int64_t text_tokens;                     /* of the whole text; exchange_text left T of them */
    struct tensor skips[DENOISER_MAX_SKIPS]; /* a stack: earlier pictures that later blocks read */
    int num_skips;
};

/* Meetings, as data: where a block needs all tokens, or all units of a layer. A plan counts bytes
 * and time from them.
 *
 *     attention   every token attends to all others
 *     sum         partial products are added (nn_linear_sum)
 *     join        shares of a layer's outputs come together
 *     halo        a convolution reads the neighbours' rows (convolutional models only)
 *     norm        a group norm merges statistics (convolutional models only) */
enum meeting_kind { MEETING_ATTENTION, MEETING_SUM, MEETING_JOIN, MEETING_HALO, MEETING_NORM };

/* Which tokens take part. MEETING_ONCE: none; one vector per picture. */
enum { MEETING_PICTURE = 1, MEETING_TEXT = 2, MEETING_ONCE = 4 };

struct meeting {
    enum meeting_kind kind;
    int count;            /* of equal meetings */
    unsigned of;          /* MEETING_PICTURE, ... */
    bool text_asks;       /* attention: the text is among the queries, not only among the keys */
    bool is_sliced;       /* only the units held here take part */
    int level;            /* how often the picture's rows and columns have been halved */
    int above, below;     /* halo: rows of each neighbour */
    int64_t units, width; /* heads, groups or single channels, and channels of each */
};

enum { MEETING_LIST_CAPACITY = 96 };
struct meeting_list {
    int count;
    struct meeting items[MEETING_LIST_CAPACITY];
};

static inline void meeting_add(struct meeting_list *list, struct meeting meeting) {
    assert(list->count < MEETING_LIST_CAPACITY);
    if (meeting.count > 0) list->items[list->count++] = meeting;
}

enum { DENOISER_CARRIES_PICTURE = 1, DENOISER_CARRIES_TEXT = 2, DENOISER_CARRIES_COND = 4 };

/* A picture between blocks: how often its rows and columns have been halved, and its channels (0
 * means form.width). */
struct denoiser_map {
    int level;
    int64_t channels;
};
enum { DENOISER_MAX_PUSHES = 2 };
struct denoiser_block_info {
    char name[64]; /* the prefix of its weights, e.g. "transformer_blocks.3" */
    int64_t parameters;
    double operations_per_picture_token, operations_per_text_token, operations_per_token_pair;
    unsigned carries;        /* what its output state holds */
    struct denoiser_map out; /* the picture in it */
    int pops, pushes;        /* it first takes `pops` skips from the stack, then adds `pushes`: */
    struct denoiser_map pushed[DENOISER_MAX_PUSHES];
    /* Of its layers. The first block's list has those of embed too, the last block's those of finish,
     * without the prediction. */
    struct meeting_list meetings;
};

struct segment_watch;

/* What a state between blocks looks like. The batch, the picture's size and the number of text tokens
 * follow from the inputs. From both a process knows which state it must receive from another one, and
 * refuses every other. */
struct denoiser_form {
    int64_t width;      /* channels of the picture that enters the first block; of tokens, everywhere */
    int64_t text_width; /* channels of the text's tokens */
    int64_t text_added; /* tokens that the model adds to the inputs' text (registers) */
    int64_t cond_width; /* channels of the conditioning */
    bool text_mask;     /* the state has the inputs' text_mask, if there is one */
};

struct denoiser {
    const struct denoiser_class *class;
    struct denoiser_form form;
    int num_blocks;
    int64_t in_channels, out_channels;
    int64_t patch_size;  /* latent rows and columns must be multiples of it */
    int64_t max_side;    /* tokens along a side of the picture; 0: no limit */
    int64_t text_channels, pooled_channels;
    int64_t num_heads;   /* of the attention layer that has fewest */
    int64_t max_tensor;  /* most shares that layers other than attention allow; 0: no limit */
    int64_t row_unit;    /* pictures are cut by rows, in multiples of this; 0: by tokens */
    int64_t sample_size; /* config's default latent side, 0 if absent */
    bool text_stream;    /* blocks change the text (joint attention); otherwise they only read it */
    const struct segment_watch *watch; /* the engine's */
};

enum { DENOISER_CHANGE_POWERS = 5 };
struct denoiser_class {
    const char *name; /* config.json's _class_name */
    /* The handle, which embeds struct denoiser first, and room for its layers, in load_alloc's
     * memory; NULL and load_error on failure. It reads sizes from config.json and loads nothing. */
    struct denoiser *(*open)(const struct json *config, struct loader *loader);
    /* Load the layers of embed, of one block, of finish. Weights come and go segment by segment. After
     * `open` the engine calls each function once, and layers get their shapes. It calls the function
     * again whenever it brings the segment's weights into memory or drops them. */
    void (*load_embed)(struct denoiser *, struct loader *);
    void (*load_block)(struct denoiser *, int index, struct loader *);
    void (*load_finish)(struct denoiser *, struct loader *);
    /* Makes the first block's state. `carries` (DENOISER_CARRIES_* bits) says whether it has the
     * picture and the text. A process that only runs later blocks receives a state instead: it
     * neither calls this nor loads the weights of load_embed. */
    struct denoiser_state (*embed)(const struct denoiser *, struct run *, const struct denoiser_inputs *, unsigned carries);
    struct denoiser_state (*block)(const struct denoiser *, struct run *, int index, struct denoiser_state);
    /* F32 [B, H, W, out_channels] of the rows held here. */
    struct tensor (*finish)(const struct denoiser *, struct run *, struct denoiser_state);
    /* What block 0's self-attention gets of the picture, [B, S, C] in the run's type. A step cache
     * compares it between steps. NULL where blocks do not add to one stream of tokens: then no step
     * cache is possible. */
    struct tensor (*first_input)(const struct denoiser *, struct run *, const struct denoiser_state *);
    /* Predicts the relative change of the prediction from that of first_input: DENOISER_CHANGE_POWERS
     * coefficients of a polynomial, highest power first. NULL: the change itself. */
    const double *change_polynomial;
    void (*describe)(const struct denoiser *, int index, struct denoiser_block_info *);
};

/* For embed: ARGUMENT errors that name the class, the tensor and both shapes. latents must be [B,
 * H, W, in_channels], H and W multiples of patch_size and at most max_side of them, and few
 * enough for 32-bit places of elements. */
tessera_status denoiser_check_latents(const struct denoiser *denoiser, const struct tensor *latents, tessera_error *error);
/* Must `t` be there with this shape? A wanted extent of -1 stands for any of at least 1. */
tessera_status denoiser_check_shape(const struct denoiser *denoiser, const char *what, const struct tensor *t, int ndim,
                                    const int64_t *wanted, tessera_error *error);

#endif
