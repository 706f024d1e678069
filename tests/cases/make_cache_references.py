#!/usr/bin/env python3
"""Step caches on diffusion transformers: steps that reuse what the blocks added to the picture tokens in an earlier step.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_cache_references.py OUT_DIR

h_0(t) are the picture tokens that enter the first block in step t, h_i(t) those that leave block i, L the number of blocks (Flux: double
and single). d(a, b) = mean |a - b| / mean |b| over all elements of all picture tokens of both guidance branches. c < t is the last step
that was computed; a skipped step changes nothing that is kept of it. The first step is always computed.

fbcache   r(t) = h_1(t) - h_0(t).  If d(r(t), r(c)) < threshold, the step is skipped: h_L(t) = h_1(t) + (h_L(c) - h_1(c)).
teacache  m(t) = the first block's modulated input, that is what its self-attention is given (h_0 normalised, scaled and shifted).
          a += p(d(m(t), m(t - 1))), where m(t - 1) is kept of every step, skipped or not. If a < threshold, and t is neither the first
          nor the last step, the step is skipped: h_L(t) = h_0(t) + (h_L(c) - h_0(c)). Otherwise it is computed and a = 0.
          p is a polynomial: for Flux the published one, else p(x) = x.

What the text tokens would have become is of no use, as nothing after the last block reads them. Between the published forms this takes:
- fbcache as ParaAttention and diffusers 0.42 (hooks/first_block_cache.py) define it. diffusers skips at d <= threshold, ParaAttention at
  d < threshold. xDiT (model_executor/cache/utils.py) differs in two ways that look unintended: it adds the residual of blocks 2 to L to h_0
  instead of h_1, and it also replaces r(c) in a skipped step that follows a computed one.
- teacache as ali-vilab/TeaCache's teacache_flux.py. xDiT's copy does not count the first step, so that it computes the first two steps of a
  picture always, and its last step only by the threshold.

Sources: Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", CVPR 2025, arXiv 2411.19108 (TeaCache);
ParaAttention's README (first block cache). OUT_DIR is the folder that already holds pipefusion, pixart_sigma and hunyuandit.

Every decision keeps a margin of a fifth: the number compared is at least 1.2 times the threshold or at most the threshold / 1.2.
"""
import argparse, os

import torch
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

from case_writer import Writer
from denoising_loops import FAMILIES

FLUX_POLYNOMIAL = [4.98651651e+02, -2.83781631e+02, 5.58554382e+01, -3.82021401e+00, 2.64230861e-01]  # highest power first
MARGIN = 1.2
CASES = [  # family, cache, threshold, steps, seed of the inputs, shift of a flow schedule (None: the family's own sampler)
    ("sd3", "fbcache", 0.91, 7, 200, 30.0), ("flux", "fbcache", 0.708, 6, 202, 30.0), ("pixart", "fbcache", 0.292, 7, 201, 8.0),
    ("hunyuandit", "fbcache", 0.467, 6, 200, 30.0), ("sd3", "teacache", 0.377, 8, 90, None), ("flux", "teacache", 0.393, 7, 200, 15.0),
    ("pixart", "teacache", 0.415, 8, 92, None), ("hunyuandit", "teacache", 0.5, 8, 93, None)]


def picture_of(output):
    """The picture tokens among what a block gives: (text, picture), or the picture alone."""
    return output[1] if isinstance(output, tuple) else output


def with_picture(output, picture):
    return (output[0], picture) if isinstance(output, tuple) else picture


def relative_change(now, before):
    return float((now - before).abs().mean() / before.abs().mean())


def polynomial(coefficients, x):
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


class StepCache:
    """Replaces the forward of each block. `decisions` holds for each step the number that was compared, None where none was."""

    def __init__(self, loop, threshold, steps):
        self.loop, self.threshold, self.steps = loop, threshold, steps
        self.step, self.skip, self.decisions, self.skipped = 0, False, [], []
        self.residual = None  # what the skipped blocks added in the last computed step
        self.forwards = [block.forward for block in loop.blocks]

    def __enter__(self):
        for index, block in enumerate(self.loop.blocks):
            block.forward = lambda *args, index=index, **named: self.block(index, *args, **named)
        return self

    def __exit__(self, *_):
        for block in self.loop.blocks:
            del block.forward

    def block(self, index, hidden_states, **named):
        if index == 0:
            return self.first(hidden_states, named)
        if self.skip:
            text = named.get("encoder_hidden_states")
            output = (text, hidden_states) if self.loop.joint_text else hidden_states
        else:
            output = self.forwards[index](hidden_states, **named)
            if index == len(self.forwards) - 1:
                self.residual = picture_of(output) - self.entered
        return output

    def decide(self, compared, skip):
        self.decisions.append(compared)
        self.skip = skip
        if skip:
            self.skipped.append(self.step)
        self.step += 1


class FirstBlockCache(StepCache):
    before = None  # r(c)

    def first(self, hidden_states, named):
        output = self.forwards[0](hidden_states, **named)
        picture = picture_of(output)
        change = picture - hidden_states
        compared = None if self.before is None else relative_change(change, self.before)
        self.decide(compared, compared is not None and compared < self.threshold)
        if self.skip:
            return with_picture(output, picture + self.residual)
        self.before, self.entered = change, picture
        return output


class TeaCache(StepCache):
    before, accumulated = None, 0.0  # m(t - 1), a

    def first(self, hidden_states, named):
        modulated = self.modulated(hidden_states, named)
        inner = 0 < self.step < self.steps - 1
        if inner:
            coefficients = FLUX_POLYNOMIAL if self.loop.family == "flux" else [1.0, 0.0]
            self.accumulated += polynomial(coefficients, relative_change(modulated, self.before))
        self.before = modulated
        self.decide(self.accumulated if inner else None, inner and self.accumulated < self.threshold)
        if self.skip:
            picture = hidden_states + self.residual
            return (named["encoder_hidden_states"], picture) if self.loop.joint_text else picture
        self.accumulated, self.entered = 0.0, hidden_states
        return self.forwards[0](hidden_states, **named)

    def modulated(self, hidden_states, named):
        block = self.loop.blocks[0]
        if self.loop.family == "pixart":
            shift, scale = (block.scale_shift_table[None] + named["timestep"].reshape(len(hidden_states), 6, -1)).chunk(6, 1)[:2]
            return block.norm1(hidden_states) * (1 + scale) + shift
        if self.loop.family == "hunyuandit":
            return block.norm1(hidden_states, named["temb"])
        return block.norm1(hidden_states, emb=named["temb"])[0]


CACHES = {"fbcache": FirstBlockCache, "teacache": TeaCache}


def cached(loop, cache, threshold, steps):
    with CACHES[cache](loop, threshold, steps) as state:
        return state, loop.run(steps, loop.predict)


def check_margins(state):
    for compared in state.decisions:
        assert compared is None or not state.threshold / MARGIN < compared < state.threshold * MARGIN, (state.decisions, state.threshold)
    assert 2 <= len(state.skipped) <= state.steps - 3, state.skipped


def check_modulated(loop):
    """The modulated input is what the first block's self-attention is given."""
    given = []
    hook = loop.attentions[0].register_forward_pre_hook(
        lambda _module, args, named: given.append(args[0] if args else named["hidden_states"]), with_kwargs=True)
    with TeaCache(loop, 0.0, 1) as state:
        loop.run(1, loop.predict)
    hook.remove()
    assert torch.equal(given[0], state.before)


def check_against_diffusers(loop, threshold, steps, noises):
    """diffusers' own hook on its own model."""
    apply_first_block_cache(loop.model, FirstBlockCacheConfig(threshold=threshold))

    def predict(latents, step):
        with loop.model.cache_context("one"):
            return loop.predict(latents, step)

    theirs, _ = loop.run(steps, predict)
    assert torch.allclose(theirs, noises, atol=1e-5, rtol=1e-5), float((theirs - noises).abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    writer = Writer(os.path.join(out_dir, "step_cache"), "")
    for family, cache, threshold, steps, seed, shift in CASES:
        loop = FAMILIES[family](out_dir, seed, shift)
        plain = loop.run(steps, loop.predict)
        none, never = cached(loop, cache, 0.0, steps)
        assert not none.skipped and torch.equal(never[1], plain[1])
        check_modulated(loop)
        state, (noises, pictures) = cached(loop, cache, threshold, steps)
        check_margins(state)
        folder = writer.case(f"{cache}_{family}", "step_cache", {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=2e-3,
                             rtol=2e-3, model="../../" + loop.folder, cache=cache, threshold=threshold, steps=steps, skipped=state.skipped,
                             compared=state.decisions, **loop.scalars)
        loop.sampler.save_pretrained(folder)
        print("    skipped", state.skipped, "compared", [c and round(c, 4) for c in state.decisions],
              "latents differ by", float((pictures - plain[1]).abs().max()))
        if (family, cache) == ("flux", "fbcache"):
            check_against_diffusers(loop, threshold, steps, noises)


if __name__ == "__main__":
    main()
