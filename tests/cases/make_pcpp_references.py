#!/usr/bin/env python3
"""Partially conditioned patches in one process: what n ranks that each see their direct neighbours must compute.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python3 make_pcpp_references.py OUT_DIR

Transformers: as make_displaced_references.py, except for what is seen: in a step after warm-up rank p's attention among picture tokens takes

    K_p(t) = [text keys of rank p, step t; own rows: k_p(t); rows of ranks p - 1 and p + 1: k(t - 1)],   V_p(t) alike,

for picture and text queries both; rows of other ranks are left out of the softmax. Steps with index <= `warmup_steps` see everything.

U-Nets: as patched_unet.py defines it, in the loop of distrifusion_sd15_single. With every rank in reach it must reproduce what the published
DistriFusion code computed.

Source: PCPP (Zhang, Luo and Lu 2024, arXiv 2412.02962), with all of a neighbour's patch; from U-Nets we carry it over to transformers.
OUT_DIR is the folder that already holds pipefusion, pixart_sigma, hunyuandit and distrifusion: their models are used.
"""
import argparse, json, os

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from case_writer import Writer
from denoising_loops import FAMILIES, load
from make_displaced_references import WHOLE, DisplacedAttention, displaced, largest_difference, rank_parts
from patched_unet import UNetPatches

CASES = [("sd3", 3, 1, 7), ("sd3", 4, 0, 7), ("sd3", 4, 1, 7), ("flux", 4, 1, 7), ("pixart", 4, 1, 7), ("hunyuandit", 4, 1, 7)]
UNET_ROW_UNIT = 4  # latent rows: the tiny U-Nets halve their pictures twice


class NeighbourAttention(DisplacedAttention):
    """Leaves out what belongs to neither this rank nor a direct neighbour."""

    def __init__(self, loop, parts):
        super().__init__(loop)
        self.parts = parts

    def seen(self, total):
        rank = [tokens for tokens, _ in self.parts].index(self.tokens)
        near = [tokens for tokens, _ in self.parts[max(rank - 1, 0):rank + 2]]
        count = self.loop.grid[0] * self.loop.grid[1]
        text, picture = torch.arange(total - count), torch.arange(count)[near[0].start:near[-1].stop]
        return torch.cat([text, total - count + picture] if self.loop.text_first else [picture, count + text])

    def mixture(self, which, keys):
        mixed = super().mixture(which, keys)
        return mixed if self.tokens is None else mixed[:, :, self.seen(mixed.shape[2])]


def neighbours(loop, patches, warmup_steps, steps):
    parts = rank_parts(loop, patches, False)
    with NeighbourAttention(loop, parts) as ranks:
        return loop.run(steps, lambda latents, step: ranks.predict(latents, step, WHOLE if step <= warmup_steps else parts))


def check(loop):
    """Two ranks see each other and are displaced patches; four miss something."""
    assert largest_difference(neighbours(loop, 2, 0, 7), displaced(loop, 2, 0, 7)) <= 1e-6, loop.family
    assert largest_difference(neighbours(loop, 4, 0, 7), displaced(loop, 4, 0, 7)) > 1e-3, loop.family


def run_unet(out_dir, case, patches, reach):
    """The loop of a case of DistriFusion's with other patches: the case's tensors, predictions, latents and the sampler."""
    folder = os.path.join(out_dir, "distrifusion", case)
    with open(os.path.join(folder, "case.json")) as f:
        settings = json.load(f)
    tensors, sampler = load_file(os.path.join(folder, "io.safetensors")), DDIMScheduler.from_pretrained(folder)
    unet = load(UNet2DConditionModel, folder, settings["model"])
    ranks = UNetPatches(unet, tensors["in.sample"].shape[2], UNET_ROW_UNIT, patches, reach)
    return settings, tensors, sampler, ranks.run(sampler, settings["steps"], settings["warmup_steps"], tensors, settings["guidance_scale"])


def check_published(out_dir):
    """With all ranks in reach, patches are those of the published DistriFusion code."""
    for case, patches in ("distrifusion_sd15_patch2_corrected", 2), ("distrifusion_patch4_corrected", 4):
        _, tensors, _, got = run_unet(out_dir, case, patches, patches)
        worst = largest_difference(got, (tensors["out.noise"], tensors["out.latents"]))
        print(case, "difference from the published code", worst)
        assert worst <= 1e-3, (case, worst)


def write_unets(out_dir, writer):
    check_published(out_dir)
    for patches in 3, 4:
        settings, tensors, sampler, (noises, pictures) = run_unet(out_dir, "distrifusion_sd15_single", patches, 1)
        inputs = {name: tensor for name, tensor in tensors.items() if name in ("in.sample", "in.encoder_hidden_states")}
        warmup_steps = settings["warmup_steps"]
        folder = writer.case(f"pcpp_sd15_p{patches}_w{warmup_steps}", "distrifusion", {**inputs, "out.noise": noises, "out.latents": pictures},
                             atol=2e-3, rtol=2e-3, model="../../distrifusion/model_sd15", ranks=patches, parallelism="pcpp",
                             mode="corrected_async_gn", warmup_steps=warmup_steps, steps=settings["steps"],
                             guidance_scale=settings["guidance_scale"])
        sampler.save_pretrained(folder)
        everything = run_unet(out_dir, "distrifusion_sd15_single", patches, patches)[3]
        difference = largest_difference((noises, pictures), everything)
        print("    difference from displaced patches", difference)
        assert difference > 1e-2, (patches, difference)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    writer = Writer(os.path.join(out_dir, "pcpp"), "")
    write_unets(out_dir, writer)
    for family, make in FAMILIES.items():
        loop = make(out_dir)
        plain = loop.run(7, loop.predict)
        check(loop)
        for _, patches, warmup_steps, steps in [c for c in CASES if c[0] == family]:
            noises, pictures = neighbours(loop, patches, warmup_steps, steps)
            folder = writer.case(f"pcpp_{family}_p{patches}_w{warmup_steps}", "displaced",
                                 {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=2e-3, rtol=2e-3,
                                 model="../../" + loop.folder, parallelism="pcpp", patches=patches, warmup_steps=warmup_steps,
                                 steps=steps, **loop.scalars)
            loop.sampler.save_pretrained(folder)
            difference = pictures - plain[1]
            print("    difference from one rank, latents: largest", float(difference.abs().max()), "rms", float(difference.square().mean().sqrt()))


if __name__ == "__main__":
    main()
