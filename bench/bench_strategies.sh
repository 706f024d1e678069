#!/bin/sh
# Every strategy on 2 ranks of 1 thread each against 1 rank of 2 threads, on one machine, in one
# run: seconds per denoising step, and the speed as a share of the one rank's; what a rank sent
# while denoising, and how long it waited for the other.
#   bench/bench_strategies.sh MODEL SIDE STEPS [ROUNDS] [STRATEGIES]
#   OPTIONS="--dtype f32" bench/bench_strategies.sh MODEL SIDE STEPS ...         more options of tessera generate
#   GUIDED=yes bench/bench_strategies.sh MODEL SIDE STEPS ...         steps with guidance, which take twice as long
#   LINKS="--bandwidth 1gbit --delay 1ms" bench/bench_strategies.sh MODEL SIDE STEPS ...
# With LINKS the ranks are hosts of their own with such links between (bench/links.sh, needs root),
# and the one rank is left out. STRATEGIES: of one-rank cfg ulysses ring tensor pipefusion
# pipefusion-P patch patch-split (default: all but the last and pipefusion-P; cfg needs GUIDED);
# pipefusion makes 2 pictures of a U-Net at a time, else 4 parts of one, pipefusion-P makes P parts.
# Displaced strategies have one synchronous step (PipeFusion none with OPTIONS="--warmup-steps 0"),
# which counts, and so does filling the pipeline: give them steps enough. Run it from the repository
# root, on an idle machine with at least 2 cores; the best of ROUNDS (default 2, in turns) counts.
# Each result is told when it is there, on standard error.
set -eu
model=$1 side=$2 steps=$3 rounds=${4:-2}
strategies=${5:-one-rank ulysses ring tensor pipefusion patch}
[ $# -gt 4 ] || [ -z "${GUIDED:-}" ] || strategies="$strategies cfg"
[ -n "${GUIDED:-}" ] && guidance= || guidance="--guidance-scale 1"
results=$(mktemp)
trap 'rm -f "$results" "$results".*' EXIT
common="generate --model $model --prompt a --width $side --height $side --steps $steps $guidance --seed 1 --json --comm-stats --output-type latent -o $results.safetensors ${OPTIONS:-}"

seconds_of() { # the denoising seconds of a run's JSON
    sed -n 's/.*"denoise":[[:space:]]*\([0-9.e+-]*\).*/\1/p' "$results.out" | head -n 1
}
traffic() { # of the messages between ranks while denoising: most bytes sent by a rank, longest wait of a rank
    awk '$1 == "layer" { table = 1; next } !table || $1 ~ /^(other|set-up|total|VAE)$/ { next } NF < 6 || $NF !~ /^[0-9.]+$/ { table = 0; next }
        { rank = $(NF - 4); sent[rank] += $(NF - 2); waited[rank] += $NF }
        END { for (r in sent) { if (sent[r] > most) most = sent[r]; if (waited[r] > longest) longest = waited[r] } printf "%.3f %.2f", most / 1e6, longest }' \
        "$results.err"
}
measure() { # NAME PICTURES COMMAND...
    name=$1 pictures=$2
    shift 2
    "$@" >"$results.out" 2>"$results.err" || { echo "$name failed: $*" >&2; cat "$results.err" >&2; return; }
    echo "$name $pictures $(seconds_of) $(traffic)" >>"$results"
    tail -n 1 "$results" >&2
}
two() { # NAME PICTURES OPTIONS...
    name=$1 pictures=$2
    shift 2
    set -- build/tessera $common --threads 1 --num-images "$pictures" "$@"
    if [ -n "${LINKS:-}" ]; then
        measure "$name" "$pictures" bench/links.sh $LINKS -- "$@"
    else
        measure "$name" "$pictures" mpirun -n 2 --bind-to core "$@"
    fi
}
run() { # STRATEGY
    case $1 in
    one-rank) [ -n "${LINKS:-}" ] || measure one-rank 1 build/tessera $common --threads 2 ;;
    cfg) two cfg 1 --use-cfg-parallel ;;
    ulysses | ring) two "$1" 1 "--$1-degree" 2 ;;
    tensor) two tensor 1 --tensor-parallel-degree 2 ;;
    patch) two patch 1 --parallelism patch --no-split-batch --warmup-steps 0 ;;
    patch-split) two patch-split 1 --parallelism patch --no-split-batch --warmup-steps 0 --split-text ;;
    pipefusion)
        if [ -d "$model/unet" ]; then
            two pipefusion 2 --pipefusion-parallel-degree 2
        else
            run pipefusion-4
        fi ;;
    pipefusion-*) two "$1" 1 --pipefusion-parallel-degree 2 --num-pipeline-patch "${1#pipefusion-}" ;;
    *) echo "no strategy '$1'" >&2 && exit 2 ;;
    esac
}
for _ in $(seq "$rounds"); do for strategy in $strategies; do run "$strategy"; done; done
awk -v steps="$steps" -v order="$strategies" '
    { step = $3 / steps / $2; if (!($1 in best) || step < best[$1]) { best[$1] = step; sent[$1] = $4; waited[$1] = $5 } }
    END { n = split(order, names, " ")
          for (i = 1; i <= n; i++) if (names[i] in best) {
              printf "%-12s %9.3f s per step of a picture   sent %9.1f MB   waited %6.2f s", names[i], best[names[i]], sent[names[i]], waited[names[i]]
              if ("one-rank" in best) printf "   %.3f of one rank", best["one-rank"] / best[names[i]]
              printf "\n" } }' "$results"
