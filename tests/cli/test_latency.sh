#!/bin/sh
# `tessera latency` as a person runs it: sh test_latency.sh PROGRAM, in the repository root. The
# times themselves are not looked at.
program=$(realpath "$1")
. tests/check.sh
OMP_WAIT_POLICY=passive XDG_CACHE_HOME=$work/cache
export OMP_WAIT_POLICY XDG_CACHE_HOME

# ranks N STATUS ARGUMENTS...: the command on N ranks; output in $work/out and $work/err.
ranks() {
    count=$1 want=$2
    shift 2
    timeout 100 mpirun -n "$count" --oversubscribe "$program" latency --threads 1 "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    check "mpirun -n $count tessera latency $* exits $want" test "$got" -eq "$want"
}
measured() { check "$1 meshes are measured" test "$(grep -c '^[a-z].*\(compute\|bandwidth\|latency\|memory\)$' "$work/out")" -eq "$1"; }
entries() { check "the report has $1 meshes" test "$(grep -c '"seconds_per_picture"' "$work/out")" -eq "$1"; }
quick="--steps 2 --test-times 1 --warmup-times 0"

# every mesh of two ranks: cfg, pipefusion, ring, ulysses, tensor; with the displaced ones patch,
# with the text whole and split, and pipefusion with 2 and 4 patches
ranks 2 0 $quick --exact; measured 5; prints "^the fastest: .*mpirun -n 2 tessera generate --"; says "1 of 5 meshes measured"
ranks 2 0 $quick --json; entries 9; prints '"ranks":.2'
ranks 2 0 $quick --sizes 64 128 --exact --no-use-cfg-parallel --json --n-gpus 2 --script x.py; entries 8; prints '"size":.64'; says "no effect"
ranks 2 0 $quick --exact --guidance-scale 1 --dtype f32; measured 4
ranks 2 0 $quick --exact --model tests/cases/pipeline_flux_control/model --sizes 64; measured 4
check "one rank has one mesh" sh -c "'$program' latency $quick --threads 1 | grep -q '^one rank'"

# what is wrong is said once
ranks 2 2 $quick --ranks 4; says_once "mpirun -n 4"
ranks 2 2 $quick --sizes big; says_once "not 'big'"
ranks 2 1 $quick --sizes 100; says_once "multiple"
ranks 2 1 $quick --model "$work/none"; says_once "no such folder"
ranks 2 2 $quick --exakt; says_once "did you mean"
cat >"$work/unlike" <<END
#!/bin/sh
exec "$program" latency $quick --threads 1 --steps "\$((OMPI_COMM_WORLD_RANK + 1))"
END
timeout 60 mpirun -n 2 --oversubscribe sh "$work/unlike" >"$work/out" 2>"$work/err"
check "unlike ranks fail" test $? -eq 1
says_once "steps"

# Ctrl-C; mpirun gives its ranks a second to end, which is not enough for the sanitizers on a busy
# machine
mpirun -n 2 --oversubscribe --mca odls_base_sigkill_timeout 5 "$program" latency --threads 1 --steps 300 --exact >"$work/out" 2>"$work/err" &
launcher=$!
wait_until grep -q "^mesh" "$work/out"
kill -INT $launcher
wait $launcher
check "an interrupted measurement does not exit 0" test $? -ne 0
says "stopped"
exit $failed
