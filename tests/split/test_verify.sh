#!/bin/sh
# `tessera generate --verify` with a worker that lies: sh test_verify.sh PROGRAM LYING_WORKER, run
# in the repository root. Whatever it does, the picture is the right one, or there is an error;
# where bits can be compared it is named, and a receipt convicts it.
program=$(realpath "$1")
liar=$(realpath "$2")
. tests/check.sh
. tests/split/workers.sh
export OMP_WAIT_POLICY=passive
model="--model models/emoji --dtype f32 --kernels reproducible --threads 1 --seed 2 --steps 8"
first="$work/e-1-of-2.safetensors"
run 0 generate $model --prompt "a lion" -o "$work/local.png"
run 0 split --model models/emoji --parts 2 -o "$work/e.safetensors"
start a1 "$program" worker --part "$first" --dtype f32
start a2 "$program" worker --part "$first" --dtype f32
start b1 "$program" worker --part "$work/e-2-of-2.safetensors" --dtype f32
draw() {
    rm -f "$work/remote.png"
    "$program" generate $model --prompt "a lion" --worker "1=$workers" "2=$(address b1)" --worker-token-file "$work/tokens" \
        --receipts "$work" --worker-timeout 10 -o "$work/remote.png" "$@" >"$work/out" 2>"$work/err"
    got=$?
}
right() {
    check "$1: exits 0" test $got -eq 0
    check "$1: the right picture" cmp "$work/local.png" "$work/remote.png"
}
lie() { stop liar KILL; start liar "$liar" "$first" "$@"; }
start liar "$liar" "$first" bit 1000000

# honest workers are not accused, at any strength
workers="$(address a1),$(address a2),$(address liar)"
for strength in challenge=8 exact=3 replicas=3 exact=2,fraction=0.5; do
    draw --verify $strength
    right "honest, $strength"
    check "honest, $strength: nobody is dropped" sh -c "! grep -q dropped '$work/err'"
done

# signed lies: one honest replica is enough for a challenge, two for a comparison
for how in q8 bit old; do
    for strength in challenge=8 exact=3; do
        lie $how 2
        workers="$(address a1),$(address liar)"
        [ $strength = exact=3 ] && workers="$workers,$(address a2)"
        rm -f "$work"/receipt-*
        draw --verify $strength
        right "$how, $strength"
        says "$(address liar | sed 's/#.*//').*is dropped: its answer for step"
        [ $strength = exact=3 ] || says "goes back to step"
        receipt=$(ls "$work"/receipt-* 2>/dev/null | head -1)
        there "${receipt:-receipt}"
        run 0 verify "$receipt" --model models/emoji
        prints "onvicted"
    done
done
# honest workers with other kernels, which round differently, are not accused
for isa in plain avx2; do start $isa env TESSERA_ISA=$isa "$program" worker --part "$first" --dtype f32 --kernels best; done
start best "$program" worker --part "$work/e-2-of-2.safetensors" --dtype f32 --kernels best
workers="$(address plain),$(address avx2),$(address a1)"
"$program" generate $model --kernels best --prompt "a lion" --worker "1=$workers" "2=$(address best)" --worker-token-file "$work/tokens" \
    --verify replicas=3 -o "$work/mixed.png" >"$work/out" 2>"$work/err"
check "honest kernels: a picture" test $? -eq 0
check "honest kernels: nobody is dropped" sh -c "! grep -q dropped '$work/err'"
# nor where nothing is verified, and the known-answer test alone is compared, at the distance that
# this machine's own kernels are apart
workers="$(address plain),$(address avx2)"
"$program" generate $model --kernels best --prompt "a lion" --worker "1=$workers" "2=$(address best)" --worker-token-file "$work/tokens" \
    -o "$work/mixed.png" >"$work/out" 2>"$work/err"
check "honest kernels, unverified: a picture" test $? -eq 0
check "honest kernels, unverified: nobody is dropped" sh -c "! grep -q dropped '$work/err'"
# who lies in the known-answer test gets no request: among reproducible workers by its bits, among
# others by the distance
lie q8 0
workers="$(address liar),$(address a1)"
draw
right "q8 from the first request"
says "$(address liar | sed 's/#.*//').*is dropped: a request whose answer is known got another answer$"
lie q8 0 --kernels best
"$program" generate $model --kernels best --prompt "a lion" --worker "1=$(address liar),$(address avx2)" "2=$(address best)" \
    --worker-token-file "$work/tokens" -o "$work/mixed.png" >"$work/out" 2>"$work/err"
check "q8 by best kernels: a picture" test $? -eq 0
says "$(address liar | sed 's/#.*//').*is dropped: a request whose answer is known got another answer (relative distance"
# two against one of different kernels: replicas
lie q8 2
workers="$(address a1),$(address liar),$(address a2)"
draw --verify replicas=3
right "q8, replicas=3"
says "part 2: 1 workers are left"
says "not checked, or not those of every part"
lie noise 2
workers="$(address a1),$(address liar),$(address a2)"
draw --verify replicas=3
right "noise, replicas=3"
says "$(address liar | sed 's/#.*//').*is dropped"
# exact with two that differ: this machine decides
lie bit 2
workers="$(address a1),$(address liar)"
draw --verify exact=2
right "bit, exact=2"
# unchecked lies are not found, and that is said
draw
check "unchecked: a picture" test $got -eq 0
says "not checked"

# what is no answer at all: another worker takes over
for how in nan garbage half huge other forged silent; do
    lie $how 2
    workers="$(address liar),$(address a1)"
    wait=10 # an honest worker of a busy machine takes its time
    [ $how = silent ] && wait=5
    draw --worker-timeout $wait
    right "$how"
    draw --worker-timeout $wait --verify challenge=2
    right "$how, challenge=2"
done
# and without one there is an error, in time
workers=$(address liar)
draw --worker-timeout 1
check "no honest worker: exits 1" test $got -eq 1
says "no worker of part 1 is left"
lie garbage 2
workers=$(address liar)
draw
check "nothing but garbage: exits 1" test $got -eq 1
says "no worker of part 1 is left"
exit $failed
