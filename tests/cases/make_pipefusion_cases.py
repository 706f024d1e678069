#!/usr/bin/env python3
"""PipeFusion in one process: on models without a text stream, stepped by multistep samplers; and from the first step on, without a
step as a whole. Further cases of kind `pipefusion`.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_pipefusion_cases.py OUT_DIR

The rule: steps with index < `warmup_steps` run on the whole picture. In later steps, patch p = 0..P-1 (token rows p*H/P to (p+1)*H/P)
goes through all blocks in order; at each block it writes its keys and values into the block's cache and then attends to all of it, in
which patches before p are of this step and those after p of the step before. Where there was none, because `warmup_steps` is 0, those
after p are not in the cache. Text that goes through the blocks goes with patch 0 and leaves its keys and values for the others; cross
attention to text is local. A patch reads no latents but its own, and these samplers treat each latent by itself, so stepping each patch
with a history of its own, as soon as its prediction is there, is stepping the whole picture when all predictions are: that is what
happens here.

Source: PipeFusion (Wang et al., arXiv 2405.14430), section 4. OUT_DIR is the folder that already holds pipefusion, pixart_sigma and
hunyuandit.
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
COLD_CASES = [  # the same without warm-up; None: the family's own sampler
    ("sd3", None, 4, 0), ("flux", None, 3, 0), ("pixart", "dpmpp_2m", 4, 0), ("hunyuandit", "unipc", 3, 0)]


class PatchPipeline(DisplacedAttention):
    """One cache, renewed patch by patch: `past` is the picture's, `words` the text's."""

    def __init__(self, loop):
        super().__init__(loop)
        self.words = {}

    def renew(self, place, keys):
        """The picture's cache with this patch's keys in it; in a first step without warm-up it grows patch by patch."""
        past = self.past.get(place)
        if self.tokens is None:
            past = keys.clone()
        elif past is None or past.shape[2] == self.tokens.start:
            past = keys.clone() if past is None else torch.cat([past, keys], 2)
        else:
            past[:, :, self.tokens] = keys
        self.past[place] = past
        return past

    def mixture(self, which, keys):
        place, first = (self.layer, which), self.loop.text_first
        if not self.loop.joint_text:
            return self.renew(place, keys)
        words = len(range(self.loop.text_tokens)[self.text or slice(None)])
        picture, text = (keys[:, :, words:], keys[:, :, :words]) if first else keys.split([keys.shape[2] - words, words], 2)
        if words > 0:
            self.words[place] = text
        past, text = self.renew(place, picture), self.words[place]
        return torch.cat([text, past] if first else [past, text], 2)

    def predict(self, latents, step, parts):
        noise = 0
        for self.tokens, self.text in parts:
            noise = noise + self.loop.predict(latents, step, self.tokens, self.text)
        return noise


def patch_parts(loop, patches):
    """Each patch's tokens of the picture and, as far as it goes through the blocks, of the text: all with the first."""
    return [(tokens, slice(0, loop.text_tokens if p == 0 else 0)) for p, (tokens, _) in enumerate(rank_parts(loop, patches, False))]


def pipeline(loop, patches, warmup_steps):
    parts = patch_parts(loop, patches)
    with PatchPipeline(loop) as state:
        return loop.run(STEPS, lambda latents, step: state.predict(latents, step, WHOLE if step < warmup_steps or patches == 1 else parts))


def write_cases(writer, out_dir, cases):
    for family, name, patches, warmup_steps in cases:
        loop = FAMILIES[family](out_dir, **({} if name is None else {"sampler": SAMPLERS[name]}))
        plain = loop.run(STEPS, loop.predict)
        assert largest_difference(pipeline(loop, 1, 0), plain) <= 1e-5 and largest_difference(pipeline(loop, patches, STEPS), plain) <= 1e-5
        noises, pictures = pipeline(loop, patches, warmup_steps)
        folder = writer.case("_".join(filter(None, (family, name, f"p{patches}", f"w{warmup_steps}"))), "pipefusion",
                             {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=2e-3, rtol=2e-3,
                             model="../../" + loop.folder, patches=patches, warmup_steps=warmup_steps, steps=STEPS, **loop.scalars)
        loop.sampler.save_pretrained(folder)
        print("    largest difference from one device, latents:", float((pictures - plain[1]).abs().max()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    write_cases(Writer(os.path.join(out_dir, "pipefusion_multistep"), ""), out_dir, CASES)
    write_cases(Writer(os.path.join(out_dir, "pipefusion_cold"), ""), out_dir, COLD_CASES)


if __name__ == "__main__":
    main()
