#!/bin/sh
# `tessera` in the words of other programs: sh test_habits.sh PROGRAM, run in the repository root.
# Prints a line per check; exits 1 if any failed. Left out: what xDiT and DistriFusion publish
# (test_published.sh).
program=$(realpath "$1")
. tests/check.sh
quick="--steps 1 --seed 3 --threads 1"
sd=tests/cases/pipeline_sd15/model
flux=tests/cases/pipeline_flux/model
same_picture() { check "$(basename "$1") is $(basename "$2")" cmp "$1" "$2"; }
cd "$work" || exit 1
TESSERA_DATA_DIR=$OLDPWD
export TESSERA_DATA_DIR
sd=$OLDPWD/$sd flux=$OLDPWD/$flux lora=$OLDPWD/tests/cases/pipeline_sd15_lora/lora.safetensors

# a prompt alone, before and behind options
run 0 "a lion" $quick; there tessera-a-lion-3.png
run 0 $quick -o two.png "a lion"; same_picture two.png tessera-a-lion-3.png
run 0 generate $quick -o three.png -- "a lion"; same_picture three.png tessera-a-lion-3.png
run 2 "a lion" "a cat"; says "unexpected argument 'a cat'"

# sd-cli
run 0 generate --model $sd --prompt "a lion" --negative-prompt cat --width 64 --height 128 --steps 2 --seed 5 --threads 1 --guidance-scale 3 \
    --scheduler EulerAncestralDiscreteScheduler -o ours.png
run 0 -M img_gen -m $sd -p "a lion" -n cat -W 64 -H 128 --steps 2 -s 5 -t 1 --cfg-scale 3 --sampling-method euler_a --diffusion-fa --rng cpu -o theirs.png
same_picture theirs.png ours.png; says "--diffusion-fa has no effect"; says "--rng has no effect"
run 0 -m $sd -p "a lion" -ncat --size 64x128 --steps 2 -s5 -t1 --cfg_scale=3 --scheduler discrete --sampler "Euler a" -o theirs2.png; same_picture theirs2.png ours.png
for name in euler dpm++2m "DPM++ 2M" uni_pc UniPC ddim plms lcm k_euler; do
    run 0 -m $sd -p a --size 64x64 --steps 2 --seed 1 -t 1 --sampling-method "$name" -o sampler.png --overwrite
done
# A1111's and ComfyUI's samplers that are a class and its settings here; PLMS, whatever the model's
# own sampler leaves open
emoji=$TESSERA_DATA_DIR/models/emoji-unet
for name in "DPM++ 2M SDE Karras" dpmpp_2m_sde_gpu "DPM++ 2M SDE Heun"; do
    run 0 -m $emoji -p a --steps 2 --seed 1 -t 1 --sampler "$name" -o sde.png --overwrite; run 0 inspect sde.png
    prints 'algorithm_type *"sde-dpmsolver++"'; prints "Sampler: DPM++ 2M SDE"
done
prints 'solver_type *"heun"'; prints "Sampler: DPM++ 2M SDE Heun"
run 0 --from sde.png --allow-record-files -o sde-again.png; says "^bit for bit the same"
run 0 --from sde.png --allow-record-files --sampler euler -o sde-euler.png
run 0 inspect sde-euler.png; check "the record's algorithm is not Euler's" sh -c "! grep -q sde-dpm out"; prints "Sampler: Euler,"
run 0 -m $emoji -p a --steps 2 --seed 1 -t 1 --sampler PLMS -o plms.png; run 0 inspect plms.png; prints 'skip_prk_steps *true'
run 0 --from plms.png --allow-record-files -o plms-again.png; says "^bit for bit the same"
run 1 -m $emoji -p a --steps 2 --scheduler PNDMScheduler; says "\-\-scheduler plms"
run 1 -m $emoji -p a --steps 2 --schedule karras; says "DDIMScheduler has no use_karras_sigmas (.*DPMSolverMultistepScheduler or UniPC"
run 2 -m $sd -p a --sampling-method dpm2; says "no such sampler here; choose from euler"
run 2 -m $sd -p a --sampler euler --scheduler ddim; says "two samplers"
run 2 -M convert -m x -o y; says "tessera convert"
run 2 -M vid_gen -p a; says "pictures are what is made"
run 2 -p a --mask m.png; says "inpainting is not there"
run 2 -p a -r ref.png; says "error: -r: "
run 0 -m $sd -p a --size 64x64 --steps 1 -t 1 -s 7 -b 2 -o batch/; there batch/a_7_0.png; there batch/a_8_1.png
run 0 -m $sd -p a --size 64x64 --steps 1 -t 1 -s 8 -o eight.png; check "picture 2 has the next seed" test "$(tail -c 3000 eight.png | cksum)" = "$(tail -c 3000 batch/a_8_1.png | cksum)"
run 0 -m $sd -p a -W 64 -H 64 --steps 1 --seed -1 --batch-count 1 -o random.png; says "tessera: --seed [0-9]"
seed=$(sed -n 's/^tessera: --seed //p' err)
check "the drawn seed is in the record" grep -qa "\"seed\":$seed," random.png

# LoRA tags in prompts
cp "$lora" style.safetensors
run 0 -m $sd -p "a lion" --lora style.safetensors:0.5 --size 64x64 $quick -o lora.png
run 0 -m $sd -p "a lion <lora:style:0.5>" --lora-model-dir "$work" --size 64x64 $quick -o tag.png
check "the tag is out of the prompt" grep -qa '"prompt":"a lion"' tag.png
check "the LoRA is in the record" grep -qa 'style.safetensors:0.5"' tag.png
run 0 --from lora.png --allow-record-files --lora "$work/style.safetensors:0.5" -o again.png
check "and does the same" test "$(tail -c 3000 again.png | cksum)" = "$(tail -c 3000 tag.png | cksum)"
run 2 -m $sd -p "a <lora:style:x>"; says "must be <lora:NAME:SCALE>"
run 2 -m $sd -p "a <lora:style:1>" "b"; says "one run has one set"
run 0 -m $sd -p "a (red:1.3) lion" --size 64x64 $quick -o weight.png; says "words have no weights here"

# Flux has two kinds of guidance; euler is that of flow matching
run 0 -m $flux -p a --steps 1 -t 1 -s 1 --cfg-scale 1 --guidance 2.5 --sampling-method euler --size 64x64 --json -o flux.png
check "--guidance is Flux's own" grep -q '"guidance_scale":.2.5,' out
check "--cfg-scale is not" grep -q '"true_cfg_scale":.1,' out
check "euler is flow matching's" grep -q '"scheduler":."FlowMatchEulerDiscreteScheduler"' out
run 0 -m $sd -p a --size 64x64 $quick --guidance 3 -o sd.png; says "only Flux takes it"

# diffusers
run 0 --pretrained_model_name_or_path $sd --prompt "a lion" --negative_prompt cat --width 64 --height 128 --num_inference_steps 2 --seed 5 --threads 1 \
    --guidance_scale 3 --scheduler EulerAncestralDiscreteScheduler --torch_dtype torch.bfloat16 --enable_attention_slicing -o diffusers.png
same_picture diffusers.png ours.png; says "--enable_attention_slicing has no effect"

# schedules of sigmas, also in what A1111 reads
run 0 -m $sd -p a --size 64x64 $quick --sampler "DPM++ 2M Karras" -v -o karras.png; says "tessera: model .*StableDiffusionPipeline; kernels "
run 0 inspect karras.png; prints "Sampler: DPM++ 2M, Schedule type: karras"; prints '^  schedule  *"karras"'

# T5 is the second encoder of Flux and the third of Stable Diffusion 3, whatever else is given
sd3=$TESSERA_DATA_DIR/tests/cases/pipeline_sd3/model
run 0 -m $sd3 -p a --size 64x64 $quick -o sd3.png; run 0 -m $sd3 -p a --size 64x64 $quick --t5xxl $sd3/text_encoder_3 -o sd3-t5.png
check "--t5xxl alone is the third encoder of SD3" test "$(tail -c 1000 sd3.png | cksum)" = "$(tail -c 1000 sd3-t5.png | cksum)"
run 0 -m $flux -p a --size 64x64 $quick -o flux-plain.png; run 0 -m $flux -p a --size 64x64 $quick --t5xxl $flux/text_encoder_2 -o flux-t5.png
check "and the second of Flux" test "$(tail -c 500 flux-plain.png | cksum)" = "$(tail -c 500 flux-t5.png | cksum)"
pixart=$TESSERA_DATA_DIR/tests/cases/pipeline_pixart/model hunyuan=$TESSERA_DATA_DIR/tests/cases/pipeline_hunyuandit/model
run 0 -m $pixart -p a --size 64x64 $quick --t5xxl $pixart/text_encoder --json -o pixart-t5.png
check "the only one of PixArt" grep -q "\"text_encoder\":.*pipeline_pixart/model/text_encoder\"" out
run 0 -m $hunyuan -p a --size 64x64 --no-resolution-binning $quick --t5xxl $hunyuan/text_encoder_2 --json -o hunyuan-t5.png
check "the second of HunyuanDiT" grep -q "\"text_encoder_2\":.*pipeline_hunyuandit/model/text_encoder_2\"" out
run 1 -m $sd -p a --t5xxl $sd3/text_encoder_3; says "has no T5 encoder; leave the option out"
run 1 -m $flux -p a --t5xxl $flux/text_encoder_2 --text-encoder-2 $flux/text_encoder; says "give one of them"

# what is nearly right, or has no counterpart: one line says what to type
run 2 a lion on a hill --steps 2; says 'tessera --prompt "a lion on a hill"$'
run 2 txt2img -p a; says "tessera generate makes pictures"
run 2 inspct picture.png; says "did you mean 'inspect'"
run 1 -m $sd3 -p a --size 100x41; says "try 96x48"
run 1 -m $sd3 -p a --size 64x64 --scheduler dpm++2m; says "FlowMatchEulerDiscreteScheduler (euler)"
run 2 -p a --lora_scale 0.5; says "\-\-lora FILE:0.8"
run 2 -p a --prompt_2 b; says "all text encoders read --prompt"
run 2 -M convert -m a.ckpt; says "tessera convert INPUT OUTPUT --type TYPE"
run 0 -m $sd -p "embedding:bad cat" --size 64x64 $quick --precision full --schedule-type Karras --sampler "DPM++ 2M" --enable_model_cpu_offload -o words.png
says "textual inversion is not there"; says "\-\-offload stages is the option"
run 0 inspect words.png; prints '"karras"'; prints '"f32"'

run 0 -m $sd -p "cat" --size 64x64 $quick --torch_dtype float16 --batch-size 2 --safety_checker None -o half.png
says "torch_dtype: nothing is computed in float16: bf16"; says "\-\-batch-count N makes N"; says "pictures are not checked"
# every option that sd-cli, A1111 and ComfyUI list and that is not there says in a line what to do
for option in --canny --circular --easycache --enable_freeu --api --chroma-disable-dit-mask --plms; do
    run 2 -p a $option; says "error: $option: "
done
for option in --control-strength --moe-boundary --high-noise-steps --pm-id-images-dir --upscale-repeats --skip-layer-start --timestep-shift \
    --sigmas --cache-preset --denoising_end --cross_attention_kwargs --s_churn --hr-scale --mask-blur --ckpt-dir --port --revision \
    --subseed-strength --CLIP_stop_at_last_layers --embeddings-dir --latents --beta_schedule; do
    run 2 -p a $option 1; says "error: $option: "
done
run 0 -m $sd -p cat --size 64x64 --num-steps 1 --manual_seed 3 --threads 1 --xformers --opt-split-attention --upcast-sampling --cpu --device-id 0 \
    --fp8_e4m3fn-unet --novram --max-vram 4 --local_files_only --cache_dir x --token x --output_file ignored.png
for option in opt-split-attention upcast-sampling cpu device-id fp8_e4m3fn-unet novram max-vram local_files_only cache_dir token; do
    says "\-\-$option has no effect: "
done
there ignored.png
run 0 -m $sd -p cat --size 64x64 $quick --prediction eps --preview tae -o eps.png; says "runs no autoencoder"

# only near names are proposed, and none that does nothing here
for option in --plmx --prediktor --lora-pathology --timestpes; do
    run 2 -p a $option 1; check "nothing is proposed for $option" sh -c "! grep -q 'did you mean' err"
done
run 2 -p a --widht 64; says "did you mean '--width'"

run 2 -p a --use_karras_sigmas; says "\-\-schedule karras"
run 2 -p a --ip_adapter_image a.png; says "IP-Adapters are not there"

# what other programs read in a prompt, the negative one too, is text here, and a line says so once;
# other brackets are nothing special
run 0 -m $sd -p "[cat:dog:0.5] <hypernet:a:1>" -n "((bad)) a AND b" --size 64x64 $quick -o text.png
for word in "(red:1.3)" "cat|dog" "AND and BREAK" "hypernetworks are not there"; do
    check "a line says '$word' once" test "$(grep -cF "$word" err)" -eq 1
done
run 0 -m $sd -p "{cat|dog}" --size 64x64 $quick -o text-2.png; says "cat|dog"
run 0 -m $sd -p "cat BREAK dog" --size 64x64 $quick -o text-3.png; says "AND and BREAK"
run 0 -m $sd -p "[cat] (dog) 16:9 {red} BREAKFAST" -n "A AND B" --size 64x64 $quick -o text-4.png
check "nothing is said of other brackets" sh -c "! grep -q 'read as text' err"
run 1 -m $sd -p "cat <lyco:none:0.5>" --size 64x64 $quick -o text-5.png; says "none.safetensors: cannot open"

# what would be found out after hours, cut a prompt, or block
run 2 -p a -o "$(printf '%0300d' 0).png"; says "the file's name has 304 bytes"
printf 'a\000b\n' >zero.txt
run 1 --prompts-file zero.txt $quick; says "zero.txt: holds a zero byte"
mkfifo pipe.png
run 1 -p a --init-image pipe.png $quick; says "pipe.png: a pipe or device"

# sizes and versions
run 2 generate -p a --size 64; says "WIDTHxHEIGHT"
for command in generate plan inspect convert make-model download coco evaluate report latency completion; do
    run 0 $command -V; prints "^tessera [0-9]"
done
run 0 generate -p a $quick -q -o quiet.png; check "-q is quiet" test ! -s err; prints quiet.png

exit $failed
