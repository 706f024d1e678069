#!/usr/bin/env python3
"""Writes the case of tests/metrics, folder case/: what clean-fid, torchmetrics, Pillow and torchvision compute for two folders of small pictures.

    python3 tests/metrics/make_case.py        (torch, torchvision, torchmetrics, clean-fid, pytorch-fid, pillow, safetensors)
    python3 tests/metrics/make_case.py --linear FOLDER_OF_THE_LPIPS_PACKAGE     writes assets/metrics/lpips_alex.safetensors

The networks are the published ones, eight times narrower, with random weights: Inception as pytorch-fid builds it for the FID, AlexNet as
torchmetrics cuts it for LPIPS. Expected are, under the names that tests/metrics/test_metrics.c reads: Inception's features of each picture,
LPIPS and PSNR of each pair, the FID of the two folders and of two sets of made-up features, and pictures scaled by Pillow.
"""
import argparse
import json
import os

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "case")
NARROW, PAIRS, SIZE = 8, 6, (80, 96)


def draw(seed, size):
    """A smooth picture [rows, columns, 3] of bytes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = sum(np.sin(rng.uniform(3, 20) * x + rng.uniform(3, 20) * y + rng.uniform(0, 6))[..., None] * rng.uniform(-1, 1, 3) for _ in range(6))
    return np.uint8(np.clip(128 + 50 * waves, 0, 255))


def write_pictures():
    """Pairs of pictures: b is a with noise. One of a is a JPEG file, and one stands alone, larger than Inception's input on one side."""
    for i in range(PAIRS):
        a = draw(i, SIZE)
        b = np.uint8(np.clip(a + np.random.default_rng(100 + i).normal(0, 4 + 4 * i, a.shape), 0, 255))
        for side, pixels in (("a", a), ("b", b)):
            os.makedirs(os.path.join(FOLDER, side), exist_ok=True)
            extension, options = ("jpg", {"quality": 95}) if i == 2 and side == "a" else ("png", {})
            Image.fromarray(pixels).save(os.path.join(FOLDER, side, f"{i:04d}.{extension}"), **options)
    Image.fromarray(draw(7, (340, 210))).save(os.path.join(FOLDER, "tall.png"))


def narrow_inception():
    import pytorch_fid.inception as fid
    import torchvision.models.inception as published

    class Narrow(published.BasicConv2d):
        def __init__(self, inputs, outputs, **options):
            super().__init__(3 if inputs == 3 else inputs // NARROW, outputs // NARROW, **options)

    keep, published.BasicConv2d = published.BasicConv2d, Narrow
    net = published.Inception3(num_classes=8, aux_logits=False, init_weights=False)
    net.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(net, name, fid.FIDInceptionC(768, channels_7x7=inner))
    net.Mixed_7b = fid.FIDInceptionE_1(1280)
    net.Mixed_7c = fid.FIDInceptionE_2(2048)
    published.BasicConv2d = keep
    del net.fc
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("bn.weight"):
            value.uniform_(0.8, 1.6)
        elif name.endswith("bn.bias") or name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("conv.weight"):
            value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return net.eval()


def inception_features(net, x):
    """What clean-fid's torchscript network computes of pictures [N, 3, 299, 299], 0 to 255."""
    x = (x - 128) / 128
    x = net.maxpool1(net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3(x))))
    x = net.maxpool2(net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(x)))
    for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
        x = getattr(net, f"Mixed_{name}")(x)
    return x.mean((2, 3))


def narrow_lpips():
    import torchmetrics.functional.image.lpips as published

    channels = [8, 24, 48, 32, 32]
    features = torchvision.models.alexnet(weights=None).features
    inputs = 3
    for place, outputs in zip((0, 3, 6, 8, 10), channels):
        old = features[place]
        features[place] = torch.nn.Conv2d(inputs, outputs, old.kernel_size, old.stride, old.padding)
        inputs = outputs
    published._get_tv_model_features = lambda net, pretrained: features
    net = published._LPIPS(pretrained=False, pnet_rand=True)
    net.lins = torch.nn.ModuleList([published.NetLinLayer(c) for c in channels])
    for layer in net.lins:
        layer.model[0].weight.data.uniform_(0, 1)
    weights = {f"features.{name}": value.clone() for name, value in features.state_dict().items()}
    linear = {f"lin{i}.model.1.weight": layer.model[0].weight.detach().clone() for i, layer in enumerate(net.lins)}
    return net.eval(), weights, linear


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def scaled(pixels):
    """Pillow's bytes at a smaller and a larger size, by every filter; and floats by the cubic, as clean-fid scales."""
    out = {}
    for name in ("nearest", "bilinear", "bicubic", "lanczos"):
        for width, height in ((41, 57), (133, 120), (96, 31), (90, 40)):  # of the last, Pillow scales columns first
            picture = Image.fromarray(pixels).resize((width, height), getattr(Image.Resampling, name.upper()))
            out[f"{name}_{width}x{height}"] = torch.from_numpy(np.asarray(picture).copy())
    return out


def write_linear(package):
    target = os.path.join(FOLDER, "..", "..", "..", "assets", "metrics", "lpips_alex.safetensors")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    weights = torch.load(os.path.join(package, "weights", "v0.1", "alex.pth"), map_location="cpu")
    save_file({name: value.contiguous() for name, value in weights.items()}, target)


def main():
    from cleanfid.fid import frechet_distance
    from cleanfid.resize import build_resizer
    from torchmetrics.image import PeakSignalNoiseRatio

    torch.manual_seed(0)
    write_pictures()
    os.makedirs(os.path.join(FOLDER, "model"), exist_ok=True)
    inception = narrow_inception()
    save_file({k: v.contiguous() for k, v in inception.state_dict().items() if not k.endswith("num_batches_tracked")},
              os.path.join(FOLDER, "model", "inception.safetensors"))
    lpips, alexnet, linear = narrow_lpips()
    save_file(alexnet, os.path.join(FOLDER, "model", "alexnet.safetensors"))
    save_file(linear, os.path.join(FOLDER, "model", "lpips.safetensors"))

    resize = build_resizer("clean")
    paths = {side: [os.path.join(FOLDER, side, n) for n in sorted(os.listdir(os.path.join(FOLDER, side)))] for side in "ab"}
    with torch.no_grad():
        features = {
            side: torch.cat([inception_features(inception, torch.from_numpy(resize(read(p)).transpose(2, 0, 1))[None]) for p in files])
            for side, files in paths.items()
        }
        tall = inception_features(inception, torch.from_numpy(resize(read(os.path.join(FOLDER, "tall.png"))).transpose(2, 0, 1))[None])
        pairs = [[torch.from_numpy(read(p).copy()).permute(2, 0, 1)[None] / 255 for p in pair] for pair in zip(paths["a"], paths["b"])]
        distances = torch.stack([lpips(a, b, normalize=True).flatten()[0] for a, b in pairs])
        psnr = []
        for a, b in pairs:
            metric = PeakSignalNoiseRatio(data_range=(0, 1), reduction="elementwise_mean", dim=(1, 2, 3))
            metric.update(a, b)
            psnr.append(metric.compute())

    def fid(x, y):
        return frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))

    rng = np.random.default_rng(5)
    mix = rng.normal(0, 1, (24, 24))
    x = np.float32(rng.normal(0, 1, (300, 24)) @ mix)
    y = np.float32(rng.normal(0.3, 1.2, (200, 24)) @ (mix + rng.normal(0, 0.2, (24, 24))))
    folder_fid = fid(features["a"].numpy().astype(np.float64), features["b"].numpy().astype(np.float64))
    tensors = {"features_a": features["a"], "features_b": features["b"], "features_tall": tall, "lpips": distances,
               "psnr": torch.stack(psnr), "made_up_x": torch.from_numpy(x), "made_up_y": torch.from_numpy(y),
               "fid": torch.tensor([fid(x.astype(np.float64), y.astype(np.float64)), folder_fid]).float(),
               "jpeg": torch.from_numpy(read(paths["a"][2]).copy())}
    tensors.update(scaled(read(paths["a"][0])))
    tensors["torch_resized"] = torchvision.transforms.Resize((57, 41))(torch.from_numpy(read(paths["a"][0]).copy()).permute(2, 0, 1)).permute(1, 2, 0).contiguous()
    save_file({name: value.contiguous() for name, value in tensors.items()}, os.path.join(FOLDER, "io.safetensors"))
    with open(os.path.join(FOLDER, "case.json"), "w") as file:
        json.dump({"kind": "metrics", "tolerance": {"atol": 2e-5, "rtol": 1e-4}}, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linear")
    arguments = parser.parse_args()
    write_linear(arguments.linear) if arguments.linear else main()
