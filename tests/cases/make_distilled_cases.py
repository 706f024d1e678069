#!/usr/bin/env python3
"""Writes the reference cases of U-Nets with blocks left out, as distilled models have them (Segmind's SSD-1B, Vega and tiny-sd).

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_distilled_cases.py OUT_DIR

Small widths and random weights; computed in float32 on the CPU. unet_distilled: lists of layers per transformer, other ones on the way up, a
middle of one resnet (SSD-1B). unet_no_middle: one resnet per level and no middle (tiny-sd).
"""
import argparse, os
import torch
from diffusers import UNet2DConditionModel
from make_denoiser_cases import capture, write

COMMON = dict(sample_size=16, in_channels=4, out_channels=4, norm_num_groups=8, cross_attention_dim=24, attention_head_dim=4)
MODELS = {
    "unet_distilled": dict(
        COMMON, block_out_channels=(16, 32, 32), layers_per_block=2, use_linear_projection=True, mid_block_type="UNetMidBlock2D",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, [2, 1], [3, 1]], reverse_transformer_layers_per_block=[[1, 2, 3], [2, 1, 1], 1],
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64),
    "unet_no_middle": dict(
        COMMON, block_out_channels=(16, 32, 32), layers_per_block=1, mid_block_type=None,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")),
}


def case(out_dir, name, config, seed):
    torch.manual_seed(seed)
    m = UNet2DConditionModel(**config).eval()
    m.half().save_pretrained(os.path.join(out_dir, name, "model"))
    m = m.float()
    g = torch.Generator().manual_seed(seed)
    t = {"in.sample": torch.randn(2, 4, 14, 12, generator=g), "in.timestep": torch.tensor([801.0, 33.0]),
         "in.encoder_hidden_states": torch.randn(2, 5, 24, generator=g)}
    added = None
    if config.get("addition_embed_type"):
        t["in.time_ids"] = torch.tensor([[96.0, 112.0, 0.0, 0.0, 96.0, 112.0]] * 2)
        t["in.text_embeds"] = torch.randn(2, 64 - 6 * 8, generator=g)
        added = {"time_ids": t["in.time_ids"], "text_embeds": t["in.text_embeds"]}
    capture(m, ["time_embedding", "conv_in", "up_blocks.0", "up_blocks.1"], t)
    t["out.sample"] = m(t["in.sample"], t["in.timestep"], t["in.encoder_hidden_states"], added_cond_kwargs=added).sample
    write(out_dir, name, name, t)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out_dir")
    with torch.no_grad():
        for number, (name, config) in enumerate(MODELS.items()): case(parser.parse_args().out_dir, name, config, 90 + number)
