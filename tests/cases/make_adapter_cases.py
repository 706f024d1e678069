#!/usr/bin/env python3
"""Writes tests/checkpoint/adapters: adapters' files of all kinds and the weights that come of them, for tests/checkpoint/test_adapters.c.

    pip install torch safetensors diffusers peft transformers lycoris_lora einops toml
    python3 tests/cases/make_adapter_cases.py        in the repository root

One U-Net module of each form (square and oblong linear, 3x3 convolution), whose weights are drawn here. LoHa, LoKr, differences and
dora_scale are merged by LyCORIS' formulas, which are compared with its own modules (get_merged_weight) where these can be made from such a
file; peft's magnitudes are merged by peft. Of the files that people really had (tests/reports) two modules each are merged the same way,
into weights that are written beside the result.
"""
import glob, json, os, sys
import torch
from safetensors.torch import load_file, save_file
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.locon import LoConModule
import peft

OUT = "tests/checkpoint/adapters"
os.makedirs(OUT, exist_ok=True)
SCALE = 0.7
g = torch.Generator().manual_seed(5)
draw = lambda *shape, size=1.0: torch.randn(shape, generator=g) * size
SHAPES = {"square": (16, 16), "oblong": (24, 16), "conv": (16, 8, 3, 3)}
weights = {name: draw(*shape, size=0.3) for name, shape in SHAPES.items()}
save_file({f"{n}.weight": w for n, w in weights.items()}, f"{OUT}/weights.safetensors")


def module_of(weight):
    if weight.dim() == 2: m = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else: m = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=1, bias=False)
    m.weight.data = weight.clone()
    return m


def kron(w1, w2):
    if w2.dim() == 4: w1 = w1[:, :, None, None]
    return torch.kron(w1, w2.contiguous())


def tucker(t, a, b): return torch.einsum("ij...,jr,ip->pr...", t, b, a)


def change(p, shape):
    """LyCORIS' formulas (loha.py, lokr.py get_weight and scale)."""
    alpha = p["alpha"].item() if "alpha" in p else None
    if "hada_w1_a" in p:
        if "hada_t1" in p: w = tucker(p["hada_t1"], p["hada_w1_a"], p["hada_w1_b"]) * tucker(p["hada_t2"], p["hada_w2_a"], p["hada_w2_b"])
        else: w = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
        rank = p["hada_w1_b"].shape[0]
    elif any(k.startswith("lokr") for k in p):
        w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        if "lokr_w2" in p: w2 = p["lokr_w2"]
        elif "lokr_t2" in p: w2 = tucker(p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
        else: w2 = p["lokr_w2_a"] @ p["lokr_w2_b"]
        w = kron(w1, w2)
        rank = p["lokr_w1_b"].shape[0] if "lokr_w1_b" in p else p["lokr_w2_b"].shape[0] if "lokr_w2_b" in p else None
        if rank is None: alpha, rank = 1, 1
    elif "diff" in p: return p["diff"].reshape(shape)
    else:
        w, rank = p["lora_up.weight"].flatten(1) @ p["lora_down.weight"].flatten(1), p["lora_down.weight"].shape[0]
    return w.reshape(shape) * ((alpha or rank) / rank)


def merged(weight, p, scale):
    w, diff = weight, change(p, weight.shape)
    if "dora_scale" not in p: return w + scale * diff
    s, w = p["dora_scale"], w + diff
    if s.shape[0] == 1 and s.dim() > 1: norm = w.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (w.dim() - 2))
    else: norm = w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1))
    ratio = s.reshape(norm.shape) / (norm + torch.finfo(torch.float32).eps)
    return w * (scale * (ratio - 1) + 1)


@torch.no_grad()
def check(kind, weight, p):
    """The same by the library itself, where it builds a module from a file of this kind."""
    cls = {"loha": LohaModule, "lokr": LokrModule, "locon": LoConModule}[kind]
    try: m = cls.make_module_from_state_dict("x", module_of(weight), *[p.get(n) for n in cls.weight_list])
    except Exception as e: return print("  not by the library:", kind, sorted(p), type(e).__name__, e)
    have, _ = m.get_merged_weight(multiplier=SCALE, shape=weight.shape)
    want = merged(weight, p, SCALE)
    print(kind, sorted(p), (have - want).abs().max().item())
    assert (have - want).abs().max() < 2e-5


def loha(shape, rank, with_tucker=False):
    out, rest = shape[0], torch.Size(shape[1:]).numel()
    if not with_tucker:
        return {"hada_w1_a": draw(out, rank, size=0.4), "hada_w1_b": draw(rank, rest, size=0.4), "hada_w2_a": draw(out, rank, size=0.4),
                "hada_w2_b": draw(rank, rest, size=0.4), "alpha": torch.tensor(3.0)}
    return {"hada_t1": draw(rank, rank, *shape[2:], size=0.6), "hada_w1_a": draw(rank, out, size=0.6), "hada_w1_b": draw(rank, shape[1], size=0.6),
            "hada_t2": draw(rank, rank, *shape[2:], size=0.6), "hada_w2_a": draw(rank, out, size=0.6), "hada_w2_b": draw(rank, shape[1], size=0.6),
            "alpha": torch.tensor(3.0)}


def lokr(shape, form, rank=3):
    o1, i1 = 4, 4 if shape[1] % 4 == 0 else 2
    o2, i2, taps = shape[0] // o1, shape[1] // i1, shape[2:]
    p = {"alpha": torch.tensor(2.0)}
    if form in ("full", "w2"): p["lokr_w1"] = draw(o1, i1, size=0.4)
    else: p.update({"lokr_w1_a": draw(o1, rank, size=0.5), "lokr_w1_b": draw(rank, i1, size=0.5)})
    if form in ("full", "w1"): p["lokr_w2"] = draw(o2, i2, *taps, size=0.4)
    elif form == "tucker": p.update({"lokr_t2": draw(rank, rank, *taps, size=0.6), "lokr_w2_a": draw(rank, o2, size=0.6), "lokr_w2_b": draw(rank, i2, size=0.6)})
    else: p.update({"lokr_w2_a": draw(o2, rank, size=0.5), "lokr_w2_b": draw(rank, i2 * taps.numel() if taps else i2, size=0.5)})
    return p


def lora(shape, rank=3):
    kernel = shape[2:]
    return {"lora_down.weight": draw(rank, *shape[1:], size=0.3), "lora_up.weight": draw(shape[0], rank, *[1] * len(kernel), size=0.3),
            "alpha": torch.tensor(2.0)}


def write(name, modules, expected):
    tensors = {f"lora_unet_{m}.{part}": t.contiguous() for m, p in modules.items() for part, t in p.items()}
    save_file(tensors, f"{OUT}/{name}.safetensors")
    save_file({f"{m}.weight": w.contiguous() for m, w in expected.items()}, f"{OUT}/{name}_expected.safetensors")


def case(name, kind, make, extra=lambda p, w: p):
    modules = {m: extra(make(m, torch.Size(s)), weights[m]) for m, s in SHAPES.items()}
    if kind:
        for m, p in modules.items(): check(kind, weights[m], p)
    write(name, modules, {m: merged(weights[m], p, SCALE) for m, p in modules.items()})


def dora(p, w):
    norm = w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1))
    return {**p, "dora_scale": norm * (1 + 0.3 * draw(*norm.shape))}


def dora_inputs(p, w):
    norm = w.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (w.dim() - 2))
    return {**p, "dora_scale": norm * (1 + 0.3 * draw(*norm.shape))}


case("loha", "loha", lambda m, s: loha(s, 3))
case("loha_tucker", "loha", lambda m, s: loha(s, 3, len(s) == 4))
for form in ("full", "w1", "w2", "both"): case(f"lokr_{form}", "lokr", lambda m, s: lokr(s, form))
case("lokr_tucker", "lokr", lambda m, s: lokr(s, "tucker" if len(s) == 4 else "both"))
case("diff", None, lambda m, s: {"diff": draw(*s, size=0.2)})
case("dora", "locon", lambda m, s: lora(s), dora)
case("dora_inputs", None, lambda m, s: lora(s), dora_inputs)
case("dora_loha", "loha", lambda m, s: loha(s, 3), dora)

# peft's DoRA, as diffusers loads it: merged by peft, the scale inside the length.
modules, expected = {}, {}
for m, s in SHAPES.items():
    holder = torch.nn.Module()
    holder.add_module(m, module_of(weights[m]))
    model = peft.get_peft_model(holder, peft.LoraConfig(r=3, lora_alpha=3, target_modules=[m], use_dora=True, bias="none"))
    layer = model.base_model.model.get_submodule(m)
    p, name = lora(torch.Size(s)), "default"
    layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = p["lora_down.weight"], p["lora_up.weight"]
    magnitude = layer.lora_magnitude_vector[name].weight
    magnitude.data = magnitude.data * (1 + 0.3 * draw(*magnitude.shape))
    stored = magnitude.data.clone()
    layer.set_scale(name, SCALE)
    layer.merge(adapter_names=[name])
    expected[m] = layer.get_base_layer().weight.detach().clone()
    modules[m] = {"lora_A.weight": p["lora_down.weight"], "lora_B.weight": p["lora_up.weight"], "lora_magnitude_vector": stored}
    w = weights[m] + SCALE * (p["lora_up.weight"].flatten(1) @ p["lora_down.weight"].flatten(1)).reshape(s)
    ours = w * (stored.reshape(-1, *[1] * (w.dim() - 1)) / w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1)))
    print("peft", m, (ours - expected[m]).abs().max().item())
save_file({f"unet.{m}.{k}": t.contiguous() for m, p in modules.items() for k, t in p.items()}, f"{OUT}/dora_peft.safetensors")
save_file({f"{m}.weight": w.contiguous() for m, w in expected.items()}, f"{OUT}/dora_peft_expected.safetensors")

def reports():
    for path in sorted(glob.glob("tests/reports/17-*/*.safetensors") + glob.glob("tests/reports/07-*/*.safetensors")):
        if path.endswith("_expected.safetensors"): continue
        modules, out = {}, {}
        for key, tensor in load_file(path).items():
            module, part = key.split(".", 1) if key.startswith("lora_") else key.split(".lora_", 1)
            modules.setdefault(module, {})[part if key.startswith("lora_") else "lora_" + part] = tensor.float()
        for module in sorted(modules)[:2]:
            p = modules[module]
            if "lora_A.weight" in p:
                p = {"lora_down.weight": p["lora_A.weight"], "lora_up.weight": p["lora_B.weight"], "magnitude": p["lora_magnitude_vector"]}
            rows = p["lora_up.weight"].shape[0] if "lora_up.weight" in p else p["hada_w1_a"].shape[0] if "hada_w1_a" in p else \
                p["lokr_w1"].shape[0] * p["lokr_w2"].shape[0]
            weight = draw(rows, rows, size=0.2)
            if "magnitude" in p:
                w = weight + SCALE * p["lora_up.weight"] @ p["lora_down.weight"]
                result = w * (p["magnitude"] / w.norm(dim=1))[:, None]
            else: result = merged(weight, p, SCALE)
            name = module.removeprefix("lora_unet_").removeprefix("transformer.")
            out[f"{name}.weight"], out[f"{name}.merged"] = weight, result.contiguous()
        save_file(out, path.replace(".safetensors", "_expected.safetensors"))


reports()
