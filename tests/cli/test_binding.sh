#!/bin/sh
# Ranks that crowd a machine's processors have one each, evenly: sh test_binding.sh PROGRAM, in the
# repository root. Skipped (77) where there is but one processor, or too many to crowd.
program=$(realpath "$1")
. tests/check.sh
unset OMP_NUM_THREADS # nproc would believe it
processors=$(getconf _NPROCESSORS_ONLN)
[ "$processors" -gt 1 ] && [ "$processors" -le 4 ] && [ "$(nproc)" -eq "$processors" ] || exit 77
ranks=$((2 * processors))

# bound RANKS OPTIONS...: how many of the ranks of a run have each processor; "all" where they are
# not bound.
bound() {
    count=$1
    shift
    mpirun -n "$count" --bind-to none --oversubscribe "$program" generate --no-preview --prompt a --threads 1 --steps 10000 -o "$work/x.png" "$@" \
        >"$work/out" 2>"$work/err" </dev/null &
    launcher=$!
    for _ in $(seq 300); do
        : >"$work/lists"
        for pid in $(pgrep -P $launcher); do sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/$pid/status >>"$work/lists" 2>/dev/null; done
        [ "$(grep -c '^[0-9]*$' "$work/lists")" -eq "$count" ] && break
        [ "$count" -le "$processors" ] && [ "$(grep -c . "$work/lists")" -eq "$count" ] && sleep 1 && break
        kill -0 $launcher 2>/dev/null || break
        sleep 0.1
    done
    kill -INT $launcher
    wait $launcher
    sort "$work/lists" | sed 's/.*[-,].*/all/' | uniq -c | awk '{ print $1 " x " ($2 == "all" ? "all" : "one") }' | sort | uniq -c | awk '{ $1 = $1; print }' >"$work/bound"
}
even() { check "$1 ranks, $2: two on each processor" test "$(cat "$work/bound")" = "$processors 2 x one"; }

bound $ranks --ring-degree $ranks; even $ranks ring
bound $ranks --pipefusion-parallel-degree $ranks; even $ranks pipefusion
bound $ranks --pipefusion-parallel-degree 2 --ring-degree "$processors"; even $ranks "pipefusion x ring"
bound 2 --ring-degree 2; check "ranks that fit are left alone" test "$(cat "$work/bound")" = "1 2 x all"
exit $failed
