#!/usr/bin/env python3
"""Writes tests/tokenizers/ties.txt: runs of signs, whose pieces are equally likely in many ways, with the ids that transformers gives.

    python3 tests/tokenizers/make_ties.py        (transformers 5.24)

A line is a text, a tab and the ids of T5's tokenizer (assets/tokenizers/t5). The first are those of tests/reports/10-t5-ties.
"""
import json
import os
import random

from transformers import T5TokenizerFast

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIGNS = "-!?#.*=_~+/\\|,:;()[]{}<>$%&@^\"'`AKzaeiou019 éßΩ漢字🙂"

tokenizer = T5TokenizerFast.from_pretrained(os.path.join(os.path.dirname(TESTS), "assets", "tokenizers", "t5"))
with open(os.path.join(TESTS, "reports", "10-t5-ties", "prompts.json")) as f:
    texts = json.load(f)
random.seed(1)
for _ in range(600):
    texts.append("".join(random.choice(SIGNS) * random.choice([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33]) for _ in range(random.randint(1, 6))))
with open(os.path.join(TESTS, "tokenizers", "ties.txt"), "w") as f:
    for text in texts:
        f.write(text + "\t" + " ".join(map(str, tokenizer(text).input_ids)) + "\n")
