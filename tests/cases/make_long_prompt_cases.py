#!/usr/bin/env python3
"""Writes pipeline_sd15_long_prompt and pipeline_sdxl_long_prompt: prompts longer than CLIP's 77 tokens.

    python3 tests/cases/make_long_prompt_cases.py        (torch, diffusers 0.42.1, transformers 5.24)

The prompts' states are made here as AUTOMATIC1111's webui and compel make them (without the former's search for commas): the tokens are cut
into chunks of 75, each is framed, padded and read by itself, the states stand in a row, the pooled state is the first chunk's, and the shorter
prompt gets empty chunks. diffusers draws from these states.
"""
import os

import diffusers as D
import torch
from case_writer import Writer, gen

ROOT = os.path.dirname(os.path.abspath(__file__))
LONG = "a lion on a hill, highly detailed, " * 12
NEGATIVE = "blurry, bad"


def chunks(tokenizer, text, count):
    """ids [count, length] of all chunks."""
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    length = tokenizer.model_max_length
    room, pad = length - 2, tokenizer.pad_token_id
    rows = []
    for i in range(count):
        part = ids[i * room : (i + 1) * room]
        row = [tokenizer.bos_token_id] + part + [tokenizer.eos_token_id]
        rows.append(row + [pad] * (length - len(row)))
    return torch.tensor(rows)


def count_chunks(tokenizer, *texts):
    room = tokenizer.model_max_length - 2
    return max(1, *[-(-len(tokenizer(t, add_special_tokens=False, truncation=False, verbose=False).input_ids) // room) for t in texts])


def states(tokenizer, encoder, text, count, penultimate):
    out = encoder(chunks(tokenizer, text, count), output_hidden_states=True)
    hidden = out.hidden_states[-2] if penultimate else out[0]
    return hidden.reshape(1, -1, hidden.shape[-1]), out[0][:1]


def write(w, name, pipe, model, call, extra):
    out = {}
    for key, kind in (("out.latents", "latent"), ("out.image", "pt")):
        out[key] = pipe(num_inference_steps=3, generator=gen(31), height=64, width=96, output_type=kind, guidance_scale=7.5, **extra).images.float()
    w.case(name, "pipeline", out, atol=2e-3, rtol=2e-3, prompt=LONG, height=64, width=96, steps=3, seed=31, call=call, model=model)


w = Writer(ROOT, "")
call = {"guidance_scale": 7.5, "negative_prompt": NEGATIVE, "long_prompt": True}
pipe = D.StableDiffusionPipeline.from_pretrained(w.path("pipeline_sd15", "model"), safety_checker=None, torch_dtype=torch.float32)
n = count_chunks(pipe.tokenizer, LONG, NEGATIVE)
extra = {key: states(pipe.tokenizer, pipe.text_encoder, text, n, False)[0] for key, text in (("prompt_embeds", LONG), ("negative_prompt_embeds", NEGATIVE))}
write(w, "pipeline_sd15_long_prompt", pipe, "../pipeline_sd15/model", call, extra)

pipe = D.StableDiffusionXLPipeline.from_pretrained(w.path("pipeline_sdxl", "model"), torch_dtype=torch.float32, add_watermarker=False)
n = count_chunks(pipe.tokenizer, LONG, NEGATIVE)
extra = {}
for prefix, text in (("", LONG), ("negative_", NEGATIVE)):
    l, _ = states(pipe.tokenizer, pipe.text_encoder, text, n, True)
    g, pooled = states(pipe.tokenizer_2, pipe.text_encoder_2, text, n, True)
    extra[prefix + "prompt_embeds"] = torch.cat([l, g], -1)
    extra[prefix + "pooled_prompt_embeds"] = pooled
write(w, "pipeline_sdxl_long_prompt", pipe, "../pipeline_sdxl/model", call, extra)
