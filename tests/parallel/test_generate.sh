#!/bin/sh
# `tessera generate` under mpirun as a person runs it: sh test_generate.sh PROGRAM, in the
# repository root. Prints a line per check; exits 1 if any failed. What the pictures show is
# test_generate.c's; here: options, who talks, what is written, and what happens when a rank fails.
program=$(realpath "$1")
. tests/check.sh

# ranks N STATUS ARGUMENTS...: the command on N ranks; output in $work/out and $work/err.
ranks() {
    count=$1 want=$2
    shift 2
    timeout 60 mpirun -n "$count" --oversubscribe "$program" generate --no-preview "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    check "mpirun -n $count tessera generate $* exits $want" test "$got" -eq "$want"
}
lines() { check "stdout has $1 lines" test "$(wc -l <"$work/out")" -eq "$1"; }
quick="--steps 2 --seed 3 --threads 1"

ranks 2 0 --prompt a $quick --ulysses_degree 2 -o "$work/u.png"; there "$work/u.png"; lines 1; says_once "1 picture"
ranks 4 0 --prompt a $quick --ring-degree 2 --use_cfg_parallel --comm-stats -o "$work/r.png"; there "$work/r.png"; says attention
ranks 2 0 --prompt a $quick --ring-degree 2 --use-parallel-vae -o "$work/v.png"; there "$work/v.png"
few="--model tests/cases/pipeline_sd15/model --prompt a --steps 2 --no-split-batch --seed 3 --threads 1 --height 512 --width 64 --parallelism patch"
ranks 8 0 $few -o "$work/p.png"; says_once "sync-mode stale_gn stays nearer"
ranks 8 0 $few --height 1024 --steps 1 -o "$work/p.png"; check "patches of 16 rows have no such note" sh -c "! grep -q 'stays nearer' '$work/err'"
ranks 8 0 $few --sync-mode stale_gn -o "$work/p.png"; check "stale_gn has no such note" sh -c "! grep -q 'stays nearer' '$work/err'"
ranks 2 0 --prompt a b --num-images 2 $quick --data_parallel_degree 2 -o "$work/d/"; lines 4
check "all pictures of data parallel ranks are there" test "$(ls "$work/d" | wc -l)" -eq 4

# what must be refused, once, with what is possible
ranks 3 1 --prompt a $quick --ulysses-degree 2 -o "$work/x.png"; says_once "possible is"
ranks 2 1 --prompt a $quick --use-cfg-parallel --guidance-scale 1 -o "$work/x.png"; says_once "not guided"
ranks 8 1 --prompt a $quick --ulysses-degree 8 -o "$work/x.png"; says_once "are possible"
ranks 2 2 --prompt a --promt b; says_once "did you mean"
check "nothing is written after an error" test ! -e "$work/x.png"

# ranks that were not started alike
cat >"$work/unlike" <<END
#!/bin/sh
exec "$program" generate --no-preview --prompt a $quick --ulysses-degree 2 -o "$work/x.png" "\$([ "\$OMPI_COMM_WORLD_RANK" = 1 ] && echo --seed=4 || echo --seed=3)"
END
cp -r models/emoji "$work/other"
sed 's/"num_inference_steps": 20/"num_inference_steps": 19/' models/emoji/generation_defaults.json >"$work/other/generation_defaults.json"
mkdir "$work/0" "$work/1"; cp -r models/emoji "$work/0/m"; mv "$work/other" "$work/1/m"
cat >"$work/unlike_model" <<END
#!/bin/sh
cd "$work/\$OMPI_COMM_WORLD_RANK" && exec "$program" generate --no-preview --model m --prompt a $quick --ulysses-degree 2 -o "$work/x.png"
END
chmod +x "$work/unlike" "$work/unlike_model"
timeout 60 mpirun -n 2 --oversubscribe "$work/unlike" >"$work/out" 2>"$work/err"; check "different options fail" test $? -ne 0; says "options differ between ranks"
timeout 60 mpirun -n 2 --oversubscribe "$work/unlike_model" >"$work/out" 2>"$work/err"; check "different models fail" test $? -ne 0
says "model files (fingerprint) differ between ranks"
check "nothing is written by ranks that differ" test ! -e "$work/x.png"

# a rank that dies while a picture is made: the others end within 10 s, nothing is written
for death in "KILL --steps 5000 --ulysses-degree 3" "STOP --steps 5000 --ulysses-degree 3" "KILL --steps 5000 --parallelism patch" \
    "STOP --steps 5000 --parallelism patch" "KILL --steps 500 --parallelism patch --model tests/cases/pipeline_sd15/model --height 768" \
    "KILL --steps 5000 --pipefusion-parallel-degree 3" "STOP --steps 5000 --pipefusion-parallel-degree 3 --num-pipeline-patch 4" \
    "KILL --steps 900 --pipefusion-parallel-degree 3 --model tests/cases/pipeline_sdxl/model --height 768"; do
    signal=${death%% *} arguments="${death#* } -o $work/x.png"
    # shellcheck disable=SC2086
    timeout 60 mpirun --enable-recovery -n 3 --oversubscribe "$program" generate --no-preview --prompt a --seed 3 --threads 1 \
        $arguments >"$work/out" 2>"$work/err" </dev/null &
    run=$!
    wait_until grep -q '^text' "$work/err"
    sleep 1
    victim=$(pgrep -f -- "--threads 1 $arguments" | while read -r p; do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -q '^OMPI_COMM_WORLD_RANK=1$' && echo "$p"; done | head -n 1)
    check "rank 1 is found" test -n "$victim"
    start=$(date +%s)
    kill -s $signal "$victim"
    while [ "$(pgrep -f -- "--threads 1 $arguments" | while read -r p; do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -q '^OMPI_COMM_WORLD_RANK=[02]$' && echo "$p"; done | wc -l)" -gt 0 ] &&
        [ $(($(date +%s) - start)) -lt 15 ]; do sleep 0.2; done
    took=$(($(date +%s) - start))
    kill -s KILL "$victim" 2>/dev/null
    wait $run
    check "ranks end within 10 s of another's SIG$signal with ${death#* } ($took s)" test $took -le 10
    [ $signal = KILL ] || says "rank 1 on .*no sign of life"
    check "nothing is written after SIG$signal" test ! -e "$work/x.png"
done
exit $failed
