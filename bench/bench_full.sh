#!/bin/sh
# Models of published size with random weights: time, share of peak and peak memory of each phase.
#   bench/bench_full.sh FOLDER CLASS SIDE STEPS [CLASS SIDE STEPS]...
#   bench/bench_full.sh models sd15 512 20 sdxl 1024 1 sd3-medium 1024 1
# A class that is not yet below FOLDER is made there (2 to 33 GB: see docs/make-model.md). Run it
# from the repository root, on an idle machine.
set -eu
folder=$1
shift
while [ $# -ge 3 ]; do
    class=$1 side=$2 steps=$3
    shift 3
    [ -d "$folder/$class" ] || build/tessera make-model --class "$class" --seed 1 "$folder/$class"
    echo "== $class, ${side}x$side, $steps steps; load $(cut -d' ' -f1 /proc/loadavg)"
    build/bench/bench_phases "$folder/$class" --width "$side" --height "$side" --steps "$steps" --bf16-only 1 --warm 0 --runs 1
done
