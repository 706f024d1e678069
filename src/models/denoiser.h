/* What every denoiser offers: a list of blocks that can be cut anywhere.
 *
 *     inputs --embed--> state --block 0--> state --block 1--> ... --finish--> prediction
 *
 * A block boundary is the only place where a model is cut (pipeline stage, device, untrusted
 * worker, cached step). The state says what travels: the picture's tokens, the text's, the
 * conditioning, and skips. Blocks are described as data (denoiser_block_info), so that planning
 * never includes a model's header. The structs are in tessera_model.h, for authors of models; here
 * is what the engine does with them. */
#ifndef TESSERA_MODELS_DENOISER_H
#define TESSERA_MODELS_DENOISER_H

#include "base/json.h"
#include "models/segment.h"
#include "nn/load.h"
#include "parallel/meeting.h"

/* Can the model's heads be shared by `ulysses` ranks and its weights be cut over `tensor`? ARGUMENT
 * errors say which degrees are possible. */
tessera_status denoiser_check_degrees(const struct denoiser *denoiser, int ulysses, int tensor, tessera_error *error);

/* Gives back all that was made since `scope` (of run_enter, before the state was made) but the
 * state, which is moved. */
void denoiser_keep_state(struct run *run, size_t scope, struct denoiser_state *state);

/* The class's functions of the same names, each told to who watches the segment. first_input is of
 * block 0. */
struct denoiser_state denoiser_embed(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs,
                                     unsigned segments);
struct denoiser_state denoiser_block(const struct denoiser *denoiser, struct run *run, int index, struct denoiser_state state);
struct tensor denoiser_finish(const struct denoiser *denoiser, struct run *run, struct denoiser_state state);
struct tensor denoiser_first_input(const struct denoiser *denoiser, struct run *run, const struct denoiser_state *state);

/* Rows of the picture that this rank holds, and columns, where both have been halved `level` times. */
int64_t denoiser_state_rows(const struct denoiser_state *state, int level);
int64_t denoiser_state_columns(const struct denoiser_state *state, int level);

/* Blocks first .. end - 1. After each one denoiser_keep_state. */
struct denoiser_state denoiser_blocks(const struct denoiser *denoiser, struct run *run, int first, int end, size_t scope,
                                      struct denoiser_state state);

/* The inputs in the run's memory, as long as its arena keeps them; guidance and size_conditions,
 * which the host reads, stay where they are. */
struct denoiser_inputs denoiser_upload(struct run *run, const struct denoiser_inputs *inputs);

/* Inputs from anywhere, embed, all blocks, finish: F32 [B, H, W, out_channels] in the run's arena. */
struct tensor denoiser_forward(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs);

/* CLASS(variable). A new model is one file and one line here; registry.c looks classes up by name. */
#define DENOISER_CLASSES(CLASS)          \
    CLASS(pixart_transformer_class)      \
    CLASS(sd3_transformer_class)         \
    CLASS(flux_transformer_class)        \
    CLASS(hunyuan_transformer_class)     \
    CLASS(unet_2d_condition_class)

#define DECLARE_CLASS(class) extern const struct denoiser_class class;
DENOISER_CLASSES(DECLARE_CLASS)
#undef DECLARE_CLASS

#endif
