#!/usr/bin/env python3
"""Makes tests/tensor/quantized.safetensors: float32 numbers ("values"), the bytes that llama.cpp's own Python code makes of them ("Q8_0",
"Q4_0", "Q4_1", "Q5_0", "Q5_1"), and float8 e4m3fn by ml_dtypes ("eighths" and "F8_E4M3"; the same tables as torch's).

    python3 tests/tensor/make_quantized.py          # needs numpy, safetensors, gguf and ml_dtypes
"""
import os

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

random = np.random.default_rng(1)
rows = [random.normal(0, scale, (16, 32)) for scale in (1, 0.02, 300, 1e-4, 1e-6)]
halves = random.integers(-253, 254, (16, 32)) / 2  # ties, where the scale is 1
halves[:, 7] = 127
rows.append(halves)
rows.append(np.where(random.random((8, 32)) < 0.5, -1, 1) * 0.75)  # equal magnitudes of both signs
rows.append(random.uniform(0.5, 1.5, (8, 32)))  # one sign
rows.append(np.zeros((1, 32)))
rows.append(np.full((1, 32), 0.3))
rows.append(np.eye(2, 32) * 60000)
values = np.concatenate(rows).astype(np.float32)
tensors = {"values": values}
for name in ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]:
    tensors[name] = gguf.quantize(values, gguf.GGMLQuantizationType[name]).reshape(-1)

every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
every = np.sort(every[np.isfinite(every)])
middles = (every[1:] + every[:-1]) / 2
eighths = np.concatenate([every, middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf)),
                          random.normal(0, 0.02, 1024), random.uniform(-464, 464, 512), [464, -464, 1e-30, -0.0]]).astype(np.float32)
tensors["eighths"] = eighths
tensors["F8_E4M3"] = eighths.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
save_file(tensors, os.path.join(os.path.dirname(__file__), "quantized.safetensors"))
