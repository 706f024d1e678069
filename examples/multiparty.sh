#!/bin/sh
# `make demo-multiparty`: a picture through two parts of three workers each, over TLS on this
# machine, with kernels for different processors. One worker lies: first it computes with weights of
# 8 bits, then it repeats old answers. The right picture comes out, and the liar is named and
# convicted.
#   sh examples/multiparty.sh PROGRAM LYING_WORKER
set -eu
tessera=$(realpath "$1") liar=$(realpath "$2")
export OMP_WAIT_POLICY=passive
work=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$work"' EXIT
(umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/tokens"; echo >>"$work/tokens")
model="--model models/emoji --dtype f32 --kernels reproducible --seed 2 --steps 8 --quiet"

# start NAME KERNELS COMMAND...
start() {
    name=$1 isa=$2
    shift 2
    "$tessera" worker --make-identity --identity "$work/$name.pem" >/dev/null
    TESSERA_ISA=$isa "$@" --identity "$work/$name.pem" --token-file "$work/tokens" --port 0 --threads 1 >"$work/$name.out" 2>"$work/$name.err" &
    pids="$pids $!"
}
ready() { while ! grep -qs "^serves" "$work/$1.out"; do grep . "$work/$1.err" && exit 1; sleep 0.1; done; }
address() { awk '/^pin/ {pin = $2} /^serves/ {url = $2} END {print url "#" pin}' "$work/$1.out"; }
works() { TESSERA_ISA=$1 "$tessera" generate --prompt x --steps 1 --quiet -o "$work/try.png" >/dev/null 2>&1 && echo "$1" || echo plain; }

echo "1. The owner cuts models/emoji into two parts and signs the list of them."
"$tessera" worker --make-identity --identity "$work/owner.pem" >"$work/owner.pin"
"$tessera" split --model models/emoji --parts 2 --key "$work/owner.pem" -o "$work/emoji.safetensors" | sed "s|$work/||g; s/^/     /"
one=$work/emoji-1-of-2.safetensors two=$work/emoji-2-of-2.safetensors

wide=$(works avx512) narrow=$(works avx2)
echo "2. Five honest workers, with kernels for $wide, $narrow and plain C."
start a1 "$wide" "$tessera" worker --part "$one" --dtype f32
start a2 plain "$tessera" worker --part "$one" --dtype f32
start b1 "$wide" "$tessera" worker --part "$two" --dtype f32
start b2 "$narrow" "$tessera" worker --part "$two" --dtype f32
start b3 "$wide" "$tessera" worker --part "$two" --dtype f32
for name in a1 a2 b1 b2 b3; do ready $name; done
"$tessera" generate $model --prompt "a lion" -o "$work/local.png" >/dev/null

number=2
for how in q8 old; do
    number=$((number + 1))
    case $how in
    q8) echo "$number. And one that computes part 1 with weights rounded to 8 bits, after it has passed its test." ;;
    old) echo "$number. And one that answers part 1 with an answer that it gave before." ;;
    esac
    start liar-$how "$narrow" "$liar" "$one" $how 2
    ready liar-$how
    replica() { address "$1" | sed 's|\(.*\)#\(.*\)|{"url": "\1", "pin": "\2", "operator": "'"$1"'", "token_file": "tokens"}|'; }
    echo "{\"manifest\": \"emoji.manifest.json\", \"manifest_pin\": \"$(cat "$work/owner.pin")\", \"parts\": [" \
        "{\"replicas\": [$(replica a1), $(replica liar-$how), $(replica a2)]}, {\"replicas\": [$(replica b1), $(replica b2), $(replica b3)]}]}" >"$work/workers.json"
    "$tessera" generate ${model% --quiet} --prompt "a lion" --workers "$work/workers.json" --verify exact=3 --receipts "$work" \
        -o "$work/$how.png" >/dev/null 2>"$work/said"
    grep -E 'dropped|receipt|^part|^workers|back to' "$work/said" | sed "s|$work/||g; s/^/     /"
    cmp "$work/local.png" "$work/$how.png"
    echo "   The picture is the one that this machine makes alone, bit for bit."
    receipt=$(ls "$work"/receipt-*)
    "$tessera" verify "$receipt" --part "$one" --manifest "$work/emoji.manifest.json" | sed "s|$work/||g; s/^/     /"
    rm "$receipt"
done
