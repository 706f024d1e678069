/* Placement: which rank holds which text encoder, which blocks of the denoiser, and the autoencoder.
 *
 *     rank 0    text_encoder      blocks 0 to 27     vae
 *     rank 1    text_encoder_2    blocks 28 to 56
 *
 * Blocks are cut nowhere but between two of them, and a rank has one run of neighbours or none (by a file several): what a picture's state
 * goes through is a pipeline of stages. Text encoders and the autoencoder are placed whole. The words are accelerate's (utils/modeling.py,
 * get_balanced_memory and infer_auto_device_map):
 *
 *     balanced           every rank as much as any other, as far as their memory allows
 *     balanced_low_0     the same among all but rank 0, which gets only what does not fit on the others
 *     sequential         rank 0 is filled first, then rank 1, and so on
 *
 * Unlike accelerate's, whose balanced shares end when a device has passed the mean, the cuts here are those of the smallest sum of squared
 * loads. Nothing here knows a model or reads a file. */
#ifndef TESSERA_PARALLEL_PLACEMENT_H
#define TESSERA_PARALLEL_PLACEMENT_H

#include <stdbool.h>

enum placement_way { PLACEMENT_BALANCED, PLACEMENT_BALANCED_LOW_0, PLACEMENT_SEQUENTIAL };

/* What is in memory together: all that a rank holds; one stage (an encoder, its blocks, the autoencoder) at a time; or of a stage only the
 * largest piece, the others being read when they are needed. */
enum placement_keep { PLACEMENT_WHOLE, PLACEMENT_STAGES, PLACEMENT_WINDOW, PLACEMENT_KEEPS };

enum { PLACEMENT_MAX_ENCODERS = 8 };

struct placement_weight {
    double bytes, largest; /* of all weights; of the largest piece that is read at once */
};

struct placement_model { /* bytes */
    int num_encoders, num_blocks;
    struct placement_weight encoders[PLACEMENT_MAX_ENCODERS], autoencoder;
    const double *blocks;         /* [num_blocks]: what stands before the first counts with it, what is behind the last with that */
    const double *windows;        /* [num_blocks]: of the largest piece of each that is read at once; NULL: as `blocks` */
    double text, denoise, decode; /* what computing takes beside weights, with an encoder, with blocks, with the autoencoder */
    double loading;               /* what the largest piece takes on its way from the file, where weights stay in memory */
};

struct placement {
    int encoders[PLACEMENT_MAX_ENCODERS], autoencoder; /* ranks */
    int *blocks;                                       /* [num_blocks] ranks; owned */
};

/* rooms: [ranks] bytes that each may take. Always a placement, whether or not it fits (placement_need says); false if memory is out. The
 * caller ends it with placement_free. */
bool placement_choose(const struct placement_model *model, const double *rooms, int ranks, enum placement_way way, enum placement_keep keep,
                      struct placement *out);
void placement_free(struct placement *placement);

/* The bytes of weights that a rank holds. */
double placement_bytes(const struct placement_model *model, const struct placement *placement, int rank);
/* The memory that a rank needs at most. */
double placement_need(const struct placement_model *model, const struct placement *placement, enum placement_keep keep, int rank);

#endif
