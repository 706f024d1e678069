#!/usr/bin/env python3
"""Writes the pipeline cases of SD 1.5 and 2, SDXL, Flux, PixArt and HunyuanDiT that go beyond those of the reference scripts.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 safetensors sentencepiece
    python3 make_pipeline_cases.py OUT_DIR [--only PREFIX]

OUT_DIR is the folder that already holds pipeline_sd15, pipeline_sdxl, pipeline_sd3, pipeline_flux, pipeline_pixart and
pipeline_hunyuandit: their models and tokenizers are used again. case_writer.py says what a case folder holds. Beside that, a pipeline's
case.json may have "scheduler" (a class that takes the folder's own scheduler's place), "text_encoder" and the like (a folder, relative to
the case, that takes a component's place), and "crop" [top, left, rows, columns] (out.image_crop is that part of the picture).
"""
import argparse, os, shutil, tempfile
import diffusers as D, torch
from case_writer import NEGATIVE, PROMPT, Writer, init_picture, lively, run_case
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

FAMILIES = {  # folder, text to picture, picture to picture
    "sd15": ("pipeline_sd15", D.StableDiffusionPipeline, D.StableDiffusionImg2ImgPipeline),
    "sd2": ("pipeline_sd2_v_zero_snr", D.StableDiffusionPipeline, D.StableDiffusionImg2ImgPipeline),
    "sdxl": ("pipeline_sdxl", D.StableDiffusionXLPipeline, D.StableDiffusionXLImg2ImgPipeline),
    "sd3": ("pipeline_sd3", D.StableDiffusion3Pipeline, D.StableDiffusion3Img2ImgPipeline),
    "flux": ("pipeline_flux", D.FluxPipeline, D.FluxImg2ImgPipeline),
    "pixart": ("pipeline_pixart", D.PixArtSigmaPipeline, None),
    "hunyuandit": ("pipeline_hunyuandit", D.HunyuanDiTPipeline, None),
}
SECOND = "a red apple, watercolour"
SMALL = dict(use_resolution_binning=False)
PIXART = dict(clean_caption=False, max_sequence_length=24, **SMALL)


def open_pipeline(w, family, image=False):
    folder, text_to_picture, picture_to_picture = FAMILIES[family]
    pipe = (picture_to_picture if image else text_to_picture).from_pretrained(w.path(folder, "model"), torch_dtype=torch.float32)
    return quiet(pipe)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    # The pipelines ask for text_encoder.text_model's final norm with clip_skip; transformers 5 has that module in text_encoder itself.
    if hasattr(pipe.text_encoder, "final_layer_norm"): object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    return pipe


def simple_case(w, family, name, call, prompt=PROMPT, size=(64, 96), steps=3, seed=21, image=False, scheduler=None, **more):
    """A case of a given model. `image`: picture to picture, whose size SD's and SDXL's pipelines take from the picture."""
    name = f"pipeline_{family}_{name}"
    if not w.wanted(name): return
    pipe = open_pipeline(w, family, image)
    scalars = dict(model=f"../{FAMILIES[family][0]}/model")
    if scheduler:
        pipe.scheduler = getattr(D, scheduler).from_config(pipe.scheduler.config)
        scalars["scheduler"] = scheduler
    if image:
        picture, tensor = init_picture(*size)
        sizes = dict(height=size[0], width=size[1]) if family in ("sd3", "flux") else {}
        more.update(extra=dict(image=tensor, **sizes), inputs={"in.init_image": picture})
        scalars["pipeline_class"] = type(pipe).__name__
    run_case(w, name, pipe, prompt, *size, steps, seed, call, scalars=scalars, **more)


# ------------------------------------------------------------------ the given models
def guidance(w):
    for family, scale, extra in (("sd15", 7.5, {}), ("sdxl", 5.0, {}), ("pixart", 4.5, PIXART), ("hunyuandit", 5.0, SMALL)):
        simple_case(w, family, "negative", dict(guidance_scale=scale, negative_prompt=NEGATIVE, **extra))
        simple_case(w, family, "no_guidance", dict(guidance_scale=1.0, **extra))
    simple_case(w, "sdxl", "no_negative", dict(guidance_scale=5.0))
    for family in ("sd15", "sdxl"):
        simple_case(w, family, "rescale", dict(guidance_scale=7.5, guidance_rescale=0.7, negative_prompt=NEGATIVE))
    simple_case(w, "hunyuandit", "rescale", dict(guidance_scale=6.0, guidance_rescale=0.7, negative_prompt=NEGATIVE, **SMALL))
    flux = dict(guidance_scale=3.5, max_sequence_length=24)
    simple_case(w, "flux", "true_cfg", dict(true_cfg_scale=3.0, negative_prompt=NEGATIVE, **flux))
    simple_case(w, "flux", "true_cfg_empty", dict(true_cfg_scale=3.0, negative_prompt="", **flux))
    simple_case(w, "flux", "true_cfg_no_negative", dict(true_cfg_scale=3.0, **flux))
    simple_case(w, "flux", "negative_unused", dict(negative_prompt=NEGATIVE, **flux))
    simple_case(w, "flux", "guidance_1", dict(guidance_scale=1.0, max_sequence_length=24))


def batches(w):
    calls = dict(sd15=dict(guidance_scale=7.5), sdxl=dict(guidance_scale=5.0), flux=dict(guidance_scale=3.5, max_sequence_length=24),
                 pixart=dict(guidance_scale=4.5, **PIXART), hunyuandit=dict(guidance_scale=5.0, **SMALL))
    for family, call in calls.items():
        negative = {} if family == "flux" else dict(negative_prompt=NEGATIVE)
        simple_case(w, family, "batch", dict(**negative, **call), prompt=[PROMPT, SECOND], size=(64, 64), seed=22)
        simple_case(w, family, "num_images", dict(num_images_per_prompt=2, **call), size=(48, 64), seed=23)
    simple_case(w, "sd15", "batch_num_images", dict(num_images_per_prompt=2, **calls["sd15"]), prompt=[PROMPT, SECOND], size=(48, 64),
                seed=24, scheduler="EulerAncestralDiscreteScheduler")


def image_to_image(w):
    """Five steps of strength 0.5: SD and SDXL run the last two, SD3 and Flux the last three."""
    sd = dict(guidance_scale=6.0, negative_prompt=NEGATIVE)
    flux = dict(guidance_scale=3.5, max_sequence_length=24)
    for family, call in (("sd15", sd), ("sdxl", sd), ("flux", flux)):
        simple_case(w, family, "img2img", dict(strength=0.6, **call), steps=5, seed=25, image=True)
        simple_case(w, family, "img2img_half", dict(strength=0.5, **call), steps=5, seed=26, image=True)
        simple_case(w, family, "img2img_num_images", dict(strength=0.8, num_images_per_prompt=2, **call), size=(48, 64), steps=4,
                    seed=27, image=True)
    simple_case(w, "sd3", "img2img_half", dict(strength=0.5, guidance_scale=5.0, max_sequence_length=24), steps=5, seed=26, image=True)
    for scheduler in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
                      "UniPCMultistepScheduler"):
        short = scheduler.replace("Scheduler", "").replace("Discrete", "").replace("Multistep", "").lower()
        simple_case(w, "sd15", f"img2img_{short}", dict(strength=0.7, **sd), size=(48, 64), steps=5, seed=28, image=True,
                    scheduler=scheduler)
    simple_case(w, "sd2", "img2img", dict(strength=0.7, **sd), size=(48, 64), steps=5, seed=28, image=True)
    simple_case(w, "sdxl", "img2img_rescale", dict(strength=0.7, guidance_rescale=0.7, **sd), size=(48, 64), steps=4, seed=29, image=True)
    simple_case(w, "flux", "img2img_true_cfg", dict(strength=0.7, true_cfg_scale=2.0, negative_prompt=NEGATIVE, **flux), size=(48, 64),
                steps=4, seed=29, image=True)


def samplers(w):
    """DDPM in SD 2's folder, whose scheduler does not clip: random weights make signs of clipped latents, which bfloat16 gets wrong."""
    call = dict(guidance_scale=7.5, negative_prompt=NEGATIVE)
    for scheduler, steps in (("UniPCMultistepScheduler", 5), ("EulerAncestralDiscreteScheduler", 4), ("DPMSolverMultistepScheduler", 5),
                             ("EulerDiscreteScheduler", 4)):
        short = scheduler.replace("Scheduler", "").replace("Discrete", "").replace("Multistep", "").lower()
        simple_case(w, "sd15", short, call, size=(48, 64), steps=steps, seed=30, scheduler=scheduler)
    simple_case(w, "sd15", "lcm", dict(guidance_scale=1.0), size=(48, 64), steps=4, seed=30, scheduler="LCMScheduler")
    simple_case(w, "hunyuandit", "dpmsolver", dict(guidance_scale=5.0, **SMALL), size=(48, 64), steps=4, seed=30,
                scheduler="DPMSolverMultistepScheduler")
    simple_case(w, "sdxl", "eulerancestral", call, size=(48, 64), steps=4, seed=30, scheduler="EulerAncestralDiscreteScheduler")
    simple_case(w, "sd2", "ddpm", call, size=(48, 64), steps=4, seed=30, scheduler="DDPMScheduler")
    simple_case(w, "pixart", "unipc", dict(guidance_scale=4.5, **PIXART), size=(48, 64), steps=4, seed=30,
                scheduler="UniPCMultistepScheduler")


def sizes(w):
    """Latents of odd numbers of rows, which the UNet must give back; sizes that diffusers rounds down; SDXL's micro-conditions."""
    simple_case(w, "sd15", "odd_size", dict(guidance_scale=7.5), size=(72, 104), seed=31)
    simple_case(w, "sdxl", "odd_size", dict(guidance_scale=5.0, negative_prompt=""), size=(104, 72), seed=31)
    simple_case(w, "hunyuandit", "rounded", dict(guidance_scale=5.0, **SMALL), size=(70, 100), seed=31)
    sizes_given = dict(original_size=[480, 640], crops_coords_top_left=[16, 40], target_size=[96, 160])
    simple_case(w, "sdxl", "micro_conditions", dict(guidance_scale=5.0, **sizes_given), seed=31)
    simple_case(w, "sdxl", "img2img_micro_conditions", dict(guidance_scale=5.0, strength=0.6, **sizes_given), size=(48, 64), steps=4,
                seed=31, image=True)


def clip_skip(w):
    for family, call in (("sd15", dict(guidance_scale=7.5)), ("sdxl", dict(guidance_scale=5.0)),
                         ("sd3", dict(guidance_scale=5.0, max_sequence_length=16))):
        simple_case(w, family, "clip_skip_1", dict(clip_skip=1, negative_prompt=NEGATIVE, **call), size=(48, 64), seed=32)
        deep_text_case(w, family, f"pipeline_{family}_clip_skip_2", dict(clip_skip=2, negative_prompt=NEGATIVE, **call))


def clip_like(encoder, layers, seed, **changes):
    config = encoder.config.to_dict()
    config.update(num_hidden_layers=layers, **changes)
    return lively(type(encoder)(CLIPTextConfig(**config)), seed)


def deep_text_case(w, family, name, call):
    """Text encoders of four layers in the place of the model's own. SDXL's second has the old eos_token_id of 2: the last token's row is
    that of the largest id."""
    if not w.wanted(name): return
    pipe = open_pipeline(w, family)
    scalars = dict(model=f"../{FAMILIES[family][0]}/model")
    parts = ["text_encoder"] if family == "sd15" else ["text_encoder", "text_encoder_2"]
    for seed, part in enumerate(parts):
        changes = dict(eos_token_id=2) if (family, part) == ("sdxl", "text_encoder_2") else {}
        setattr(pipe, part, clip_like(getattr(pipe, part), 4, 81 + seed, **changes))
        scalars[part] = part
    folder = run_case(w, name, quiet(pipe), PROMPT, 48, 64, 3, 33, call, scalars=scalars)
    for part in parts:
        getattr(pipe, part).to(torch.bfloat16).save_pretrained(os.path.join(folder, part), safe_serialization=True)


# ------------------------------------------------------------------ models of their own
def own_model_case(w, name, pipe, *arguments, **more):
    """A case with a model of its own, run as diffusers reads it back: a tokenizer changed in memory acts otherwise."""
    with tempfile.TemporaryDirectory() as model:
        pipe.to(torch.bfloat16).save_pretrained(model, safe_serialization=True)
        folder = run_case(w, name, quiet(type(pipe).from_pretrained(model, torch_dtype=torch.float32)), *arguments, **more)
        shutil.copytree(model, os.path.join(folder, "model"))


def small_vae(seed, **settings):
    return lively(D.AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4,
                                  up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[4, 4, 8, 8], layers_per_block=1,
                                  norm_num_groups=4, latent_channels=4, sample_size=128, **settings), seed)


def sd2_pipeline(w, scheduler, seed, pad=None, **text):
    """As Stable Diffusion 2: linear projections, heads by level, a GELU text encoder; with `pad` a padding token of its own, which is then
    special wherever it stands in a prompt."""
    tok = CLIPTokenizer.from_pretrained(w.path("pipeline_sd15", "model", "tokenizer"))
    words = len(tok)
    if pad:
        tok.pad_token = pad
        assert tok.pad_token_id == 0 and len(tok) == words
    settings = dict(vocab_size=words, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3, projection_dim=16,
                    max_position_embeddings=77, hidden_act="gelu", bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1)
    settings.update(text)
    unet = D.UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16, 16),
                                  down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), norm_num_groups=4,
                                  attention_head_dim=[1, 2, 2], cross_attention_dim=24, use_linear_projection=True)
    return quiet(D.StableDiffusionPipeline(small_vae(seed), lively(CLIPTextModel(CLIPTextConfig(**settings)), seed + 1), tok,
                                           lively(unet, seed + 2), scheduler, None, None, requires_safety_checker=False))


def sd2(w):
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    call = dict(guidance_scale=7.5, guidance_rescale=0.7, negative_prompt=NEGATIVE)
    name = "pipeline_sd2_v_zero_snr"
    if w.wanted(name):
        scheduler = D.DDIMScheduler(**betas, prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
                                    clip_sample=False, set_alpha_to_one=False)
        own_model_case(w, name, sd2_pipeline(w, scheduler, 91), PROMPT, 64, 96, 4, 34, call)
    name = "pipeline_sd2_pad_token"
    if w.wanted(name):
        scheduler = D.DPMSolverMultistepScheduler(**betas, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
        pipe = sd2_pipeline(w, scheduler, 94, pad="!", eos_token_id=2, pad_token_id=0)
        own_model_case(w, name, pipe, "a red apple! watercolour", 64, 96, 4, 35, dict(guidance_scale=7.5))


def schnell(w):
    """No guidance embedding, a fixed schedule; the text encoder has the old eos_token_id of 2, as Flux's has."""
    call = dict(guidance_scale=0.0, max_sequence_length=24)
    given = dict(num_attention_heads=2, attention_head_dim=16, axes_dims_rope=(4, 6, 6), num_layers=1, num_single_layers=1, in_channels=16,
                 patch_size=1, joint_attention_dim=40, pooled_projection_dim=24, guidance_embeds=False)
    name = "pipeline_flux_schnell"
    if not w.wanted(name): return
    dev = open_pipeline(w, "flux")
    vae = small_vae(97, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    pipe = quiet(D.FluxPipeline(D.FlowMatchEulerDiscreteScheduler(shift=1.0), vae, clip_like(dev.text_encoder, 2, 98, eos_token_id=2),
                                dev.tokenizer, dev.text_encoder_2, dev.tokenizer_2, lively(D.FluxTransformer2DModel(**given), 99)))
    own_model_case(w, name, pipe, PROMPT, 64, 96, 4, 36, call)


def flux_control(w):
    """Flux Depth and Canny: the latents of a control picture behind those of the noise, drawn anew for each picture of a prompt."""
    name, call = "pipeline_flux_control", dict(guidance_scale=10.0, max_sequence_length=24)
    others = ("num_images", "img2img")
    if not any(w.wanted(n) for n in (name, *(f"{name}_{other}" for other in others))): return
    given = dict(num_attention_heads=4, attention_head_dim=16, axes_dims_rope=(4, 6, 6), num_layers=2, num_single_layers=2, in_channels=32,
                 out_channels=16, patch_size=1, joint_attention_dim=40, pooled_projection_dim=24, guidance_embeds=True)
    dev = open_pipeline(w, "flux")
    vae = small_vae(95, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    pipe = quiet(D.FluxControlPipeline(dev.scheduler, vae, dev.text_encoder, dev.tokenizer, dev.text_encoder_2, dev.tokenizer_2,
                                       lively(D.FluxTransformer2DModel(**given), 96)))

    def pictures(height, width, image=False):
        control, tensor = init_picture(width, height)  # init_picture's other way round, so that it is not the starting picture
        control, tensor = control.transpose(0, 1).contiguous(), tensor.transpose(2, 3)
        extra, inputs = dict(control_image=2 * tensor - 1, height=height, width=width), {"in.control_image": control}
        if image: inputs["in.init_image"], extra["image"] = init_picture(height, width)
        return dict(extra=extra, inputs=inputs)

    if w.wanted(name): own_model_case(w, name, pipe, PROMPT, 64, 96, 4, 39, call, **pictures(64, 96))
    pipe = quiet(D.FluxControlPipeline.from_pretrained(w.path(name, "model"), torch_dtype=torch.float32))
    scalars = dict(model=f"../{name}/model")
    if w.wanted(f"{name}_num_images"):
        run_case(w, f"{name}_num_images", pipe, PROMPT, 48, 64, 3, 40, dict(num_images_per_prompt=2, **call), scalars=scalars,
                 **pictures(48, 64))
    if w.wanted(f"{name}_img2img"):
        pipe = quiet(D.FluxControlImg2ImgPipeline(**pipe.components))
        run_case(w, f"{name}_img2img", pipe, PROMPT, 48, 64, 5, 41, dict(strength=0.6, **call), scalars=scalars,
                 **pictures(48, 64, image=True))


# ------------------------------------------------------------------ bins of picture sizes
def pixart_bins(w):
    """Alpha works at bins of about 1024 x 1024 and is told the size; Sigma of a smaller sample_size at bins of 256 x 256. Both give the
    picture back at the size asked for. No max_sequence_length: the class's own (120, 300)."""
    for cls, sample_size, cases in (
            (D.PixArtAlphaPipeline, 128, (("pipeline_pixart_alpha", (96, 64), dict(use_resolution_binning=False)),
                                          ("pipeline_pixart_alpha_bins", (60, 100), dict()))),
            (D.PixArtSigmaPipeline, 32, (("pipeline_pixart_sigma_bins", (100, 150), dict()),
                                         ("pipeline_pixart_sigma_bins_tall", (330, 90), dict(guidance_scale=1.0))))):
        first = cases[0][0]
        if not any(w.wanted(name) for name, _, _ in cases): continue
        given = open_pipeline(w, "pixart")
        transformer = D.PixArtTransformer2DModel(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2,
                                                 cross_attention_dim=24, sample_size=sample_size, patch_size=2, caption_channels=40)
        scheduler = D.DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        pipe = quiet(cls(given.tokenizer, given.text_encoder, small_vae(101), lively(transformer, 102), scheduler))
        for name, size, call in cases:
            arguments = (PROMPT.capitalize(), *size, 2, 37, dict(clean_caption=False, **call))
            if not w.wanted(name): continue
            if name == first:
                own_model_case(w, name, pipe, *arguments)
            else:
                run_case(w, name, pipe.to(torch.float32), *arguments, scalars=dict(model=f"../{first}/model"))


def hunyuandit_bins(w):
    """1000 x 700 becomes 1024 x 768, which the picture keeps."""
    call = dict(guidance_scale=5.0)
    simple_case(w, "hunyuandit", "bins", call, size=(1000, 700), steps=2, seed=38, crop=[500, 300, 64, 96])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    w = Writer(a.out, a.only)
    for make in (sd2, guidance, batches, image_to_image, samplers, sizes, clip_skip, schnell, flux_control, pixart_bins, hunyuandit_bins): make(w)


if __name__ == "__main__":
    main()
