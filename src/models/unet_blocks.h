/* What a U-Net level is built of: resnets that hear the timestep, transformers that hear the text,
 * and a change of size.
 *
 *     resnet       norm, silu, conv -> + linear(emb) -> norm, silu, conv -> + x (or a 1x1 convolution of it)
 *     transformer  norm, linear -> layers of (self attention, attention to the text, GEGLU) -> linear -> + x
 *
 * Feature maps are [B, H, W, C]; emb is silu(cond) [B, time_channels] and text [B, T,
 * text_channels], both in the run's type.
 *
 * Over several ranks a map is this rank's rows of the picture (the run's cut), with all channels.
 * Where weights are cut, too, a resnet's first half gives, and its second half takes, this rank's
 * groups of channels; attention has this rank's heads, a feed-forward network this rank's hidden
 * channels; other layers give this rank's channels, which are then laid side by side. */
#ifndef TESSERA_MODELS_UNET_BLOCKS_H
#define TESSERA_MODELS_UNET_BLOCKS_H

#include "nn/load.h"
#include "parallel/meeting.h"
#include "tessera_model/transformers.h"

enum { UNET_MAX_RESNETS = 2, UNET_MAX_LAYERS = 1 }; /* of a block */

/* What all levels share. */
struct unet_settings {
    int groups;     /* of group norms */
    float norm_eps; /* of resnets */
    int64_t time_channels, text_channels;
    bool linear_projection; /* proj_in and proj_out are stored as matrices, not as 1x1 convolutions */
};

/* What one block is to be: a piece of a level, small enough that a model can be cut into stages of
 * equal work:
 *
 *     a resnet, and of its transformer the first layer    opens
 *     each of the other layers
 *     after the last one the change of size, too          closes      (the middle's: its second resnet)
 *
 * A block that opens and does not close leaves the transformer's input on the stack of skips, for
 * the one that closes to add. */
enum unet_way { UNET_DOWN, UNET_MID, UNET_UP };
struct unet_block_shape {
    enum unet_way way;
    int level; /* how often rows and columns are halved */
    int first; /* the number of its first resnet, and transformer, in the level */
    int resnets;
    int64_t in[UNET_MAX_RESNETS], out; /* channels: into each resnet, and out of all */
    int transformers;                  /* 0 or 1 */
    int first_layer, layers;           /* of it: those that this block has, at most UNET_MAX_LAYERS */
    bool opens, closes;
    bool skip_is_map; /* on the way up: its skip is the map itself, since no middle lies between */
    int64_t heads;
    const char *resample; /* "downsamplers", "upsamplers" or NULL */
};

struct unet_resnet {
    struct norm norm1, norm2;
    struct conv conv1, conv2, shortcut; /* shortcut: empty where the channels stay the same */
    struct linear time;
};

struct unet_layer {
    struct norm norm1, norm2, norm3;
    struct attention self, cross;
    struct linear ff_values, ff_gates, ff_out;
};

struct unet_transformer {
    struct norm norm;
    struct linear proj_in, proj_out;
    struct unet_layer layers[UNET_MAX_LAYERS];
};

struct unet_block {
    struct unet_block_shape shape;
    int groups, my_groups; /* of group norms; of a resnet's second one on this rank */
    int64_t my_heads;
    struct unet_resnet resnets[UNET_MAX_RESNETS];
    struct unet_transformer transformer;
    struct conv resample;
};

/* Reads a block's weights under the loader's prefix, its level's ("down_blocks.0."). Errors stick
 * in the loader. */
struct unet_block unet_block_load(struct loader *loader, const struct unet_settings *settings, const struct unet_block_shape *shape);

struct tensor unet_resnet_run(struct run *run, const struct unet_block *block, int index, struct tensor x, struct tensor emb);
/* A transformer over the map x: what goes into its first layer, this block's layers of it, and what
 * comes of it, which is added to x. All are maps. `cut` is that of x's level; NULL: x is the whole
 * picture. */
struct tensor unet_transformer_open(struct run *run, const struct unet_block *block, struct tensor x);
struct tensor unet_transformer_layers(struct run *run, const struct unet_block *block, struct tensor h, struct tensor text,
                                      const struct cut *cut);
struct tensor unet_transformer_close(struct run *run, const struct unet_block *block, struct tensor h, struct tensor x);
/* Half the rows and columns, rounded up: a convolution of stride 2. */
struct tensor unet_halve(struct run *run, const struct unet_block *block, struct tensor x);
/* Back to the rows and columns that were halved: nearest neighbours, then a convolution. */
struct tensor unet_double(struct run *run, const struct unet_block *block, struct tensor x, int64_t rows, int64_t columns);

/* Parameters, and weights that every position of the level's map, of the map it is resized to, and
 * of the text is multiplied with. */
struct unet_block_size {
    int64_t parameters, per_position, per_resized_position, per_text_token;
};
struct unet_block_size unet_block_measure(const struct unet_block *block);
/* What meets in a block whose map is that of `level` (0: the finest), and of `resized` behind its
 * resampling. */
void unet_block_meetings(const struct unet_block *block, int level, int resized, struct meeting_list *list);

#endif
