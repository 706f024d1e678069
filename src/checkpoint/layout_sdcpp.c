/* OpenCLIP's text encoder as stable-diffusion.cpp names it when it converts names
 * (src/name_conversion.cpp at 97d2990): transformers' names, but query, key and value stay one
 * tensor, and the projection of the pooled state lies as OpenCLIP has it. Older versions cut the
 * three apart. */
#include "checkpoint/layout_table.h"

#define ATTENTION "text_model.encoder.layers.{}.self_attn."

static const struct layout_line lines[] = {
    {NULL, "", "", SAME},
    {NULL, "text_model.text_projection", "text_projection.weight", TRANSPOSED},
    {layout_each_block, ATTENTION "in_proj.weight", ATTENTION "q_proj.weight", BAND(0, 1, 3)},
    {layout_each_block, ATTENTION "in_proj.weight", ATTENTION "k_proj.weight", BAND(1, 1, 3)},
    {layout_each_block, ATTENTION "in_proj.weight", ATTENTION "v_proj.weight", BAND(2, 1, 3)},
    {layout_each_block, ATTENTION "in_proj.bias", ATTENTION "q_proj.bias", BAND(0, 1, 3)},
    {layout_each_block, ATTENTION "in_proj.bias", ATTENTION "k_proj.bias", BAND(1, 1, 3)},
    {layout_each_block, ATTENTION "in_proj.bias", ATTENTION "v_proj.bias", BAND(2, 1, 3)},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    return layout_read_count(config, "num_hidden_layers", 12, &size->blocks, error);
}

const struct layout_table layout_table_sdcpp = LAYOUT_TABLE(lines, read_size);
