#!/bin/sh
# Never a wrong picture without a word: sh test_right_pictures.sh PROGRAM, run in the repository
# root. Inputs that people had (tests/reports), what is scaled, cut or broken, and what is said
# about it.
program=$(realpath "$1")
. tests/check.sh
sd=tests/cases/pipeline_sd15/model
reports=tests/reports
size() { check "$1 is $2" test "$(od -An -j16 -N8 -tu1 "$1" | awk '{print $3*256+$4 "x" $7*256+$8}')" = "$2"; }

# 03: a size that does not fit is scaled down to the next multiples, with a word; --strength 0 keeps
# the picture
run 0 generate --model $sd --prompt "a lion" --steps 2 --threads 1 --init-image $reports/03-init-size/100x75.png -o "$work/scaled.png"
says "the picture of 100x75 is scaled to 96x72"; size "$work/scaled.png" 96x72
run 0 generate --model $sd --prompt "a lion" --steps 2 --threads 1 --init-image $reports/03-init-size/64x64.png --strength 0 -o "$work/kept.png"
run 0 generate --model $sd --prompt "a cat" --steps 2 --threads 1 --init-image "$work/kept.png" --strength 0 -o "$work/kept2.png"
size "$work/kept.png" 64x64
check "the record of a kept picture has its size" grep -qa '"width":64,"height":64' "$work/kept.png"

# 01, 02: every picture that load_image reads starts a picture (their pixels are test_image's); o6
# is 96x64 on its side
for file in 01-exif/o6.jpg 01-exif/o6.png; do
    run 0 generate --model $sd --prompt a --steps 1 --threads 1 --init-image $reports/$file --strength 0 -o "$work/turned.png" --overwrite
    size "$work/turned.png" 64x96
done
for file in cmyk.jpg rgba.png rgb.bmp rgb.gif rgb.tiff rgb.webp; do
    run 0 generate --model $sd --prompt a --steps 1 --threads 1 --init-image $reports/02-picture-kinds/$file --strength 0 -o "$work/kind.png" --overwrite
done
printf '\000\000\000\040ftypheic' >"$work/photo.heic"
run 1 generate --model $sd --prompt a --init-image "$work/photo.heic"; says "HEIC"

# 11: what is cut off a prompt is said once, and --long-prompt reads it
long=$(cat $reports/11-prompt-cut/prompt.txt)
run 0 generate --model $sd --prompt "$long" --steps 1 --threads 1 --num-images 2 -o "$work/cut.png"
says_once "CLIP reads [0-9]* tokens of [0-9]*, without"; says "(--long-prompt reads it all)"
run 0 generate --model $sd --prompt "$long" --steps 1 --threads 1 --long-prompt -o "$work/long.png"
check "nothing is cut with --long-prompt" test "$(grep -c without "$work/err")" -eq 0
run 0 generate --model $sd --prompt "a lion" --steps 1 --threads 1 -o "$work/short.png"
run 0 generate --model $sd --prompt "a lion" --steps 1 --threads 1 --long-prompt -o "$work/short2.png"
check "a short prompt is the same with --long-prompt" test "$(tail -c 1000 "$work/short.png" | cksum)" = "$(tail -c 1000 "$work/short2.png" | cksum)"

for family in sd2_v_zero_snr sdxl sd3 flux pixart hunyuandit; do
    run 0 generate --model tests/cases/pipeline_$family/model --prompt "$long $long $long" --steps 1 --threads 1 --size 64x64 --no-resolution-binning \
        --max-sequence-length 8 -o "$work/cut-$family.png"
    says "reads [0-9]* tokens of [0-9]*, without"
done

# the default size: that of the folder, but of a U-Net from before diffusers 0.9 the family's
run 0 generate --model $sd --prompt a --steps 1 --threads 1 -o "$work/default.png"; size "$work/default.png" 128x128
cp -r $sd "$work/v0"; sed -i 's/"_diffusers_version": *"[^"]*"/"_diffusers_version": "0.6.0"/' "$work/v0/unet/config.json"
run 0 generate --model "$work/v0" --prompt a --steps 1 --threads 1 -o "$work/default-old.png"; size "$work/default-old.png" 512x512
sed -i 's/"0.6.0"/"0.10.0"/' "$work/v0/unet/config.json"
run 0 generate --model "$work/v0" --prompt a --steps 1 --threads 1 -o "$work/default-new.png"; size "$work/default-new.png" 128x128

# bins, and sizes rounded down
run 0 generate --model tests/cases/pipeline_flux/model --prompt a --steps 1 --threads 1 --width 72 --height 64 -o "$work/flux.png"
says "size 72x64: this model draws 64x64"; size "$work/flux.png" 64x64
check "the record has the size that was drawn" grep -qa '"width":64,"height":64' "$work/flux.png"
run 0 generate --model tests/cases/pipeline_hunyuandit/model --prompt a --steps 1 --threads 1 --width 1000 --height 800 -o "$work/hunyuan.png"
says "1024x768"; size "$work/hunyuan.png" 1024x768
check "the record has the bin" grep -qa '"width":1024,"height":768' "$work/hunyuan.png"
run 0 generate --model tests/cases/pipeline_hunyuandit/model --prompt a --steps 1 --threads 1 --width 96 --height 64 --no-resolution-binning \
    -o "$work/hunyuan-small.png"
size "$work/hunyuan-small.png" 96x64

# NaN in a weight of each component: no picture, and the component's name
for component in unet vae text_encoder; do
    cp -r $sd "$work/$component"
    weights=$(find "$work/$component/$component" -name '*.safetensors' | head -1)
    bytes=$(wc -c <"$weights")
    # the last half of all weights, so that what is used is among them
    head -c $((bytes / 2)) /dev/zero | tr '\000' '\377' | dd of="$weights" bs=65536 seek=$((bytes / 2)) oflag=seek_bytes conv=notrunc 2>/dev/null
    run 1 generate --model "$work/$component" --prompt "a lion" --steps 3 --threads 1 -o "$work/black.png"
    says "$component.*NaN or infinity"
    check "no picture of a broken $component" test ! -e "$work/black.png"
done
run 1 generate --model "$work/unet" --prompt "a lion" --steps 3 --threads 1 -o "$work/black.png"; says "unet, step 1 of"
# NaN in the embedding of one token of 791, 64 bytes each: it spoils those prompts that have the
# token; the last one ends each prompt
for token in 600 790; do
    rm -rf "$work/token"; cp -r $sd "$work/token"
    weights=$work/token/text_encoder/model.safetensors
    header=$(od -An -t u4 -N 4 "$weights" | tr -d ' ')
    first=$(head -c "$header" "$weights" | grep -ao 'embeddings.token_embedding.weight":{[^}]*' | sed 's/.*\[\([0-9]*\),[0-9]*\]$/\1/')
    head -c 64 /dev/zero | tr '\000' '\377' | dd of="$weights" bs=65536 seek=$((8 + header + first + 64 * token)) oflag=seek_bytes conv=notrunc 2>/dev/null
    run $((token == 790)) generate --model "$work/token" --prompt "a lion" --steps 1 --threads 1 -o "$work/token-$token.png"
done
says "text_encoder.*NaN or infinity"
check "a broken weight that nobody reads changes nothing" \
    test "$(tail -c 1000 "$work/short.png" | cksum)" = "$(tail -c 1000 "$work/token-600.png" | cksum)"
run 1 generate --model "$work/vae" --prompt "a lion" --steps 3 --threads 1 --init-image $reports/03-init-size/64x64.png -o "$work/black.png"; says "vae"

# what the scheduler's configuration says can be said on the command line: the same picture as from
# a folder that says it
run 0 generate --model $sd --scheduler EulerDiscreteScheduler --prompt a --steps 3 --threads 1 -o "$work/own.png"
for option in "schedule karras use_karras_sigmas true" "schedule exponential use_exponential_sigmas true" "schedule beta use_beta_sigmas true" \
              "timestep-spacing trailing timestep_spacing \"trailing\"" "final-sigmas-type sigma_min final_sigmas_type \"sigma_min\"" \
              "prediction-type v_prediction prediction_type \"v_prediction\""; do
    set -- $option
    rm -rf "$work/said"; cp -r $sd "$work/said"
    sed -i "s/\"$3\": *[^,}]*,//; s/{/{\"$3\": $4,/" "$work/said/scheduler/scheduler_config.json"
    run 0 generate --model "$work/said" --scheduler EulerDiscreteScheduler --prompt a --steps 3 --threads 1 -o "$work/folder.png" --overwrite
    run 0 generate --model $sd --scheduler EulerDiscreteScheduler --prompt a --steps 3 --threads 1 --$1 $2 -o "$work/option.png" --overwrite
    check "--$1 $2 is $3 of the folder" test "$(tail -c 1000 "$work/folder.png" | cksum)" = "$(tail -c 1000 "$work/option.png" | cksum)"
    check "--$1 $2 changes the picture" test "$(tail -c 1000 "$work/own.png" | cksum)" != "$(tail -c 1000 "$work/option.png" | cksum)"
    run 0 generate --from "$work/option.png" --allow-record-files -o "$work/again.png" --overwrite; says "bit for bit the same"
done
# what diffusers' StableDiffusionPipeline sets in every scheduler's configuration: an old folder that
# leaves it out, or says something else, draws the same
rm -rf "$work/said"; cp -r $sd "$work/said"; config=$work/said/scheduler/scheduler_config.json
for class in DDIMScheduler DDPMScheduler EulerDiscreteScheduler; do
    first=
    for fields in '"clip_sample": false, "steps_offset": 1,' '"clip_sample": true, "steps_offset": 0,' ''; do
        sed 's/"clip_sample": *[^,}]*,//; s/"steps_offset": *[^,}]*,//' $sd/scheduler/scheduler_config.json | sed "1s/{/{$fields/" >"$config"
        run 0 generate --model "$work/said" --scheduler $class --prompt a --steps 3 --threads 1 -o "$work/old.png" --overwrite
        pixels=$(tail -c 1000 "$work/old.png" | cksum)
        first=${first:-$pixels}
        check "$class of a folder with '$fields' draws as with steps_offset 1 and without clipping" test "$pixels" = "$first"
    done
done
run 0 generate --model $sd --scheduler DPMSolverMultistepScheduler --prompt a --steps 3 --threads 1 -o "$work/own.png" --overwrite
run 0 generate --model $sd --scheduler DPMSolverMultistepScheduler --prompt a --steps 3 --threads 1 --schedule lu -o "$work/lu.png"
check "--schedule lu changes the picture" test "$(tail -c 1000 "$work/own.png" | cksum)" != "$(tail -c 1000 "$work/lu.png" | cksum)"
run 1 generate --model $sd --scheduler EulerDiscreteScheduler --prompt a --schedule lu; says "EulerDiscreteScheduler has no use_lu_lambdas"
# DPM++ for a flow, where its configuration says so
rm -rf "$work/said"; cp -r tests/cases/pipeline_sd3/model "$work/said"
run 1 generate --model "$work/said" --scheduler DPMSolverMultistepScheduler --prompt a --steps 3 --threads 1; says "trained by flow matching"
echo '{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "flow_shift": 3, "prediction_type": "flow_prediction"}' \
    >"$work/said/scheduler/scheduler_config.json"
run 0 generate --model "$work/said" --prompt a --steps 3 --threads 1 -o "$work/flow.png"
run 1 generate --model $sd --scheduler DDIMScheduler --prompt a --schedule karras; says "DDIMScheduler has no use_karras_sigmas"
run 1 generate --model $sd --scheduler DDIMScheduler --prompt a --shift 3; says "DDIMScheduler has no shift"
run 0 generate --model $sd --scheduler DDIMScheduler --prompt a --steps 3 --eta 1 --threads 1 -o "$work/eta.png"
run 0 generate --model tests/cases/pipeline_flux/model --prompt a --steps 2 --threads 1 --shift 3 -o "$work/shift.png"
# 16: a byte-order mark is no text
run 0 generate --model $sd --prompts-file $reports/16-bom/plain.txt --steps 1 --threads 1 -o "$work/plain.png"
run 0 generate --model $sd --prompts-file $reports/16-bom/bom.txt --steps 1 --threads 1 -o "$work/bom.png"
check "a byte-order mark in a file is no text" cmp "$work/plain.png" "$work/bom.png"
run 0 generate --model $sd --prompt "$(cat $reports/16-bom/bom.txt)" --steps 1 --threads 1 -o "$work/bom2.png"
check "a byte-order mark on the command line is no text" cmp "$work/plain.png" "$work/bom2.png"

# --from never draws with another model than the record's
cp -r $sd "$work/model"
run 0 generate --model "$work/model" --prompt "a lion" --steps 1 --threads 1 -o "$work/from.png"
mv "$work/model" "$work/elsewhere"
run 1 generate --from "$work/from.png" --allow-record-files -o "$work/again2.png"; says "is not there: give --model"
run 0 generate --from "$work/from.png" --model "$work/elsewhere" -o "$work/again2.png"
cp -r tests/cases/pipeline_sd15/model "$work/model"; echo '{"num_inference_steps": 7}' >"$work/model/generation_defaults.json"
run 1 generate --from "$work/from.png" --allow-record-files -o "$work/again3.png"; says "is not the model that made"

# the autoencoder's activation is read
rm -rf "$work/act"; cp -r $sd "$work/act"; sed -i 's/"act_fn": *"silu"/"act_fn": "mish"/' "$work/act/vae/config.json"
run 1 generate --model "$work/act" --prompt a --steps 1 --threads 1; says 'act_fn is "mish"'
exit $failed
