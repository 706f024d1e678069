#!/usr/bin/env python3
"""Writes reference cases of denoisers on latents of unusual sizes, with the models of other cases.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_denoiser_cases.py OUT_DIR

OUT_DIR is the folder that already holds unet_sd15, unet_sdxl and hunyuandit. Computed in float32 on the CPU; a case's files are as README.md says.
"""
import argparse, json, os
import torch
from diffusers import HunyuanDiT2DModel, UNet2DConditionModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid
from safetensors.torch import save_file


def capture(module, names, tensors):
    """What the named submodules give goes into `tensors`."""
    for name in names:
        key = f"mid.{name}"
        module.get_submodule(name).register_forward_hook(lambda _module, _args, out, key=key: tensors.__setitem__(key, out.detach().clone()))


def write(out_dir, name, model, tensors):
    folder = os.path.join(out_dir, name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "io.safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    os.chmod(path, 0o644)
    with open(os.path.join(folder, "case.json"), "w") as f:
        json.dump({"kind": "denoiser", "tolerance": {"atol": 2e-4, "rtol": 2e-3}, "model": f"../{model}/model"}, f, indent=1)
    print(name, "ok", flush=True)


def unet_odd_size(out_dir):
    """Sides that do not halve evenly: 9 x 13, 5 x 7, 3 x 4."""
    m = UNet2DConditionModel.from_pretrained(os.path.join(out_dir, "unet_sd15", "model"), torch_dtype=torch.float32).eval()
    g = torch.Generator().manual_seed(77)
    t = {"in.sample": torch.randn(2, 4, 9, 13, generator=g), "in.timestep": torch.tensor([801.0, 33.0]),
         "in.encoder_hidden_states": torch.randn(2, 5, m.config.cross_attention_dim, generator=g)}
    capture(m, ["time_embedding", "conv_in", "mid_block", "up_blocks.0", "up_blocks.1"], t)
    t["out.sample"] = m(t["in.sample"], t["in.timestep"], t["in.encoder_hidden_states"]).sample
    write(out_dir, "unet_odd_size", "unet_sd15", t)


def unet_tall(out_dir, base, seed):
    """62 x 8: enough rows to be cut over many ranks, and a last part that is shorter."""
    m = UNet2DConditionModel.from_pretrained(os.path.join(out_dir, base, "model"), torch_dtype=torch.float32).eval()
    g = torch.Generator().manual_seed(seed)
    t = {"in.sample": torch.randn(1, 4, 62, 8, generator=g), "in.timestep": torch.tensor([417.0]),
         "in.encoder_hidden_states": torch.randn(1, 7, m.config.cross_attention_dim, generator=g)}
    added = None
    if m.config.addition_embed_type == "text_time":
        t["in.time_ids"] = torch.tensor([[496.0, 64.0, 0.0, 8.0, 496.0, 64.0]])
        t["in.text_embeds"] = torch.randn(1, m.config.projection_class_embeddings_input_dim - 6 * m.config.addition_time_embed_dim, generator=g)
        added = {"time_ids": t["in.time_ids"], "text_embeds": t["in.text_embeds"]}
    capture(m, ["time_embedding", "conv_in", "mid_block", "up_blocks.0", "up_blocks.1"], t)
    t["out.sample"] = m(t["in.sample"], t["in.timestep"], t["in.encoder_hidden_states"], added_cond_kwargs=added).sample
    write(out_dir, base + "_tall", base, t)


def unet_sd15_tall(out_dir):
    unet_tall(out_dir, "unet_sd15", 79)


def unet_sdxl_tall(out_dir):
    unet_tall(out_dir, "unet_sdxl", 80)


def hunyuandit_tall(out_dir):
    """11 x 5 patches: on the base's 32 x 32 positions they span 32 x 15, from column 8.5, rounded to even."""
    m = HunyuanDiT2DModel.from_pretrained(os.path.join(out_dir, "hunyuandit", "model"), torch_dtype=torch.float32).eval()
    g = torch.Generator().manual_seed(78)
    c, h, w = m.config, 11, 5
    side = 512 // 8 // c.patch_size
    rope = get_2d_rotary_pos_embed(c.attention_head_dim, get_resize_crop_region_for_grid((h, w), side), (h, w), output_type="pt")
    t = {"in.hidden_states": torch.randn(1, c.in_channels, h * c.patch_size, w * c.patch_size, generator=g), "in.timestep": torch.tensor([451.0]),
         "in.encoder_hidden_states": torch.randn(1, c.text_len, c.cross_attention_dim, generator=g),
         "in.text_embedding_mask": (torch.arange(c.text_len) < 3).float()[None],
         "in.encoder_hidden_states_t5": torch.randn(1, c.text_len_t5, c.cross_attention_dim_t5, generator=g),
         "in.text_embedding_mask_t5": (torch.arange(c.text_len_t5) < 8).float()[None]}
    capture(m, ["pos_embed", "time_extra_emb", "blocks.0", "blocks.1"], t)
    t["out.sample"] = m(t["in.hidden_states"], t["in.timestep"], t["in.encoder_hidden_states"], t["in.text_embedding_mask"],
                        t["in.encoder_hidden_states_t5"], t["in.text_embedding_mask_t5"], image_rotary_emb=rope, return_dict=False)[0]
    write(out_dir, "hunyuandit_tall", "hunyuandit", t)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    torch.set_grad_enabled(False)
    for write_case in (unet_odd_size, unet_sd15_tall, unet_sdxl_tall, hunyuandit_tall):
        write_case(out_dir)


if __name__ == "__main__":
    main()
