#!/usr/bin/env python3
"""Writes the fourth part of each line of list.tsv: what diffusers' own bfloat16 arithmetic reaches to the float32 picture, PSNR in dB.

    python3 tests/parity/make_bf16.py models/emoji-unet tests/emoji-unet-pictures        (torch, diffusers, transformers, pillow)

The noise is that of the float32 picture, rounded.
"""
import os
import sys

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image


def read(picture):
    return np.asarray(picture).astype(float) / 255


def main():
    model, folder = sys.argv[1:]
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.bfloat16)
    lines = []
    for line in open(os.path.join(folder, "list.tsv")):
        name, seed, prompt = line.rstrip("\n").split("\t")[:3]
        noise = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(int(seed)))
        made = pipeline(prompt, num_inference_steps=20, guidance_scale=4.0, height=128, width=128, latents=noise.to(torch.bfloat16)).images[0]
        difference = read(made) - read(Image.open(os.path.join(folder, name)).convert("RGB"))
        lines.append(f"{name}\t{seed}\t{prompt}\t{-10 * np.log10((difference**2).mean()):.2f}\n")
    with open(os.path.join(folder, "list.tsv"), "w") as out:
        out.writelines(lines)


main()
