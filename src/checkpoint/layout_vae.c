/* The autoencoder (Rombach et al. 2022) as all families share it: SD1.x to SD3 below
 * "first_stage_model.", Flux in a file of its own.
 *
 * Levels of the decoder are numbered from the smallest picture in diffusers and from the largest in
 * the original. The attention of the middle block is of 1x1 convolutions there and of linear layers
 * here. */
#include "checkpoint/layout_table.h"

static bool encoder_layer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = k / size->layers;
    original[1] = diffusers[1] = k % size->layers;
    return diffusers[0] < size->levels;
}

static bool decoder_layer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    diffusers[0] = k / (size->layers + 1);
    original[0] = size->levels - 1 - diffusers[0];
    original[1] = diffusers[1] = k % (size->layers + 1);
    return diffusers[0] < size->levels;
}

static bool downsampler(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = k;
    return k < size->levels - 1;
}

static bool upsampler(const struct layout_size *size, int k, int original[], int diffusers[]) {
    diffusers[0] = k;
    original[0] = size->levels - 1 - k;
    return k < size->levels - 1;
}

static const struct layout_line lines[] = {
    {NULL, "encoder.conv_in.", "encoder.conv_in.", SAME},
    {NULL, "encoder.conv_out.", "encoder.conv_out.", SAME},
    {NULL, "encoder.norm_out.", "encoder.conv_norm_out.", SAME},
    {encoder_layer, "encoder.down.{}.block.{}.", "encoder.down_blocks.{}.resnets.{}.", SAME},
    {encoder_layer, "encoder.down.{}.block.{}.nin_shortcut.", "encoder.down_blocks.{}.resnets.{}.conv_shortcut.", SAME},
    {downsampler, "encoder.down.{}.downsample.", "encoder.down_blocks.{}.downsamplers.0.", SAME},
    {NULL, "encoder.mid.block_1.", "encoder.mid_block.resnets.0.", SAME},
    {NULL, "encoder.mid.block_2.", "encoder.mid_block.resnets.1.", SAME},
    {NULL, "encoder.mid.attn_1.norm.", "encoder.mid_block.attentions.0.group_norm.", SAME},
    {NULL, "encoder.mid.attn_1.q.", "encoder.mid_block.attentions.0.to_q.", LINEAR},
    {NULL, "encoder.mid.attn_1.k.", "encoder.mid_block.attentions.0.to_k.", LINEAR},
    {NULL, "encoder.mid.attn_1.v.", "encoder.mid_block.attentions.0.to_v.", LINEAR},
    {NULL, "encoder.mid.attn_1.proj_out.", "encoder.mid_block.attentions.0.to_out.0.", LINEAR},
    {NULL, "decoder.conv_in.", "decoder.conv_in.", SAME},
    {NULL, "decoder.conv_out.", "decoder.conv_out.", SAME},
    {NULL, "decoder.norm_out.", "decoder.conv_norm_out.", SAME},
    {decoder_layer, "decoder.up.{}.block.{}.", "decoder.up_blocks.{}.resnets.{}.", SAME},
    {decoder_layer, "decoder.up.{}.block.{}.nin_shortcut.", "decoder.up_blocks.{}.resnets.{}.conv_shortcut.", SAME},
    {upsampler, "decoder.up.{}.upsample.", "decoder.up_blocks.{}.upsamplers.0.", SAME},
    {NULL, "decoder.mid.block_1.", "decoder.mid_block.resnets.0.", SAME},
    {NULL, "decoder.mid.block_2.", "decoder.mid_block.resnets.1.", SAME},
    {NULL, "decoder.mid.attn_1.norm.", "decoder.mid_block.attentions.0.group_norm.", SAME},
    {NULL, "decoder.mid.attn_1.q.", "decoder.mid_block.attentions.0.to_q.", LINEAR},
    {NULL, "decoder.mid.attn_1.k.", "decoder.mid_block.attentions.0.to_k.", LINEAR},
    {NULL, "decoder.mid.attn_1.v.", "decoder.mid_block.attentions.0.to_v.", LINEAR},
    {NULL, "decoder.mid.attn_1.proj_out.", "decoder.mid_block.attentions.0.to_out.0.", LINEAR},
    {NULL, "quant_conv.", "quant_conv.", SAME},
    {NULL, "post_quant_conv.", "post_quant_conv.", SAME},
};

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    int64_t channels[LAYOUT_MAX_LEVELS];
    TRY(json_ints(config, "block_out_channels", 1, 1 << 20, channels, LAYOUT_MAX_LEVELS, &size->levels, error));
    return layout_read_count(config, "layers_per_block", 1, &size->layers, error);
}

const struct layout_table layout_table_vae = LAYOUT_TABLE(lines, read_size);
