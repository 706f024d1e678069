#!/usr/bin/env python3
"""Writes tests/pipelines/defaults.json: what diffusers' pipelines do when an argument is left out, by their signatures.

    python3 tests/pipelines/make_defaults.py        (torch, diffusers 0.42.1)

test_defaults.c compares them with ours. The text-to-picture pipelines come first, then those from picture to picture.
"""
import inspect
import json
import os

import diffusers

NAMES = ["StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux", "FluxControl", "PixArtAlpha", "PixArtSigma", "HunyuanDiT"]
FIELDS = ["num_inference_steps", "guidance_scale", "strength", "max_sequence_length", "true_cfg_scale", "guidance_rescale", "use_resolution_binning", "eta"]

table = {}
for name in [n + "Pipeline" for n in NAMES] + [n + "Img2ImgPipeline" for n in NAMES]:
    if hasattr(diffusers, name):
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        table[name] = {field: parameters[field].default for field in FIELDS if field in parameters}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "defaults.json"), "w") as f:
    json.dump(table, f, indent=1)
