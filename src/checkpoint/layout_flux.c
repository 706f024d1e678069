/* The transformer of Flux.1 (Black Forest Labs 2024, github.com/black-forest-labs/flux) as its
 * published checkpoints name it.
 *
 * Query, key and value are one tensor in a double block; in a single block the first linear layer
 * also holds the widening layer of the feed-forward half: 1 + 1 + 1 + 4 bands of the model's width
 * (mlp_ratio is 4 in every published model). The output's norm expects scale before shift in
 * diffusers, the original the other way round. */
#include "checkpoint/layout_table.h"

static bool single_block(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = k;
    return k < size->single_blocks;
}

#define D "double_blocks.{}."
#define S "single_blocks.{}."
#define T "transformer_blocks.{}."
#define U "single_transformer_blocks.{}."

static const struct layout_line lines[] = {
    {NULL, "img_in.", "x_embedder.", SAME},
    {NULL, "txt_in.", "context_embedder.", SAME},
    {NULL, "time_in.in_layer.", "time_text_embed.timestep_embedder.linear_1.", SAME},
    {NULL, "time_in.out_layer.", "time_text_embed.timestep_embedder.linear_2.", SAME},
    {NULL, "vector_in.in_layer.", "time_text_embed.text_embedder.linear_1.", SAME},
    {NULL, "vector_in.out_layer.", "time_text_embed.text_embedder.linear_2.", SAME},
    {NULL, "guidance_in.in_layer.", "time_text_embed.guidance_embedder.linear_1.", SAME},
    {NULL, "guidance_in.out_layer.", "time_text_embed.guidance_embedder.linear_2.", SAME},
    {NULL, "final_layer.linear.", "proj_out.", SAME},
    {NULL, "final_layer.adaLN_modulation.1.", "norm_out.linear.", SWAPPED},

    {layout_each_block, D "img_mod.lin.", T "norm1.linear.", SAME},
    {layout_each_block, D "txt_mod.lin.", T "norm1_context.linear.", SAME},
    {layout_each_block, D "img_attn.qkv.", T "attn.to_q.", BAND(0, 1, 3)},
    {layout_each_block, D "img_attn.qkv.", T "attn.to_k.", BAND(1, 1, 3)},
    {layout_each_block, D "img_attn.qkv.", T "attn.to_v.", BAND(2, 1, 3)},
    {layout_each_block, D "img_attn.norm.query_norm.scale", T "attn.norm_q.weight", SAME},
    {layout_each_block, D "img_attn.norm.key_norm.scale", T "attn.norm_k.weight", SAME},
    {layout_each_block, D "img_attn.proj.", T "attn.to_out.0.", SAME},
    {layout_each_block, D "img_mlp.0.", T "ff.net.0.proj.", SAME},
    {layout_each_block, D "img_mlp.2.", T "ff.net.2.", SAME},
    {layout_each_block, D "txt_attn.qkv.", T "attn.add_q_proj.", BAND(0, 1, 3)},
    {layout_each_block, D "txt_attn.qkv.", T "attn.add_k_proj.", BAND(1, 1, 3)},
    {layout_each_block, D "txt_attn.qkv.", T "attn.add_v_proj.", BAND(2, 1, 3)},
    {layout_each_block, D "txt_attn.norm.query_norm.scale", T "attn.norm_added_q.weight", SAME},
    {layout_each_block, D "txt_attn.norm.key_norm.scale", T "attn.norm_added_k.weight", SAME},
    {layout_each_block, D "txt_attn.proj.", T "attn.to_add_out.", SAME},
    {layout_each_block, D "txt_mlp.0.", T "ff_context.net.0.proj.", SAME},
    {layout_each_block, D "txt_mlp.2.", T "ff_context.net.2.", SAME},

    {single_block, S "modulation.lin.", U "norm.linear.", SAME},
    {single_block, S "linear1.", U "attn.to_q.", BAND(0, 1, 7)},
    {single_block, S "linear1.", U "attn.to_k.", BAND(1, 1, 7)},
    {single_block, S "linear1.", U "attn.to_v.", BAND(2, 1, 7)},
    {single_block, S "linear1.", U "proj_mlp.", BAND(3, 4, 7)},
    {single_block, S "norm.query_norm.scale", U "attn.norm_q.weight", SAME},
    {single_block, S "norm.key_norm.scale", U "attn.norm_k.weight", SAME},
    {single_block, S "linear2.", U "proj_out.", SAME},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    TRY(layout_read_count(config, "num_layers", 19, &size->blocks, error));
    return layout_read_count(config, "num_single_layers", 38, &size->single_blocks, error);
}

const struct layout_table layout_table_flux = LAYOUT_TABLE(lines, read_size);
