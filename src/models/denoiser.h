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
};

struct denoiser_class {
    const char *name; /* _class_name */
    /* The layers, in `loader->arena`; NULL and loader->error on failure. The handle embeds struct denoiser first. */
    struct denoiser *(*open)(const struct json *config, struct loader *loader);
    struct denoiser_state (*embed)(const struct denoiser *, struct run *, const struct denoiser_inputs *);
    struct denoiser_state (*block)(const struct denoiser *, struct run *, int index, struct denoiser_state);
    struct tensor (*finish)(const struct denoiser *, struct run *, struct denoiser_state); /* F32 [B, H, W, out_channels] */
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

/* embed, all blocks, finish: F32 [B, H, W, out_channels] in the run's arena. */
struct tensor denoiser_forward(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs);

extern const struct denoiser_class pixart_transformer_class, sd3_transformer_class;
extern const struct denoiser_class flux_transformer_class, hunyuan_transformer_class;
extern const struct denoiser_class unet_2d_condition_class;

#endif
