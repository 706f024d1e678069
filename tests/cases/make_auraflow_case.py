#!/usr/bin/env python3
"""AuraFlow, the model that docs/new-model.md brings to the engine: a tiny one with random weights, one forward pass and loops of sampling.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_auraflow_case.py OUT_DIR

Writes OUT_DIR/auraflow: `model/` and, of kind `auraflow`, what diffusers' AuraFlowTransformer2DModel computes:

    forward         one prediction, without guidance
    loop            a guided loop of flow matching; 8 text tokens, and so 16 with the model's registers
    odd_text        the same with 9 and 17
    pipefusion_p4   the loop with the picture in 4 parts, as make_pipefusion_cases.py defines it, and the text with part 0 only
    displaced_p2    the loop on 2 ranks, each with its rows and the other's of the step before, as make_displaced_references.py defines it
    fbcache         the loop with a first-block cache, as make_cache_references.py defines it

Text and registers go through all blocks, before the picture's tokens. Where a later part takes the text's keys and values of part 0, diffusers'
forward still computes text tokens of its own, which nothing reads.
"""
import argparse, itertools, os

import torch
from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from case_writer import Writer, gen, lively
from denoising_loops import Loop
from make_cache_references import FirstBlockCache, MARGIN
from make_displaced_references import DisplacedAttention, WHOLE, displaced, largest_difference, rank_parts

STEPS, GUIDANCE, ROWS, COLUMNS = 6, 3.5, 9, 7


def make_model():
    model = lively(AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=2, num_single_dit_layers=4, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=24, caption_projection_dim=32, pos_embed_max_size=144), 300)
    for parameter, seed in ((model.pos_embed.pos_embed, 301), (model.register_tokens, 302)):
        parameter.data = torch.randn(parameter.shape, generator=gen(seed)).bfloat16().float()
    small = [model.pos_embed.proj.weight, model.pos_embed.proj.bias, model.pos_embed.pos_embed]
    for block in list(model.joint_transformer_blocks) + list(model.single_transformer_blocks):
        small.append(block.attn.to_k.weight)
    for parameter in small:  # what is normed is small, so that an epsilon of 1e-6 in place of 1e-5 shows
        parameter.data /= 128
    return model


def make_loop(model, text_tokens, shift=1.73):
    sampler, g = FlowMatchEulerDiscreteScheduler(shift=shift), gen(303)
    noise, text = torch.randn(1, 4, 2 * ROWS, 2 * COLUMNS, generator=g), torch.randn(2, text_tokens, 24, generator=g)

    def forward(x, step, tokens, words):
        return model(torch.cat([x, x]), text, (sampler.timesteps[step] / 1000).expand(2)).sample

    blocks = list(model.joint_transformer_blocks) + list(model.single_transformer_blocks)
    return Loop("auraflow", "auraflow/model", model, sampler, noise, (ROWS, COLUMNS), {"in.sample": noise, "in.encoder_hidden_states": text},
                {"guidance_scale": GUIDANCE}, forward, model.pos_embed, model.proj_out, blocks, [b.attn for b in blocks], joint_text=True,
                text_tokens=model.register_tokens.shape[1] + text_tokens, text_first=True)


class PatchPipeline(DisplacedAttention):
    """One cache of the picture's keys and values, renewed part by part, and one of the text's, renewed by part 0."""

    def mixture(self, which, keys):
        count = ROWS * COLUMNS if self.tokens is None else self.tokens.stop - self.tokens.start
        text, fresh = keys[:, :, :-count], keys[:, :, -count:]
        if self.tokens is None:
            self.past[self.layer, which] = fresh.clone()
        else:
            self.past[self.layer, which][:, :, self.tokens] = fresh
        if self.tokens is None or self.tokens.start == 0:
            self.past[self.layer, which, "text"] = text.clone()
        return torch.cat([self.past[self.layer, which, "text"], self.past[self.layer, which]], 2)

    def predict(self, latents, step, parts):
        noise = 0
        for self.tokens, _ in parts:
            noise = noise + self.loop.predict(latents, step, self.tokens)
        return noise


def pipeline(loop, patches, warmup_steps):
    parts = rank_parts(loop, patches, False)
    with PatchPipeline(loop) as state:
        return loop.run(STEPS, lambda latents, step: state.predict(latents, step, WHOLE if step < warmup_steps or patches == 1 else parts))


class Cache(FirstBlockCache):
    """Single blocks take and give text and picture as one sequence."""

    def first(self, hidden_states, named):
        self.text = named["encoder_hidden_states"].shape[1]
        return super().first(hidden_states, named)

    def block(self, index, hidden_states, **named):
        if index == 0:
            return self.first(hidden_states, named)
        single = "encoder_hidden_states" not in named
        if self.skip:
            return hidden_states if single else (named["encoder_hidden_states"], hidden_states)
        output = self.forwards[index](hidden_states, **named)
        if index == len(self.forwards) - 1:
            self.residual = output[:, self.text:] - self.entered
        return output


def cached(model):
    """The first schedule and threshold that leave out some steps and keep the margin in each decision."""
    for shift, permille in itertools.product((200.0, 150.0, 300.0), range(50, 1000, 20)):
        loop, threshold = make_loop(model, 8, shift), permille / 1000
        with Cache(loop, threshold, STEPS) as cache:
            outputs = loop.run(STEPS, loop.predict)
        wide = all(c is None or c * MARGIN <= threshold or c >= threshold * MARGIN for c in cache.decisions)
        if wide and 2 <= len(cache.skipped) < STEPS - 1:
            return loop, outputs, {"step_cache": "fbcache", "step_cache_threshold": threshold, "skipped": cache.skipped, "compared": cache.decisions}
    raise SystemExit("no threshold keeps the margin")


def write(writer, name, loop, outputs, atol=2e-3, **scalars):
    noises, pictures = outputs
    folder = writer.case(name, "auraflow", {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=atol, rtol=2e-3,
                         model="../model", steps=len(noises), **loop.scalars, **scalars)
    loop.sampler.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = os.path.join(parser.parse_args().out_dir, "auraflow")
    writer, model = Writer(out_dir, ""), make_model()
    model.to(torch.bfloat16).save_pretrained(os.path.join(out_dir, "model"))
    model.float()

    loop = make_loop(model, 8)
    one = make_loop(model, 8)
    one.inputs = {**loop.inputs, "in.encoder_hidden_states": loop.inputs["in.encoder_hidden_states"][1:]}
    one.scalars = {"guidance_scale": 0}
    write(writer, "forward", one, one.run(1, lambda x, step: one.forward(x, step, None, None)[1:]), atol=2e-4)

    plain = loop.run(STEPS, loop.predict)
    write(writer, "loop", loop, plain)
    odd = make_loop(model, 9)
    write(writer, "odd_text", odd, odd.run(STEPS, odd.predict))

    assert largest_difference(pipeline(loop, 1, 0), plain) <= 1e-5 and largest_difference(pipeline(loop, 4, STEPS), plain) <= 1e-5
    parts = pipeline(loop, 4, 1)
    write(writer, "pipefusion_p4", loop, parts, num_pipeline_patch=4, warmup_steps=1)
    assert largest_difference(displaced(loop, 2, STEPS, STEPS), plain) <= 1e-5
    patches = displaced(loop, 2, 1, STEPS)
    write(writer, "displaced_p2", loop, patches, patch=2, warmup_steps=1)
    split = displaced(loop, 3, 1, STEPS, True)
    write(writer, "displaced_p3_split", loop, split, patch=3, warmup_steps=1, split_text=True)
    print("largest differences from one device:", *(float((x[1] - plain[1]).abs().max()) for x in (parts, patches, split)))
    slow, outputs, scalars = cached(model)
    write(writer, "fbcache", slow, outputs, **scalars)


if __name__ == "__main__":
    main()
