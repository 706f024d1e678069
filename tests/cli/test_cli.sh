#!/bin/sh
# Tests the `tessera` command as a person uses it: sh test_cli.sh PROGRAM, run in the repository
# root. Prints a line per check; exits 1 if any failed. Left out: what the pictures show (the
# pipelines' tests).
program=$(realpath "$1")
. tests/check.sh

nothing_in() { check "nothing is left in $(basename "$1")" test -z "$(ls -A "$1")"; }
quick="--steps 1 --seed 3 --threads 1"

# help
run 0 --help; prints generate; prints inspect
run 0 help generate; prints --guidance-scale; prints examples
run 0 generate --help; prints "^What to draw:"; prints --help-all
run 0 generate --help-all; prints --num-inference-steps
run 0 help inspect
run 0 --version; prints '^tessera [0-9]'
run 2
run 2 generat; says "did you mean 'generate'"
run 2 xyzzyx; says "unknown command 'xyzzyx' ('tessera help'"
run 2 help nonsense

# wrong options
run 2 generate --promt "a"; says "did you mean '--prompt'"
run 2 generate --xyzzyx; says "unknown option '--xyzzyx'$"
run 2 generate --guidence_scale 3; says "did you mean '--guidance-scale'"
run 2 generate --num_inferense_steps 3; says "did you mean '--num-inference-steps'"
run 2 generate -steps 3; says "did you mean '--steps'"
run 2 generate; says "there is no prompt"
run 2 generate --prompt a --num_inference_steps 0; says "error: --num_inference_steps 0 is out of range"
run 2 generate --prompt a -W0; says "error: -W 0 is out of range"
run 2 generate --prompt a --steps 1.5; says "whole number"
run 2 generate --prompt a --width abc; says "'abc'"
run 2 generate --prompt a --seed 18446744073709551616; says "seed"
run 2 generate --prompt a --guidance-scale nan; says "number"
run 2 generate --prompt a --dtype f16; says "f32|bf16"
run 2 generate --prompt a --strength 2 --init-image x.png; says "from 0 to 1"
run 2 generate --prompt a --strength 0.5; says "needs --init-image"
run 2 generate --prompt; says "needs a value"
run 2 generate --prompt a -o x.jpg; says "PNG only"
run 2 generate a lion; says "unexpected argument 'lion'"
run 2 generate --prompt "$(printf '\377')"; says "UTF-8"

# what fails later
run 1 generate --prompt a --model "$work/none" -o "$work/x.png"; says "$work/none"
run 1 generate --prompt a --width 100 $quick -o "$work/x.png"; says "width"
run 1 generate --prompt a -o "$work/none/x.png"; says "there is no folder"
run 1 generate --prompt a --prompts-file "$work/none.txt"; says "none.txt"
run 1 generate --prompt a --init-image "$work/none.png"; says "none.png"
echo "not a picture" >"$work/bad.png"
run 1 generate --prompt a --init-image "$work/bad.png"; says "bad.png is no picture"
run 1 generate --from "$work/bad.png"; says "is no picture"
run 1 generate --from tests/emoji-pictures/00.png; says "no record"
run 1 generate --prompt a $quick -o /dev/full; says "/dev/full"
check "/dev/full is still a device" test -c /dev/full
mkdir "$work/full"
(trap '' XFSZ; ulimit -f 4; "$program" generate --prompt "a lion" $quick -o "$work/full/x.png" >/dev/null 2>"$work/limit")
check "a full disk fails" test "$?" -eq 1
check "a full disk is reported" grep -q "error: $work/full/x.png: " "$work/limit"
nothing_in "$work/full"

# a picture, its record, and the same again
run 0 generate --prompt "a lion on a blue background" $quick -o "$work/lion.png"; prints lion.png; says "peak resident memory [0-9]* MiB"
there "$work/lion.png"
check "the record is in it" grep -qa '"prompt":"a lion on a blue background"' "$work/lion.png"
check "it names the kernel path" grep -qa '"kernel_path":"' "$work/lion.png"
run 0 generate --from "$work/lion.png" -o "$work/again.png"; says "^bit for bit the same"
check "the files are the same" cmp "$work/lion.png" "$work/again.png"
run 0 generate --from "$work/lion.png"; there "$work/lion-again.png"
run 0 generate --model emoji-unet --prompt "a lion" $quick -o "$work/unet.png"
run 0 generate --from "$work/unet.png" -o "$work/unet-again.png"; says "^bit for bit the same"
run 0 generate --from "$work/lion.png" --seed 4 --dtype f32 -o "$work/other.png"; says "not bit for bit: --seed"; says "element type is f32"
head -c 2000 "$work/lion.png" >"$work/cut.png"
run 1 generate --from "$work/cut.png"; says "cut.png is broken or cut off"
sed 's/"steps":1/"steps":0/' "$work/lion.png" >"$work/crc.png"
run 1 generate --from "$work/crc.png"; says "crc.png"

# names of several outputs
run 0 generate --prompt "Red  Apple!" "cat face" --num-images 2 $quick -o "$work/many/"
for f in red-apple_3_0 red-apple_3_1 cat-face_3_2 cat-face_3_3; do there "$work/many/$f.png"; done
run 0 generate --from "$work/many/cat-face_3_3.png" -o "$work/second.png"; says "^bit for bit the same"
run 0 generate --prompt a --prompt=b --num_images_per_prompt 1 $quick --output "$work/two.png"; there "$work/two-0.png"; there "$work/two-1.png"
printf 'cat face\r\n\nrocket\n' >"$work/prompts.txt"
run 0 generate --prompts-file "$work/prompts.txt" $quick -o "$work/many"; there "$work/many/rocket_3_1.png"
mkdir "$work/here"
model=$PWD/models/emoji
(cd "$work/here" && "$program" generate --model "$model" --prompt "cat face" $quick) >"$work/out" 2>"$work/err"
there "$work/here/tessera-cat-face-3.png"

# json
run 0 generate --prompt "a \"quoted\" cat" $quick --json -o "$work/json.png"
prints '"file":'; prints '"peak_resident_memory_bytes":'; prints '"denoise":'; prints '"kernel_path":'; prints 'a \\"quoted\\" cat'
check "--json is quiet" test ! -s "$work/err"
check "one object" test "$(head -c 1 "$work/out")$(tail -c 2 "$work/out")" = "{}"

# picture to picture
run 0 generate --prompt "cat face" --init-image "$work/lion.png" --strength 0.6 --steps 2 --threads 1 -o "$work/cat.png"; there "$work/cat.png"
run 0 generate --from "$work/cat.png" --allow-record-files -o "$work/cat2.png"; says "^bit for bit the same"
run 0 generate --from "$work/cat.png" --init-image "$work/lion.png" -o "$work/cat2.png"; there "$work/cat2.png"
# what a stranger's picture names is not opened: neither a file here nor, with the user's token, a
# model on the hub
run 1 generate --from "$work/cat.png" -o "$work/no.png"; says "cat.png: its record has --init-image .*lion.png.*--allow-record-files"
check "nothing is written" test ! -e "$work/no.png"
run 0 generate --prompt "cat face" --init-image "$work/lion.png" --width 64 --steps 1 --threads 1 -o "$work/small.png" # scaled
check "64 columns" test "$(od -An -tu1 -j16 -N8 "$work/small.png" | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }')" = 64x128
run 0 generate --prompt "cat face" --init-image tests/metrics/case/a/0002.jpg --width 128 --height 128 --steps 1 --threads 1 -o "$work/jpeg.png"

# a control picture
control="--model tests/cases/pipeline_flux_control/model --prompt a --steps 2 --threads 1"
run 0 generate $control --control-image "$work/lion.png" -o "$work/drawn.png"; there "$work/drawn.png"
run 0 generate --from "$work/drawn.png" --allow-record-files -o "$work/drawn2.png"; says "^bit for bit the same"
run 0 generate --from "$work/drawn.png" --allow-record-files --control-image "$work/cat.png" -o "$work/drawn2.png"; says "fingerprint of the control picture"
run 1 generate $control -o "$work/none.png"; says "control-image: is missing"
run 0 generate $control --control-image "$work/lion.png" --height 64 -o "$work/flat.png"; there "$work/flat.png"
run 1 generate $quick --prompt a --control-image "$work/lion.png" -o "$work/none.png"; says "takes no control picture"
check "nothing is written after an error" test ! -e "$work/none.png"

# options of other programs
sd=tests/cases/pipeline_sd15/model
small="--prompt a --steps 1 --width 64 --height 64 --threads 1"
run 0 --prompt "cat face" $quick --use_torch_compile --attention_backend flash_3 -o "$work/notice.png"
says "--use_torch_compile has no effect: there is nothing to compile"; says "--attention_backend has no effect"
run 0 help-all generate; prints "accepted for commands of other programs"; prints "--use-onediff"
run 0 generate --prompt "cat face" $quick --test_times 3 --warmup_calls 1 --ignore_ratio 0.7 -o "$work/timed.png"
says "^latency: .* mean of 1 of 3 runs of 1 picture, .* after 1 to warm up"; there "$work/timed.png"
run 0 generate --prompt "cat face" $quick --num_iterations 2 --json -o "$work/timed.png"; prints '"seconds_per_picture":'; prints '"warmup_runs":.0'
run 0 generate --prompt "cat face" $quick --output_directory "$work/deep/er"; there "$work/deep/er/cat-face_3_0.png"
run 2 generate --prompt "cat face" $quick --output_root "$work/deep" -o "$work/x.png"; says "give one of them"
run 0 generate --prompt "cat face" $quick --output_type latent --output_path "$work/latent.png"; there "$work/latent.safetensors"
check "latents [1, 8, 16, 16]" grep -qa '"latents":{"dtype":"F32","shape":\[1, 8, 16, 16\]' "$work/latent.safetensors"
check "no picture beside them" test ! -e "$work/latent.png"
printf '\357\273\277number,prompt\r\n1,"cat ""face"", red"\r\n2,rocket\r\n3,\r\n' >"$work/table.csv"
run 0 generate --dataset_path "$work/table.csv" --batch_size 4 $quick -o "$work/table/"; says "--batch_size has no effect"
there "$work/table/cat-face-red_3_0.png"; there "$work/table/rocket_3_1.png"; check "two pictures" test "$(ls "$work/table" | wc -l)" -eq 2
run 1 generate --dataset_path "$work/prompts.txt" $quick -o "$work/x.png"; says 'no column of its first line is named "prompt"'
run 0 generate --model $sd --prompt a --image_size 64 128 --steps 1 --threads 1 --scheduler euler --json -o "$work/size.png"
prints '"height":.64,'; prints '"width":.128,'; prints '"scheduler":."EulerDiscreteScheduler"'
run 2 generate --model $sd --prompt a --image_size 64 64 64 -o "$work/size.png"; says "one number or two"
run 2 generate --model $sd --prompt a --image_size big -o "$work/size.png"; says "whole number"
run 0 generate --model $sd --like sd_example --num_inference_steps 1 --image_size 64 --json -o "$work/like.png"
prints '"seed":.233,'; prints '"sync_mode":."stale_gn"'; prints "Astronaut in a jungle"
run 0 generate --from "$work/like.png" --allow-record-files --output_root "$work/like"; says "^bit for bit the same"
run 0 generate --model $sd $small --like xdit --json -o "$work/like.png"; prints '"seed":.42,'; prints '"guidance_scale":.3.5,'
run 0 generate --model $sd --mode benchmark --steps 1 --image_size 64 --test_times 2 --warmup_times 0 --json --output_path "$work/bench.png"
prints '"seed":.1234,'; prints '"scheduler":."DDIMScheduler"'; prints '"guidance_scale":.5,'
run 2 generate --like distrifuser $small; says "takes one of xdit|.*sdxl_example"
run 2 generate $small --original_size 99999999999999999999x64 -o "$work/x.png"; says "two whole numbers"
run 2 generate $small --original_size 64x4294967297 -o "$work/x.png"; says "two whole numbers"
run 2 generate $small --use_fbcache --use_teacache; says "one step cache at most"
run 2 generate $small --pipefusion_parallel_degree 2 --attn_layer_num_for_pp 10,9,1; says "has 3 numbers for --pipefusion-parallel-degree 2"
run 2 generate $small --pipefusion_parallel_degree 2 --attn_layer_num_for_pp 10 x; says "whole numbers from 1, not 'x'"
run 1 generate $small --model "FLUX.1-nothing" -o "$work/x.png"; says "FLUX.1-nothing"

# inspect
run 0 inspect models/emoji; prints SD3Transformer2DModel; prints "an estimate"
run 0 inspect models/emoji --json; prints '"parameters":'
run 0 inspect models/emoji/vae/diffusion_pytorch_model.safetensors; prints "decoder"; prints "BF16"
run 1 inspect "$work/none"; says none
run 1 inspect "$work/bad.png"; says bad.png
run 2 inspect

# LoRA files: a path with a colon, a scale, several; the record has them
cp tests/cases/pipeline_sd15_lora_kohya/lora.safetensors "$work/a:b.safetensors"
run 0 generate --model $sd $small -o "$work/plain.png"
run 0 generate --model $sd $small --lora "$work/a:b.safetensors" --lora tests/cases/pipeline_sd15_lora/lora.safetensors:-0.5 -o "$work/lora.png"
run 0 generate --from "$work/lora.png" --allow-record-files -o "$work/lora2.png"; says "^bit for bit the same"
run 1 generate --from "$work/lora.png" -o "$work/no.png"; says "its record has --model tests/cases"
run 1 generate --from "$work/lora.png" --model $sd -o "$work/no.png"; says "its record has --lora"
run 0 generate --from "$work/plain.png" --allow-record-files --lora "$work/a:b.safetensors:0" -o "$work/zero.png"; says "not bit for bit: --lora"
run 1 generate --model $sd $small --lora tests/cases/pipeline_flux_lora/lora.safetensors -o "$work/x.png"; says "names no module"
run 1 generate --model $sd $small --lora missing.safetensors:2 -o "$work/x.png"; says "missing.safetensors: cannot open"

# convert
tiny=tests/cases
run 0 help convert; prints --config; prints examples
run 0 convert $tiny/single_file/sd15.safetensors "$work/sd15" --config $tiny/pipeline_sd15/model; prints "540 tensors"
there "$work/sd15/unet/diffusion_pytorch_model.safetensors"
run 0 convert "$work/sd15" -o "$work/sd15.safetensors"; prints "540 tensors"
run 0 convert --config $tiny/pipeline_flux/model $tiny/single_file/flux.safetensors "$work/flux"; says "holds no text_encoder"
run 2 convert $tiny/single_file/sd15.safetensors "$work/sd15" --config $tiny/pipeline_sd15/model; says "exists"
run 2 convert $tiny/single_file/sd15.safetensors; says "an input and an output"
run 2 convert "$work/sd15" "$work/file"; says ".safetensors"
run 0 convert "$work/sd15" "$work/sd15.gguf" --type q8_0 --keep '*time_embed*=f16' '*.out.*=f16'; prints "540 tensors"
run 0 inspect "$work/sd15.gguf"; prints "Q8_0"; prints "F16"; prints "MiB: "
run 0 convert "$work/sd15/unet" "$work/unet.gguf" --type q4_0
run 2 convert "$work/sd15/unet" "$work/unet.gguf" --type q4_0; says "exists"
run 2 convert "$work/sd15" "$work/x.gguf" --type q9; says "q8_0"
run 2 convert "$work/sd15" "$work/x.gguf" --type q8_0 --keep '*time_embed*'; says "PATTERN=TYPE"
run 1 convert "$work/sd15" "$work/x.gguf" --type f8; says ".safetensors"; check "nothing is left" test ! -e "$work/x.gguf"
run 1 convert $tiny/single_file/flux_ae.safetensors "$work/ae"; says "autoencoder alone"

# make-model
run 0 help make-model; prints --scale; prints hunyuandit-v1.1
run 0 make-model --class sd15 --scale tiny --seed 1 "$work/tiny"; prints "$work/tiny"; says "MB in"
there "$work/tiny/model_index.json"; there "$work/tiny/unet/diffusion_pytorch_model.safetensors"
run 0 generate --model "$work/tiny" --prompt a --width 64 --height 64 --steps 1 --threads 1 -o "$work/noise.png"; there "$work/noise.png"
run 0 inspect "$work/tiny"; prints UNet2DConditionModel
run 1 make-model --class sd15 --scale tiny "$work/tiny"; says "exists and is not an empty folder"
run 2 make-model --class sd16 "$work/no"; says "flux-schnell"
run 2 make-model "$work/no"; says "needs --class"
run 2 make-model --class sd15; says "needs the folder"
mkdir "$work/big"
(trap '' XFSZ; ulimit -f 4000; "$program" make-model --class sd15 "$work/big/sd15" >/dev/null 2>"$work/limit")
check "make-model on a full disk fails" test "$?" -eq 1
nothing_in "$work/big"
"$program" make-model --class sd15 "$work/big/sd15" >"$work/out" 2>"$work/err" &
pid=$!
wait_until sh -c "ls -A '$work/big' | grep -q ."
kill -INT "$pid"
wait "$pid"
check "SIGINT stops make-model" test "$?" -eq 130
nothing_in "$work/big"

# cut-off weights
cp -r models/emoji "$work/broken"
head -c 100000 models/emoji/vae/diffusion_pytorch_model.safetensors >"$work/broken/vae/diffusion_pytorch_model.safetensors"
run 1 generate --model "$work/broken" --prompt a $quick -o "$work/x.png"; says "broken/vae/diffusion_pytorch_model.safetensors"
run 1 inspect "$work/broken"; says "diffusion_pytorch_model.safetensors"

# Ctrl-C
mkdir "$work/stopped"
"$program" generate --prompt "cat face" --steps 10000 --threads 1 -o "$work/stopped/" >"$work/out" 2>"$work/err" &
pid=$!
wait_until grep -q '^text' "$work/err"
kill -INT "$pid"
wait "$pid"
check "SIGINT exits 130" test "$?" -eq 130
nothing_in "$work/stopped"
says "stopped"

# the preview needs a terminal
if command -v script >/dev/null && script -qec true /dev/null >/dev/null 2>&1; then
    TERM=xterm-256color script -qec "env -u TMUX -u KITTY_WINDOW_ID -u TERM_PROGRAM -u LC_TERMINAL '$program' generate --prompt a $quick -o '$work/p.png'" /dev/null >"$work/out" 2>"$work/err"
    check "half blocks on a terminal" grep -qa '38;2;' "$work/out"
    for kind in kitty:_Ga=T iterm:1337 sixel:Pq none:p.png; do
        script -qec "'$program' generate --prompt a $quick --preview ${kind%%:*} -o '$work/p.png'" /dev/null >"$work/out" 2>"$work/err"
        check "preview ${kind%%:*}" grep -qa "${kind#*:}" "$work/out"
    done
    script -qec "'$program' generate --prompt lion --steps 12 --threads 1 --overwrite --preview blocks -o '$work/p.png'" /dev/null >"$work/out" 2>"$work/err"
    check "a preview while denoising, of half as many lines as latents" grep -qa "$(printf '\033')\[8A" "$work/out"
    darkest=$(grep -ao '38;2;[0-9]*' "$work/out" | head -n 16 | cut -d ';' -f 3 | sort -n | head -n 1)
    check "it shows what the first step predicts, a white edge, and not the noise that is left" test "$darkest" -ge 200
    script -qec "'$program' generate --prompt lion --steps 12 --threads 1 --overwrite --preview none -o '$work/p.png'" /dev/null >"$work/out" 2>"$work/err"
    check "no preview where none is wanted" sh -c "! grep -qa '38;2;' '$work/out'"
else
    echo "skip  previews: no pseudo-terminal here"
fi

exit $failed
