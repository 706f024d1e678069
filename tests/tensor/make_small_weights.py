#!/usr/bin/env python3
"""Makes tests/tensor/small_weights.safetensors: for each small type some blocks of random bytes, as stored ("Q4_0.bytes"), and the float32
values that the reference reads in them ("Q4_0.values"); and tests/tensor/small.gguf, a GGUF file by llama.cpp's own Python code. Needs the packages numpy, safetensors, gguf (block formats, llama.cpp's own Python
code) and ml_dtypes (float8, the same tables as torch's).

    python3 tests/tensor/make_small_weights.py
"""
import os

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

BLOCKS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# Where a block keeps its float16 scales; random bytes there could be infinite.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
ELEMENTS = 512

random = np.random.default_rng(0)
tensors = {}
for name in BLOCKS:
    kind = gguf.GGMLQuantizationType[name]
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (ELEMENTS // per_block, size), dtype=np.uint8)
    for offset in SCALES[name]:
        scales = random.normal(0, 0.05, len(blocks)).astype(np.float16)
        blocks[:, offset:offset + 2] = scales[:, None].view(np.uint8)
    tensors[name + ".bytes"] = blocks.reshape(-1)
    tensors[name + ".values"] = gguf.dequantize(blocks, kind).reshape(-1).astype(np.float32)
for name, kind in {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}.items():
    every = np.arange(256, dtype=np.uint8)
    tensors[name + ".bytes"] = every
    tensors[name + ".values"] = every.view(kind).astype(np.float32)
save_file(tensors, os.path.join(os.path.dirname(__file__), "small_weights.safetensors"))

# The same in a GGUF file: tensors as gguf quantises them, and beside each its values. (gguf
# quantises no K types.)
writer = gguf.GGUFWriter(os.path.join(os.path.dirname(__file__), "small.gguf"), "none")
writer.add_array("words", ["one", "two"])
values = random.normal(0, 1, (4, 256)).astype(np.float32)
for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]:
    kind = gguf.GGMLQuantizationType[name]
    blocks = gguf.quantize(values, kind)
    writer.add_tensor(name.lower(), blocks, raw_dtype=kind)
    writer.add_tensor(name.lower() + ".values", gguf.dequantize(blocks, kind).astype(np.float32))
kind = gguf.GGMLQuantizationType.Q4_K
blocks = tensors["Q4_K.bytes"].reshape(1, -1)
writer.add_tensor("q4_k", blocks, raw_dtype=kind)
writer.add_tensor("q4_k.values", gguf.dequantize(blocks, kind).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
