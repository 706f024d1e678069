#!/bin/sh
# Every exact strategy on 2 ranks of 1 thread each against 1 rank of 2 threads, on one machine, in one run: seconds per denoising step, and
# the speed as a share of the one rank's. CFG is compared with guided steps, the others with steps without guidance, which take half as long.
#   bench/bench_strategies.sh MODEL SIDE STEPS [ROUNDS]
# Run it from the repository root, on an idle machine with at least 2 cores; the runs are interleaved, and the best of ROUNDS (default 2) counts.
set -eu
model=$1 side=$2 steps=$3 rounds=${4:-2}
results=$(mktemp)
trap 'rm -f "$results" "$results.png"' EXIT
common="generate --model $model --prompt a --width $side --height $side --steps $steps --seed 1 --json -o $results.png"

seconds_of() { # the denoising seconds of a run's JSON
    sed -n 's/.*"denoise":[[:space:]]*\([0-9.e+-]*\).*/\1/p' | head -n 1
}
measure() { # NAME COMMAND...
    name=$1
    shift
    seconds=$("$@" 2>/dev/null | seconds_of)
    [ -n "$seconds" ] || { echo "$name failed: $*" >&2; return; }
    echo "$name $seconds" >>"$results"
}
two() { # NAME OPTIONS...
    name=$1
    shift
    measure "$name" mpirun -n 2 --bind-to core build/tessera $common --threads 1 --use-parallel-vae "$@"
}
for _ in $(seq "$rounds"); do
    measure one-rank build/tessera $common --threads 2 --guidance-scale 1
    for strategy in ulysses-degree ring-degree tensor-parallel-degree; do two "$strategy" --guidance-scale 1 "--$strategy" 2; done
    measure one-rank-guided build/tessera $common --threads 2
    two use-cfg-parallel --use-cfg-parallel
done
awk -v steps="$steps" '{ if (!($1 in best) || $2 < best[$1]) best[$1] = $2 }
    END { n = split("one-rank ulysses-degree ring-degree tensor-parallel-degree one-rank-guided use-cfg-parallel", names, " ")
          for (i = 1; i <= n; i++) if (names[i] in best) {
              base = names[i] ~ /guided|cfg/ ? best["one-rank-guided"] : best["one-rank"]
              printf "%-24s %9.3f s per step   %.3f of one rank\n", names[i], best[names[i]] / steps, base / best[names[i]] } }' "$results"
