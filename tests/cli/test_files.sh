#!/bin/sh
# Files as people have them, through the command: sh test_files.sh PROGRAM, run in the repository root.
# Of one model in all its forms the pictures must be the same; what is no model is named for what it is.
program=$(realpath "$1")
. tests/check.sh
cases=tests/cases reports=tests/reports
quick="--width 64 --height 64 --steps 2 --seed 3 --threads 1 --dtype f32 --prompt lion"
draw() { output=$1; shift; run 0 generate $quick "$@" -o "$work/$output.png"; } # NAME OPTIONS...
# The picture without its record, which names the files.
pixels() { python3 - "$1" <<'END'
import struct, sys
data, at = open(sys.argv[1], "rb").read(), 8
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind in (b"IHDR", b"IDAT"): sys.stdout.buffer.write(data[at + 8:at + 8 + size])
    at += 12 + size
END
}
same() { pixels "$work/$1.png" >"$work/one"; pixels "$work/$2.png" >"$work/two"; check "$1 and $2 are one picture" cmp -s "$work/one" "$work/two"; }
other() { pixels "$work/$1.png" >"$work/one"; pixels "$work/$2.png" >"$work/two"; check "$1 and $2 differ" sh -c "! cmp -s '$work/one' '$work/two'"; }
torch() { python3 tests/cli/to_torch.py "$@" || failed=1; }

# one model: a folder, only variants, PyTorch's files in the folder, a checkpoint, saved by a
# picture-to-picture pipeline
sd=$cases/pipeline_sd15/model
draw folder --model $sd
cp -r $sd "$work/fp16"
for part in unet/diffusion_pytorch_model vae/diffusion_pytorch_model text_encoder/model; do
    mv "$work/fp16/$part.safetensors" "$work/fp16/$part.fp16.safetensors"
done
draw fp16 --model "$work/fp16"; same folder fp16
cp -r $sd "$work/both"
torch $cases/pipeline_sd15_clip_skip_2/text_encoder/model.safetensors "$work/ignored.bin"
cp "$work/fp16/unet/diffusion_pytorch_model.fp16.safetensors" "$work/both/unet/"
draw both --model "$work/both" --variant fp16; same folder both
says_once "no weight files of variant fp16 for vae, text_encoder:\|no weight files of variant fp16 for text_encoder, vae:"
cp -r $sd "$work/bin"
torch $sd/text_encoder/model.safetensors "$work/bin/text_encoder/pytorch_model.bin"; rm "$work/bin/text_encoder/model.safetensors"
torch $sd/unet/diffusion_pytorch_model.safetensors "$work/bin/unet/diffusion_pytorch_model.bin"; rm "$work/bin/unet/diffusion_pytorch_model.safetensors"
draw bin --model "$work/bin"; same folder bin
torch $cases/single_file/sd15.safetensors "$work/sd15.ckpt" --state-dict
draw single --model $cases/single_file/sd15.safetensors --config $sd; same folder single
draw ckpt --model "$work/sd15.ckpt" --config $sd; same folder ckpt
run 0 convert "$work/sd15.ckpt" "$work/converted" --config $sd; prints "540 tensors"
draw converted --model "$work/converted"; same folder converted
cp -r $sd "$work/img2img"
sed -i 's/"StableDiffusionPipeline"/"StableDiffusionImg2ImgPipeline"/' "$work/img2img/model_index.json"
draw img2img --model "$work/img2img"; same folder img2img

# what a clone without Git LFS or a failed download left in the place of a small file is named, too
for file in model_index.json unet/config.json scheduler/scheduler_config.json tokenizer/tokenizer.json; do
    rm -rf "$work/left"; cp -r $sd "$work/left"
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n' >"$work/left/$file"
    run 1 generate $quick --model "$work/left" -o "$work/left.png"; says "$file: is a Git LFS pointer"
    printf '\n<!DOCTYPE html><html>' >"$work/left/$file"
    run 1 generate $quick --model "$work/left" -o "$work/left.png"; says "$file: is a web page"
done

# LoRA files of PyTorch; modules that the model does not have are left out with one line
lora=$cases/pipeline_sd15_lora_kohya/lora.safetensors
torch $lora "$work/lora.pt"
draw lora --model $sd --lora $lora; other folder lora
draw lora-pt --model $sd --lora "$work/lora.pt"; same lora lora-pt
torch $lora "$work/more.safetensors" --safetensors --rename lora_unet_mid_block lora_unet_no_such_block
draw more --model $sd --lora "$work/more.safetensors"; says_once "more.safetensors: \"lora_unet_no_such_block.*left out"

# reports: kinds of adapters in models of random weights
for class in sd15 flux-dev; do run 0 make-model --class $class --scale tiny --seed 1 "$work/$class" -q; done
draw tiny --model "$work/sd15"
for file in 07-lora-alpha-type/alpha-f64 07-lora-alpha-type/alpha-i64 17-dora-loha-lokr/dora-kohya 17-dora-loha-lokr/loha 17-dora-loha-lokr/lokr; do
    draw adapted --model "$work/sd15" --lora $reports/$file.safetensors; other tiny adapted
done
draw flux --model "$work/flux-dev"
for file in 05-xlabs-lora/xlabs 05-xlabs-lora/xlabs-single 17-dora-loha-lokr/dora-peft; do
    draw adapted --model "$work/flux-dev" --lora $reports/$file.safetensors; other flux adapted
done

# SD3 without T5: a single file, its converted folder, a folder whose weights are gone
sd3=$cases/pipeline_sd3/model
torch $cases/single_file/sd3.safetensors "$work/sd3.safetensors" --safetensors --drop text_encoders.t5xxl.
draw sd3 --model "$work/sd3.safetensors" --config $sd3; says "holds no T5"
run 0 convert "$work/sd3.safetensors" "$work/sd3" --config $sd3
draw sd3-folder --model "$work/sd3"; same sd3 sd3-folder
cp -r $sd3 "$work/sd3-gone"; rm -r "$work/sd3-gone/text_encoder_3"
draw sd3-gone --model "$work/sd3-gone"; says "holds no T5"; same sd3 sd3-gone
draw sd3-t5 --model "$work/sd3.safetensors" --config $sd3 --text-encoder-3 $sd3/text_encoder_3; other sd3 sd3-t5
# the file's tensors say which encoder is T5, not its name
ln "$work/sd3.safetensors" "$work/third.safetensors"
draw sd3-word --model "$work/third.safetensors" --config $sd3 --t5xxl $sd3/text_encoder_3; same sd3-t5 sd3-word

# the networks of metrics as they are published
metrics=tests/metrics/case
for net in inception alexnet; do torch $metrics/model/$net.safetensors "$work/$net.pth"; done
measure() { run 0 evaluate --input-root0 $metrics/a --input-root1 $metrics/b --lpips $metrics/model/lpips.safetensors --threads 1 "$@"; }
measure --inception $metrics/model/inception.safetensors --alexnet $metrics/model/alexnet.safetensors; cp "$work/out" "$work/figures"
measure --inception "$work/inception.pth" --alexnet "$work/alexnet.pth"; check "the same figures" cmp "$work/out" "$work/figures"

# named for what it is
refuses() { run 1 generate $quick --model "$1" -o "$work/x.png"; says "$2"; }
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4265146304\n' >"$work/lfs.safetensors"
refuses "$work/lfs.safetensors" "lfs.safetensors: is a Git LFS pointer.*git lfs pull"
printf '<!DOCTYPE html>\n<html><body>Sign in</body></html>' >"$work/page.safetensors"
refuses "$work/page.safetensors" "a web page"
printf 'Access to model x is restricted.' >"$work/text.safetensors"
refuses "$work/text.safetensors" "Access to model x is restricted"
refuses $reports/09-not-safetensors/model.ckpt "no layout that is known"
run 0 inspect $reports/09-not-safetensors/model.ckpt; prints "F32 .*a$"
cp -r $sd "$work/lfs"; cp "$work/lfs.safetensors" "$work/lfs/unet/diffusion_pytorch_model.safetensors"
refuses "$work/lfs" "unet/diffusion_pytorch_model.safetensors: is a Git LFS pointer"
cp -r $sd "$work/packed"
sed -i '1s/{/{"quantization_config": {"quant_method": "gptq", "bits": 4},/' "$work/packed/unet/config.json"
refuses "$work/packed" "unet/config.json: quantization_config: the weights are packed by gptq"

# bitsandbytes' int8, as diffusers saves it, draws what its numbers draw in float32
rm -r "$work/packed"; cp -r $sd "$work/packed"; cp -r $sd "$work/plain"
python3 - "$work" <<'END'
import array, json, struct, sys
name = "/unet/diffusion_pytorch_model.safetensors"
data = open(sys.argv[1] + "/packed" + name, "rb").read()
size, = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + size])
header.pop("__metadata__", None)
packed, plain, count = [], [], 0
for key, t in header.items():
    first, last = t["data_offsets"]
    raw = data[8 + size + first:8 + size + last]
    if not key.endswith("attn1.to_q.weight") or t["dtype"] != "BF16":
        packed.append((key, t["dtype"], t["shape"], raw)), plain.append(packed[-1])
        continue
    bits, (rows, columns) = array.array("H", raw), t["shape"]
    numbers = array.array("f", array.array("I", [b << 16 for b in bits]).tobytes())
    ints, scales, wide = array.array("b"), array.array("f"), array.array("f")
    for r in range(rows):
        row = numbers[r * columns:(r + 1) * columns]
        scales.append(max(abs(x) for x in row))
        q = [round(x * 127 / scales[-1]) for x in row]
        ints.extend(q), wide.extend(x * 7.874015718698502e-3 for x in array.array("f", [x * scales[-1] for x in q]))
    packed += [(key, "I8", t["shape"], ints.tobytes()), (key[:-6] + "SCB", "F32", [rows], scales.tobytes()), (key[:-6] + "weight_format", "U8", [], b"\0")]
    plain.append((key, "F32", t["shape"], wide.tobytes()))
    count += 1
assert count > 0
for folder, tensors in ("packed", packed), ("plain", plain):
    header, at = {}, 0
    for key, dtype, shape, raw in tensors:
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(sys.argv[1] + "/" + folder + name, "wb").write(struct.pack("<Q", len(text)) + text + b"".join(raw for _, _, _, raw in tensors))
END
sed -i '1s/{/{"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true},/' "$work/packed/unet/config.json"
for folder in plain packed; do draw $folder --model "$work/$folder"; done
same plain packed
refuses tests/tensor/torch/evil_system.pt "system\": only tensors"
check "nothing was executed" test ! -e /tmp/tessera-was-here

# names from files do not reach the terminal
escape=$(printf '\033')
run 1 generate $quick --model $reports/esc-model -o "$work/x.png"; says "StableDiffusionPipeline?"
check "no escape sequence" sh -c "! grep -q '$escape' '$work/err'"
run 0 inspect $reports/esc-name.safetensors; prints "a?]0;owned?"
check "no escape sequence" sh -c "! grep -q '$escape' '$work/out'"
run 1 generate $quick --model $reports/esc-name.safetensors -o "$work/x.png"
check "no escape sequence" sh -c "! grep -q '$escape' '$work/err'"

# pipes in a model's folder are not waited for
for part in model_index.json unet/config.json unet/diffusion_pytorch_model.safetensors tokenizer/vocab.json scheduler/scheduler_config.json; do
    rm -rf "$work/pipe"; cp -r $sd "$work/pipe"; rm "$work/pipe/$part"; mkfifo "$work/pipe/$part"
    timeout 60 "$program" generate $quick --model "$work/pipe" -o "$work/x.png" >"$work/out" 2>"$work/err"
    check "a pipe as $part" test $? -eq 1; says "$part: not a regular file"
done

# a folder without permission is named (root may read everything: as another user)
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    cp -r $sd "$work/shut"; chmod 755 "$work"; chmod 0 "$work/shut/unet"
    setpriv --reuid=65534 --clear-groups "$program" inspect "$work/shut" >"$work/out" 2>"$work/err"
    check "inspect of a folder without permission" test $? -eq 1; says "shut/unet: .*ermission"
fi
exit $failed
