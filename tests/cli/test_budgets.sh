#!/bin/sh
# --max-memory is kept, as the system counts it (VmHWM): sh test_budgets.sh PROGRAM [FREED], run in the repository root. Each combination of a model,
# a picture's size, types and a way of keeping the weights is asked for with a limit that is too small; the error says the least one, and with that
# the picture is made within it. The least must not be generous, either, and be less than what the model takes without a limit. FREED is the
# program of tests/pipelines/freed_memory.c.
program=$(realpath "$1")
freed=$2
. tests/check.sh
export TESSERA_DATA_DIR="$work/data" OMP_WAIT_POLICY=passive
draw="--prompt lion --steps 1 --threads 2 --seed 3 --overwrite"
generous=64 # MiB between a least limit and what is held: what is reserved for libraries, and estimates from above; a process varies by 2
# with AMX, and with AVX2 alone, libraries' code and scratch are larger (cpu_library_bytes)
if grep -qw amx_tile /proc/cpuinfo || { grep -qw avx2 /proc/cpuinfo && ! grep -qw avx512f /proc/cpuinfo; }; then generous=80; fi
combinations=0

# Models of some 100 MB: the tiny ones of make-model, wider.
mkdir -p "$work/data/assets" "$work/data/models"
cp -r assets/published "$work/data/assets/"
ln -s "$PWD/assets/tokenizers" "$work/data/assets/tokenizers"
ln -s "$PWD/models/emoji" "$work/data/models/emoji"
# make CLASS COMPONENT EXPRESSION...: with the component's config changed by sed
make() {
    class=$1 config="$work/data/assets/published/$1/tiny/$2/config.json"
    shift 2
    tr -d '\n ' <"$config" >"$work/config" && rm "$config"
    for expression; do sed "$expression" "$work/config" >"$work/changed" && mv "$work/changed" "$work/config"; done
    mv "$work/config" "$config"
    run 0 make-model --class "$class" --scale tiny "$work/$class"
}
make flux-dev transformer 's/heads":2/heads":16/' 's/num_layers":2/num_layers":3/' 's/single_layers":3/single_layers":6/'
make sd3-medium transformer 's/heads":4/heads":32/' 's/projection_dim":64,"in_/projection_dim":512,"in_/' 's/num_layers":3/num_layers":6/'
make sdxl unet 's/\[32,64,64\]/[64,128,256]/'
make sd15 unet 's/\[32,64,64,64\]/[128,256,256,256]/'
make pixart-sigma transformer 's/heads":4/heads":20/' 's/attention_dim":96/attention_dim":480/' 's/num_layers":3/num_layers":8/'
make hunyuandit transformer 's/heads":4/heads":30/' 's/hidden_size":64/hidden_size":480/' 's/num_layers":4/num_layers":8/'

# peak: MiB that the last run held
peak() { sed -n 's/.*peak resident memory \([0-9]*\) MiB.*/\1/p' "$work/err"; }
# budget WHAT FOLDER SIZE ARGUMENTS...
budget() {
    what=$1 folder=$2 size=$3
    shift 3
    # shellcheck disable=SC2086
    "$program" generate --model "$folder" --size "$size" --no-use-resolution-binning $draw "$@" --max-memory 20MiB -o "$work/x.png" >"$work/out" 2>"$work/err"
    least=$(sed -n 's/.* takes \([0-9]*\) MiB, which is .* MiB more than the limit of 20 MiB.*/\1/p' "$work/err")
    # shellcheck disable=SC2086
    run 0 generate --model "$folder" --size "$size" --no-use-resolution-binning $draw "$@" --max-memory "$((${least:-0} + 2))MiB" -o "$work/x.png"
    held=$(peak)
    check "$what: $held of $least MiB" test "${held:-9999}" -le $((${least:-0} + 2)) -a "${least:-9999}" -le $((held + generous))
    check "$what: no complaint" sh -c "! grep -q 'more than the' '$work/err'"
    combinations=$((combinations + 1))
}
for model in flux-dev sd3-medium sdxl sd15 pixart-sigma hunyuandit; do
    # shellcheck disable=SC2086
    run 0 generate --model "$work/$model" --size 256x256 --no-use-resolution-binning $draw --dtype bf16 --offload none -o "$work/x.png"
    whole=$(peak)
    for dtype in bf16 f32; do
        budget "$model $dtype blocks" "$work/$model" 256x256 --dtype $dtype
        test $dtype = f32 || check "$model: $whole MiB without a limit is more" test "$whole" -gt "$least"
        budget "$model $dtype stages" "$work/$model" 256x256 --dtype $dtype --offload stages
    done
done
budget "flux-dev bf16 none" "$work/flux-dev" 256x256 --offload none
budget "flux-dev 128x128" "$work/flux-dev" 128x128
budget "flux-dev f32 512x512" "$work/flux-dev" 512x512 --dtype f32 # rows at a time, narrow strips
budget "sdxl 512x256 two pictures" "$work/sdxl" 512x256 --num-images 2
for type in q8_0 q4_0 f8 nf4; do
    case $type in q*) file="$work/$type.gguf" ;; *) file="$work/$type.safetensors" ;; esac
    run 0 convert "$work/flux-dev/transformer" "$file" --type $type
    budget "flux-dev $type" "$work/flux-dev" 256x256 --transformer "$file"
    budget "flux-dev $type stages" "$work/flux-dev" 256x256 --transformer "$file" --offload stages
    rm "$file"
done
check "at least 24 combinations: $combinations" test $combinations -ge 24
test -z "$freed" || check "what a component took is given back" "$freed" "$work/flux-dev"
exit $failed
