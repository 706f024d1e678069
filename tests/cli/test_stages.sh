#!/bin/sh
# The stages of a picture as commands, and what is said where they do not fit together: sh
# test_stages.sh PROGRAM, run in the repository root.
program=$(realpath "$1")
. tests/check.sh
sd=tests/cases/pipeline_sd15/model
ending() { tail -c 2000 "$1" | cksum; } # of the compressed pixels
draw="--seed 3 --steps 2 --threads 1 --width 64 --height 64"

for model in $sd tests/cases/pipeline_flux/model; do
    rm -f "$work"/*.png "$work"/*.safetensors
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt "a lion" $draw -o "$work/whole.png"
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt "a lion" $draw --offload stages -o "$work/offloaded.png"
    check "--offload stages gives the same picture" test "$(ending "$work/whole.png")" = "$(ending "$work/offloaded.png")"
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt "a lion" $draw --offload blocks -o "$work/blocks.png"; says "GB from the disk, waited"
    check "--offload blocks gives the same picture" test "$(ending "$work/whole.png")" = "$(ending "$work/blocks.png")"
    run 0 encode --model $model --prompt "a lion" --threads 1 -o "$work/states.safetensors"
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt-embeds "$work/states.safetensors" $draw --output-type latent -o "$work/latents.safetensors"
    run 0 decode --model $model "$work/latents.safetensors" --threads 1 -o "$work/apart.png"
    check "three commands give the same picture" test "$(ending "$work/whole.png")" = "$(ending "$work/apart.png")"
    run 0 encode --model $model --prompt "a lion" --threads 1 -o "$work/again.safetensors"
    check "the bytes depend on the numbers alone" cmp "$work/states.safetensors" "$work/again.safetensors"
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt-embeds "$work/states.safetensors" $draw -o "$work/named.png"
    check "the prompt is in the picture's record" grep -qa '"prompt":"a lion"' "$work/named.png"
done

# a folder that lies elsewhere is the same model; another one is refused, and a file that is
# something else
cp -r $sd "$work/moved"
run 0 encode --model "$work/moved" --prompt "a lion" -o "$work/moved.safetensors"
run 0 generate --model $sd --prompt-embeds "$work/moved.safetensors" --steps 1 -o "$work/moved.png"

# what is not read of a folder does not count, nor LoRA files of the denoiser; those of text do
cp "$work/moved/text_encoder/model.safetensors" "$work/moved/text_encoder/model.fp16.safetensors"
cp "$work/moved/text_encoder/model.safetensors" "$work/moved/text_encoder/pytorch_model.bin"
echo "a note" >"$work/moved/text_encoder/notes.txt"
echo "{}" >"$work/moved/tokenizer/other.json"
python3 - "$work" <<'END'
import json, struct, sys
def write(path, module, width):
    header, data = {}, b""
    for part, shape in ("lora_A", [1, width]), ("lora_B", [width, 1]):
        header["%s.%s.weight" % (module, part)] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * width]}
        data += struct.pack("<%df" % width, *[0.1] * width)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
config = json.load(open(sys.argv[1] + "/moved/text_encoder/config.json"))
write(sys.argv[1] + "/text-lora.safetensors", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj", config["hidden_size"])
width = json.load(open(sys.argv[1] + "/moved/unet/config.json"))["block_out_channels"][0]
write(sys.argv[1] + "/unet-lora.safetensors", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", width)
END
run 0 encode --model "$work/moved" --prompt "a lion" -o "$work/more.safetensors"
check "files that are not read do not count" cmp "$work/moved.safetensors" "$work/more.safetensors"
run 0 encode --model $sd --lora "$work/unet-lora.safetensors" --prompt "a lion" -o "$work/other.safetensors"
check "LoRA files of the denoiser do not count" cmp "$work/moved.safetensors" "$work/other.safetensors"
run 0 generate --model $sd --lora "$work/unet-lora.safetensors" --prompt-embeds "$work/moved.safetensors" --steps 1 -o "$work/lora.png"
run 1 generate --model $sd --lora "$work/text-lora.safetensors" --prompt-embeds "$work/moved.safetensors" --steps 1 -o "$work/no.png"; says "made by another model"
run 1 generate --model $sd --prompt-embeds "$work/states.safetensors" --steps 1 -o "$work/no.png"; says "made by another model: a FluxPipeline whose text encoders"
run 1 decode --model $sd "$work/latents.safetensors" -o "$work/no.png"; says "made by another model: a FluxPipeline whose autoencoder"
run 1 decode --model $sd "$work/states.safetensors" -o "$work/no.png"; says "holds prompt embeddings and not latents"
run 1 generate --model $sd --prompt-embeds $sd/unet/diffusion_pytorch_model.safetensors -o "$work/no.png"; says "does not say what it holds"
check "nothing is written" test ! -e "$work/no.png"
run 2 generate --model $sd --prompt a --prompt-embeds "$work/moved.safetensors" -o "$work/no.png"; says "give one of them"
run 2 encode --model $sd --prompt a -o "$work/states.png"; says "FILE.safetensors"
run 2 encode --model $sd -o "$work/x.safetensors"; says "needs --prompt"
run 2 decode --model $sd; says "needs latents"
run 2 decode --model $sd "$work/latents.safetensors" -o "$work/whole.png"; says "exists"
run 2 generate --model $sd --prompt a --offload some; says "none|stages"
run 0 encode --model $sd --prompt "a lion" --guidance-scale 1 -o "$work/one.safetensors"
run 1 generate --model $sd --prompt-embeds "$work/one.safetensors" --steps 1 -o "$work/no.png"; says "negative prompt"

# pictures whose size is chosen among bins, but for those that start from a picture
bins=tests/cases/pipeline_hunyuandit/model
for start in "" "--init-image $work/whole.png --strength 0.5 --width 64 --height 64"; do
    rm -f "$work"/bins*
    # shellcheck disable=SC2086
    run 0 generate --model $bins --prompt a --steps 1 --width 900 --height 1000 $start -o "$work/bins.png"
    # shellcheck disable=SC2086
    run 0 generate --model $bins --prompt a --steps 1 --width 900 --height 1000 $start --output-type latent -o "$work/bins.safetensors"
    run 0 decode --model $bins "$work/bins.safetensors" -o "$work/bins-apart.png"
    check "both ways give the same size and picture" test "$(ending "$work/bins.png")" = "$(ending "$work/bins-apart.png")"
done

# files that were made up: OUT FIND REPLACE changes the header of a file
forge() { python3 - "$@" <<'END'
import struct, sys
source, to, find, replace = sys.argv[1:]
data = open(source, "rb").read()
size, = struct.unpack("<Q", data[:8])
header = data[8:8 + size].rstrip(b" ")
assert find.encode() in header, header[:300]
header = header.replace(find.encode(), replace.encode(), 1)
header += b" " * (-len(header) % 8)
open(to, "wb").write(struct.pack("<Q", len(header)) + header + data[8 + size:])
END
}
# reproducible kernels make the three commands independent of threads
model=tests/cases/pipeline_flux/model
# shellcheck disable=SC2086
run 0 generate --model $model --prompt "a lion" $draw --dtype f32 --kernels reproducible -o "$work/exact.png"
run 0 encode --model $model --prompt "a lion" --threads 2 --dtype f32 --kernels reproducible -o "$work/exact.safetensors"
run 0 generate --model $model --prompt-embeds "$work/exact.safetensors" --seed 3 --steps 2 --threads 2 --width 64 --height 64 --dtype f32 --kernels reproducible --output-type latent -o "$work/exact-latents.safetensors"
run 0 decode --model $model "$work/exact-latents.safetensors" --threads 2 --dtype f32 --kernels reproducible -o "$work/exact-apart.png"
check "reproducible kernels: three commands on two threads" test "$(ending "$work/exact.png")" = "$(ending "$work/exact-apart.png")"

rm -f "$work/latents.safetensors"
# shellcheck disable=SC2086
run 0 generate --model $sd --prompt a $draw --output-type latent -o "$work/latents.safetensors"
forge "$work/latents.safetensors" "$work/forged.safetensors" '"shape":[1, 4, 8, 8]' '"shape":[2, 4, 4, 8]'
run 1 decode --model $sd "$work/forged.safetensors" -o "$work/no.png"; says "F32 \[1, channels, rows, columns\]"
for width in 70000 -64 64x 0; do
    forge "$work/latents.safetensors" "$work/forged.safetensors" '"width":"64"' "\"width\":\"$width\""
    run 1 decode --model $sd "$work/forged.safetensors" -o "$work/no.png"; says "and width and height in __metadata__"
done
forge "$work/latents.safetensors" "$work/forged.safetensors" '"F32"' '"I32"'
run 1 decode --model $sd "$work/forged.safetensors" -o "$work/no.png"; says "F32 \[1, channels, rows, columns\]"
shape=$(head -c 2000 "$work/moved.safetensors" | grep -ao '"shape":\[[0-9]*, [0-9]*, [0-9]*\]' | head -n 1)
forge "$work/moved.safetensors" "$work/forged.safetensors" "$shape" "\"shape\":[1, $(echo "$shape" | cut -d '[' -f 2)"
run 1 generate --model $sd --prompt-embeds "$work/forged.safetensors" --steps 1 -o "$work/no.png"; says "up to 3 extents"

# limits
run 2 generate --model $sd --prompt a --max-memory 1:2GiB; says "there is no rank 1"
run 2 generate --model $sd --prompt a --max-memory "0:"; says "max-memory"
run 1 generate --model $sd --prompt a --steps 1 --max-memory 1MiB -o "$work/no.png"; says "MiB more than the limit of 1 MiB"
run 0 generate --model $sd --prompt a --steps 1 --max-memory 0:4GiB -o "$work/limited.png"

# a file that is cut while the model works: mapped or read, an error that names it
for way in none blocks; do
    rm -rf "$work/cut"; cp -r $sd "$work/cut"
    "$program" generate --model "$work/cut" --prompt a --steps 900 --num-images 50 --dtype f32 --offload $way -o "$work/cut.png" >"$work/out" 2>"$work/err" &
    pid=$!
    wait_until grep -q "text: 1 of 1" "$work/err"
    wait_until sh -c "grep -q /cut/unet/ /proc/$pid/maps || ls -l /proc/$pid/fd | grep -q /cut/unet/"
    sleep 1 # its header is read by then
    truncate -s 4096 "$work/cut/unet/diffusion_pytorch_model.safetensors"
    wait $pid
    check "a cut file ends the command ($way)" test $? -eq 1
    says "unet/diffusion_pytorch_model.safetensors:.* was cut"
done
exit $failed
