/* The keys of an adapter's file: which tensor of which module of which component a tensor is.
 *
 *     unet.down_blocks.0.attentions.0.proj_in.lora_A.weight            diffusers (peft)
 *     text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight
 *     unet.mid_block...attn1.processor.to_q_lora.down.weight           diffusers before 0.22
 *     lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight    kohya: the module's dots became underscores
 *     `--------´`---------------------------------´`--------------´
 *     component  module                             role
 *     lora_unet_mid_block_attentions_0_proj_in.hada_w1_a               LyCORIS: LoHa, LoKr, full differences
 *     double_blocks.0.processor.qkv_lora1.down.weight                  XLabs, for Flux
 *
 * kohya's underscores cannot be turned back into dots, so modules are compared the other way: the
 * names of the model's weights are written with underscores too. */
#ifndef TESSERA_CHECKPOINT_LORA_KEY_H
#define TESSERA_CHECKPOINT_LORA_KEY_H

#include "base/error.h"

enum lora_role {
    LORA_DOWN, /* A */
    LORA_MID,  /* LoCon's middle */
    LORA_UP,   /* B */
    LORA_ALPHA,
    LORA_DORA_SCALE, /* DoRA's magnitudes */
    LOHA_W1_A,
    LOHA_W1_B,
    LOHA_T1,
    LOHA_W2_A,
    LOHA_W2_B,
    LOHA_T2, /* as LyCORIS names them */
    LOKR_W1,
    LOKR_W1_A,
    LOKR_W1_B,
    LOKR_W2,
    LOKR_W2_A,
    LOKR_W2_B,
    LOKR_T2,
    LORA_DIFF, /* a full difference of the weight */
    LORA_ROLES
};

/* Components as bits: kohya's "lora_te3_" (T5) is the third text encoder of SD3 and the second of
 * Flux. */
enum { LORA_DENOISER = 1, LORA_TEXT_1 = 2, LORA_TEXT_2 = 4, LORA_TEXT_3 = 8 };

/* How a module's name ends that is the first three of seven bands of Flux's
 * "single_blocks.N.linear1". */
#define LORA_XLABS_QKV ".linear1.qkv"

struct lora_key {
    unsigned components;
    enum lora_role role;
    char module[256]; /* e.g. "mid_block_attentions_0_proj_in": as lora_module_name writes it */
};

/* UNSUPPORTED where the key belongs to another kind of adapter (OFT, changes of biases, ...),
 * FORMAT where it is no adapter's; messages name the file and the key. */
tessera_status lora_key_parse(const char *file, const char *key, struct lora_key *out, tessera_error *error);

/* The bit of a component's folder name ("unet", "transformer", "text_encoder", ...); 0: LoRA does
 * not change it. */
unsigned lora_component(const char *name);

/* The module of a weight ("mid_block.attentions.0.proj_in.weight") as lora_key.module; false if the
 * name is no module's weight. */
bool lora_module_name(unsigned component, const char *weight, char *out, size_t capacity);

#endif
