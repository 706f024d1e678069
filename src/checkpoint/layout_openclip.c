/* OpenCLIP's text encoder (github.com/mlfoundations/open_clip) as SD2.x and SDXL files hold it, and
 * as transformers names it.
 *
 * Query, key and value are one tensor there, and the projection of the pooled state is a bare
 * matrix, multiplied from the other side. */
#include "checkpoint/layout_table.h"

static const struct layout_line lines[] = {
    {NULL, "token_embedding.", "text_model.embeddings.token_embedding.", SAME},
    {NULL, "positional_embedding", "text_model.embeddings.position_embedding.weight", SAME},
    {NULL, "ln_final.", "text_model.final_layer_norm.", SAME},
    {NULL, "text_projection", "text_projection.weight", TRANSPOSED},
    {layout_each_block, "transformer.resblocks.{}.ln_1.", "text_model.encoder.layers.{}.layer_norm1.", SAME},
    {layout_each_block, "transformer.resblocks.{}.ln_2.", "text_model.encoder.layers.{}.layer_norm2.", SAME},
    {layout_each_block, "transformer.resblocks.{}.mlp.c_fc.", "text_model.encoder.layers.{}.mlp.fc1.", SAME},
    {layout_each_block, "transformer.resblocks.{}.mlp.c_proj.", "text_model.encoder.layers.{}.mlp.fc2.", SAME},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.q_proj.weight",
     BAND(0, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.k_proj.weight",
     BAND(1, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.v_proj.weight",
     BAND(2, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.q_proj.bias", BAND(0, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.k_proj.bias", BAND(1, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.v_proj.bias", BAND(2, 1, 3)},
    {layout_each_block, "transformer.resblocks.{}.attn.out_proj.", "text_model.encoder.layers.{}.self_attn.out_proj.", SAME},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    return layout_read_count(config, "num_hidden_layers", 12, &size->blocks, error);
}

const struct layout_table layout_table_openclip = LAYOUT_TABLE(lines, read_size);
