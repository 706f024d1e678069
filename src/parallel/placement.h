/* Placement: which rank holds which text encoder, which blocks of the denoiser, and the
 * autoencoder.
 *
 *     rank 0    text_encoder      blocks 0 to 27     vae
 *     rank 1    text_encoder_2    blocks 28 to 56
 *
 * A rank has one run of neighbouring blocks or none (several, if a file says so), so that a
 * picture's state goes through a pipeline of stages. Text encoders and the autoencoder are placed
 * whole. The words are accelerate's (utils/modeling.py, get_balanced_memory and
 * infer_auto_device_map):
 *
 *     balanced           every rank holds as much as the others, as far as their memory allows
 *     balanced_low_0     the same for all ranks but rank 0, which gets only what does not fit on the others
 *     sequential         rank 0 is filled first, then rank 1, and so on
 *
 * accelerate goes on to the next device once one has passed the mean; here the cuts are those with
 * the smallest sum of squared loads. Nothing here knows a model or reads a file. */
#ifndef TESSERA_PARALLEL_PLACEMENT_H
#define TESSERA_PARALLEL_PLACEMENT_H

#include <stdbool.h>

enum placement_way { PLACEMENT_BALANCED, PLACEMENT_BALANCED_LOW_0, PLACEMENT_SEQUENTIAL };

/* What is in memory at the same time: all that a rank holds; what one phase needs (an encoder, the
 * blocks, the autoencoder); or only the largest segment of that, while the others are read when
 * they are needed. */
enum placement_keep { PLACEMENT_WHOLE, PLACEMENT_STAGES, PLACEMENT_WINDOW, PLACEMENT_KEEPS };

enum { PLACEMENT_MAX_ENCODERS = 8 };

struct placement_weight {
    double bytes, largest; /* of all weights; of the largest segment */
};

struct placement_model { /* bytes */
    int num_encoders, num_blocks;
    struct placement_weight encoders[PLACEMENT_MAX_ENCODERS], autoencoder;
    const double *blocks;         /* [num_blocks]: what comes before the first block counts with it, what comes after the last with that */
    const double *windows;        /* [num_blocks]: of the largest segment of each; NULL: as `blocks` */
    double text, denoise, decode; /* that computing takes beside weights: an encoder's, the blocks', the autoencoder's */
    double loading;               /* that the largest segment takes on its way from the file, where weights stay in memory */
};

struct placement {
    int encoders[PLACEMENT_MAX_ENCODERS], autoencoder; /* ranks */
    int *blocks;                                       /* [num_blocks] ranks; owned */
};

/* rooms: [ranks] bytes that each may take. It returns a placement even if that does not fit;
 * placement_need says whether it does. False if memory is out. Free it with placement_free. */
bool placement_choose(const struct placement_model *model, const double *rooms, int ranks, enum placement_way way, enum placement_keep keep,
                      struct placement *out);
void placement_free(struct placement *placement);

/* The bytes of weights that a rank holds. */
double placement_bytes(const struct placement_model *model, const struct placement *placement, int rank);
/* The memory that a rank needs at most. */
double placement_need(const struct placement_model *model, const struct placement *placement, enum placement_keep keep, int rank);

#endif
