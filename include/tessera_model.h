/* Tessera for people who bring their own model: a transformer that the engine does not know, in one
 * file of C11.
 *
 *     inputs --embed--> state --block 0--> state --block 1--> ... --finish--> prediction
 *
 * A model is a struct denoiser_class. It says how the model is opened (layers from a config.json
 * and weights), how inputs become the first state, what each block does to a state, how the last
 * state becomes a prediction, and what the blocks cost, as data. A model is written over the tokens
 * held here: it never asks how many those are, nor where the others are. Tokens meet in
 * attention only, and nn_joint_attention sees to it that all of them take part. So a model that is
 * written once runs in every way in which the engine spreads work. docs/new-model.md is the guide.
 *
 * This header includes all of them; read them in this order:
 *
 *     errors.h, config.h     a status and a message; fields of config.json
 *     tensors.h, files.h     element types and shapes; safetensors files
 *     runs.h, layers.h       memory of a computation; linear, norm, attention, ...
 *     tokens.h               which tokens of the picture and its text are held here, and where they meet
 *     loading.h              layers from names in a file
 *     transformers.h         embedders, modulations, attention with its linears, feed-forward
 *     denoiser.h             inputs, state, blocks as data, the class
 *     sampling.h             tessera_sample: the denoising loop over a model alone
 *
 * Pictures are [batch, rows, columns, channels], tokens [batch, tokens, channels]. Shapes in
 * brackets use B for the batch, S for tokens, T for text tokens, C for channels. Norms, modulations
 * and conditioning are float32; products and residual streams have the run's type.
 *
 * Left out: convolutional models, text encoders, autoencoders, which live in the engine alone. */
#ifndef TESSERA_MODEL_H
#define TESSERA_MODEL_H

#include "tessera_model/config.h"
#include "tessera_model/denoiser.h"
#include "tessera_model/errors.h"
#include "tessera_model/files.h"
#include "tessera_model/layers.h"
#include "tessera_model/loading.h"
#include "tessera_model/runs.h"
#include "tessera_model/sampling.h"
#include "tessera_model/tensors.h"
#include "tessera_model/tokens.h"
#include "tessera_model/transformers.h"

#endif
