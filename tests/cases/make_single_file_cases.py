#!/usr/bin/env python3
"""Writes single-file checkpoints in the original key layouts: the tiny models of the other cases under their original names.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python3 make_single_file_cases.py OUT_DIR

OUT_DIR is the folder that already holds pipeline_sd15 and the others; the files go to OUT_DIR/single_file. Each file is checked by
converting it back with diffusers' own functions (diffusers.loaders.single_file_utils) and comparing every tensor.
"""
import argparse, inspect, json, os, re, sys
import torch
from diffusers.loaders import single_file_utils as U
from safetensors.torch import load_file, save_file


def load(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(load_file(os.path.join(folder, name)))
    config = json.load(open(os.path.join(folder, "config.json")))
    return out, config


def swap(t):
    a, b = t.chunk(2, 0)
    return torch.cat([b, a], 0)


def rename(state, rules):
    """Each rule (pattern, replacement) whose pattern is found is applied once, in order."""
    out = {}
    for name, t in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        out[name] = t
    return out


# ------------------------------------------------------------------ each component under its original names
def unet(state, config):
    n = config["layers_per_block"]
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
              "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    top = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    out = {}
    for name, t in state.items():
        parts = name.split(".")
        if parts[0] in ("down_blocks", "up_blocks"):
            down, level, kind, i, rest = parts[0] == "down_blocks", int(parts[1]), parts[2], int(parts[3]), parts[4:]
            block = 1 + level * (n + 1) + i if down else level * (n + 1) + i
            side = "input_blocks" if down else "output_blocks"
            if kind == "resnets":
                new = f"{side}.{block}.0.{resnet[rest[0]]}.{rest[1]}"
            elif kind == "attentions":
                new = f"{side}.{block}.1.{'.'.join(rest)}"
            elif kind == "downsamplers":
                new = f"input_blocks.{(level + 1) * (n + 1)}.0.op.{rest[1]}"
            else:
                position = 2 if "CrossAttn" in config["up_block_types"][level] else 1
                new = f"output_blocks.{level * (n + 1) + n}.{position}.conv.{rest[1]}"
        elif parts[0] == "mid_block":
            if parts[1] == "resnets":
                new = f"middle_block.{2 * int(parts[2])}.{resnet[parts[3]]}.{parts[4]}"
            else:
                new = f"middle_block.1.{'.'.join(parts[3:])}"
        else:
            new = top[name.rsplit(".", 1)[0]] + "." + parts[-1]
        out[new] = t
    return out


def vae(state, config):
    levels = len(config["block_out_channels"])
    state = rename(state, [
        (r"conv_shortcut", "nin_shortcut"), (r"conv_norm_out", "norm_out"), (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"), (r"mid_block\.attentions\.0", "mid.attn_1"), (r"group_norm", "norm"),
        (r"to_out\.0", "proj_out"), (r"\.to_([qkv])\.", r".\1."), (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"), (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample")])
    out = {}
    for name, t in state.items():
        name = re.sub(r"decoder\.up\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name)
        if ".attn_1." in name and name.endswith(".weight") and ".norm." not in name:
            t = t[:, :, None, None]
        out[name] = t
    return out


def clip(state, config):
    return {k if k.startswith(("text_model.", "text_projection")) else "text_model." + k: t for k, t in state.items()}


def open_clip(state, config):
    state = clip(state, config)
    out = {}
    for i in range(config["num_hidden_layers"]):
        for kind in ("weight", "bias"):
            q, k, v = (state.pop(f"text_model.encoder.layers.{i}.self_attn.{p}_proj.{kind}") for p in "qkv")
            out[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat([q, k, v])
    if "text_projection.weight" in state:
        out["text_projection"] = state.pop("text_projection.weight").T.contiguous()
    out.update(rename(state, [
        (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"), (r"text_model\.embeddings\.token", "token"),
        (r"text_model\.final_layer_norm", "ln_final"), (r"text_model\.encoder\.layers", "transformer.resblocks"), (r"layer_norm", "ln_"),
        (r"fc1", "c_fc"), (r"fc2", "c_proj"), (r"self_attn", "attn")]))
    return out


def fuse(state, names, new):
    """Takes `names` (prefixes of weight and bias) out of `state`, one tensor `new` for all."""
    out = {}
    for kind in ("weight", "bias"):
        if names[0] + "." + kind in state:
            out[new + "." + kind] = torch.cat([state.pop(n + "." + kind) for n in names])
    return out


def sd3(state, config):
    state, out, last = dict(state), {}, config["num_layers"] - 1
    for i in range(config["num_layers"]):
        old, new = f"transformer_blocks.{i}.", f"joint_blocks.{i}."
        out |= fuse(state, [old + f"attn.to_{p}" for p in "qkv"], new + "x_block.attn.qkv")
        out |= fuse(state, [old + f"attn.add_{p}_proj" for p in "qkv"], new + "context_block.attn.qkv")
        out |= fuse(state, [old + f"attn2.to_{p}" for p in "qkv"], new + "x_block.attn2.qkv")
    for name in list(state):
        if name.startswith(("norm_out.", f"transformer_blocks.{last}.norm1_context.")):
            state[name] = swap(state[name])
    out |= rename(state, [
        (r"^pos_embed\.pos_embed", "pos_embed"), (r"^pos_embed\.proj", "x_embedder.proj"), (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"), (r"time_text_embed\.timestep_embedder\.", "t_embedder."),
        (r"time_text_embed\.text_embedder\.", "y_embedder."), (r"embedder\.linear_1", "embedder.mlp.0"),
        (r"embedder\.linear_2", "embedder.mlp.2"),
        (r"^transformer_blocks", "joint_blocks"), (r"(\d)\.norm1\.linear", r"\1.x_block.adaLN_modulation.1"),
        (r"norm1_context\.linear", "context_block.adaLN_modulation.1"), (r"(\d)\.ff\.net\.0\.proj", r"\1.x_block.mlp.fc1"),
        (r"(\d)\.ff\.net\.2", r"\1.x_block.mlp.fc2"), (r"ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
        (r"ff_context\.net\.2", "context_block.mlp.fc2"), (r"(\d)\.(attn2?)\.to_out\.0", r"\1.x_block.\2.proj"),
        (r"attn\.to_add_out", "context_block.attn.proj"), (r"(\d)\.(attn2?)\.norm_([qk])\.", r"\1.x_block.\2.ln_\3."),
        (r"attn\.norm_added_([qk])\.", r"context_block.attn.ln_\1.")])
    return out


def flux(state, config):
    state, out = dict(state), {}
    for i in range(config["num_layers"]):
        old, new = f"transformer_blocks.{i}.attn.", f"double_blocks.{i}."
        out |= fuse(state, [old + f"to_{p}" for p in "qkv"], new + "img_attn.qkv")
        out |= fuse(state, [old + f"add_{p}_proj" for p in "qkv"], new + "txt_attn.qkv")
    for i in range(config["num_single_layers"]):
        old = f"single_transformer_blocks.{i}."
        out |= fuse(state, [old + "attn.to_q", old + "attn.to_k", old + "attn.to_v", old + "proj_mlp"], f"single_blocks.{i}.linear1")
    for name in list(state):
        if name.startswith("norm_out."):
            state[name] = swap(state[name])
    names = {"q": "query_norm", "k": "key_norm"}
    state = rename(state, [
        (r"^x_embedder", "img_in"), (r"^context_embedder", "txt_in"), (r"^time_text_embed\.timestep_embedder", "time_in"),
        (r"^time_text_embed\.text_embedder", "vector_in"), (r"^time_text_embed\.guidance_embedder", "guidance_in"),
        (r"_in\.linear_1", "_in.in_layer"), (r"_in\.linear_2", "_in.out_layer"), (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"), (r"^single_transformer_blocks", "single_blocks"),
        (r"^transformer_blocks", "double_blocks"), (r"(single_blocks\.\d+)\.norm\.linear", r"\1.modulation.lin"),
        (r"(single_blocks\.\d+)\.proj_out", r"\1.linear2"), (r"norm1\.linear", "img_mod.lin"), (r"norm1_context\.linear", "txt_mod.lin"),
        (r"\.ff\.net\.0\.proj", ".img_mlp.0"), (r"\.ff\.net\.2", ".img_mlp.2"), (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
        (r"\.ff_context\.net\.2", ".txt_mlp.2"), (r"attn\.to_out\.0", "img_attn.proj"), (r"attn\.to_add_out", "txt_attn.proj")])
    for name, t in state.items():
        single = name.startswith("single")
        name = re.sub(r"attn\.norm_([qk])\.weight", lambda m: f"{'norm' if single else 'img_attn.norm'}.{names[m[1]]}.scale", name)
        name = re.sub(r"attn\.norm_added_([qk])\.weight", lambda m: f"txt_attn.norm.{names[m[1]]}.scale", name)
        out[name] = t
    return out


# ------------------------------------------------------------------ diffusers' way back
class Text:
    """What convert_open_clip_checkpoint asks a model for."""
    def __init__(self, config):
        self.config = type("Config", (), config)


def back(kind, prefix, whole, config):
    if kind is unet:
        return U.convert_ldm_unet_checkpoint(dict(whole), config)
    if kind is vae:
        return U.convert_ldm_vae_checkpoint(dict(whole), config)
    if kind is open_clip:
        return U.convert_open_clip_checkpoint(Text(config), dict(whole), prefix)
    mine = {k[len(prefix):]: t for k, t in whole.items() if k.startswith(prefix)}
    if kind is sd3:
        return U.convert_sd3_transformer_checkpoint_to_diffusers(mine)
    if kind is flux:  # the width is a constant there
        width = config["attention_head_dim"] * config["num_attention_heads"]
        source = inspect.getsource(U.convert_flux_transformer_checkpoint_to_diffusers).replace("inner_dim = 3072", f"inner_dim = {width}")
        scope = {"torch": torch}
        exec(source, scope)
        return scope["convert_flux_transformer_checkpoint_to_diffusers"](mine)
    return mine


def write(path, parts, extra=()):
    """`parts`: (folder, function, prefix)."""
    whole = {}
    loaded = [(function, prefix, *load(folder)) for folder, function, prefix in parts]
    for function, prefix, state, config in loaded:
        whole |= {prefix + k: t.contiguous().clone() for k, t in function(state, config).items()}
    for name in extra:  # what models do not ask for
        whole[name] = torch.zeros(3)
    for function, prefix, state, config in loaded:
        got = back(function, prefix, whole, config)
        want = clip(state, config) if function in (clip, open_clip) else state
        for name, t in want.items():
            if prefix == "cond_stage_model.model." and name == "text_projection.weight":
                continue  # diffusers leaves it out: SD2 does not use it
            assert name in got, f"{path}: {name} is missing after diffusers' conversion"
            assert torch.equal(got[name].reshape(t.shape), t), f"{path}: {name} differs after diffusers' conversion"
    save_file(whole, path, metadata={"format": "pt"})
    print(f"{path}: {len(whole)} tensors, {os.path.getsize(path)} bytes")


def same(state, config):
    return {k: t for k, t in state.items() if not (k == "encoder.embed_tokens.weight" and "shared.weight" in state)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out_dir")
    out = parser.parse_args().out_dir
    os.makedirs(os.path.join(out, "single_file"), exist_ok=True)
    at = lambda name, part="": os.path.join(out, name, "model", part)
    to = lambda name: os.path.join(out, "single_file", name + ".safetensors")
    d, v = "model.diffusion_model.", "first_stage_model."
    write(to("sd15"), [(at("pipeline_sd15", "unet"), unet, d), (at("pipeline_sd15", "vae"), vae, v),
                       (at("pipeline_sd15", "text_encoder"), clip, "cond_stage_model.transformer.")],
          ["alphas_cumprod", "model_ema.decay", "cond_stage_model.transformer.text_model.embeddings.position_ids"])
    write(to("sd21"), [(at("unet_sd21"), unet, d), (at("clip_g"), open_clip, "cond_stage_model.model.")],
          ["cond_stage_model.model.logit_scale"])
    write(to("sdxl"), [(at("pipeline_sdxl", "unet"), unet, d), (at("pipeline_sdxl", "vae"), vae, v),
                       (at("pipeline_sdxl", "text_encoder"), clip, "conditioner.embedders.0.transformer."),
                       (at("pipeline_sdxl", "text_encoder_2"), open_clip, "conditioner.embedders.1.model.")], ["denoiser.sigmas"])
    write(to("sd3"), [(at("pipeline_sd3", "transformer"), sd3, d), (at("pipeline_sd3", "vae"), vae, v),
                      (at("pipeline_sd3", "text_encoder"), clip, "text_encoders.clip_l.transformer."),
                      (at("pipeline_sd3", "text_encoder_2"), clip, "text_encoders.clip_g.transformer."),
                      (at("pipeline_sd3", "text_encoder_3"), same, "text_encoders.t5xxl.transformer.")])
    write(to("sd35"), [(at("sd35"), sd3, d)])
    write(to("flux"), [(at("pipeline_flux", "transformer"), flux, "")])
    write(to("flux_ae"), [(at("pipeline_flux", "vae"), vae, "")])


if __name__ == "__main__":
    sys.exit(main())
