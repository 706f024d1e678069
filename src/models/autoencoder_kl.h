/* AutoencoderKL: pictures to latents and back (Rombach et al. 2022; diffusers' AutoencoderKL).
 *
 * Feature maps larger than run->strip_bytes are computed in strips of rows, layer by layer, with
 * the same result up to rounding (models/autoencoder_stage.h). At its peak a pass holds a resnet's
 * input and its output, both at full resolution (height x width x channels), and two or three
 * strips of about strip_bytes, of at least one row and its neighbours:
 *
 *     decode   1.5 times the upsampled map, where the last block halves the channels (as published models do); 2 where it does not
 *     encode   2 maps of the first block
 *
 * A map no larger than strip_bytes is one strip. The middle's attention holds five maps of the
 * latent's size, beside a ring twelve.
 *
 * Where run->parallel cuts pictures by rows, each rank computes the rows of its share of the
 * latent's, and holds no others: all of the above is divided by the ranks, strips too. The result
 * is one rank's up to rounding. Sent per rank, of B pictures, n ranks:
 *
 *     halo         for each 3x3 convolution a row of its input (before it is upsampled) to each neighbour; to the one above only, where
 *                  the convolution halves
 *     group norm   (n - 1) (2 B groups + 1) numbers a norm, F32
 *     attention    2 (n - 1) / n of the middle's map
 *     gather       (n - 1) / n of the moments and (n - 1) numbers of 8 bytes (encode)
 *
 * Encoder and decoder blocks are DownEncoderBlock2D and UpDecoderBlock2D; every other type is
 * refused. Activations have the run's type, moments and pictures are F32. */
#ifndef TESSERA_MODELS_AUTOENCODER_KL_H
#define TESSERA_MODELS_AUTOENCODER_KL_H

#include "models/autoencoder.h"

/* The class's functions, in autoencoder.h's words. */
/* This rank's pixel rows of a picture height x width, to give to encode and to get from decode: all
 * where it is alone. More ranks than latent rows are an ARGUMENT error in run->error. */
struct span autoencoder_kl_rows(const struct autoencoder *, struct run *, int64_t height, int64_t width);
/* image F32 [B, this rank's rows, W, 3] in [-1, 1] -> moments F32 [B, h, w, 2 * latent_channels] on
 * every rank: means, then log-variances (clamped to [-30, 20]). */
struct tensor autoencoder_kl_encode(const struct autoencoder *, struct run *, struct tensor image);
/* z F32 [B, h, w, latent_channels] (unscaled), whole on every rank -> F32 [B, this rank's rows, W,
 * 3]; exchange_gather_rows makes one of all. */
struct tensor autoencoder_kl_decode(const struct autoencoder *, struct run *, struct tensor z);
/* As decode, in blended tiles of the config's sample_size, as diffusers' enable_tiling: less
 * memory, not exact. A rank that calls it decodes all tiles alone and gets the whole picture: call
 * it where the picture is wanted, only. */
struct tensor autoencoder_kl_decode_tiled(const struct autoencoder *, struct run *, struct tensor z);

#endif
