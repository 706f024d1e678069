/* What every denoiser offers: a list of blocks that can be cut anywhere.
 *
 *     inputs --embed--> state --block 0--> state --block 1--> ... --finish--> prediction
 *
 * A block boundary is the only place where a model is cut (pipeline stage, device, untrusted worker, cached step). The state
 * says what travels: the picture's tokens, the text's, the conditioning, and skips. Blocks are described as data
 * (denoiser_block_info), so that planning never includes a model's header. */
#ifndef TESSERA_MODELS_DENOISER_H
#define TESSERA_MODELS_DENOISER_H

#include "base/json.h"
#include "nn/load.h"
#include "parallel/meeting.h"

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
    struct tensor
        size_conditions; /* F32 [B, n]: SDXL's time_ids (6), PixArt's resolution and aspect ratio (3), HunyuanDiT's image_meta_size (6) */
};

enum { DENOISER_MAX_SKIPS = 24 };
struct denoiser_state {
    struct tensor picture;                   /* [B, S, C]; convolutional models: [B, rows, columns, C] */
    struct tensor text;                      /* [B, T, C]; empty where the text's stream has ended */
    struct tensor text_mask;                 /* F32 [B, T] as in the inputs, whose memory it is; empty: all of the text counts */
    struct tensor cond;                      /* conditioning, F32 [B, the class's width] */
    int64_t rows, columns;                   /* of patches, of the whole picture */
    const struct cut *cut;                   /* the patches that `picture` holds: S of them; NULL: all, S = rows * columns */
    bool text_whole;                         /* `text` is all of the text, though the picture is cut */
    struct tensor skips[DENOISER_MAX_SKIPS]; /* earlier pictures that later blocks read, a stack; none is also `picture` */
    int num_skips;
};

enum { DENOISER_CARRIES_PICTURE = 1, DENOISER_CARRIES_TEXT = 2, DENOISER_CARRIES_COND = 4, DENOISER_CARRIES_SKIPS = 8 };
struct denoiser_block_info {
    char name[64]; /* the prefix of its weights, e.g. "transformer_blocks.3" */
    int64_t parameters;
    double operations_per_picture_token, operations_per_text_token, operations_per_token_pair;
    unsigned carries; /* what its output state holds */
    int pushes, pops; /* skips that it puts on the stack, and takes from it */
    struct meeting_list meetings; /* of its layers; those of embed with the first block, those of finish, but for the prediction, with the last */
};

struct denoiser {
    const struct denoiser_class *class;
    int num_blocks;
    int64_t in_channels, out_channels;
    int64_t patch_size;  /* latent rows and columns must be multiples of it */
    int64_t max_patches; /* a side, 0: no limit */
    int64_t text_channels, pooled_channels;
    int64_t num_heads;   /* of the attention layer that has fewest, on all ranks together */
    int64_t max_tensor;  /* ranks that weights can be cut over, where other layers set a limit beside the heads; 0: none does */
    int64_t row_unit;    /* pictures are cut by rows, in multiples of this; 0: by tokens */
    int64_t sample_size; /* config's default latent side, 0 if absent */
    bool text_stream;    /* blocks change the text, which meets the picture in their attention; else they only read it */
};

enum { DENOISER_CHANGE_POWERS = 5 };
struct denoiser_class {
    const char *name; /* _class_name */
    /* The layers, in `loader->arena`; NULL and loader->error on failure. The handle embeds struct denoiser first. */
    struct denoiser *(*open)(const struct json *config, struct loader *loader);
    /* The first block's state; of picture and text those that `parts` (of the bits above) names, the rest stays empty: where a rank runs later
     * blocks only, they come to it. Needs the weights of load_keeps_first for the picture, and for the text if text_stream. */
    struct denoiser_state (*embed)(const struct denoiser *, struct run *, const struct denoiser_inputs *, unsigned parts);
    struct denoiser_state (*block)(const struct denoiser *, struct run *, int index, struct denoiser_state);
    struct tensor (*finish)(const struct denoiser *, struct run *, struct denoiser_state); /* F32 [B, H, W, out_channels] of the rows at hand */
    /* What block 0's self-attention is given of the picture, [B, S, C] in the run's type: a step cache compares it between steps. NULL:
     * blocks do not add to one stream of tokens, and no step cache is possible. */
    struct tensor (*first_input)(const struct denoiser *, struct run *, const struct denoiser_state *);
    /* How far a relative change of it tells of one of the prediction: DENOISER_CHANGE_POWERS coefficients of a polynomial, highest power
     * first. NULL: the change itself. */
    const double *change_polynomial;
    void (*describe)(const struct denoiser *, int index, struct denoiser_block_info *);
};

/* For embed: ARGUMENT errors that name the class, the tensor and both shapes. latents must be [B, H, W, in_channels], H and W multiples of
 * patch_size and at most max_patches of them, and few enough for 32-bit places of elements. */
tessera_status denoiser_check_latents(const struct denoiser *denoiser, const struct tensor *latents, tessera_error *error);
/* Must `t` be there with this shape? A wanted extent of -1 stands for any of at least 1. */
tessera_status denoiser_check_shape(const struct denoiser *denoiser, const char *what, const struct tensor *t, int ndim,
                                    const int64_t *wanted, tessera_error *error);

/* Can the model's heads be shared by `ulysses` ranks and its weights be cut over `tensor`? ARGUMENT errors say which degrees are possible. */
tessera_status denoiser_check_degrees(const struct denoiser *denoiser, int ulysses, int tensor, tessera_error *error);

/* Can a picture of so many latent rows and columns be cut over `ranks`? ARGUMENT errors as above. */
tessera_status denoiser_check_cut(const struct denoiser *denoiser, int64_t rows, int64_t columns, int ranks, tessera_error *error);

/* Gives back all that was made since `scope` (of run_enter, before the state was made) but the state, which is moved. */
void denoiser_keep_state(struct run *run, size_t scope, struct denoiser_state *state);

/* Blocks first .. end - 1. After each one denoiser_keep_state. */
struct denoiser_state denoiser_blocks(const struct denoiser *denoiser, struct run *run, int first, int end, size_t scope,
                                      struct denoiser_state state);

/* embed, all blocks, finish: F32 [B, H, W, out_channels] in the run's arena. */
struct tensor denoiser_forward(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs);

extern const struct denoiser_class pixart_transformer_class, sd3_transformer_class;
extern const struct denoiser_class flux_transformer_class, hunyuan_transformer_class;
extern const struct denoiser_class unet_2d_condition_class;

#endif
