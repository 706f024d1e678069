#!/usr/bin/env python3
"""Writes ssim.tsv beside this file: what scikit-image computes for pairs of pictures that the tests have anyway.

    python3 tests/metrics/make_ssim.py        (scikit-image, pillow), in the repository root
"""
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

PAIRS = [(f"tests/metrics/case/a/{i:04d}.png", f"tests/metrics/case/b/{i:04d}.png") for i in (0, 1, 3, 4, 5)]
PAIRS += [(f"tests/emoji-pictures/{i:02d}.png", f"tests/emoji-unet-pictures/{i:02d}.png") for i in (0, 1, 3)]


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def main():
    with open("tests/metrics/ssim.tsv", "w") as out:
        for a, b in PAIRS:
            value = structural_similarity(
                read(a), read(b), channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            out.write(f"{a}\t{b}\t{value:.12f}\n")


main()
