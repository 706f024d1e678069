#!/bin/sh
# `tessera generate --workers` and `--worker`: sh test_client.sh PROGRAM, run in the repository
# root. Pictures through workers equal those of this process bit for bit, for every family; workers
# that are killed are replaced; without one there is an error.
program=$(realpath "$1")
. tests/check.sh
. tests/split/workers.sh
export OMP_WAIT_POLICY=passive
"$program" worker --make-identity --identity "$work/owner.pem" >"$work/owner.pin"

# family CASE ARGUMENTS...: two parts, a worker each
family() {
    case=$1
    shift
    common="--model tests/cases/$case/model --dtype f32 --kernels reproducible --steps 3 --seed 5 --threads 1 --quiet"
    run 0 generate $common --prompt "a photo of an astronaut riding a horse" "$@" -o "$work/$case-local.png"
    run 0 split --model "tests/cases/$case/model" --parts 2 --key "$work/owner.pem" -o "$work/$case.safetensors" $cut
    start one "$program" worker --part "$work/$case-1-of-2.safetensors" --dtype f32
    start two "$program" worker --part "$work/$case-2-of-2.safetensors" --dtype f32
    run 0 generate $common --prompt "a photo of an astronaut riding a horse" "$@" --worker "1=$(address one)" "2=$(address two)" \
        --worker-token-file "$work/tokens" --verify challenge=1 -o "$work/$case-remote.png"
    check "$case: the same picture through workers" cmp "$work/$case-local.png" "$work/$case-remote.png"
    stop one
    stop two
}
cut=
family pipeline_sd3 --width 128 --height 192
family pipeline_pixart
family pipeline_hunyuandit --width 128 --height 128
family pipeline_sd15 --scheduler euler_a
family pipeline_sdxl
cut="--has-last-block true"
family pipeline_flux --width 128 --height 128

# a list of workers with a manifest and two replicas of each part; three pictures under way at once
model="--model models/emoji --dtype f32 --kernels reproducible --threads 1 --seed 2 --num-images 3"
run 0 split --model models/emoji --parts 2 --key "$work/owner.pem" -o "$work/e.safetensors"
for i in 1 2; do
    start a$i "$program" worker --part "$work/e-1-of-2.safetensors" --dtype f32
    start b$i "$program" worker --part "$work/e-2-of-2.safetensors" --dtype f32
done
replica() { address "$1" | sed 's|\(.*\)#\(.*\)|{"url": "\1", "pin": "\2", "operator": "'"$1"'", "token_file": "tokens"}|'; }
list() {
    echo "{\"manifest\": \"e.manifest.json\", \"manifest_pin\": \"$(cat "$work/owner.pin")\"," \
        "\"parts\": [{\"replicas\": [$(replica a1), $(replica a2)]}, {\"replicas\": [$(replica b1), $(replica b2)]}]}"
}
list >"$work/workers.json"
run 0 generate $model --prompt "a lion" --steps 30 -o "$work/local/"
run 0 generate $model --prompt "a lion" --steps 30 --workers "$work/workers.json" --json -o "$work/remote/"
check "three pictures are the same" diff -r "$work/local" "$work/remote"
for name in a1 a2 b1 b2; do
    check "$name had work" awk -v name=$name '/"operator"/ {own = index($0, "\"" name "\"")} own && /"requests"/ && $2 + 0 > 20 {found = 1} END {exit !found}' "$work/out"
done

# killed on the way: both first replicas, one of them as if its machine had lost power
rm -r "$work/remote"
"$program" generate $model --prompt "a lion" --steps 30 --workers "$work/workers.json" -o "$work/remote/" >"$work/out" 2>"$work/err" &
running=$!
sleep 1
stop a1 KILL
stop b2 KILL
wait $running
check "the pictures come though workers were killed" test $? -eq 0
check "and they are the same" diff -r "$work/local" "$work/remote"

# no worker of a part is left: an error that says why
stop a2 KILL
run 1 generate $model --prompt "a lion" --steps 30 --workers "$work/workers.json" --worker-timeout 5 -o "$work/none.png"
says "no worker of part 1 is left"

# this machine's own digests are kept for the next job: with another one in their place its workers
# seem to have other weights
start a1 "$program" worker --part "$work/e-1-of-2.safetensors" --dtype f32
digests="$work/cache/tessera/part-digests.json"
known="generate $model --prompt lion --steps 2 -o $work/known/ --worker 1=$(address a1) 2=$(address b1) --worker-token-file $work/tokens"
rm -f "$digests" # those of other models
run 0 $known
there "$digests"
cp "$digests" "$work/digests"
run 0 $known
check "the digests are not computed again" cmp "$digests" "$work/digests"
sed -i 's/:[[:space:]]*"..../: "ffff/' "$digests"
run 1 $known; says "another digest than the same blocks of this model"
rm "$digests"
run 0 $known
check "they are computed where there are none" cmp "$digests" "$work/digests"

# wrong token, wrong pin, other words
(umask 077; echo ffffffffffffffffffffffffffffffff >"$work/others")
one="generate $model --prompt lion --steps 2 -o $work/x.png"
run 1 $one --worker "1=$(address a1)" "2=$(address b1)" --worker-token-file "$work/others"; says "401"
run 1 $one --worker "1=$(address a1 | sed 's/#.*//')#$(address b1 | sed 's/.*#//')" "2=$(address b1)" --worker-token-file "$work/tokens"; says "another key"
run 1 $one --worker "1=$(address a1 | sed 's/https/http/')" "2=$(address b1)" --worker-token-file "$work/tokens"; says "https"
run 1 $one --worker "1=$(address b1)" --worker-token-file "$work/tokens" --dtype bf16; says "dtype"
run 1 $one --worker "2=$(address b1)" --worker-token-file "$work/tokens"; says "part 1 has none"
run 1 $one --worker "1=$(address b1)" "2=$(address a1)" --worker-token-file "$work/tokens"; says "follow one another"
run 1 $one --workers "$work/workers.json" --worker "3=$(address a1)" --worker-token-file "$work/tokens"; says "manifest has 2 parts"
run 2 $one --verify challenge=1; says "none are named"
for words in sometimes challenge challenge=0 challenge=3x exact=1 exact=2,fraction=2 replicas=3,part=1; do
    run 2 $one --worker "1=$(address a1)" --verify $words; says "--verify $words: .*such as challenge=3"
done
sed 's/"pin"/"pni"/' "$work/workers.json" >"$work/bad.json"
run 1 $one --workers "$work/bad.json"; says "parts\[0\].replicas\[0\].pni"
# another model's parts
run 0 make-model --class sd3-medium --scale tiny --seed 1 "$work/tiny"
run 1 generate --model "$work/tiny" --dtype f32 --prompt lion --steps 2 --worker "1=$(address a1)" --worker-token-file "$work/tokens" -o "$work/x.png"
says "part 1"
exit $failed
