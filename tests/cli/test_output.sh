#!/bin/sh
# Where pictures go and where prompts come from: sh test_output.sh PROGRAM, run in the repository
# root. Existing files stay, streams work, and a failed write is an error. Prints a line per check;
# exits 1 if any failed.
program=$(realpath "$1") launcher=${MPIEXEC:-mpirun}
. tests/check.sh
OMP_WAIT_POLICY=passive
TESSERA_DATA_DIR=$PWD root=$PWD
export OMP_WAIT_POLICY TESSERA_DATA_DIR
cd "$work" || exit 1
quick="--steps 1 --seed 3 --threads 1"

# an existing file is never written over silently
echo precious >lion.png
run 0 "a lion" $quick -o lion.png; prints '^lion-1.png$'; says "lion.png exists: this picture gets number 1 (--overwrite"; there lion-1.png
check "the file is as it was" test "$(cat lion.png)" = precious
run 0 "a lion" $quick -o lion.png -q; prints '^lion-2.png$'; check "-q says nothing" test ! -s err
run 0 "a lion" $quick -o lion.png --overwrite; prints '^lion.png$'; check "--overwrite does" cmp lion.png lion-1.png
run 0 -p a b $quick -o set.png --json; run 0 -p a b $quick -o set.png --json; prints '"set-0-1.png"'; prints '"set-1-1.png"'
check "all four are there" test -s set-0.png -a -s set-1.png -a -s set-0-1.png -a -s set-1-1.png
mkdir folder
run 0 -p a $quick -o folder; run 0 -p a $quick -o folder; there folder/a_3_0.png; there folder/a_3_0-1.png
run 0 -p a $quick; run 0 -p a $quick; there tessera-a-3-1.png
run 0 -p a $quick --output-type latent -o l.safetensors; run 0 -p a $quick --output-type latent -o l.safetensors; there l-1.safetensors
timeout 300 "$launcher" -n 2 --oversubscribe "$program" -p a b $quick --data-parallel-degree 2 -o set.png >out 2>err </dev/null
check "two ranks find the names" test "$(tr -d '\r' <out | sort | tr '\n' ' ')" = "set-0-2.png set-1-2.png "
there set-0-2.png; there set-1-2.png
run 0 convert "$root/tests/cases/single_file/sd15.safetensors" sd15 --config "$root/tests/cases/pipeline_sd15/model"
echo precious >sd15.safetensors
run 2 convert sd15 sd15.safetensors; says "sd15.safetensors: exists"; check "the file is as it was" test "$(cat sd15.safetensors)" = precious

# standard output and input
run 0 "a lion" $quick -o -; check "-o - is the picture" cmp out lion-1.png
run 0 "a lion" $quick -q -o -; check "-q -o - too" cmp out lion-1.png
timeout 300 "$launcher" -n 2 --oversubscribe "$program" "a lion" $quick --use-cfg-parallel -o - >out 2>err </dev/null
"$program" inspect out >two.txt 2>/dev/null
check "a PNG comes through mpirun whole" grep -q 128x128 two.txt
run 2 -p a b $quick -o -; says "takes one picture, not 2"
run 2 -p a $quick -o - --json; says "both write"
printf 'cat face\n\nrocket\r\n' | "$program" $quick --prompts-file - -o piped/ >out 2>err
check "prompts from a pipe" test -s piped/cat-face_3_0.png -a -s piped/rocket_3_1.png
printf 'cat face\nrocket\n' | timeout 300 "$launcher" -n 2 --oversubscribe "$program" $quick --data-parallel-degree 2 --prompts-file - -o ranks/ >out 2>err
check "prompts from a pipe to two ranks" test -s ranks/cat-face_3_0.png -a -s ranks/rocket_3_1.png
run 2 --prompts-file - -o x.png </dev/null; says "there is no prompt"

# a failed write
for arguments in "help" "inspect $root/models/emoji" "completion bash" "-p a $quick -q -o y.png" "-p a $quick -o -" "-V"; do
    # shellcheck disable=SC2086
    "$program" $arguments >/dev/full 2>err
    check "tessera $arguments fails on a full device" test "$?" -eq 1
    says "standard output"
done

# a prompt of a sensible length
head -c 17000 /dev/zero | tr '\0' x >long.txt
run 2 --prompts-file long.txt; says "prompt 1 has 17000 bytes: at most 16384"
head -c 5000000 /dev/zero | tr '\0' x >long.txt
run 2 -p a --prompts-file long.txt; says "at most 16384"
longest=$(head -c 16384 /dev/zero | tr '\0' x)
run 0 -p "$longest" --negative-prompt "$longest" $quick -q -o longest.png
run 2 -p "${longest}x"; says "prompt 1 has 16385 bytes: at most 16384"
run 2 -p a --negative-prompt "${longest}x"; says "negative-prompt has 16385 bytes: at most 16384"

# a name is cut between characters, not in one
letters=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa # 47 of the 48 bytes that a prompt has in a name
run 0 -p "${letters}é" $quick -q; there "tessera-$letters-3.png"

# processes that start at once and were given one name: each gets a file of its own
mkdir race
for i in 1 2 3 4; do "$program" generate -p a --steps 1 --threads 1 -q --no-preview -o race/x.png >/dev/null 2>"err.$i" & done
wait
check "four files of one name" test "$(ls race | wc -l)" -eq 4
there race/x.png; there race/x-3.png

exit $failed
