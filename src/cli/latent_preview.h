/* Pictures on the terminal while they are denoised: what each step predicts them to be, in colours
 * that are linear in its latents:
 *
 *     rgb = W [x_0; 1]
 *
 * W is fitted by least squares to what the model's own autoencoder makes of a few even patches, so
 * that every autoencoder has one. */
#ifndef TESSERA_CLI_LATENT_PREVIEW_H
#define TESSERA_CLI_LATENT_PREVIEW_H

#include "tessera.h"

struct latent_preview {
    int channels;
    double *weights; /* [channels + 1, 3]; NULL: there is no preview */
    int lines;       /* of the terminal that the last one takes */
    double shown_at;
};

/* Decodes a small picture of patches and fits. On all ranks. UNSUPPORTED if the model decodes no
 * such picture; errors of tessera_decode. */
tessera_status latent_preview_open(struct latent_preview *preview, tessera_model *model, tessera_error *error);
/* Draws a step's x_0 in the place of the one before, in cells of two pixels; at most twice a second. */
void latent_preview_show(struct latent_preview *preview, const tessera_step *step);
/* Takes the last one away. */
void latent_preview_clear(struct latent_preview *preview);
void latent_preview_close(struct latent_preview *preview);

#endif
