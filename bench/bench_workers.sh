#!/bin/bash
# What workers cost a whole job: pictures made here, and by this client with one worker on loopback
# over TLS, in turns.
#   bench/bench_workers.sh MODEL SIDE STEPS [ROUNDS [KERNELS]]
# Prints denoising seconds, seconds of the whole command, and processor seconds of client and worker
# together (what other programs on the machine change least). KERNELS: best or reproducible, of both
# (default reproducible). The worker has all blocks but the first and the last. Run it from the
# repository root with OMP_WAIT_POLICY=passive; the part takes as much room in $TMPDIR as the
# model's transformer. The client's first job computes the digest of its own blocks, later ones have
# it in the cache folder.
set -eu
model=$1 side=$2 steps=$3 rounds=${4:-3} kernels=${5:-reproducible}
work=$(mktemp -d) worker=
trap '[ -z "$worker" ] || kill "$worker"; rm -rf "$work"' EXIT
tessera=build/tessera TIMEFORMAT="%R %U %S"
export XDG_CACHE_HOME="$work/cache"
pin=$($tessera worker --make-identity --identity "$work/worker.pem" | grep -o 'sha256//[^ ]*' | head -n 1)
(umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/tokens"; echo >>"$work/tokens")
$tessera split --model "$model" -o "$work/part.safetensors" -q >"$work/told"
$tessera worker --split-model-file-path "$work/part.safetensors" --identity "$work/worker.pem" --token-file "$work/tokens" --port 0 \
    --kernels "$kernels" >"$work/told" 2>&1 &
worker=$!
until grep -q '^serves' "$work/told"; do sleep 1; kill -0 "$worker"; done
url=$(sed -n 's/^serves *//p' "$work/told")

worker_seconds() {
    awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) / ticks }' "/proc/$worker/stat"
}
measure() { # NAME OPTIONS...
    name=$1
    shift
    set -- $tessera generate --model "$model" --prompt "a lion" --width "$side" --height "$side" --steps "$steps" --seed 1 --dtype bf16 \
        --kernels "$kernels" --json --output-type latent -o "$work/latents.safetensors" "$@"
    before=$(worker_seconds)
    taken=$({ time "$@" >"$work/json" 2>"$work/error"; } 2>&1) || { cat "$work/error" >&2; exit 1; }
    denoise=$(sed -n 's/.*"denoise":[[:space:]]*\([0-9.e+-]*\).*/\1/p' "$work/json" | head -n 1)
    echo "$name $denoise $taken $before $(worker_seconds)" | awk '{ printf "%-7s denoising %.2f s, all %.2f s, processor %.2f s\n", $1, $2, $3, $4 + $5 + $7 - $6 }'
}
for _ in $(seq "$rounds"); do
    measure here
    measure worker --worker "1=$url#$pin" --worker-token-file "$work/tokens"
done
