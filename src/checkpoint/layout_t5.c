/* T5's encoder as llama.cpp names it (gguf-py/gguf/tensor_mapping.py, architecture "t5encoder"),
 * and as transformers does. */
#include "checkpoint/layout_table.h"

#define LAYER "encoder.block.{}.layer."

static const struct layout_line lines[] = {
    {NULL, "token_embd.", "shared.", SAME},
    {NULL, "enc.output_norm.", "encoder.final_layer_norm.", SAME},
    {layout_each_block, "enc.blk.{}.attn_q.", LAYER "0.SelfAttention.q.", SAME},
    {layout_each_block, "enc.blk.{}.attn_k.", LAYER "0.SelfAttention.k.", SAME},
    {layout_each_block, "enc.blk.{}.attn_v.", LAYER "0.SelfAttention.v.", SAME},
    {layout_each_block, "enc.blk.{}.attn_o.", LAYER "0.SelfAttention.o.", SAME},
    {layout_each_block, "enc.blk.{}.attn_rel_b.", LAYER "0.SelfAttention.relative_attention_bias.", SAME},
    {layout_each_block, "enc.blk.{}.attn_norm.", LAYER "0.layer_norm.", SAME},
    {layout_each_block, "enc.blk.{}.ffn_gate.", LAYER "1.DenseReluDense.wi_0.", SAME},
    {layout_each_block, "enc.blk.{}.ffn_up.", LAYER "1.DenseReluDense.wi_1.", SAME},
    {layout_each_block, "enc.blk.{}.ffn_down.", LAYER "1.DenseReluDense.wo.", SAME},
    {layout_each_block, "enc.blk.{}.ffn_norm.", LAYER "1.layer_norm.", SAME},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    return layout_read_count(config, "num_layers", 24, &size->blocks, error);
}

const struct layout_table layout_table_t5 = LAYOUT_TABLE(lines, read_size);
