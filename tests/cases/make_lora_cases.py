#!/usr/bin/env python3
"""Writes the reference cases of LoRA: pipelines with random low-rank changes, in each of the key layouts that files come in.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2 safetensors sentencepiece
    python3 make_lora_cases.py OUT_DIR [--only PREFIX]

OUT_DIR is the folder that already holds pipeline_sd15, pipeline_sdxl, pipeline_sd3 and pipeline_flux (see README.md): their models are
used. case.json's "loras" lists {"path", "scale"}: files in the case's folder, merged in this order. diffusers reads the same files, or,
where it only knows the layout for the published sizes, files with the same changes in its own layout.
"""
import argparse, json, os, re, tempfile
import diffusers as D, torch
from case_writer import NEGATIVE, PROMPT, Writer, gen, run_case
from safetensors.torch import save_file

STRENGTH = 0.3  # of a change, next to weights that keep the size of what passes through them


def draw(component, pattern, rank, seed):
    """{module: (A, B)} for the linear and convolution layers of a component whose name matches."""
    g, out = gen(seed), {}
    for name, module in component.named_modules():
        if not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) or not re.search(pattern, name): continue
        shape, kernel = module.weight.shape, [1] * (module.weight.dim() - 2)
        a = torch.randn([rank, *shape[1:]], generator=g) / module.weight[0].numel() ** 0.5
        b = torch.randn([shape[0], rank, *kernel], generator=g) * STRENGTH / rank ** 0.5
        out[name] = (a.half(), b.half())
    assert out
    return out


def peft_file(path, changes, config=None):
    """{component: changes} in diffusers' layout; config: {component: fields of peft's LoraConfig}."""
    tensors, metadata = {}, {"format": "pt"}
    for component, modules in changes.items():
        for name, (a, b) in modules.items():
            tensors[f"{component}.{name}.lora_A.weight"], tensors[f"{component}.{name}.lora_B.weight"] = a, b
    if config:
        fields = {}
        for component, values in config.items():
            values = dict(peft_type="LORA", target_modules=list(changes[component]), rank_pattern={}, **values)
            fields.update({f"{component}.{k}": v for k, v in values.items()})
        metadata["lora_adapter_metadata"] = json.dumps(fields)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)


def kohya_file(path, changes, alphas, rename=lambda component, name: name):
    """{component: changes} in kohya's layout: dots become underscores, alpha lies beside the matrices."""
    prefix = {"unet": "lora_unet", "transformer": "lora_unet", "text_encoder": "lora_te" if "te2" not in alphas else "lora_te1",
              "text_encoder_2": "lora_te2"}
    tensors = {}
    for component, modules in changes.items():
        for name, (a, b) in modules.items():
            name = rename(component, name)
            if component.startswith("text_encoder") and not name.startswith("text_"): name = "text_model." + name
            key = prefix[component] + "_" + name.replace(".", "_")
            tensors.update({f"{key}.lora_down.weight": a, f"{key}.lora_up.weight": b, f"{key}.alpha": torch.tensor(alphas[component])})
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"ss_network_module": "networks.lora"})


def load(w, base):
    pipe = D.DiffusionPipeline.from_pretrained(w.path(base, "model"), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lora_case(w, name, base, seed, call, write, size=(64, 96), scales=(0.7,)):
    """`write(pipe, number, path)` writes LoRA file `number` to a path, and returns another path if diffusers is to read that one."""
    if not w.wanted(name): return
    plain_pipe, pipe = load(w, base), load(w, base)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"lora{'' if i == 0 else i + 1}.safetensors" for i in range(len(scales))]
        for i, file in enumerate(names):
            path = os.path.join(folder, file)
            pipe.load_lora_weights(write(plain_pipe, i, path) or path, adapter_name=f"a{i}")
        pipe.set_adapters([f"a{i}" for i in range(len(scales))], list(scales))
        plain, changed = [p(prompt=PROMPT, num_inference_steps=2, generator=gen(seed), output_type="latent", height=size[0], width=size[1],
                            **call).images for p in (plain_pipe, pipe)]
        assert (plain - changed).abs().max() > 0.1, "the LoRA changes next to nothing"
        loras = [dict(path=file, scale=scale) for file, scale in zip(names, scales)]
        target = run_case(w, name, pipe, PROMPT, *size, 3, seed, call, scalars=dict(model=f"../{base}/model", loras=loras))
        for file in names: os.rename(os.path.join(folder, file), os.path.join(target, file))


GUIDED = dict(guidance_scale=5.0, negative_prompt=NEGATIVE)


def sd15(w):
    """Attention, feed-forward, 1x1 and 3x3 convolutions and time embeddings, in both layouts; two files of one case share modules."""
    everything = r"attn|ff|proj|conv|linear"

    def peft(pipe, number, path):
        changes = {"unet": draw(pipe.unet, everything, 4, 1), "text_encoder": draw(pipe.text_encoder, "attn|fc", 2, 2)}
        peft_file(path, changes, {"unet": dict(r=4, lora_alpha=6, alpha_pattern={"attn1.to_q": 2.0, "conv1": 8.0}, use_rslora=False),
                                  "text_encoder": dict(r=2, lora_alpha=3, alpha_pattern={}, use_rslora=True)})

    def kohya(pipe, number, path):
        changes = {"unet": draw(pipe.unet, everything if number == 0 else "attn2", 5 - number, 3 + number)}
        if number == 0: changes["text_encoder"] = draw(pipe.text_encoder, "attn|fc", 3, 5)
        kohya_file(path, changes, {"unet": 2.0, "text_encoder": 1.5})

    lora_case(w, "pipeline_sd15_lora", "pipeline_sd15", 21, GUIDED, peft)
    lora_case(w, "pipeline_sd15_lora_kohya", "pipeline_sd15", 22, GUIDED, kohya, scales=(0.8, -0.5))


def sgm_name(component, name, layers=1):
    """The name that SDXL's published U-Net has for a module of diffusers' UNet2DConditionModel."""
    if component != "unet": return name
    resnet = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    if m := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        side, block, kind, index, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        number = 1 + block * (layers + 1) + index if side == "down" else block * (layers + 1) + index
        return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{resnet.get(rest, rest)}"
    if m := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", name): return f"input_blocks.{(int(m[1]) + 1) * (layers + 1)}.0.op"
    if m := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", name): return f"output_blocks.{int(m[1]) * (layers + 1) + layers}.2.conv"
    if m := re.match(r"mid_block\.resnets\.(\d+)\.(.*)", name): return f"middle_block.{2 * int(m[1])}.{resnet[m[2]]}"
    if m := re.match(r"mid_block\.attentions\.0\.(.*)", name): return f"middle_block.1.{m[1]}"
    raise ValueError(name)


def sdxl(w):
    def kohya(pipe, number, path):
        changes = {"unet": draw(pipe.unet, r"blocks.*(attn|ff|proj|conv|linear)", 4, 6),
                   "text_encoder": draw(pipe.text_encoder, "attn|fc", 4, 7), "text_encoder_2": draw(pipe.text_encoder_2, "attn|fc", 4, 8)}
        kohya_file(path, changes, {"unet": 3.0, "text_encoder": 4.0, "text_encoder_2": 2.0, "te2": None}, sgm_name)

    lora_case(w, "pipeline_sdxl_lora_kohya", "pipeline_sdxl", 23, GUIDED, kohya)


def sd3(w):
    def peft(pipe, number, path):
        peft_file(path, {"transformer": draw(pipe.transformer, "attn|ff|norm1|proj_in", 4, 9),
                         "text_encoder_2": draw(pipe.text_encoder_2, "attn|fc", 2, 10)})

    lora_case(w, "pipeline_sd3_lora", "pipeline_sd3", 24, dict(GUIDED, max_sequence_length=20), peft)


# Which of diffusers' modules one module of Flux's published transformer is, with the share of its rows.
FLUX_DOUBLE = {"img_attn_qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
               "txt_attn_qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
               "img_attn_proj": ["attn.to_out.0"], "txt_attn_proj": ["attn.to_add_out"], "img_mlp_0": ["ff.net.0.proj"],
               "img_mlp_2": ["ff.net.2"], "txt_mlp_0": ["ff_context.net.0.proj"], "txt_mlp_2": ["ff_context.net.2"],
               "img_mod_lin": ["norm1.linear"], "txt_mod_lin": ["norm1_context.linear"]}
FLUX_SINGLE = {"linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear2": ["proj_out"], "modulation_lin": ["norm.linear"]}


def flux_fused(pipe, rank, seed):
    """({kohya's module: (A, B)}, the same as {diffusers' module: (A, its rows of B)})."""
    g, fused, parts = gen(seed), {}, {}
    kinds = [("double_blocks", "transformer_blocks", pipe.transformer.transformer_blocks, FLUX_DOUBLE),
             ("single_blocks", "single_transformer_blocks", pipe.transformer.single_transformer_blocks, FLUX_SINGLE)]
    for original, ours, blocks, table in kinds:
        for i, block in enumerate(blocks):
            for name, modules in table.items():
                weights = [block.get_submodule(m).weight for m in modules]
                rows = [x.shape[0] for x in weights]
                a = (torch.randn(rank, weights[0].shape[1], generator=g) / weights[0].shape[1] ** 0.5).half()
                b = (torch.randn(sum(rows), rank, generator=g) * STRENGTH / rank ** 0.5).half()
                fused[f"{original}.{i}.{name}"] = (a, b)
                parts.update({f"{ours}.{i}.{m}": (a.clone(), x) for m, x in zip(modules, b.split(rows))})
    return fused, parts


def flux(w):
    call = dict(guidance_scale=3.5, max_sequence_length=24)

    def peft(pipe, number, path):
        peft_file(path, {"transformer": draw(pipe.transformer, "attn|ff|norm|proj|embed", 4, 11),
                         "text_encoder": draw(pipe.text_encoder, "attn|fc", 2, 12)})

    def kohya(pipe, number, path):
        fused, parts = flux_fused(pipe, 4, 13)
        encoder = draw(pipe.text_encoder, "attn|fc", 2, 14)
        kohya_file(path, {"transformer": fused, "text_encoder": encoder}, {"transformer": 2.0, "text_encoder": 3.0, "te2": None})
        other = path.replace(".safetensors", "_diffusers.safetensors")
        halves = lambda modules, factor: {k: (a.float(), b.float() * factor) for k, (a, b) in modules.items()}
        peft_file(other, {"transformer": halves(parts, 2.0 / 4), "text_encoder": halves(encoder, 3.0 / 2)})
        return other

    lora_case(w, "pipeline_flux_lora", "pipeline_flux", 25, call, peft)
    lora_case(w, "pipeline_flux_lora_kohya", "pipeline_flux", 26, call, kohya)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    w = Writer(a.out, a.only)
    for make in (sd15, sdxl, sd3, flux): make(w)


if __name__ == "__main__":
    main()
