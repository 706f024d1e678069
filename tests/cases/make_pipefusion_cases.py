#!/usr/bin/env python3
"""PipeFusion on models without a text stream, stepped by multistep samplers, in one process: further cases of kind `pipefusion`.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_pipefusion_cases.py OUT_DIR

The rule: steps with index < `warmup_steps` run on the whole picture. In later steps, patch p = 0..P-1 (token rows p*H/P to (p+1)*H/P)
goes through all blocks in order; at each block it writes its keys and values into the block's cache and then attends to all of it, in
which patches before p are of this step and those after p of the step before. Cross attention to text is local. A patch reads no latents
but its own, and these samplers treat each latent by itself, so stepping each patch with a history of its own, as soon as its prediction is
there, is stepping the whole picture when all predictions are: that is what happens here.

Source: PipeFusion (Wang et al., arXiv 2405.14430), section 4. OUT_DIR is the folder that already holds pixart_sigma and hunyuandit.
"""
import argparse, os

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from case_writer import Writer
from denoising_loops import FAMILIES
from make_displaced_references import DisplacedAttention, WHOLE, largest_difference, rank_parts

# predicted as velocity, since what a random model says of the noise would let the latents grow by thousands
COMMON = dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction", solver_order=2)
SAMPLERS = {"dpmpp_2m": DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **COMMON), "unipc": UniPCMultistepScheduler(**COMMON)}
STEPS = 8
CASES = [  # family, sampler, patches, warm-up steps
    ("pixart", "dpmpp_2m", 1, 0), ("pixart", "dpmpp_2m", 4, 1), ("pixart", "unipc", 4, 2), ("hunyuandit", "dpmpp_2m", 1, 0),
    ("hunyuandit", "dpmpp_2m", 4, 1), ("hunyuandit", "dpmpp_2m", 3, 2), ("hunyuandit", "unipc", 4, 1)]


class PatchPipeline(DisplacedAttention):
    """One cache, renewed patch by patch: `past` is it."""

    def mixture(self, which, keys):
        if self.tokens is None:
            self.past[self.layer, which] = keys.clone()
        else:
            self.past[self.layer, which][:, :, self.tokens] = keys
        return self.past[self.layer, which]

    def predict(self, latents, step, parts):
        noise = 0
        for self.tokens, _ in parts:
            noise = noise + self.loop.predict(latents, step, self.tokens)
        return noise


def pipeline(loop, patches, warmup_steps):
    parts = rank_parts(loop, patches, False)
    with PatchPipeline(loop) as state:
        return loop.run(STEPS, lambda latents, step: state.predict(latents, step, WHOLE if step < warmup_steps or patches == 1 else parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    writer = Writer(os.path.join(out_dir, "pipefusion_multistep"), "")
    for family, name, patches, warmup_steps in CASES:
        loop = FAMILIES[family](out_dir, sampler=SAMPLERS[name])
        plain = loop.run(STEPS, loop.predict)
        assert largest_difference(pipeline(loop, 1, 0), plain) <= 1e-5 and largest_difference(pipeline(loop, patches, STEPS), plain) <= 1e-5
        noises, pictures = pipeline(loop, patches, warmup_steps)
        folder = writer.case(f"{family}_{name}_p{patches}_w{warmup_steps}", "pipefusion",
                             {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=2e-3, rtol=2e-3,
                             model="../../" + loop.folder, patches=patches, warmup_steps=warmup_steps, steps=STEPS, **loop.scalars)
        loop.sampler.save_pretrained(folder)
        print("    largest difference from one device, latents:", float((pictures - plain[1]).abs().max()))


if __name__ == "__main__":
    main()
