#!/bin/sh
# Every strategy on 2 ranks of 1 thread each against 1 rank of 2 threads, on one machine, in one run: seconds per denoising step, and the speed
# as a share of the one rank's. CFG is compared with guided steps, the others with steps without guidance, which take half as long. With LINKS,
# the ranks are hosts of their own with such links between (bench/links.sh, needs root), and the one rank is left out.
#   bench/bench_strategies.sh MODEL SIDE STEPS [ROUNDS] [STRATEGIES]
#   LINKS="--bandwidth 1gbit --delay 1ms" bench/bench_strategies.sh MODEL SIDE STEPS
# STRATEGIES: of one-rank ulysses ring tensor pipefusion patch one-rank-guided cfg (default: all); pipefusion makes 2 pictures of a U-Net at a
# time, else 4 parts of one. Displaced strategies have one synchronous step, which counts. Run it from the repository root, on an idle machine
# with at least 2 cores; the runs are interleaved, and the best of ROUNDS (default 2) counts. Waits: of the rank that waited longest.
set -eu
model=$1 side=$2 steps=$3 rounds=${4:-2}
strategies=${5:-one-rank ulysses ring tensor pipefusion patch one-rank-guided cfg}
results=$(mktemp)
trap 'rm -f "$results" "$results".*' EXIT
common="generate --model $model --prompt a --width $side --height $side --steps $steps --seed 1 --json --comm-stats -o $results.png"

seconds_of() { # the denoising seconds of a run's JSON
    sed -n 's/.*"denoise":[[:space:]]*\([0-9.e+-]*\).*/\1/p' "$results.out" | head -n 1
}
waited() { # the longest wait for other ranks; set-up does not count
    awk '$1 == "total" && $NF > most { most = $NF } END { printf "%.2f", most }' "$results.err"
}
measure() { # NAME PICTURES COMMAND...
    name=$1 pictures=$2
    shift 2
    "$@" >"$results.out" 2>"$results.err" || { echo "$name failed: $*" >&2; cat "$results.err" >&2; return; }
    seconds=$(seconds_of)
    echo "$name $pictures $seconds $(waited)" >>"$results"
}
one() { # NAME OPTIONS...
    name=$1
    shift
    [ -n "${LINKS:-}" ] || measure "$name" 1 build/tessera $common --threads 2 "$@"
}
two() { # NAME PICTURES OPTIONS...
    name=$1 pictures=$2
    shift 2
    set -- build/tessera $common --threads 1 --num-images "$pictures" --use-parallel-vae "$@"
    if [ -n "${LINKS:-}" ]; then
        measure "$name" "$pictures" bench/links.sh $LINKS -- "$@"
    else
        measure "$name" "$pictures" mpirun -n 2 --bind-to core "$@"
    fi
}
run() { # STRATEGY
    case $1 in
    one-rank) one one-rank --guidance-scale 1 ;;
    one-rank-guided) one one-rank-guided ;;
    cfg) two cfg 1 --use-cfg-parallel ;;
    ulysses | ring) two "$1" 1 --guidance-scale 1 "--$1-degree" 2 ;;
    tensor) two tensor 1 --guidance-scale 1 --tensor-parallel-degree 2 ;;
    patch) two patch 1 --guidance-scale 1 --parallelism patch --no-split-batch --warmup-steps 0 ;;
    pipefusion)
        if [ -d "$model/unet" ]; then
            two pipefusion 2 --guidance-scale 1 --pipefusion-parallel-degree 2
        else
            two pipefusion 1 --guidance-scale 1 --pipefusion-parallel-degree 2 --num-pipeline-patch 4
        fi ;;
    *) echo "no strategy '$1'" >&2 && exit 2 ;;
    esac
}
for _ in $(seq "$rounds"); do for strategy in $strategies; do run "$strategy"; done; done
awk -v steps="$steps" -v order="$strategies" '{ step = $3 / steps / $2; if (!($1 in best) || step < best[$1]) { best[$1] = step; waited[$1] = $4 } }
    END { n = split(order, names, " ")
          for (i = 1; i <= n; i++) if (names[i] in best) {
              base = names[i] ~ /guided|cfg/ ? "one-rank-guided" : "one-rank"
              printf "%-16s %9.3f s per step of a picture   waited %6.2f s", names[i], best[names[i]], waited[names[i]]
              if (base in best) printf "   %.3f of one rank", best[base] / best[names[i]]
              printf "\n" } }' "$results"
