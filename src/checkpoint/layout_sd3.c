/* The transformer of SD3 and SD3.5 (Esser et al. 2024) as its published checkpoints name it.
 *
 * Query, key and value are one tensor there. Where diffusers uses AdaLayerNormContinuous (the
 * output's norm, and the text's norm of the last block) it expects scale before shift, the original
 * the other way round. */
#include "checkpoint/layout_table.h"

static bool inner_block(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = k;
    return k < size->blocks - 1;
}

static bool last_block(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = size->blocks - 1;
    return k < 1;
}

#define X "joint_blocks.{}.x_block."
#define C "joint_blocks.{}.context_block."
#define T "transformer_blocks.{}."

static const struct layout_line lines[] = {
    {NULL, "pos_embed", "pos_embed.pos_embed", SAME},
    {NULL, "x_embedder.proj.", "pos_embed.proj.", SAME},
    {NULL, "t_embedder.mlp.0.", "time_text_embed.timestep_embedder.linear_1.", SAME},
    {NULL, "t_embedder.mlp.2.", "time_text_embed.timestep_embedder.linear_2.", SAME},
    {NULL, "y_embedder.mlp.0.", "time_text_embed.text_embedder.linear_1.", SAME},
    {NULL, "y_embedder.mlp.2.", "time_text_embed.text_embedder.linear_2.", SAME},
    {NULL, "context_embedder.", "context_embedder.", SAME},
    {NULL, "final_layer.linear.", "proj_out.", SAME},
    {NULL, "final_layer.adaLN_modulation.1.", "norm_out.linear.", SWAPPED},

    {layout_each_block, X "adaLN_modulation.1.", T "norm1.linear.", SAME},
    {inner_block, C "adaLN_modulation.1.", T "norm1_context.linear.", SAME},
    {last_block, C "adaLN_modulation.1.", T "norm1_context.linear.", SWAPPED},
    {layout_each_block, X "attn.qkv.", T "attn.to_q.", BAND(0, 1, 3)},
    {layout_each_block, X "attn.qkv.", T "attn.to_k.", BAND(1, 1, 3)},
    {layout_each_block, X "attn.qkv.", T "attn.to_v.", BAND(2, 1, 3)},
    {layout_each_block, X "attn.ln_q.", T "attn.norm_q.", SAME},
    {layout_each_block, X "attn.ln_k.", T "attn.norm_k.", SAME},
    {layout_each_block, X "attn.proj.", T "attn.to_out.0.", SAME},
    {layout_each_block, C "attn.qkv.", T "attn.add_q_proj.", BAND(0, 1, 3)},
    {layout_each_block, C "attn.qkv.", T "attn.add_k_proj.", BAND(1, 1, 3)},
    {layout_each_block, C "attn.qkv.", T "attn.add_v_proj.", BAND(2, 1, 3)},
    {layout_each_block, C "attn.ln_q.", T "attn.norm_added_q.", SAME},
    {layout_each_block, C "attn.ln_k.", T "attn.norm_added_k.", SAME},
    {layout_each_block, C "attn.proj.", T "attn.to_add_out.", SAME},
    {layout_each_block, X "attn2.qkv.", T "attn2.to_q.", BAND(0, 1, 3)},
    {layout_each_block, X "attn2.qkv.", T "attn2.to_k.", BAND(1, 1, 3)},
    {layout_each_block, X "attn2.qkv.", T "attn2.to_v.", BAND(2, 1, 3)},
    {layout_each_block, X "attn2.ln_q.", T "attn2.norm_q.", SAME},
    {layout_each_block, X "attn2.ln_k.", T "attn2.norm_k.", SAME},
    {layout_each_block, X "attn2.proj.", T "attn2.to_out.0.", SAME},
    {layout_each_block, X "mlp.fc1.", T "ff.net.0.proj.", SAME},
    {layout_each_block, X "mlp.fc2.", T "ff.net.2.", SAME},
    {layout_each_block, C "mlp.fc1.", T "ff_context.net.0.proj.", SAME},
    {layout_each_block, C "mlp.fc2.", T "ff_context.net.2.", SAME},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    return layout_read_count(config, "num_layers", 18, &size->blocks, error);
}

const struct layout_table layout_table_sd3 = LAYOUT_TABLE(lines, read_size);
