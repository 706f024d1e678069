"""What the case makers share: the writer of case folders, random weights that hide no mistake, and the run of a pipeline.

A case is a folder with `case.json` (what it is, scalars, tolerances), `io.safetensors` (tensors named in.* and out.*) and either a `model/`
folder as diffusers lays it out or, in case.json, "model": the path of another case's, relative to the case. Everything is computed in
float32 on the CPU from weights that are exact in bfloat16.
"""
import json, math, os, shutil
import torch
from safetensors.torch import save_file

torch.set_grad_enabled(False)
torch.set_num_threads(2)
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse", "blurry, bad"


def gen(seed):
    return torch.Generator().manual_seed(seed)


class Writer:
    def __init__(self, root, only):
        self.root, self.only = root, only

    def wanted(self, name):
        return name.startswith(self.only)

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def case(self, name, kind, tensors, atol=2e-4, rtol=2e-3, **scalars):
        """A fresh case folder; its model, if it has one of its own, is added afterwards."""
        folder = self.path(name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, os.path.join(folder, "io.safetensors"))
        with open(os.path.join(folder, "case.json"), "w") as f:
            json.dump({"kind": kind, "tolerance": {"atol": atol, "rtol": rtol}, **scalars}, f, indent=1)
        print(name, "ok", flush=True)
        return folder


def lively(module, seed):
    """Draws every weight anew, so that no zero-initialised gate hides a mistake, and rounds it to bfloat16."""
    g = gen(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if p.dim() >= 2:
            p.data = noise / math.sqrt(p[0].numel())
        else:
            p.data = 1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise
    for p in list(module.parameters()) + [b for b in module.buffers() if b.is_floating_point()]:
        p.data = p.data.bfloat16().float()
    return module.eval()


def init_picture(height, width):
    """A picture to start from: 8-bit [height, width, 3] as the case stores it, [1, 3, height, width] in [0, 1] as diffusers takes it."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = 128 + 127 * torch.sin(0.2 * (x + 2 * y))
    picture = torch.stack([x * 255 // (width - 1), y * 255 // (height - 1), waves], -1).to(torch.uint8)
    return picture, (picture.float() / 255).permute(2, 0, 1)[None]


def run_case(w, name, pipe, prompt, height, width, steps, seed, call, extra=None, inputs=None, scalars=None, crop=None):
    """Calls the pipeline for the latents and for the picture and writes both. `extra` goes to the call but not into case.json.
    `crop` = [top, left, height, width] stores that part of a large picture only, as out.image_crop."""
    size = {} if inputs else dict(height=height, width=width)
    arguments = dict(call)
    if isinstance(prompt, list) and isinstance(call.get("negative_prompt"), str):
        arguments["negative_prompt"] = [call["negative_prompt"]] * len(prompt)
    out = {}
    for key, kind in (("out.latents", "latent"), ("out.image", "pt")):
        out[key] = pipe(prompt=prompt, num_inference_steps=steps, generator=gen(seed), output_type=kind, **size, **arguments,
                        **(extra or {})).images.float()
    scalars = dict(scalars or {})
    if crop:
        top, left, rows, columns = scalars["crop"] = crop
        out["out.image_crop"] = out.pop("out.image")[:, :, top:top + rows, left:left + columns]
    key = "prompts" if isinstance(prompt, list) else "prompt"
    return w.case(name, "pipeline", {**(inputs or {}), **out}, atol=2e-3, rtol=2e-3, **{key: prompt}, height=height, width=width,
                  steps=steps, seed=seed, call=call, **scalars)
