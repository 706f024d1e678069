#!/usr/bin/env python3
"""Writes the reference cases that go beyond those of the reference scripts: picture to picture, batches, no T5,
no guidance, dynamic shifting, other sizes, tiles, and the older key layouts of weight files.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 safetensors sentencepiece
    python3 make_cases.py OUT_DIR [--only PREFIX]

OUT_DIR is the folder that already holds pipeline_sd3, sd3, clip_l and vae_sd (see README.md): their models and tokenizers are
used again. case_writer.py says what a case folder holds; make_pipeline_cases.py makes those of the other pipelines.
"""
import argparse, json, os, shutil
import diffusers as D, torch
from case_writer import NEGATIVE, PROMPT, Writer, gen, init_picture, lively, run_case
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


# ------------------------------------------------------------------ whole pipelines
def sd3_pipeline(w, cls=D.StableDiffusion3Pipeline):
    pipe = cls.from_pretrained(w.path("pipeline_sd3", "model"), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small_pipeline(w, **scheduler):
    """Stable Diffusion 3 without T5, smaller than pipeline_sd3's."""
    tok = CLIPTokenizer.from_pretrained(w.path("pipeline_sd3", "model", "tokenizer"))
    words = len(tok)

    def clip(hidden, projection, seed):
        return lively(CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=words, hidden_size=hidden, intermediate_size=2 * hidden,
                      num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, projection_dim=projection,
                      hidden_act="quick_gelu", bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1)), seed)
    transformer = D.SD3Transformer2DModel(sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=2, attention_head_dim=8,
                                          num_attention_heads=2, joint_attention_dim=48, caption_projection_dim=16,
                                          pooled_projection_dim=24, pos_embed_max_size=12)
    vae = D.AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4, block_out_channels=[4, 4, 8, 8],
                          up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, norm_num_groups=4, latent_channels=8,
                          sample_size=128, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False)
    pipe = D.StableDiffusion3Pipeline(lively(transformer, 61), D.FlowMatchEulerDiscreteScheduler(shift=3.0, **scheduler), lively(vae, 62),
                                      clip(16, 8, 63), tok, clip(24, 16, 64), tok, None, None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_to_image(w):
    """The generator draws the noise of the posterior's sample first, then that of the latents."""
    for name, strength, steps in (("pipeline_sd3_img2img", 0.6, 5), ("pipeline_sd3_img2img_90", 0.9, 10)):
        if not w.wanted(name): continue
        height, width = 64, 96
        picture, image = init_picture(height, width)
        call = dict(strength=strength, guidance_scale=5.0, negative_prompt=NEGATIVE, max_sequence_length=24)
        run_case(w, name, sd3_pipeline(w, D.StableDiffusion3Img2ImgPipeline), PROMPT, height, width, steps, 11, call,
                 extra=dict(image=image, height=height, width=width), inputs={"in.init_image": picture},
                 scalars=dict(model="../pipeline_sd3/model"))


def batches(w):
    call = dict(guidance_scale=4.5, negative_prompt=NEGATIVE, max_sequence_length=20)
    same = dict(model="../pipeline_sd3/model")
    if w.wanted("pipeline_sd3_batch"):
        run_case(w, "pipeline_sd3_batch", sd3_pipeline(w), [PROMPT, "a red apple, watercolour"], 80, 64, 4, 12, call, scalars=same)
    if w.wanted("pipeline_sd3_num_images"):
        run_case(w, "pipeline_sd3_num_images", sd3_pipeline(w), PROMPT, 64, 80, 4, 13, call, extra=dict(num_images_per_prompt=2),
                 scalars=dict(num_images=2, **same))
    if w.wanted("pipeline_sd3_no_guidance"):
        call = dict(guidance_scale=1.0, max_sequence_length=20)
        run_case(w, "pipeline_sd3_no_guidance", sd3_pipeline(w), PROMPT, 96, 64, 4, 14, call, scalars=same)


def small_pipelines(w):
    """model_index.json names text_encoder_3 and tokenizer_3 as [null, null]."""
    call = dict(guidance_scale=5.0, negative_prompt=NEGATIVE, max_sequence_length=16)
    dynamic = dict(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=16, max_image_seq_len=144)
    for name, scheduler, size, seed in (("pipeline_sd3_no_t5", {}, (96, 64), 15), ("pipeline_sd3_dynamic", dynamic, (64, 128), 16)):
        if not w.wanted(name): continue
        pipe = small_pipeline(w, **scheduler)
        folder = run_case(w, name, pipe, PROMPT, *size, 6, seed, call)
        pipe.to(torch.bfloat16).save_pretrained(os.path.join(folder, "model"), safe_serialization=True)


# ------------------------------------------------------------------ parts
def vaes(w):
    def vae():
        return D.AutoencoderKL.from_pretrained(w.path("vae_sd", "model"), torch_dtype=torch.float32).eval()
    g = gen(71)
    image = torch.rand(1, 3, 192, 64, generator=g) * 2 - 1
    tall, wide = torch.randn(1, 4, 48, 16, generator=g), torch.randn(1, 4, 24, 28, generator=g)
    if w.wanted("vae_large"):
        v = vae()
        posterior = v.encode(image).latent_dist
        w.case("vae_large", "vae", {"in.image": image, "in.latents": tall, "out.mean": posterior.mean, "out.logvar": posterior.logvar,
                                    "out.image": v.decode(tall).sample}, model="../vae_sd/model")
    if w.wanted("vae_tiled"):
        v = vae()
        v.enable_tiling()
        assert max(wide.shape[2:]) > v.tile_latent_min_size
        w.case("vae_tiled", "vae", {"in.latents": wide, "out.image": v.decode(wide).sample}, model="../vae_sd/model", tiling=True)


def rename_keys(file, rename):
    save_file({rename(k): v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})


def vae_old_attention(w):
    """Attention weights named as diffusers did before 0.15: query, key, value, proj_attn."""
    if not w.wanted("vae_old_attention"): return
    v = lively(D.AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 2, block_out_channels=[8, 16],
                               up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1, norm_num_groups=4, latent_channels=4,
                               sample_size=32), 72)
    g = gen(73)
    image, latents = torch.rand(1, 3, 24, 32, generator=g) * 2 - 1, torch.randn(1, 4, 12, 16, generator=g)
    posterior = v.encode(image).latent_dist
    out = v.decode(latents).sample
    folder = w.case("vae_old_attention", "vae", {"in.image": image, "in.latents": latents, "out.mean": posterior.mean,
                                                 "out.logvar": posterior.logvar, "out.image": out})
    model = os.path.join(folder, "model")
    v.to(torch.bfloat16).save_pretrained(model, safe_serialization=True)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(key):
        for new, name in old.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{name}.")
        return key
    rename_keys(os.path.join(model, "diffusion_pytorch_model.safetensors"), rename)
    again = D.AutoencoderKL.from_pretrained(model, torch_dtype=torch.float32)
    assert torch.equal(again.decode(latents).sample, out), "diffusers reads the old names otherwise"


def sd3_crop(w):
    """7 x 5 patches out of a position table of 16 x 16: crops at (16 - 7) // 2 and (16 - 5) // 2."""
    if not w.wanted("sd3_crop"): return
    m = D.SD3Transformer2DModel.from_pretrained(w.path("sd3", "model"), torch_dtype=torch.float32).eval()
    g = gen(74)
    t = {"in.hidden_states": torch.randn(1, 16, 14, 10, generator=g), "in.encoder_hidden_states": torch.randn(1, 13, 40, generator=g),
         "in.pooled_projections": torch.randn(1, 24, generator=g), "in.timestep": torch.tensor([333.25])}
    t["out.sample"] = m(t["in.hidden_states"], t["in.encoder_hidden_states"], t["in.pooled_projections"], t["in.timestep"]).sample
    w.case("sd3_crop", "denoiser", t, model="../sd3/model")


def clip_prefix(w):
    """clip_l's model with "text_model." before every key, as transformers before 5 wrote it: the same inputs, the same outputs."""
    if not w.wanted("clip_prefix"): return
    t = load_file(w.path("clip_l", "io.safetensors"))
    with open(w.path("clip_l", "case.json")) as f: scalars = json.load(f)
    kind, tolerance = scalars.pop("kind"), scalars.pop("tolerance")
    folder = w.case("clip_prefix", kind, t, **tolerance, **scalars)
    model = os.path.join(folder, "model")
    shutil.copytree(w.path("clip_l", "model"), model)
    rename_keys(os.path.join(model, "model.safetensors"), lambda key: key if key.startswith("text_model.") else "text_model." + key)
    m = CLIPTextModel.from_pretrained(model, dtype=torch.float32).eval()
    difference = (m(t["in.input_ids"]).last_hidden_state - t["out.last_hidden_state"]).abs().max().item()
    assert difference < 1e-5, f"transformers reads the prefixed keys otherwise: {difference}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    w = Writer(a.out, a.only)
    for make in (image_to_image, small_pipelines, batches, vaes, sd3_crop, clip_prefix, vae_old_attention): make(w)


if __name__ == "__main__":
    main()
