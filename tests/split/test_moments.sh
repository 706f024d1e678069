#!/bin/sh
# A worker fails at any moment: sh test_moments.sh PROGRAM LYING_WORKER, run in the repository root.
# In its test, in the first steps, in the middle, and while what it answered is judged: the right
# picture comes through another worker.
program=$(realpath "$1")
liar=$(realpath "$2")
. tests/check.sh
. tests/split/workers.sh
export OMP_WAIT_POLICY=passive
model="--model models/emoji --dtype f32 --kernels reproducible --threads 1 --seed 2 --steps 4"
part="$work/e.safetensors"
run 0 generate $model --prompt "a lion" -o "$work/local.png"
run 0 split --model models/emoji -o "$part"
start honest "$program" worker --part "$part" --dtype f32
# draw NAME ARGUMENTS...: with the liar and the honest worker
draw() {
    name=$1
    shift
    rm -f "$work/remote.png"
    "$program" generate $model --prompt "a lion" --worker "1=$(address liar),$(address honest)" --worker-token-file "$work/tokens" \
        --receipts "$work" --worker-timeout 20 -o "$work/remote.png" "$@" >"$work/out" 2>"$work/err"
    check "$name: exits 0" test $? -eq 0
    check "$name: the right picture" cmp "$work/local.png" "$work/remote.png"
}
for how in exit garbage half huge nan forged other; do
    for honest in 0 1 4; do
        start liar "$liar" "$part" $how $honest
        draw "$how, after $honest"
        # who is gone is left out; who replied is never asked again. The fifth request may be the honest worker's.
        case $how,$honest in exit,* | *,4) ;; *) says "$(address liar | sed 's/#.*//').*is dropped: its reply is not what it must be" ;; esac
        stop liar KILL
    done
done
# while it is judged: by this machine, and by another worker
for strength in challenge=4 challenge=4,by=replica; do
    start liar "$liar" "$part" mute 2
    draw "mute, $strength" --verify $strength
    says "$(address liar | sed 's/#.*//').*is dropped"
    stop liar KILL
done
exit $failed
