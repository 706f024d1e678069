#!/usr/bin/env python3
"""Makes tests/tensor/scaled_weights.safetensors: weights with scales as bitsandbytes saves them (int8; nf4 with and without nested
quantisation) and as ComfyUI does (float8 with scale_weight), and beside each "X.weight" the float32 numbers "X.values" that those programs
compute with. torch and bitsandbytes are not needed: quantisation and dequantisation are those of bitsandbytes 0.50's published source,
functional.py and backends/default/ops.py, step by step in float32.

    python3 tests/tensor/make_scaled_weights.py     # needs numpy, safetensors and ml_dtypes
"""
import json
import os

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

f32 = np.float32
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], f32)


def dynamic_map():
    """create_dynamic_map(signed=True, max_exponent_bits=7, total_bits=8)"""
    data = []
    for i in range(7):
        boundaries = np.linspace(0.1, 1, 2 ** i + 1, dtype=f32)
        means = (boundaries[:-1] + boundaries[1:]) / f32(2)
        data += list(10.0 ** (i - 6) * means) + list(-(10.0 ** (i - 6)) * means)
    return np.sort(np.array(data + [0, 1.0], f32))


def blocks(numbers, size):
    """The numbers block by block; the last block is filled with zeros."""
    return np.pad(numbers, (0, -len(numbers) % size)).reshape(-1, size)


def nearest(code, x):
    return np.abs(x[..., None] - code).argmin(-1).astype(np.uint8)


def int8(name, w):
    scb = np.abs(w).max(1)  # int8_vectorwise_quant
    q = np.round(w * (f32(127) / scb)[:, None]).astype(np.int8)
    values = q.astype(f32) * scb[:, None] * f32(7.874015718698502e-3)  # int8_vectorwise_dequant
    return {name + ".weight": q, name + ".SCB": scb, name + ".weight_format": np.array(0, np.uint8), name + ".values": values}


def nf4(name, w, nested, blocksize=64):
    numbers = w.reshape(-1)
    by_block = blocks(numbers, blocksize)
    absmax = np.abs(by_block).max(1)
    q = nearest(NF4, by_block / absmax[:, None]).reshape(-1)[:len(numbers)]
    q = np.pad(q, (0, len(q) % 2))
    tensors = {name + ".weight": (q[::2] << 4 | q[1::2])[:, None], name + ".weight.quant_map": NF4}
    state = {"quant_type": "nf4", "blocksize": blocksize, "dtype": "float32", "shape": list(w.shape)}
    if nested:  # quantize_4bit(compress_statistics=True) and dequantize_blockwise
        code, offset = dynamic_map(), absmax.mean()
        rest = blocks(absmax - offset, 256)
        scales = np.abs(rest).max(1)
        codes = nearest(code, rest / scales[:, None])
        tensors.update({name + ".weight.absmax": codes.reshape(-1)[:len(absmax)], name + ".weight.nested_absmax": scales,
                        name + ".weight.nested_quant_map": code})
        state.update({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)})
        absmax = (code[codes] * scales[:, None]).reshape(-1)[:len(absmax)] + offset
    else:
        tensors[name + ".weight.absmax"] = absmax
    text = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    tensors[name + ".weight.quant_state.bitsandbytes__nf4"] = text
    values = (blocks(NF4[q[:len(numbers)]], blocksize) * absmax[:, None]).reshape(-1)[:len(numbers)]  # dequantize_4bit
    return tensors | {name + ".values": values.reshape(w.shape).astype(f32)}


def float8(name, w, kind):
    largest = float(ml_dtypes.finfo(kind).max)
    scale = f32(np.abs(w).max() / largest)
    q = (w / scale).astype(kind)
    values = q.astype(f32) * scale
    return {name + ".weight": q, name + ".scale_weight": np.array(scale), name + ".scale_input": np.array(f32(1)), name + ".values": values}


random = np.random.default_rng(2)


def normal(*shape):
    return random.normal(0, 0.05, shape).astype(f32)


tensors = int8("int8", normal(6, 128)) | int8("int8_odd", normal(4, 96))
tensors |= nf4("nf4", normal(260, 64), True) | nf4("nf4_plain", normal(3, 64), False) | nf4("nf4_flat", normal(6, 96), True)
tensors |= nf4("nf4_odd", normal(3, 33), False) | nf4("nf4_wide", normal(4, 192), False, 128)
tensors |= float8("e4m3", normal(4, 64), ml_dtypes.float8_e4m3fn) | float8("e5m2", normal(4, 64), ml_dtypes.float8_e5m2)
tensors |= float8("e4m3_odd", normal(3, 5), ml_dtypes.float8_e4m3fn)
path = os.path.join(os.path.dirname(__file__), "scaled_weights.safetensors")
save_file(tensors, path)
