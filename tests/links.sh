#!/bin/sh
# bench/links.sh once, with two hosts: a message to and fro takes at least twice the link's delay,
# the bandwidth is not exceeded, the status is the command's, and nothing is left behind, neither
# afterwards nor when it is interrupted. Exits 77 (skipped) where no link can be emulated.
#   tests/links.sh LINKS_RELAY COMM_RANK
set -u
relay=$1 rank=$2
links=$(dirname "$0")/../bench/links.sh
[ "$(id -u)" -eq 0 ] && command -v ip tc unshare mpirun >/dev/null && [ -c /dev/net/tun ] || exit 77
. tests/check.sh
mkdir "$work/tmp"
# start COMMAND...: in the background, with output in $work/out and $work/err; its namespaces are
# called links$! and so on
start() {
    TMPDIR="$work/tmp" "$links" --relay "$relay" --hosts 2 --bandwidth 100mbit --delay 5ms -- "$@" >"$work/out" 2>"$work/err" &
    process=$!
}
gone() { check "nothing is left ($1)" test -z "$(ip netns list | grep "^links$process-"; pgrep -f "links$process-"; ls "$work/tmp")"; }
# at_least LINE COLUMN NUMBER, at_most: a column of the line of $work/out that begins so, against a
# number
at_least() { awk -v n="$3" "/^ *$1/ { if (\$$2 >= n) ok = 1 } END { exit !ok }" "$work/out"; }
at_most() { awk -v n="$3" "/^ *$1/ { if (\$$2 <= n) ok = 1 } END { exit !ok }" "$work/out"; }

start "$rank" ping 0
wait "$process"
status=$?
[ $status -ne 3 ] || { cat "$work/err"; exit 77; }
check "the command succeeds" test $status -eq 0
check "an empty message takes 5 ms one way, 10 to and fro" at_least "0 bytes" 3 5000
check "both hosts are counted" test "$(grep -c '^links: host . sent [1-9]' "$work/err")" -eq 2
[ $failed -eq 0 ] || cat "$work/out" "$work/err"
gone "after success"

start "$rank" ping 4e6
wait "$process"
check "4 MB go, at 100 Mbit/s at most" at_most "4000000 bytes" 7 12.5

start sh -c 'exit 7'
wait "$process"
check "the status is the command's" test $? -eq 7
gone "after failure"

start sh -c 'echo started; exec sleep 60'
wait_until grep -q started "$work/out"
kill -TERM "$process"
wait "$process"
check "SIGTERM ends it with status 143" test $? -eq 143
gone "after SIGTERM"

for wrong in "--hosts 1" "--hosts x" "--bandwidth 3" "--delay 5" "--delay x5ms" "--nothing"; do
    # shellcheck disable=SC2086
    "$links" $wrong -- true 2>/dev/null
    check "$wrong is refused" test $? -eq 2
done
exit $failed
