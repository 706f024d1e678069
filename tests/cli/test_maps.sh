#!/bin/sh
# Device maps as a person uses them: sh test_maps.sh PROGRAM, run in the repository root. Prints a
# line per check; exits 1 if any failed. Left out: which map is best
# (tests/parallel/test_placement.c), and maps of every kind in every family
# (tests/parallel/test_map_pictures.c).
program=$(realpath "$1") launcher=${MPIEXEC:-mpirun}
. tests/check.sh
flux=tests/cases/pipeline_flux/model
ending() { tail -c 2000 "$1" | cksum; } # of the compressed pixels
draw="--seed 3 --steps 2 --threads 1 --size 64x64 --dtype f32 --no-preview"

# ranks N STATUS ARGUMENTS...: of `tessera generate`
ranks() {
    count=$1 want=$2
    shift 2
    # shellcheck disable=SC2086
    timeout 300 "$launcher" --oversubscribe -n "$count" "$program" generate $draw "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    check "$count ranks: generate $* exits $want" test "$got" -eq "$want"
}
same() { check "$1 is the picture of one rank" test "$(ending "$work/$1")" = "$(ending "$work/one.png")"; }

# the recipe in one command and in three, in every family
# (with our own kernels: a map's products of guided pictures have half the rows, on which oneDNN's
# sums depend with AVX2)
plain=$draw
draw="$draw --kernels own"
for family in sd15 sdxl sd3 flux pixart_alpha pixart hunyuandit; do
    model=tests/cases/pipeline_$family/model
    rm -f "$work"/*.png "$work"/*.safetensors
    # shellcheck disable=SC2086
    run 0 generate --model $model --prompt "a lion" $draw -o "$work/one.png"
    ranks 2 0 --model $model --prompt "a lion" --device-map auto --max-memory 0:16GB,1:16GiB -o "$work/map.png"; same map.png
    says "^device map auto, for --offload none:"
    says "^  vae  *rank [01] "; says "^  rank 1 holds .* of the 17.2 GB that it may take"; says "peak resident memory [0-9]*/[0-9]* MiB"
    ranks 2 0 --model $model --prompt "a lion" --device-map balanced --offload blocks --max-memory 0:16GB,1:16GB -o "$work/blocks.png"; same blocks.png
    says "GB from the disk"
    run 0 encode --model $model --kernels own --prompt "a lion" --threads 1 --dtype f32 -o "$work/states.safetensors"
    ranks 2 0 --model $model --prompt-embeds "$work/states.safetensors" --device-map auto --output-type latent -o "$work/latents.safetensors"
    run 0 decode --model $model --kernels own "$work/latents.safetensors" --threads 1 --dtype f32 -o "$work/apart.png"; same apart.png
done
draw=$plain

# Flux by every word and by a file
rm -f "$work"/*.png
# shellcheck disable=SC2086
run 0 generate --model $flux --prompt "a lion" $draw -o "$work/one.png"
for word in balanced_low_0 sequential; do
    ranks 2 0 --model $flux --prompt "a lion" --device-map $word -o "$work/$word.png"; same $word.png
done
cat >"$work/map.json" <<END
{"text_encoder": 1, "text_encoder_2": 0, "transformer": 2, "transformer.single_transformer_blocks": 1, "transformer.norm_out": 1,
 "transformer.proj_out": 1, "vae": 2}
END
ranks 3 0 --model $flux --prompt "a lion" --device-map "$work/map.json" --json -o "$work/file.png"; same file.png
prints '"transformer.transformer_blocks":[[:space:]]*2'; prints '"component":[[:space:]]*"vae"'
ranks 1 0 --model $flux --prompt "a lion" --device-map auto -o "$work/alone.png"; same alone.png
# a picture's record brings it back, with and without a map
ranks 2 0 --from "$work/file.png" --allow-record-files --device-map auto -o "$work/again.png"; same again.png
ranks 1 0 --from "$work/file.png" --allow-record-files -o "$work/again-1.png"; same again-1.png

# what must be refused, once, and nothing is written
refused() {
    message=$1
    shift
    ranks "$@" --prompt "a lion" --model $flux -o "$work/no.png"; says_once "$message"
    check "nothing is written" test ! -e "$work/no.png"
}
echo '{"": 0, "vae": "cpu"}' >"$work/cpu.json"; refused "cpu.json: field \"vae\": \"cpu\": name a rank, and let --offload" 2 1 --device-map "$work/cpu.json"
echo '{"": 0, "vae": 2}' >"$work/two.json"; refused "two.json: field \"vae\": 2: a device is a rank from 0 to 1" 2 1 --device-map "$work/two.json"
echo '{"vae": 1}' >"$work/vae.json"; refused "vae.json: no entry is for \"text_encoder" 2 1 --device-map "$work/vae.json"
refused "no/such.json" 2 1 --device-map no/such.json
refused "must be one of auto|balanced|" 2 1 --device-map some
refused "leave --ulysses-degree out" 2 2 --device-map auto --ulysses-degree 2
refused "leave --use-parallel-vae out" 2 2 --device-map auto --use-parallel-vae
refused "rank [01] needs .* GB of memory and may take 0.04 GB, so .* are missing; what would fit: a larger limit" 2 1 --device-map auto --max-memory 40MB

# plans
run 0 plan --model flux-dev --ranks 2 --device-map auto --max-memory 0:16GB,1:16GB --size 768x1360 --speed 1T
prints "^device map auto, for --offload stages:"; prints "blocks: transformer_blocks.0 to "; prints "^limited by: the blocks of rank 1"
run 0 plan --model flux-dev --ranks 2 --device-map auto --max-memory 9GiB --size 768x1360 --speed 1T; prints "which reads .* GB of its blocks from the disk"
run 1 plan --model flux-dev --ranks 2 --device-map auto --max-memory 9GiB --offload stages --speed 1T; says "GB are missing; what would fit: --offload blocks"
run 0 plan --model $flux --ranks 2 --device-map balanced --speed 1T --bandwidth 1kbit; prints "^limited by: the link"
run 0 plan --model $flux --ranks 2 --device-map auto --speed 1T --json; prints '"seconds_per_step"'; prints '"offload":[[:space:]]*"none"'
run 2 plan --model $flux --ranks 2 --max-memory 9GiB --speed 1T; says "is of --device-map"
run 2 plan --model $flux --ranks 2 --device-map auto --max-memory 2:9GiB --speed 1T; says "there is no rank 2"
run 2 plan --model $flux --ranks 2 --device-map auto --memory 9GiB --speed 1T; says "is of meshes"
exit $failed
