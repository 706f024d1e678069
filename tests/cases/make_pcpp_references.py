#!/usr/bin/env python3
"""Partially conditioned patches on diffusion transformers in one process: what n ranks that each see their direct neighbours must compute.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_pcpp_references.py OUT_DIR

As make_displaced_references.py, except for what is seen: in a step after warm-up rank p's attention among picture tokens takes

    K_p(t) = [text keys of rank p, step t; own rows: k_p(t); rows of ranks p - 1 and p + 1: k(t - 1)],   V_p(t) alike,

for picture and text queries both; rows of other ranks are left out of the softmax. Steps with index <= `warmup_steps` see everything.

Source: PCPP (Zhang, Luo and Lu 2024, arXiv 2412.02962), with all of a neighbour's patch, carried over from UNets to transformers.
OUT_DIR is the folder that already holds pipefusion, pixart_sigma and hunyuandit: their models are used.
"""
import argparse, os

import torch

from case_writer import Writer
from denoising_loops import FAMILIES
from make_displaced_references import WHOLE, DisplacedAttention, displaced, largest_difference, rank_parts

CASES = [("sd3", 3, 1, 7), ("sd3", 4, 0, 7), ("sd3", 4, 1, 7), ("flux", 4, 1, 7), ("pixart", 4, 1, 7), ("hunyuandit", 4, 1, 7)]


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    writer = Writer(os.path.join(out_dir, "pcpp"), "")
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
