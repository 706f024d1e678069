#!/bin/sh
# A picture's own account of itself: sh test_parameters.sh PROGRAM, run in the repository root.
# A1111's chunk "parameters" beside our record, both shown by inspect and read by --from. a1111.png
# has such a chunk and no record. Prints a line per check; exits 1 if any failed.
program=$(realpath "$1")
. tests/check.sh
sd=$PWD/tests/cases/pipeline_sd15/model lora=$PWD/tests/cases/pipeline_sd15_lora/lora.safetensors theirs=$PWD/tests/cli/a1111.png
TESSERA_DATA_DIR=$PWD
export TESSERA_DATA_DIR
cd "$work" || exit 1
cp "$lora" style.safetensors

# what we write
run 0 -m "$sd" -p "a lion" -n "cat, \"dog\"" --size 64x128 --steps 2 -s 5 -t 1 --cfg-scale 3 --sampler "Euler a" --clip-skip 1 --lora style.safetensors:0.5 -o ours.png
run 0 inspect ours.png
prints '^ours.png: PNG, 64x128$'; prints '^a lion <lora:style:0.5>$'; prints '^Negative prompt: cat, "dog"$'
prints '^Steps: 2, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x128, Model: model, Clip skip: 2, Version: Tessera '
prints '^record '; prints '^  guidance_scale  *3$'
run 0 inspect ours.png --json; prints '"clip_skip":.1'; prints '"parameters":'
run 0 --from ours.png --allow-record-files -o again.png; says "^bit for bit the same"

# what others write
run 0 inspect "$theirs"; prints "Model: v1-5-pruned"; prints "no record of tessera's"
run 1 --from "$theirs" -o x.png; says 'made with the model "v1-5-pruned" in another program: say where it is with --model'
run 0 --from "$theirs" -m "$sd" -t 1 -o from.png
for key in negative_prompt width height steps guidance_scale clip_skip seed scheduler lora prompt; do
    value() { "$program" inspect "$1" | sed -n "s/^  $key  *//p"; }
    check "$key is what the chunk says" test "$(value from.png)" = "$(value ours.png)"
done
check "the pictures are the same" test "$(tail -c 8000 from.png | cksum)" = "$(tail -c 8000 ours.png | cksum)"
run 0 --from "$theirs" -m "$sd" -t 1 --steps 1 --scheduler ddim -W 64 -H 64 -o other.png --json
prints '"steps":.1,'; prints '"scheduler":."DDIMScheduler"'; prints '"height":.64,'
sed 's/Steps: 2/Steps: x/' "$theirs" >crc.png; run 1 --from crc.png; says "crc.png"

# control characters of a file are not obeyed
run 0 -m "$sd" -p "$(printf 'a \033[31mlion')" --size 64x64 --steps 1 -t 1 -o escape.png -q
run 0 inspect escape.png; check "no escape is printed" sh -c "! grep -q '$(printf '\033')' out"

exit $failed
