#!/usr/bin/env python3
"""Writes the files of PyTorch that tests/tensor/test_torch_file.c reads, and fuzz/corpus/torch_file, from fixed numbers.

    pip install torch safetensors numpy
    python3 tests/tensor/make_torch_files.py        in the repository root
"""
import collections, io, os, pickle, struct, sys, types, zipfile
import torch
from safetensors.torch import save_file

OUT, CORPUS = "tests/tensor/torch", "fuzz/corpus/torch_file"
os.makedirs(OUT, exist_ok=True)
os.makedirs(CORPUS, exist_ok=True)

base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
weights = collections.OrderedDict(
    float=base[:2, :3].contiguous(), half=base.half(), brain=base[:3].bfloat16(), double=base[0].double(), count=torch.tensor(7),
    byte=torch.tensor([1, 2, 3], dtype=torch.uint8), flag=torch.tensor([True, False]), empty=torch.zeros(0, 4),
    transposed=base.t(), view=base[1:3, 2:5], parameter=torch.nn.Parameter(base[3]))
nested = {"model": {"a": base[0].clone(), "list": [base[1].clone(), None]}, 3: base[2].clone(), "epoch": 5, "name": "x" * 300}

# What training programs leave beside the weights: a class that is a key, a number of numpy's.
module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
module.ModelCheckpoint = ModelCheckpoint
for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
    sys.modules[name] = module if name == module.__name__ else types.ModuleType(name)
import numpy
training = {"epoch": 3, "state_dict": {"w": base.clone()}, "optimizer_states": [{"state": {0: {"exp_avg": base.clone()}}}],
            "callbacks": {ModelCheckpoint: {"best": numpy.float64(0.5), "device": torch.device("cpu"), "size": base.size()}}}


class Call:
    """Pickles as a call of any function: what a hostile file has."""
    def __init__(self, function, *arguments): self.call = (function, arguments)
    def __reduce__(self): return self.call


def save(name, value, **options): torch.save(value, os.path.join(OUT, name), **options)


save("weights.pt", weights)
save("weights_legacy.pt", weights, _use_new_zipfile_serialization=False)
save("weights_legacy_4.pt", weights, _use_new_zipfile_serialization=False, pickle_protocol=4)
save("nested.pt", nested)
save("training.ckpt", training)
save("training_legacy.ckpt", training, _use_new_zipfile_serialization=False)
save("tensor.pt", base[:1].clone())
save("evil_system.pt", {"a": base.clone(), "b": Call(os.system, "touch /tmp/tessera-was-here")})
save("evil_eval.pt", Call(eval, "1"))
save("module.pt", torch.nn.Linear(2, 2))
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), os.path.join(OUT, "script.pt"))
save_file({k: v.detach().contiguous().clone() for k, v in weights.items()}, os.path.join(OUT, "expected.safetensors"))


def rewrite(name, change, compression=zipfile.ZIP_STORED):
    """weights.pt with its entries changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(os.path.join(OUT, "weights.pt")) as source, zipfile.ZipFile(out, "w", compression) as target:
        for info in source.infolist(): target.writestr(info.filename, change(info.filename, source.read(info)))
    open(os.path.join(OUT, name), "wb").write(out.getvalue())


def pickle_of(code):
    """A file whose pickle is `code`."""
    return lambda name, data: code if name.endswith("data.pkl") else data


rewrite("compressed.pt", lambda name, data: data, zipfile.ZIP_DEFLATED)
rewrite("short_storage.pt", lambda name, data: data[:-4] if "/data/" in name else data)
# the last row of a storage of 24 numbers begins one number later: offset 18 becomes 19
rewrite("one_beyond.pt", lambda name, data: data.replace(b"K\x12K\x06\x85", b"K\x13K\x06\x85") if name.endswith("data.pkl") else data)
rewrite("big_endian.pt", lambda name, data: b"big" if name.endswith("byteorder") else data)
rewrite("inst.pt", pickle_of(b"(S'touch /tmp/tessera-was-here'\nios\nsystem\n."))
rewrite("newobj.pt", pickle_of(b"\x80\x02ccollections\nOrderedDict\n)\x81."))
rewrite("extension.pt", pickle_of(b"\x80\x02\x82\x01."))
rewrite("protocol0.pt", pickle_of(b"I1\n."))
rewrite("no_stop.pt", pickle_of(b"\x80\x02}q\x00"))
rewrite("self.pt", pickle_of(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."))
rewrite("memo.pt", pickle_of(b"\x80\x02}r\xff\xff\xff\x7f."))
rewrite("build.pt", pickle_of(b"\x80\x02ctorch\nSize\n}b."))
rewrite("stack_global.pt", pickle_of(b"\x80\x04\x8c\x02os\x8c\x06system\x93."))
for name in os.listdir(OUT):
    if name.endswith((".pt", ".ckpt")): open(os.path.join(CORPUS, name.replace(".", "_")), "wb").write(open(os.path.join(OUT, name), "rb").read())
