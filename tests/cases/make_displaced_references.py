#!/usr/bin/env python3
"""Displaced patches on diffusion transformers in one process: what n ranks that each own a part of the picture's rows must compute.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python3 make_displaced_references.py OUT_DIR

Rank p of n owns the token rows p*H/n to (p+1)*H/n (integer division); text tokens are on every rank. Steps with index <= `warmup_steps`
are synchronous: the exact prediction of the whole picture. In a later step t every rank runs the whole model over its own tokens, where
each attention among picture tokens takes

    K_p(t) = [text keys of rank p, step t; own rows: k_p(t); rows of each rank j != p: k_j(t - 1)],   V_p(t) alike,

for picture and text queries both. Keys are as attention uses them: after their norm and rotation. So each rank's text stream sees another
mixture and is its own; nothing of the text is exchanged. Text that is only attended to (PixArt, HunyuanDiT) is local and exact. A key of
step t - 1 is what its owner computed then, itself from a mixture, or in the synchronous pass if t - 1 was the last synchronous step. The
branches of guidance are separate rows. The prediction is the parts, one below the other.

With `split_text` the text's tokens are cut as the picture's rows are, p*T/n to (p+1)*T/n, and treated like them: rank p computes its own
alone, and

    K_p(t) = [own rows and own text: k_p(t); rows and text of each rank j != p: k_j(t - 1)],   V_p(t) alike.

Source: DistriFusion (Li et al., CVPR 2024, arXiv 2402.19481), section 4.1, carried over from UNets to transformers.
OUT_DIR is the folder that already holds pipefusion, pixart_sigma and hunyuandit: their models are used.
"""
import argparse, os

import torch

from case_writer import Writer
from denoising_loops import FAMILIES

CASES = [  # family, patches, warm-up steps, steps, and whether the text is split
    ("sd3", 1, 0, 7), ("sd3", 2, 0, 7), ("sd3", 2, 1, 7), ("sd3", 2, 4, 7), ("sd3", 3, 1, 7), ("sd3", 4, 1, 7),
    ("sd3", 2, 0, 7, True), ("sd3", 2, 1, 7, True), ("sd3", 3, 1, 7, True), ("sd3", 4, 1, 7, True),
    ("flux", 1, 0, 7), ("flux", 2, 0, 7), ("flux", 2, 1, 7), ("flux", 4, 4, 7),
    ("flux", 2, 0, 7, True), ("flux", 2, 1, 7, True), ("flux", 4, 1, 7, True),
    ("pixart", 1, 0, 7), ("pixart", 2, 0, 7), ("pixart", 2, 1, 7), ("pixart", 4, 4, 7),
    ("hunyuandit", 1, 0, 7), ("hunyuandit", 2, 0, 7), ("hunyuandit", 2, 1, 7), ("hunyuandit", 4, 4, 7)]


class DisplacedAttention:
    """Stands in for scaled_dot_product_attention within the attentions among picture tokens, and keeps their keys and values."""

    def __init__(self, loop):
        self.loop, self.layer, self.tokens, self.text = loop, None, None, None
        self.past, self.present = {}, {}  # layer -> keys and values of the whole picture and text, of the step before, of this one
        self.attend = torch.nn.functional.scaled_dot_product_attention
        self.hooks = [loop.embed.register_forward_hook(self.cut), loop.finish.register_forward_hook(self.place)]
        if loop.joint_text:
            self.hooks.append(loop.blocks[0].register_forward_pre_hook(self.cut_text, with_kwargs=True))
        for layer, attention in enumerate(loop.attentions):
            self.hooks.append(attention.register_forward_pre_hook(lambda _module, _args, layer=layer: setattr(self, "layer", layer)))
            self.hooks.append(attention.register_forward_hook(lambda *_: setattr(self, "layer", None)))

    def __enter__(self):
        torch.nn.functional.scaled_dot_product_attention = self
        return self

    def __exit__(self, *_):
        torch.nn.functional.scaled_dot_product_attention = self.attend
        for hook in self.hooks:
            hook.remove()

    def cut(self, _module, _args, embedded):
        return embedded if self.tokens is None else embedded[:, self.tokens]

    def cut_text(self, _module, args, named):
        return args, {**named, "encoder_hidden_states": named["encoder_hidden_states"][:, self.text or slice(None)]}

    def place(self, _module, _args, part):
        """The part's tokens among zeros, so that un-patching sees a whole picture."""
        if self.tokens is None:
            return part
        whole = part.new_zeros(part.shape[0], self.loop.grid[0] * self.loop.grid[1], part.shape[2])
        whole[:, self.tokens] = part
        return whole

    def own(self, total):
        """The places of this rank's keys among `total` of picture and text, in the order in which it computes them."""
        count = self.loop.grid[0] * self.loop.grid[1]
        text = torch.arange(total - count)[self.text or slice(None)]
        picture = torch.arange(count)[self.tokens]
        return torch.cat([text, total - count + picture] if self.loop.text_first else [picture, count + text])

    def mixture(self, which, keys):
        """Keys (which = 0) or values (1) of the text and the whole picture, from this rank's fresh ones."""
        if self.tokens is None:
            self.present[self.layer, which] = keys.clone()
            return keys
        past = self.past[self.layer, which]
        own, mixed = self.own(past.shape[2]), past.clone()
        mixed[:, :, own] = keys
        self.present.setdefault((self.layer, which), torch.full_like(past, float("nan")))[:, :, own] = keys
        return mixed

    def __call__(self, query, key, value, *rest, **named):
        if self.layer is None:
            return self.attend(query, key, value, *rest, **named)
        return self.attend(query, self.mixture(0, key), self.mixture(1, value), *rest, **named)

    def predict(self, latents, step, parts):
        """One step over `parts`, the slices of the ranks' tokens and text, or over the whole picture: [(None, None)]."""
        noise = 0
        for self.tokens, self.text in parts:
            noise = noise + self.loop.predict(latents, step, self.tokens, self.text)
        self.past, self.present = self.present, {}
        return noise


WHOLE = [(None, None)]


def rank_parts(loop, patches, split_text):
    """What each rank computes: its tokens of the picture, and of the text; None: all of it."""
    (rows, columns), text, parts = loop.grid, loop.text_tokens, []
    for p in range(patches):
        parts.append((slice(p * rows // patches * columns, (p + 1) * rows // patches * columns),
                      slice(p * text // patches, (p + 1) * text // patches) if split_text else None))
    return parts


def displaced(loop, patches, warmup_steps, steps, split_text=False):
    parts = rank_parts(loop, patches, split_text)
    with DisplacedAttention(loop) as ranks:
        return loop.run(steps, lambda latents, step: ranks.predict(latents, step, WHOLE if step <= warmup_steps else parts))


def largest_difference(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a, b))


def check_exact(loop, steps, plain):
    """One rank, and a warm-up that never ends, are the plain run."""
    for patches, warmup_steps in ((1, 0), (3, steps)):
        worst = largest_difference(displaced(loop, patches, warmup_steps, steps, loop.joint_text), plain)
        assert worst <= 1e-5, (loop.family, patches, worst)


def check_settles(loop, patches, split_text):
    """At one and the same step, each displaced pass makes one more layer's keys exact, so after all layers the whole prediction is."""
    loop.sampler.set_timesteps(7)
    latents, parts = loop.noise, rank_parts(loop, patches, split_text)
    with DisplacedAttention(loop) as ranks:
        ranks.predict(torch.zeros_like(latents), 3, WHOLE)
        passes = [ranks.predict(latents, 2, parts) for _ in range(len(loop.blocks) + 1)]
    whole = loop.predict(latents, 2)
    first, last = (float((noise - whole).abs().max()) for noise in (passes[0], passes[-1]))
    assert last <= 1e-4 < 1e-2 < first, (loop.family, patches, first, last)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    out_dir = parser.parse_args().out_dir
    writer = Writer(os.path.join(out_dir, "displaced"), "")
    for family, make in FAMILIES.items():
        loop = make(out_dir)
        plain = loop.run(7, loop.predict)
        check_exact(loop, 7, plain)
        for split_text in {False, loop.joint_text}:
            check_settles(loop, 4, split_text)
        for _, patches, warmup_steps, steps, *split in [c for c in CASES if c[0] == family]:
            noises, pictures = displaced(loop, patches, warmup_steps, steps, *split)
            scalars = {**loop.scalars, **({"split_text": True} if split else {})}
            folder = writer.case(f"displaced_{family}_p{patches}_w{warmup_steps}" + "_split" * len(split), "displaced",
                                 {**loop.inputs, "out.noise": noises, "out.latents": pictures}, atol=2e-3, rtol=2e-3,
                                 model="../../" + loop.folder, patches=patches, warmup_steps=warmup_steps, steps=steps, **scalars)
            loop.sampler.save_pretrained(folder)
            difference = pictures - plain[1]
            print("    difference from one rank, latents: largest", float(difference.abs().max()), "rms", float(difference.square().mean().sqrt()))


if __name__ == "__main__":
    main()
