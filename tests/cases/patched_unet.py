"""Patches of a U-Net that know each other by the step before, in one process: what n ranks compute that each own a part of the picture's rows.

The ranks run one after the other. That is the same as side by side, because a rank takes from the others only what they had in the step
before. In a step with index <= `warmup_steps` the whole picture runs at once. In a later step rank p runs diffusers' U-Net over its own
rows of the latents, where

    3x3 convolution   takes its own rows, fresh, and one row above and below them of step t - 1; conv_in takes all rows fresh, because
                      every rank holds the latents
    self-attention    takes its own keys and values, fresh, and those of the ranks p - reach .. p + reach of step t - 1
    group norm        takes the moments m = (mean of x, mean of x^2), weighted by rows, of all ranks in step t - 1, corrected by how far its
                      own have moved: sum_j w_j m_j(t - 1) + m_p(t) - m_p(t - 1); its own variance, if the one of this sum is negative.
                      The variance is multiplied by N / (N - 1), N being the rank's own elements of a group, in warm-up steps as well

Source: DistriFusion (Li et al., CVPR 2024, arXiv 2402.19481), section 4, and its published code (distrifuser 0.0.1b1, corrected_async_gn),
where `reach` is n. PCPP (Zhang, Luo and Lu 2024, arXiv 2412.02962), with all of a neighbour's patch, is `reach` 1.
"""
from functools import partial

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock


def moments(part, groups):
    """Means of x and of x^2 in each group: [2, batch, groups]."""
    x = part.double().reshape(part.shape[0], groups, -1)
    return torch.stack([x.mean(-1), x.square().mean(-1)])


class UNetPatches:
    """Replaces the forward of every layer of `unet` in which rows meet; `unit`: parts are multiples of that many rows of the latents."""

    def __init__(self, unet, rows, unit, patches, reach):
        self.unet, self.rows, self.patches, self.reach = unet, rows, patches, reach
        self.bounds = [rows // unit * p // patches * unit for p in range(patches + 1)]
        self.rank, self.layer = None, None  # None: the whole picture; outside of self-attention
        self.past, self.present = {}, {}  # layer -> what enters it, of the whole picture, in the step before and in this one
        self.attend = F.scaled_dot_product_attention
        for module in unet.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                module.forward = partial(self.convolve, module)
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = partial(self.normalise, module)
            if isinstance(module, BasicTransformerBlock):
                module.attn1.register_forward_pre_hook(lambda attention, _args: setattr(self, "layer", attention))
                module.attn1.register_forward_hook(lambda *_: setattr(self, "layer", None))

    def span(self, first, last, total):
        """Where the ranks first .. last lie in a dimension of `total` rows, or of tokens row by row."""
        return slice(self.bounds[first] * total // self.rows, self.bounds[last + 1] * total // self.rows)

    def own(self, total):
        return slice(0, total) if self.rank is None else self.span(self.rank, self.rank, total)

    def mixture(self, layer, x):
        """This rank's part of [batch, ., rows or tokens, .], fresh, among the others' of the step before."""
        mixed = x if self.rank is None else self.past[layer].clone()
        own = self.own(mixed.shape[2])
        mixed[:, :, own] = x
        self.present.setdefault(layer, torch.full_like(mixed, float("nan")))[:, :, own] = x
        return mixed

    def convolve(self, layer, x):
        mixed = self.mixture(layer, x)
        own = self.own(mixed.shape[2])
        rows = F.pad(mixed, (0, 0, 1, 1))[:, :, own.start:own.stop + 2]
        return F.conv2d(rows, layer.weight, layer.bias, layer.stride, (0, 1))

    def normalise(self, layer, x):
        total = self.mixture(layer, x).shape[2]
        known = x if self.rank is None else self.past[layer]
        spans = [self.span(p, p, total) for p in range(self.patches)]
        each = [moments(known[:, :, span], layer.num_groups) for span in spans]
        average = sum(m * (span.stop - span.start) / total for m, span in zip(each, spans))
        if self.rank is not None:
            return self.scale(layer, x, average, each[self.rank])
        return torch.cat([self.scale(layer, x[:, :, span], average, m) for m, span in zip(each, spans)], 2)

    def scale(self, layer, part, average, before):
        own = moments(part, layer.num_groups)
        mean, square = average + own - before
        variance, own_variance = square - mean ** 2, own[1] - own[0] ** 2
        elements = part[0].numel() / layer.num_groups
        variance = torch.where(variance < 0, own_variance, variance) * (elements / (elements - 1))
        x = part.double().reshape(*mean.shape, -1)
        x = (x - mean[..., None]) / (variance[..., None] + layer.eps).sqrt()
        return x.reshape(part.shape).float() * layer.weight[:, None, None] + layer.bias[:, None, None]

    def attention(self, query, key, value, *rest, **named):
        if self.layer is None:
            return self.attend(query, key, value, *rest, **named)
        key, value = (self.mixture((self.layer, name), x) for name, x in (("key", key), ("value", value)))
        if self.rank is not None:
            seen = self.span(max(self.rank - self.reach, 0), min(self.rank + self.reach, self.patches - 1), key.shape[2])
            key, value = key[:, :, seen], value[:, :, seen]
        return self.attend(query, key, value, *rest, **named)

    def predict(self, ranks, latents, *args, **named):
        """One step over the parts of `ranks`, or over the whole picture: [None]."""
        self.past[self.unet.conv_in] = latents
        parts = []
        for self.rank in ranks:
            parts.append(self.unet(latents[:, :, self.own(self.rows)].clone(), *args, **named).sample)
        self.past, self.present = self.present, {}
        return torch.cat(parts, 2)

    def run(self, sampler, steps, warmup_steps, inputs, guidance_scale):
        """Guided predictions and latents after each step, from a case's inputs."""
        latents, text, noises, pictures = inputs["in.sample"], inputs["in.encoder_hidden_states"], [], []
        added = {name: inputs["in." + name] for name in ("text_embeds", "time_ids") if self.unet.config.addition_embed_type}
        sampler.set_timesteps(steps)
        F.scaled_dot_product_attention = self.attention
        for step, timestep in enumerate(sampler.timesteps):
            ranks = [None] if step <= warmup_steps else range(self.patches)
            uncond, cond = self.predict(ranks, torch.cat([latents, latents]), timestep, text, added_cond_kwargs=added).chunk(2)
            noises.append(uncond + guidance_scale * (cond - uncond))
            latents = sampler.step(noises[-1], timestep, latents).prev_sample
            pictures.append(latents)
        F.scaled_dot_product_attention = self.attend
        return torch.stack(noises), torch.stack(pictures)
