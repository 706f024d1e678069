#!/bin/sh
# What strategies that are not exact make of the embedded model's pictures, against those of one
# process: the figures of docs/parallel.md and its picture.
#   bench/quality.sh figures [RANKS...]     PSNR, mean and lowest of eight: PipeFusion, step caches, displaced patches (over 2, 4, 8)
#   bench/quality.sh sheet SHEET.png        the pictures; rows are as the table below the picture says
# Run it from the repository root after `make`; BUILD is the folder that it built in (default: build).
set -eu
build=${BUILD:-build}
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY

figures() { # RANKS...
    "$build/bench/bench_quality"
    for ranks in "$@"; do mpirun -n "$ranks" --oversubscribe "$build/bench/bench_quality"; done
}

# A row of the sheet: five pictures as NAME-SEED.png.
row() { # NAME RANKS OPTIONS...
    name=$1 ranks=$2 launch=
    shift 2
    [ "$ranks" = 1 ] || launch="mpirun -n $ranks --oversubscribe"
    while IFS='|' read -r seed prompt; do
        # shellcheck disable=SC2086 # the launcher's words
        $launch "$build/tessera" generate --prompt "$prompt" --seed "$seed" --steps 20 --guidance-scale 4 --dtype f32 "$@" \
            -o "$work/$name-$seed.png" >"$work/log" 2>&1 </dev/null || { cat "$work/log"; exit 1; }
    done <<'PROMPTS'
0|red apple
1|a lion on a blue background
3|rocket on a black background
6|soccer ball
7|pizza on a green background
PROMPTS
}

# The files of a row, or the differences of two rows.
of() { # NAME [NAME]
    for seed in 0 1 3 6 7; do printf '%s ' "$work/$1-$seed.png${2:+:$work/$2-$seed.png}"; done
}

sheet() { # SHEET.png
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    row exact 1
    row parts1 1 --num-pipeline-patch 8 --warmup-steps 1
    row parts4 1 --num-pipeline-patch 8 --warmup-steps 4
    row patches1 4 --parallelism patch --no-split-batch --warmup-steps 1
    row patches4 4 --parallelism patch --no-split-batch --warmup-steps 4
    row never 4 --parallelism patch --no-split-batch --warmup-steps 4 --sync-mode no_sync
    row naive 4 --parallelism naive_patch --no-split-batch
    # shellcheck disable=SC2046 # a list of files without spaces
    "$build/bench/contact_sheet" "$1" 5 $(of exact) $(of parts1) $(of parts1 exact) $(of parts4 exact) \
        $(of patches1) $(of patches1 exact) $(of patches4 exact) $(of never) $(of naive)
}

case ${1:-} in
figures)
    shift
    [ $# -gt 0 ] || set -- 2 4 8
    figures "$@"
    ;;
sheet) sheet "${2:?the name of the sheet}" ;;
*) sed -n '2,6s/^# \{0,1\}//p' "$0" ;;
esac
