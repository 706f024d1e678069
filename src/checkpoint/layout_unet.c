/* The U-Net of SD1.x, SD2.x and SDXL in the layout of latent diffusion (Rombach et al. 2022,
 * github.com/CompVis/latent-diffusion).
 *
 * The original numbers its blocks in one row: input block 0 is conv_in; then each level has
 * layers_per_block blocks (".0" the resnet, ".1" the transformer) and, but for the last level, one
 * that halves the size. Output blocks have one more per level, and the last of a level also doubles
 * the size: as ".1" where the level has no transformers, else ".2". Names inside a transformer are
 * the same. */
#include <cjson/cJSON.h>
#include <string.h>

#include "checkpoint/layout_table.h"

static bool down_layer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    diffusers[0] = k / size->layers;
    diffusers[1] = k % size->layers;
    original[0] = 1 + diffusers[0] * (size->layers + 1) + diffusers[1];
    return diffusers[0] < size->levels;
}

static bool up_layer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = k;
    diffusers[0] = k / (size->layers + 1);
    diffusers[1] = k % (size->layers + 1);
    return diffusers[0] < size->levels;
}

/* A set may skip a number: a negative original stands for "not this one". */
static bool down_transformer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    if (!down_layer(size, k, original, diffusers)) return false;
    if (!size->down_attention[diffusers[0]]) original[0] = -1;
    return true;
}

static bool up_transformer(const struct layout_size *size, int k, int original[], int diffusers[]) {
    if (!up_layer(size, k, original, diffusers)) return false;
    if (!size->up_attention[diffusers[0]]) original[0] = -1;
    return true;
}

static bool downsampler(const struct layout_size *size, int k, int original[], int diffusers[]) {
    diffusers[0] = k;
    original[0] = (k + 1) * (size->layers + 1);
    return k < size->levels - 1;
}

static bool upsampler(const struct layout_size *size, int k, int original[], int diffusers[]) {
    diffusers[0] = k;
    original[0] = k * (size->layers + 1) + size->layers;
    original[1] = size->up_attention[k] ? 2 : 1;
    return k < size->levels - 1;
}

static bool mid_resnet(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = 2 * k;
    diffusers[0] = k;
    return k < 2;
}

static const struct layout_line lines[] = {
    {NULL, "time_embed.0.", "time_embedding.linear_1.", SAME},
    {NULL, "time_embed.2.", "time_embedding.linear_2.", SAME},
    {NULL, "label_emb.0.0.", "add_embedding.linear_1.", SAME},
    {NULL, "label_emb.0.2.", "add_embedding.linear_2.", SAME},
    {NULL, "input_blocks.0.0.", "conv_in.", SAME},
    {NULL, "out.0.", "conv_norm_out.", SAME},
    {NULL, "out.2.", "conv_out.", SAME},

    {down_layer, "input_blocks.{}.0.in_layers.0.", "down_blocks.{}.resnets.{}.norm1.", SAME},
    {down_layer, "input_blocks.{}.0.in_layers.2.", "down_blocks.{}.resnets.{}.conv1.", SAME},
    {down_layer, "input_blocks.{}.0.emb_layers.1.", "down_blocks.{}.resnets.{}.time_emb_proj.", SAME},
    {down_layer, "input_blocks.{}.0.out_layers.0.", "down_blocks.{}.resnets.{}.norm2.", SAME},
    {down_layer, "input_blocks.{}.0.out_layers.3.", "down_blocks.{}.resnets.{}.conv2.", SAME},
    {down_layer, "input_blocks.{}.0.skip_connection.", "down_blocks.{}.resnets.{}.conv_shortcut.", SAME},
    {down_transformer, "input_blocks.{}.1.", "down_blocks.{}.attentions.{}.", SAME},
    {downsampler, "input_blocks.{}.0.op.", "down_blocks.{}.downsamplers.0.conv.", SAME},

    {mid_resnet, "middle_block.{}.in_layers.0.", "mid_block.resnets.{}.norm1.", SAME},
    {mid_resnet, "middle_block.{}.in_layers.2.", "mid_block.resnets.{}.conv1.", SAME},
    {mid_resnet, "middle_block.{}.emb_layers.1.", "mid_block.resnets.{}.time_emb_proj.", SAME},
    {mid_resnet, "middle_block.{}.out_layers.0.", "mid_block.resnets.{}.norm2.", SAME},
    {mid_resnet, "middle_block.{}.out_layers.3.", "mid_block.resnets.{}.conv2.", SAME},
    {NULL, "middle_block.1.", "mid_block.attentions.0.", SAME},

    {up_layer, "output_blocks.{}.0.in_layers.0.", "up_blocks.{}.resnets.{}.norm1.", SAME},
    {up_layer, "output_blocks.{}.0.in_layers.2.", "up_blocks.{}.resnets.{}.conv1.", SAME},
    {up_layer, "output_blocks.{}.0.emb_layers.1.", "up_blocks.{}.resnets.{}.time_emb_proj.", SAME},
    {up_layer, "output_blocks.{}.0.out_layers.0.", "up_blocks.{}.resnets.{}.norm2.", SAME},
    {up_layer, "output_blocks.{}.0.out_layers.3.", "up_blocks.{}.resnets.{}.conv2.", SAME},
    {up_layer, "output_blocks.{}.0.skip_connection.", "up_blocks.{}.resnets.{}.conv_shortcut.", SAME},
    {up_transformer, "output_blocks.{}.1.", "up_blocks.{}.attentions.{}.", SAME},
    {upsampler, "output_blocks.{}.{}.conv.", "up_blocks.{}.upsamplers.0.conv.", SAME},
};

/* Which blocks of `field` are of a kind with transformers ("CrossAttnDownBlock2D")? */
static tessera_status read_attention(const struct json *config, const char *field, int levels, bool out[], tessera_error *error) {
    const cJSON *list = json_find(config, field);
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != levels)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s: must list one block for each of block_out_channels", json_path(config),
                         field);
    int i = 0;
    for (const cJSON *item = list->child; item != NULL; item = item->next, i++)
        out[i] = cJSON_IsString(item) && strstr(item->valuestring, "CrossAttn") != NULL;
    return TESSERA_OK;
}

static tessera_status read_size(const struct json *config, struct layout_size *size, tessera_error *error) {
    int64_t channels[LAYOUT_MAX_LEVELS];
    TRY(json_ints(config, "block_out_channels", 1, 1 << 20, channels, LAYOUT_MAX_LEVELS, &size->levels, error));
    TRY(layout_read_count(config, "layers_per_block", 2, &size->layers, error));
    TRY(read_attention(config, "down_block_types", size->levels, size->down_attention, error));
    return read_attention(config, "up_block_types", size->levels, size->up_attention, error);
}

const struct layout_table layout_table_unet = LAYOUT_TABLE(lines, read_size);
