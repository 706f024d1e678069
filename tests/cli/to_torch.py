"""Rewrites a safetensors file as torch.save would, without PyTorch: python3 to_torch.py IN.safetensors OUT [--drop PREFIX] [--state-dict]

Real files of torch.save are in tests/tensor/torch; this one makes large ones while a test runs. With --safetensors the output is safetensors
again (to drop tensors or to rename: --rename OLD NEW).
"""
import argparse, collections, io, json, pickle, struct, sys, types, zipfile

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("target")
parser.add_argument("--drop", default="\0")
parser.add_argument("--rename", nargs=2, default=("\0", ""))
parser.add_argument("--state-dict", action="store_true")
parser.add_argument("--safetensors", action="store_true")
a = parser.parse_args()
data = open(a.source, "rb").read()
length, = struct.unpack("<Q", data[:8])
header, body = json.loads(data[8:8 + length]), data[8 + length:]
header.pop("__metadata__", None)
tensors = {name.replace(a.rename[0], a.rename[1], 1) if name.startswith(a.rename[0]) else name: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])])
           for name, e in header.items() if not name.startswith(a.drop)}
if a.safetensors:
    end, out = 0, {}
    for name, (dtype, shape, raw) in tensors.items():
        out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(raw)]}
        end += len(raw)
    text = json.dumps(out).encode()
    with open(a.target, "wb") as f: f.write(struct.pack("<Q", len(text)) + text + b"".join(raw for _, _, raw in tensors.values()))
    sys.exit()

# Stand-ins for what the pickle names.
torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})
NAMES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "I64": "LongStorage"}
for name in NAMES.values(): setattr(torch, name, type(name, (), {"__module__": "torch"}))
def rebuild(*arguments): pass
rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", "_rebuild_tensor_v2", "_rebuild_tensor_v2"
utils._rebuild_tensor_v2 = rebuild


class Storage:
    def __init__(self, key, dtype, count): self.id = ("storage", getattr(torch, NAMES[dtype]), key, "cpu", count)


class Tensor:
    def __init__(self, storage, shape):
        strides, step = [], 1
        for n in reversed(shape): strides, step = [step] + strides, step * n
        self.call = (storage, 0, tuple(shape), tuple(strides), False, collections.OrderedDict())
    def __reduce__(self): return rebuild, self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, value): return value.id if isinstance(value, Storage) else None


sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
state = {name: Tensor(Storage(str(i), dtype, len(raw) // sizes[dtype]), shape) for i, (name, (dtype, shape, raw)) in enumerate(tensors.items())}
out = io.BytesIO()
Pickler(out, protocol=2).dump({"epoch": 1, "state_dict": state} if a.state_dict else state)
with zipfile.ZipFile(a.target, "w", zipfile.ZIP_STORED) as archive:
    archive.writestr("archive/data.pkl", out.getvalue())
    archive.writestr("archive/version", "3\n")
    for i, (_, _, raw) in enumerate(tensors.values()): archive.writestr(f"archive/data/{i}", raw)
