#!/usr/bin/env python3
"""Writes cases of text encoders that read on where the reference scripts' prompts end, with the models of those scripts' cases.

    pip install torch==2.13.0 transformers safetensors
    python3 tests/cases/make_text_encoder_cases.py

t5_long: more tokens than relative_attention_max_distance, so that the last bucket counts. clip_legacy_padded: end tokens pad the prompt, of
which the first one counts.
"""
import os

import torch
from case_writer import Writer, gen
from transformers import CLIPTextModelWithProjection, T5EncoderModel

w = Writer(os.path.dirname(os.path.abspath(__file__)), "")


def load(model_class, name):
    return model_class.from_pretrained(w.path(name, "model"), dtype=torch.float32).eval()


ids = torch.randint(0, 250, (1, 180), generator=gen(7))
mask = (torch.arange(180) < 150).long()[None]
model = load(T5EncoderModel, "t5")
w.case("t5_long", "text_encoder", {
    "in.input_ids": ids, "in.attention_mask": mask, "out.last_hidden_state": model(ids, attention_mask=mask).last_hidden_state,
    "out.last_hidden_state_nomask": model(ids).last_hidden_state}, model="../t5/model")

ids = torch.full((2, 16), 251)
ids[:, 0] = 250
ids[0, 1:7] = torch.randint(0, 250, (6,), generator=gen(8))
ids[1, 1:12] = torch.randint(0, 250, (11,), generator=gen(9))
out = load(CLIPTextModelWithProjection, "clip_legacy_eos")(ids, output_hidden_states=True)
w.case("clip_legacy_padded", "text_encoder", {
    "in.input_ids": ids, "out.last_hidden_state": out.last_hidden_state, "out.penultimate": out.hidden_states[-2], "out.pooled": out.text_embeds},
    model="../clip_legacy_eos/model")
