"""What make_displaced_references.py and make_cache_references.py share: a guided denoising loop over the tiny model of another case.

A Loop holds a model, the inputs of its case and a sampler. `predict` is one guided noise prediction by diffusers' own forward; the scripts
change what that forward does by hooks on the modules that a Loop names, never by other code, so that what they do not change is diffusers'.
"""
import os
from dataclasses import dataclass, field

import torch
from diffusers import (DDIMScheduler, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, HunyuanDiT2DModel, PixArtTransformer2DModel,
                       SD3Transformer2DModel)
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

from case_writer import gen

torch.set_num_threads(1)


@dataclass
class Loop:
    family: str
    folder: str  # of the model, relative to OUT_DIR
    model: torch.nn.Module
    sampler: object
    noise: torch.Tensor  # the latents to start from
    grid: tuple  # rows and columns of picture tokens
    inputs: dict  # in.* of the case
    scalars: dict  # case.json: guidance_scale, or guidance for a model that embeds it
    forward: object  # (latents, step, tokens, words) -> prediction of every guidance branch; slices of picture and text, None: all
    embed: torch.nn.Module = None  # gives the picture tokens that enter the blocks
    finish: torch.nn.Module = None  # takes those that leave them
    blocks: list = field(default_factory=list)
    attentions: list = field(default_factory=list)  # among picture tokens, in order
    joint_text: bool = False  # whether text tokens go through the blocks too
    text_tokens: int = 0  # how many that are
    text_first: bool = False  # where a joint attention puts them

    def predict(self, latents, step, tokens=None, words=None):
        branches = self.forward(latents, step, tokens, words)
        if "guidance_scale" not in self.scalars:
            return branches
        uncond, cond = branches[:1], branches[1:]
        return uncond + self.scalars["guidance_scale"] * (cond - uncond)

    def run(self, steps, predict):
        """Noise predictions and latents of all steps; `predict`: (latents, step) -> noise."""
        self.sampler.set_timesteps(steps)
        latents, noises, pictures = self.noise.clone(), [], []
        for step, timestep in enumerate(self.sampler.timesteps):
            noises.append(predict(latents, step))
            latents = self.sampler.step(noises[-1], timestep, latents).prev_sample
            pictures.append(latents)
        return torch.stack(noises), torch.stack(pictures)


def load(cls, root, folder):
    return cls.from_pretrained(os.path.join(root, folder), torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()


def flow(shift):
    """The larger the shift, the smaller the first steps and the larger the last."""
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def ddim():
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False,
                         set_alpha_to_one=False, steps_offset=1)


def sd3(root, seed=90, shift=None):
    m, s, g = load(SD3Transformer2DModel, root, "pipefusion/model"), flow(shift or 3.0), gen(seed)
    rows, columns = 11, 6
    noise = torch.randn(1, 16, 2 * rows, 2 * columns, generator=g)
    text, pooled = torch.randn(2, 9, 40, generator=g), torch.randn(2, 24, generator=g)

    def forward(x, step, tokens, words):
        return m(torch.cat([x, x]), text, pooled, s.timesteps[step].expand(2)).sample

    return Loop("sd3", "pipefusion/model", m, s, noise, (rows, columns),
                {"in.sample": noise, "in.encoder_hidden_states": text, "in.pooled_projections": pooled}, {"guidance_scale": 4.0}, forward,
                m.pos_embed, m.proj_out, list(m.transformer_blocks), [b.attn for b in m.transformer_blocks], joint_text=True, text_tokens=9)


def flux(root, seed=91, shift=None):
    m, s, g = load(FluxTransformer2DModel, root, "pipefusion/model_flux"), flow(shift or 3.0), gen(seed)
    rows, columns, guidance = 9, 6, 3.5
    noise = torch.randn(1, rows * columns, 16, generator=g)
    text, pooled = torch.randn(1, 9, 40, generator=g), torch.randn(1, 24, generator=g)
    text_ids, ids = torch.zeros(9, 3), torch.zeros(rows, columns, 3)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)[None]
    ids = ids.reshape(-1, 3)

    def forward(x, step, tokens, words):
        return m(hidden_states=x, encoder_hidden_states=text, pooled_projections=pooled, timestep=s.sigmas[step: step + 1],
                 txt_ids=text_ids[words or slice(None)], img_ids=ids[tokens or slice(None)], guidance=torch.tensor([guidance])).sample

    blocks = list(m.transformer_blocks) + list(m.single_transformer_blocks)
    return Loop("flux", "pipefusion/model_flux", m, s, noise, (rows, columns),
                {"in.hidden_states": noise, "in.encoder_hidden_states": text, "in.pooled_projections": pooled, "in.img_ids": ids,
                 "in.txt_ids": text_ids}, {"guidance": guidance, "grid": [rows, columns]}, forward,
                m.x_embedder, m.proj_out, blocks, [b.attn for b in blocks], joint_text=True, text_tokens=9, text_first=True)


def pixart(root, seed=92, shift=None, sampler=None):
    m, s, g = load(PixArtTransformer2DModel, root, "pixart_sigma/model"), sampler or (flow(shift) if shift else ddim()), gen(seed)
    rows, columns = 9, 7
    noise, text = torch.randn(1, 4, 2 * rows, 2 * columns, generator=g), torch.randn(2, 9, 40, generator=g)
    mask = torch.ones(2, 9)
    mask[0, 2:], mask[1, 7:] = 0, 0

    def forward(x, step, tokens, words):
        return m(torch.cat([x, x]), encoder_hidden_states=text, timestep=s.timesteps[step].expand(2), encoder_attention_mask=mask,
                 added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample.chunk(2, 1)[0]

    return Loop("pixart", "pixart_sigma/model", m, s, noise, (rows, columns),
                {"in.sample": noise, "in.encoder_hidden_states": text, "in.encoder_attention_mask": mask}, {"guidance_scale": 4.5}, forward,
                m.pos_embed, m.proj_out, list(m.transformer_blocks), [b.attn1 for b in m.transformer_blocks])


def hunyuandit(root, seed=93, shift=None, sampler=None):
    m, s, g = load(HunyuanDiT2DModel, root, "hunyuandit/model"), sampler or (flow(shift) if shift else ddim()), gen(seed)
    rows, columns, base = 9, 7, 32
    noise = torch.randn(1, 4, 2 * rows, 2 * columns, generator=g)
    text, text_t5 = torch.randn(2, 7, 24, generator=g), torch.randn(2, 9, 40, generator=g)
    mask, mask_t5 = torch.ones(2, 7), torch.ones(2, 9)
    mask[0, 2:], mask[1, 5:], mask_t5[0, 1:], mask_t5[1, 6:] = 0, 0, 0, 0
    crop = get_resize_crop_region_for_grid((rows, columns), base)
    rotary = get_2d_rotary_pos_embed(m.config.attention_head_dim, crop, (rows, columns), output_type="pt")

    def forward(x, step, tokens, words):
        angles = rotary if tokens is None else tuple(r[tokens] for r in rotary)
        return m(torch.cat([x, x]), s.timesteps[step].expand(2).float(), text, mask, text_t5, mask_t5, image_rotary_emb=angles,
                 return_dict=False)[0].chunk(2, 1)[0]

    return Loop("hunyuandit", "hunyuandit/model", m, s, noise, (rows, columns),
                {"in.sample": noise, "in.encoder_hidden_states": text, "in.text_embedding_mask": mask,
                 "in.encoder_hidden_states_t5": text_t5, "in.text_embedding_mask_t5": mask_t5},
                {"guidance_scale": 5.0, "resize_base": base}, forward,
                m.pos_embed, m.proj_out, list(m.blocks), [b.attn1 for b in m.blocks])


FAMILIES = {"sd3": sd3, "flux": flux, "pixart": pixart, "hunyuandit": hunyuandit}
