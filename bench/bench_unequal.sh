#!/bin/sh
# Two ranks of one thread, of which the second has half the time of its processor (a spinning
# process has the other half): what proportional cuts make of both together, as a share of the sum
# of what each reaches alone. Equal cuts would leave the first one waiting half of its time.
#   bench/bench_unequal.sh MODEL SIDE STEPS [STRATEGIES]
# Run it from the repository root, on an idle machine with at least 2 processors. Speeds are
# denoising steps a second, without guidance, of 2 steps alone and STEPS together. STRATEGIES: ring
# pipefusion (default: both); PipeFusion has 4 parts and one step as a whole, which counts.
set -eu
model=$1 side=$2 steps=$3 strategies=${4:-ring pipefusion}
results=$(mktemp)
sh -c 'while :; do :; done' & spinner=$!
trap 'kill $spinner; rm -f "$results" "$results".*' EXIT
taskset -pc 1 $spinner >/dev/null
generate="build/tessera generate --model $model --prompt a --width $side --height $side --guidance-scale 1 --seed 1 --threads 1 --json --output-type latent -o $results.safetensors"

speed() { # STEPS COMMAND...: steps a second
    n=$1
    shift
    "$@" 2>"$results.err" | sed -n 's/.*"denoise":[[:space:]]*\([0-9.e+-]*\).*/\1/p' | head -n 1 | awk -v n="$n" '{ printf "%.5f", n / $1 }'
}
both() { # OPTIONS...: rank r on processor r
    speed "$steps" mpirun --bind-to none -n 1 taskset -c 0 $generate --steps "$steps" "$@" : -n 1 taskset -c 1 $generate --steps "$steps" "$@"
}
find -L "$model" -type f -exec cat {} + >/dev/null # into the page cache: the first run would pay for all
fast=$(speed 2 taskset -c 0 $generate --steps 2)
slow=$(speed 2 taskset -c 1 $generate --steps 2)
echo "alone: $fast and $slow steps a second"
weights="--rank-weights $fast,$slow"
for strategy in $strategies; do
    case $strategy in
    ring) together=$(both --ring-degree 2 $weights) ;;
    pipefusion) together=$(both --pipefusion-parallel-degree 2 --num-pipeline-patch 4 $weights) ;;
    *) echo "no strategy '$strategy'" >&2 && exit 2 ;;
    esac
    awk -v t="$together" -v f="$fast" -v s="$slow" -v name="$strategy $weights" 'BEGIN { printf "%-50s %s steps a second, %.3f of the sum\n", name, t, t / (f + s) }'
done
