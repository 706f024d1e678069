/* The layout tables: names in both directions, the numbering of U-Net blocks with and without
 * transformers, bands, and names that no table has. */
#include "checkpoint/layout.h"
#include "checkpoint/layout_apply.h"

#include <string.h>

#include "check.h"

static const char unet_config[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"block_out_channels\": [320, 640, 1280], \"layers_per_block\": 2,"
    " \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"],"
    " \"up_block_types\": [\"CrossAttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"]}";
static const char vae_config[] =
    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2}";
static const char sd3_config[] = "{\"_class_name\": \"SD3Transformer2DModel\", \"num_layers\": 24}";
static const char flux_config[] = "{\"_class_name\": \"FluxTransformer2DModel\", \"num_layers\": 19, \"num_single_layers\": 38}";
static const char clip_config[] = "{\"architectures\": [\"CLIPTextModel\"], \"num_hidden_layers\": 23}";

static struct json *parse(const char *text) {
    struct json *json = NULL;
    tessera_error error = {0};
    CHECK(json_parse("config.json", text, strlen(text), &json, &error) == TESSERA_OK, "%s", error.message);
    return json;
}

static struct layout *make(enum layout_kind kind, const char *text) {
    struct layout *layout = NULL;
    tessera_error error = {0};
    struct json *config = parse(text);
    CHECK(layout_new(kind, config, &layout, &error) == TESSERA_OK, "%s", error.message);
    json_free(config);
    return layout;
}

/* One pair, both ways; `index` of `count` diffusers tensors. */
static void check_pair(const struct layout *layout, const char *original, const char *diffusers, enum layout_how how, int index,
                       int count) {
    struct layout_match match, matches[LAYOUT_MAX_MATCHES];
    bool found = layout_to_original(layout, diffusers, &match);
    CHECK(found && strcmp(match.name, original) == 0 && match.change.how == how, "%s -> %s, not %s", diffusers,
          found ? match.name : "nothing", original);
    bool back = false;
    int n = layout_to_diffusers(layout, original, matches);
    for (int i = 0; i < n && i < LAYOUT_MAX_MATCHES; i++)
        back = back || (strcmp(matches[i].name, diffusers) == 0 && matches[i].change.first == index);
    CHECK(n == count && back, "%s -> %d names, among them %s: %d", original, n, diffusers, back);
}

static void check_same(const struct layout *layout, const char *original, const char *diffusers) {
    check_pair(layout, original, diffusers, LAYOUT_AS_IS, 0, 1);
}

static void check_none(const struct layout *layout, const char *name) {
    struct layout_match match, matches[LAYOUT_MAX_MATCHES];
    CHECK(layout_to_diffusers(layout, name, matches) == 0, "%.40s is taken for a tensor", name);
    CHECK(!layout_to_original(layout, name, &match), "%.40s is taken for a tensor", name);
}

static void check_unet(void) {
    struct layout *layout = make(LAYOUT_UNET, unet_config);
    check_same(layout, "input_blocks.0.0.weight", "conv_in.weight");
    check_same(layout, "input_blocks.2.0.in_layers.2.bias", "down_blocks.0.resnets.1.conv1.bias");
    check_same(layout, "input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight");
    check_same(layout, "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight",
               "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight");
    check_same(layout, "input_blocks.8.1.proj_in.weight", "down_blocks.2.attentions.1.proj_in.weight");
    check_same(layout, "middle_block.2.emb_layers.1.weight", "mid_block.resnets.1.time_emb_proj.weight");
    check_same(layout, "output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"); /* behind a transformer */
    check_same(layout, "output_blocks.5.1.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"); /* behind a resnet */
    check_same(layout, "output_blocks.8.0.skip_connection.weight", "up_blocks.2.resnets.2.conv_shortcut.weight");
    check_same(layout, "label_emb.0.2.bias", "add_embedding.linear_2.bias");
    check_none(layout, "input_blocks.1.1.proj_in.weight"); /* the first level has no transformers */
    check_none(layout, "input_blocks.9.0.op.weight");      /* nor the last a downsampler */
    check_none(layout, "input_blocks.99999999999999999999.0.in_layers.0.weight");
    check_none(layout, "");
    check_none(layout, ".");
    check_none(layout, "{}.{}.");
    char longest[300];
    memset(longest, 'x', sizeof longest - 1);
    memcpy(longest, "input_blocks.0.0.", 17);
    longest[sizeof longest - 1] = 0;
    check_none(layout, longest);
    layout_free(layout);
}

static void check_vae(void) {
    struct layout *layout = make(LAYOUT_VAE, vae_config);
    check_same(layout, "encoder.down.1.block.0.nin_shortcut.weight", "encoder.down_blocks.1.resnets.0.conv_shortcut.weight");
    check_same(layout, "encoder.down.2.downsample.conv.bias", "encoder.down_blocks.2.downsamplers.0.conv.bias");
    check_same(layout, "decoder.up.3.block.2.norm1.weight", "decoder.up_blocks.0.resnets.2.norm1.weight");
    check_same(layout, "decoder.up.1.upsample.conv.weight", "decoder.up_blocks.2.upsamplers.0.conv.weight");
    check_pair(layout, "decoder.mid.attn_1.proj_out.weight", "decoder.mid_block.attentions.0.to_out.0.weight", LAYOUT_LINEAR, 0, 1);
    check_none(layout, "decoder.up.0.upsample.conv.weight");
    layout_free(layout);
}

static void check_transformers(void) {
    struct layout *sd3 = make(LAYOUT_SD3, sd3_config), *flux = make(LAYOUT_FLUX, flux_config), *clip = make(LAYOUT_OPENCLIP, clip_config);
    check_pair(sd3, "joint_blocks.7.x_block.attn.qkv.weight", "transformer_blocks.7.attn.to_k.weight", LAYOUT_BAND, 1, 3);
    check_pair(sd3, "joint_blocks.7.x_block.attn2.qkv.bias", "transformer_blocks.7.attn2.to_v.bias", LAYOUT_BAND, 2, 3);
    check_same(sd3, "joint_blocks.22.context_block.adaLN_modulation.1.bias", "transformer_blocks.22.norm1_context.linear.bias");
    check_pair(sd3, "joint_blocks.23.context_block.adaLN_modulation.1.bias", "transformer_blocks.23.norm1_context.linear.bias",
               LAYOUT_SWAP_HALVES, 0, 1);
    check_same(sd3, "pos_embed", "pos_embed.pos_embed");
    check_none(sd3, "joint_blocks.24.x_block.attn.proj.weight");
    check_pair(flux, "single_blocks.37.linear1.weight", "single_transformer_blocks.37.proj_mlp.weight", LAYOUT_BAND, 3, 4);
    check_pair(flux, "double_blocks.18.txt_attn.qkv.bias", "transformer_blocks.18.attn.add_q_proj.bias", LAYOUT_BAND, 0, 3);
    check_same(flux, "single_blocks.0.norm.key_norm.scale", "single_transformer_blocks.0.attn.norm_k.weight");
    check_pair(flux, "final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight", LAYOUT_SWAP_HALVES, 0, 1);
    check_pair(clip, "transformer.resblocks.22.attn.in_proj_bias", "text_model.encoder.layers.22.self_attn.q_proj.bias", LAYOUT_BAND, 0, 3);
    check_pair(clip, "text_projection", "text_projection.weight", LAYOUT_TRANSPOSE, 0, 1);
    check_none(clip, "transformer.resblocks.23.ln_1.weight");
    layout_free(sd3);
    layout_free(flux);
    layout_free(clip);
}

/* Every name occurs once on the diffusers' side, and the bands of one original fill it. */
static void check_rows(enum layout_kind kind, const char *config) {
    struct layout *layout = make(kind, config);
    for (int i = 0; i < layout_count(layout); i++) {
        const struct layout_row *row = layout_at(layout, i);
        int covered = 0, same = 0;
        for (int j = 0; j < layout_count(layout); j++) {
            const struct layout_row *other = layout_at(layout, j);
            same += strcmp(row->diffusers, other->diffusers) == 0;
            if (strcmp(row->original, other->original) == 0) covered += other->change.span;
        }
        CHECK(same == 1, "%s occurs %d times", row->diffusers, same);
        CHECK(covered == row->change.bands, "%s is covered to %d of %d", row->original, covered, row->change.bands);
    }
    layout_free(layout);
}

static void check_configs(void) {
    struct json *config = parse(flux_config), *clip = parse(clip_config), *bad = parse("{\"num_layers\": \"many\"}");
    struct json *uneven = parse("{\"block_out_channels\": [1, 2], \"down_block_types\": [\"DownBlock2D\"], \"up_block_types\": []}");
    struct layout *layout = NULL;
    tessera_error error = {0};
    CHECK(layout_kind_of(config) == LAYOUT_FLUX && layout_kind_of(clip) == LAYOUT_SAME, "wrong kind of layout");
    CHECK(layout_new(LAYOUT_FLUX, bad, &layout, &error) != TESSERA_OK && strstr(error.message, "num_layers") != NULL, "%s", error.message);
    CHECK(layout_new(LAYOUT_UNET, uneven, &layout, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
    json_free(config);
    json_free(clip);
    json_free(bad);
    json_free(uneven);
}

/* A matrix in blocks becomes float32, its numbers those of the blocks; misaligned, as files may have
 * it. */
static void check_transposed_blocks(enum dtype dtype, int64_t columns) {
    enum { ROWS = 3 };
    const struct layout_change change = {.how = LAYOUT_TRANSPOSE};
    float numbers[ROWS * 128], stored[ROWS * 128], made[ROWS * 128];
    uint8_t blocks[ROWS * 128 * 4 + 1];
    tessera_error error = {0};
    struct weights_recipe recipe;
    struct tensor from = tensor_of(blocks + 1, dtype, SHAPE(ROWS, columns)), to;
    size_t count = (size_t)(ROWS * columns);
    for (size_t i = 0; i < count; i++) numbers[i] = (float)((int)(i * 37 % 101) - 50) / 50;
    uint8_t aligned[sizeof blocks];
    dtype_convert(aligned, dtype, numbers, DTYPE_F32, count);
    dtype_convert(stored, DTYPE_F32, aligned, dtype, count);
    memcpy(blocks + 1, aligned, tensor_bytes(&from));
    CHECK(layout_apply(&change, "t", &from, &to, &recipe, &error) == TESSERA_OK, "%s", error.message);
    CHECK(to.dtype == DTYPE_F32 && to.shape[0] == columns && to.shape[1] == ROWS && recipe.write != NULL, "%s", dtype_name(to.dtype));
    if (recipe.write == NULL) return;
    recipe.write(&recipe.source, made);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < columns; c++)
            CHECK(made[c * ROWS + r] == stored[r * columns + c], "%s: row %d, column %d", dtype_name(dtype), (int)r, (int)c);
}

int main(void) {
    check_unet();
    check_vae();
    check_transformers();
    check_rows(LAYOUT_UNET, unet_config);
    check_rows(LAYOUT_VAE, vae_config);
    check_rows(LAYOUT_SD3, sd3_config);
    check_rows(LAYOUT_FLUX, flux_config);
    check_rows(LAYOUT_OPENCLIP, clip_config);
    check_configs();
    check_transposed_blocks(DTYPE_Q8_0, 96);
    check_transposed_blocks(DTYPE_Q4_0, 32);
    check_transposed_blocks(DTYPE_NF4, 128);
    return CHECK_REPORT();
}
