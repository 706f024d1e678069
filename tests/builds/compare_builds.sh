#!/bin/bash
# Do two builds make the same pictures, latents and records, bit for bit? Every family, strategy and
# element type on this machine.
#   tests/builds/compare_builds.sh OLD_BUILD NEW_BUILD [FOLDER] [EVERY]
# OLD_BUILD and NEW_BUILD are build folders; both programs run in this working tree. FOLDER keeps
# the old build's results for the next time. EVERY 5 runs every fifth of the list. Prints a line per
# run that differs, at the end "N same, M differ", and exits 0 only if none differs. A run that the
# old build refuses must be refused by the new one too.
set -u
cd "$(dirname "$0")/../.." || exit 1
old=$1/tessera new=$2/tessera tools=$2/tests kept=${3:-$(mktemp -d)} every=${4:-1}
mkdir -p "$kept"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"; [ $# -ge 3 ] || rm -rf "$kept"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_WAIT_POLICY=passive

families="sd3 flux pixart hunyuandit sd15 sdxl"
picture=tests/emoji-pictures/00.png
[ -f $picture ] || picture=$(ls tests/emoji-pictures/*.png | head -n 1)

size_of() { # of a family's tiny model, in pixels; more rows than any cut needs
    case $1 in sd15 | sdxl) echo "--width 64 --height 64" ;; *) echo "--width 64 --height 96" ;; esac
}
# Lines "RANKS OPTIONS", for one family.
runs_of() {
    common="--model tests/cases/pipeline_$1/model --prompt lion --steps 4 --seed 7 $(size_of "$1")"
    for dtype in f32 bf16; do
        c="$common --dtype $dtype"
        echo "1 $c"
        echo "1 $c --threads 1 --num-images 2"
        echo "1 $c --init-image $picture --strength 0.6"
        echo "1 $c --scheduler euler --output-type latent"
        echo "2 $c --use-cfg-parallel --true-cfg-scale 3 --negative-prompt grey"
        echo "2 $c --ring-degree 2 --output-type latent"
        echo "2 $c --ulysses-degree 2"
        echo "2 $c --tensor-parallel-degree 2"
        echo "2 $c --pipefusion-parallel-degree 2 --num-pipeline-patch 1"
        echo "2 $c --pipefusion-parallel-degree 2 --num-pipeline-patch 2"
        echo "2 $c --parallelism patch --no-split-batch --warmup-steps 1"
        echo "2 $c --parallelism naive_patch --no-split-batch"
        echo "2 $c --data-parallel-degree 2 --num-images 2"
        echo "4 $c --ring-degree 2 --ulysses-degree 2 --output-type latent"
        echo "4 $c --pipefusion-parallel-degree 2 --ulysses-degree 2"
        echo "4 $c --tensor-parallel-degree 2 --ring-degree 2 --use-parallel-vae"
        echo "4 $c --use-cfg-parallel --pipefusion-parallel-degree 2 --true-cfg-scale 3 --negative-prompt grey"
    done
    for mode in stale_gn sync_gn full_sync separate_gn no_sync; do echo "2 $common --parallelism patch --sync-mode $mode --warmup-steps 1 --no-split-batch"; done
    echo "2 $common --parallelism patch --split-text --no-split-batch --warmup-steps 1"
    echo "2 $common --parallelism naive_patch --split-scheme col --no-split-batch"
    echo "1 $common --use-fbcache --cache-threshold 0.3"
    echo "2 $common --use-teacache --cache-threshold 0.3 --ring-degree 2"
    echo "3 $common --ring-degree 3 --rank-weights 3,1,2"
    echo "1 $common --vae-tiling"
}
extra() {
    m="--model models/emoji --seed 3"
    echo "1 $m --prompt crab --steps 6"
    echo "2 $m --prompt crab --steps 6 --ulysses-degree 2"
    echo "2 $m --prompt crab --steps 6 --pipefusion-parallel-degree 2"
    echo "4 $m --prompt crab --steps 6 --use-cfg-parallel --ring-degree 2"
    for s in ddim euler dpm-solver EulerAncestralDiscreteScheduler PNDMScheduler UniPCMultistepScheduler LCMScheduler DDPMScheduler; do
        echo "1 --model tests/cases/pipeline_sd15/model --prompt lion --steps 6 --seed 5 --width 64 --height 64 --scheduler $s"
    done
    echo "1 --model tests/cases/single_file/sd3.safetensors --config tests/cases/pipeline_sd3/model --prompt lion --steps 3 --width 64 --height 64"
    echo "1 --model tests/cases/pipeline_sd15/model --lora tests/cases/pipeline_sd15_lora/lora.safetensors:0.7 --prompt lion --steps 3 --width 64 --height 64"
    echo "2 --model tests/cases/pipeline_flux/model --lora tests/cases/pipeline_flux_lora/lora.safetensors:0.7 --prompt lion --steps 3 --width 64 --height 64 --ring-degree 2"
    echo "2 --model tests/cases/pipeline_flux_control/model --control-image $picture --prompt lion --steps 3 --width 64 --height 64 --ulysses-degree 2"
    echo "1 --model tests/cases/pipeline_sd2_v_zero_snr/model --prompt lion --steps 3 --width 64 --height 64"
}

# run PROGRAM FOLDER RANKS OPTIONS...: leaves FOLDER/picture*.png or .safetensors, and FOLDER/status
run() {
    program=$1 folder=$2 ranks=$3
    shift 3
    rm -rf "$folder" && mkdir -p "$folder"
    if [ "$ranks" -gt 1 ]; then set -- mpirun -n "$ranks" "$program" generate "$@"; else set -- "$program" generate "$@"; fi
    "$@" -o "$folder/" >"$folder/out" 2>"$folder/err"
    echo $? >"$folder/status"
}
# Where the tensors of a safetensors file begin: what stands before them may tell more than an older
# build told.
data_of() { echo $((8 + $(od -An -t u8 -N 8 "$1"))); }
compare() { # OLD_FOLDER NEW_FOLDER
    cmp -s "$1/status" "$2/status" || { echo "exit $(cat "$1/status"), then $(cat "$2/status"): $(tail -n 1 "$2/err")"; return 1; }
    [ "$(cat "$1/status")" -eq 0 ] || return 0
    for file in "$1"/*.png "$1"/*.safetensors; do
        [ -f "$file" ] || continue
        other=$2/$(basename "$file")
        case $file in
            *.png) "$tools/same_run" "$file" "$other" >>"$fresh/fields" || return 1 ;;
            *) cmp -i "$(data_of "$file"):$(data_of "$other")" "$file" "$other" || return 1 ;;
        esac
    done
}

same=0 differ=0 refused=0 line=0
{ for family in $families; do runs_of "$family"; done; extra; } >"$fresh/runs"
while read -r ranks options; do
    line=$((line + 1))
    [ $((line % every)) -eq 0 ] || continue
    key=$(printf '%s %s' "$ranks" "$options" | sha1sum | cut -c 1-16)
    # shellcheck disable=SC2086
    [ -f "$kept/$key/status" ] || run "$old" "$kept/$key" "$ranks" $options </dev/null
    # shellcheck disable=SC2086
    run "$new" "$fresh/run" "$ranks" $options </dev/null
    [ "$(cat "$kept/$key/status")" -eq 0 ] || refused=$((refused + 1))
    if compare "$kept/$key" "$fresh/run" 2>"$fresh/why"; then same=$((same + 1)); else
        differ=$((differ + 1))
        echo "DIFFERS  mpirun -n $ranks generate $options: $(tr '\n' ' ' <"$fresh/why")"
    fi
done <"$fresh/runs"
[ -s "$fresh/fields" ] && sort -u "$fresh/fields"
echo "$same same, $differ differ ($refused refused by both)"
[ "$differ" -eq 0 ] && [ "$same" -gt 0 ]
