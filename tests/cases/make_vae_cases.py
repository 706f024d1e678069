#!/usr/bin/env python3
"""Writes the case vae_faint: an autoencoder on the edge of its numbers.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 tests/cases/make_vae_cases.py

Pictures and latents vary by a thousandth and each channel is a group of its own, so that the norms' epsilon counts; two of four logarithms of the
variance lie beyond where diffusers clamps them.
"""
import os

import torch
from case_writer import Writer, gen, lively
from diffusers import AutoencoderKL

w = Writer(os.path.dirname(os.path.abspath(__file__)), "")
vae = lively(AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                           layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32), 3)
for layer in (vae.encoder.conv_in, vae.post_quant_conv, vae.decoder.conv_in):  # no offsets beside which a thousandth drowns in bfloat16
    layer.bias.data.zero_()
vae.quant_conv.bias.data[4:6] = torch.tensor([40.0, -60.0])
image = 1e-3 * torch.randn((1, 3, 16, 24), generator=gen(4))
latents = 1e-3 * torch.randn((1, 4, 8, 12), generator=gen(5))
posterior = vae.encode(image).latent_dist
folder = w.case("vae_faint", "vae", {"in.image": image, "in.latents": latents, "out.image": vae.decode(latents).sample, "out.mean": posterior.mean,
                                     "out.logvar": posterior.logvar}, atol=2e-4, rtol=2e-3)
vae.to(torch.bfloat16).save_pretrained(os.path.join(folder, "model"))
