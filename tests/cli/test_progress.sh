#!/bin/sh
# What a log sees of long work, and signals that end it: sh test_progress.sh PROGRAM, run in the repository root. Prints a line per check; exits 1
# if any failed. Left out: what a terminal shows (test_cli.sh has its previews).
program=$(realpath "$1") launcher=${MPIEXEC:-mpirun}
. tests/check.sh
OMP_WAIT_POLICY=passive
export OMP_WAIT_POLICY
nothing_in() { check "nothing is left in $(basename "$1")" test -z "$(ls -A "$1")"; }
mkdir "$work/here"

# a line after each tenth, or every ten seconds; SIGHUP and SIGTERM stop as Ctrl-C does
for signal in HUP:129 TERM:143; do
    "$program" generate --prompt "cat face" --steps 400 --threads 1 -o "$work/here/" >"$work/out" 2>"$work/err" &
    pid=$!
    wait_until grep -q '^denoise: ' "$work/err"
    kill -"${signal%:*}" "$pid"
    wait "$pid"
    check "SIG${signal%:*} exits ${signal#*:}" test "$?" -eq "${signal#*:}"
    says '^denoise: [0-9]* of 400, [0-9.]* s each, [0-9]* s left$'; says "stopped"
    check "a log has no control characters" sh -c "! grep -q '$(printf '\033')' '$work/err'"
    nothing_in "$work/here"
done
timeout 300 "$launcher" -n 2 --oversubscribe "$program" generate --prompt "cat face" --steps 100000 --threads 1 --use-cfg-parallel -o "$work/here/" \
    >"$work/out" 2>"$work/err" </dev/null &
pid=$!
wait_until grep -q '^denoise: ' "$work/err"
kill -INT "$pid"
wait "$pid"
says_once '^denoise: [0-9]* of 100000, [0-9.]* s each, [0-9]* s left'
nothing_in "$work/here"

# nohup: a terminal that goes away stops nothing
(trap '' HUP; exec "$program" generate --prompt a --steps 30 --threads 1 -o "$work/nohup.png") >"$work/out" 2>"$work/err" &
pid=$!
wait_until grep -q '^text: ' "$work/err"
kill -HUP "$pid"
wait "$pid"
check "an ignored SIGHUP stays ignored" test "$?" -eq 0
there "$work/nohup.png"

# TERM=dumb and NO_COLOR, on a terminal
if command -v script >/dev/null && script -qec true /dev/null >/dev/null 2>&1; then
    TERM=dumb script -qec "'$program' generate --prompt a --steps 1 --threads 1 -o '$work/dumb.png'" /dev/null >"$work/out" 2>"$work/err"
    check "TERM=dumb gets no control characters" sh -c "! grep -q '$(printf '\033')' '$work/out'"
    TERM=xterm NO_COLOR=1 script -qec "env -u TMUX '$program' generate --prompt a --steps 1 --threads 1 -o '$work/plain.png'" /dev/null >"$work/out" 2>"$work/err"
    check "NO_COLOR gets no coloured preview" sh -c "! grep -q '38;2;' '$work/out'"
    TERM=xterm NO_COLOR=1 script -qec "'$program' generate --prompt a --steps 1 --threads 1 --preview blocks -o '$work/asked.png'" /dev/null >"$work/out" 2>"$work/err"
    check "but one that is asked for" grep -q '38;2;' "$work/out"
else
    echo "skip  terminals: no pseudo-terminal here"
fi

# ranks without degrees choose for themselves
choose() { # RANKS ARGUMENTS...
    ranks=$1
    shift
    XDG_CACHE_HOME=$work/cache timeout 300 "$launcher" -n "$ranks" --oversubscribe "$program" generate "$@" >"$work/out" 2>"$work/err" </dev/null
    check "$ranks ranks without degrees: $*" test "$?" -eq 0
}
choose 2 --prompt "a lion" --steps 2 --threads 1 -o "$work/two.png"; there "$work/two.png"
says_once '^tessera: no option says how 2 ranks share the work: chose .*, which is exact'
check "both ranks work at one picture" grep -qaE '"mesh":"[a-z]+ 2","ranks":2' "$work/two.png"
choose 2 --prompt "a lion" --steps 1 --threads 1 --ulysses-degree 2 -o "$work/given.png"
check "nothing is said where degrees are given" sh -c "! grep -q 'no option says' '$work/err'"
choose 2 --from "$work/two.png" -o "$work/again.png"; says "^bit for bit the same"

# ulimit -v
(ulimit -v 60000; exec "$program" generate --prompt a --steps 1 --threads 1 -o "$work/limit.png") >"$work/out" 2>"$work/err"
check "ulimit -v ends in an error" test "$?" -ne 0
check "and nothing is written" test ! -e "$work/limit.png"

exit $failed
