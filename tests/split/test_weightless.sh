#!/bin/sh
# A client that has not the weights which workers have: sh test_weightless.sh PROGRAM LYING_WORKER,
# run in the repository root. The picture is the same; who lied is found by other operators'
# workers, named, and convicted by a receipt that somebody else judges.
program=$(realpath "$1")
liar=$(realpath "$2")
. tests/check.sh
. tests/split/workers.sh
export OMP_WAIT_POLICY=passive
"$program" worker --make-identity --identity "$work/owner.pem" >"$work/owner.pin"
client="$work/client"
run 0 split --model models/emoji --parts 2 --key "$work/owner.pem" -o "$work/e.safetensors" --client-folder "$client"
run 2 split --model models/emoji --parts 2 -o "$work/f.safetensors" --client-folder "$client"; says "is there already"
run 2 split --model models/emoji/transformer -o "$work/f.safetensors" --client-folder "$work/other"; says "a denoiser alone"
there "$client/model_index.json"
check "the client's denoiser is smaller" test "$(stat -c %s "$client/transformer/diffusion_pytorch_model.safetensors")" -lt \
    $(($(stat -c %s models/emoji/transformer/*.safetensors) / 2))
# A picture's pixels: its record names the model's folder.
pixels() { tail -c "+$(grep -abo IDAT "$1" | head -1 | cut -d: -f1)" "$1"; }
options="--dtype f32 --kernels reproducible --threads 1 --seed 2 --steps 4"
run 0 generate --model models/emoji $options --prompt "a lion" -o "$work/local.png"
pixels "$work/local.png" >"$work/local"
run 1 generate --model "$client" $options --prompt "a lion" -o "$work/x.png"; says "transformer"

first="$work/e-1-of-2.safetensors"
for i in 1 2; do start a$i "$program" worker --part "$first" --dtype f32; done
for i in 1 2; do start b$i "$program" worker --part "$work/e-2-of-2.safetensors" --dtype f32; done
replica() { address "$1" | sed 's|\(.*\)#\(.*\)|{"url": "\1", "pin": "\2", "operator": "'"$1"'", "token_file": "tokens"}|'; }
# list FILE-WORDS REPLICA...: replicas of part 1, and both of part 2
list() {
    replicas=$(for name in "$@"; do replica $name; echo ,; done | tr -d '\n' | sed 's/,$//')
    echo "{\"manifest\": \"e.manifest.json\", \"manifest_pin\": \"$(cat "$work/owner.pin")\"," \
        "\"parts\": [{\"replicas\": [$replicas]}, {\"replicas\": [$(replica b1), $(replica b2)]}]}" >"$work/workers.json"
}
draw() {
    rm -f "$work/remote.png" "$work"/receipt-*
    "$program" generate --model "$client" $options --prompt "a lion" --workers "$work/workers.json" --receipts "$work" --worker-timeout 20 \
        -o "$work/remote.png" "$@" >"$work/out" 2>"$work/err"
    got=$?
}
right() {
    check "$1: exits 0" test $got -eq 0
    pixels "$work/remote.png" >"$work/remote"
    check "$1: the right picture" cmp "$work/local" "$work/remote"
}

# honest workers
list a1 a2
for strength in none challenge=4 challenge=2,by=replica exact=2; do
    draw --verify $strength
    right "honest, $strength"
    says "part 1, blocks 1 to 3: the weights are not here"
    check "honest, $strength: nobody is dropped" sh -c "! grep -q dropped '$work/err'"
done
# what cannot be: tolerances, a challenge with one operator, no manifest, another model's
draw --verify replicas=3
check "replicas: exits 1" test $got -eq 1
says "verify replicas: needs the weights"
list a1
draw --verify challenge=2
check "one operator: exits 1" test $got -eq 1
says "name a worker of another operator"
run 1 generate --model "$client" $options --prompt "a lion" --worker "1=$(address a1)" "2=$(address b1)" --worker-token-file "$work/tokens" \
    -o "$work/x.png"
says "name the manifest"

# who lies in the test that all workers of a part answer is dropped by the word of the others
start liar "$liar" "$first" q8 0
list a1 liar a2
draw
right "q8 from the first request"
says "$(address liar | sed 's/#.*//').*is dropped: a test got another answer from it than from most workers of the part"
stop liar KILL
start liar "$liar" "$first" q8 0
list a1 liar
draw
check "one against one in the test: exits 1" test $got -eq 1
says "without the weights of its blocks nobody here can tell who is right"
stop liar KILL

# signed lies: two honest operators, of which one judges, or the majority They answer the
# known-answer test, and then lie at once. A challenge asks two of the three; "old", which needs an
# answer before, is asked always.
for how in "q8 1 challenge=4" "bit 1 exact=3" "old 1 exact=3"; do
    start liar "$liar" "$first" ${how% *}
    list liar a1 a2
    draw --verify ${how##* }
    right "$how"
    says "$(address liar | sed 's/#.*//').*is dropped: its answer for step"
    receipt=$(ls "$work"/receipt-* 2>/dev/null | head -1)
    there "${receipt:-receipt}"
    run 0 verify "$receipt" --model models/emoji
    prints "onvicted"
    stop liar KILL
done
# The other row of guidance waits for an honest worker that is slow: what the liar answered to it,
# before it was found out, is no vote.
start liar "$liar" "$first" bit 1
start slow "$liar" "$first" slow 1
list liar a1 slow
draw --verify exact=3
right "bit, a slow witness"
check "a slow witness: it is not dropped" sh -c "! grep '$(address slow | sed 's/#.*//').*is dropped' '$work/err'"
stop liar KILL
stop slow KILL
# with the weights at hand the one block is judged here: one other operator is enough
start liar "$liar" "$first" bit 1
rm -f "$work/remote.png"
"$program" generate --model models/emoji $options --prompt "a lion" --worker "1=$(address liar),$(address a1)" "2=$(address b1),$(address b2)" \
    --worker-token-file "$work/tokens" --verify challenge=4,by=replica --receipts "$work" -o "$work/remote.png" >"$work/out" 2>"$work/err"
got=$?
right "bit, challenge by a replica, judged here"
says "$(address liar | sed 's/#.*//').*is dropped: its answer for step"
says "worker $(address liar | sed 's/#.*//') gave another result at block"
stop liar KILL
# without them nobody knows who of two is right: an error, and both receipts
start liar "$liar" "$first" bit 1
list liar a1
draw --verify challenge=4
check "one against one: exits 1" test $got -eq 1
says "nobody can tell whose is right"
check "two receipts" test "$(ls "$work"/receipt-* | wc -l)" -eq 2
convicted=0 cleared=0
for receipt in "$work"/receipt-*; do
    "$program" verify "$receipt" --model models/emoji >"$work/out" 2>"$work/err"
    case $? in 0) convicted=$((convicted + 1));; 3) cleared=$((cleared + 1));; esac
done
check "one of them convicts, the other clears" test $convicted$cleared = 11
exit $failed
