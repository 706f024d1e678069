#!/bin/sh
# What a log sees of long work, and signals that end it: sh test_progress.sh PROGRAM, run in the
# repository root. Prints a line per check; exits 1 if any failed. Left out: what a terminal shows
# (test_cli.sh has its previews).
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
timeout 300 "$launcher" -n 2 --oversubscribe "$program" generate --prompt "cat face" --steps 10000 --threads 1 --use-cfg-parallel -o "$work/here/" \
    >"$work/out" 2>"$work/err" </dev/null &
pid=$!
wait_until grep -q '^denoise: ' "$work/err"
kill -INT "$pid"
wait "$pid"
says_once '^denoise: [0-9]* of 10000, [0-9.]* s each, [0-9]* s left'
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

# a launcher that goes on after failures does not end with 0 where there is no picture
recovers() { timeout 120 "$launcher" --enable-recovery -n 2 --oversubscribe "$program" generate "$@" >"$work/out" 2>"$work/err" </dev/null; }
if "$launcher" --version 2>/dev/null | grep -q 'Open MPI) 4'; then
    recovers --prompt a --steps 0 -o "$work/no.png"
    check "--enable-recovery: a wrong command line is no success" test "$?" -ne 0; says "out of range"
    recovers --prompt a --steps 1 --threads 1 --ulysses-degree 3 -o "$work/no.png"
    check "--enable-recovery: a mesh that does not fit is no success" test "$?" -ne 0; says "error:"
    recovers --prompt a --steps 10000 --threads 1 --ulysses-degree 2 -o "$work/no.png" &
    run=$!
    wait_until grep -q '^text: ' "$work/err"
    victim=$(pgrep -f -- "-o $work/no.png" | while read -r p; do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -q '^OMPI_COMM_WORLD_RANK=1$' && echo "$p"; done | head -n 1)
    kill -KILL "$victim"
    wait $run
    check "--enable-recovery: a rank that is killed is no success" test "$?" -ne 0
    recovers --prompt a --steps 1 --threads 1 --ulysses-degree 2 -o "$work/yes.png"
    check "--enable-recovery: a picture is one" test "$?" -eq 0; there "$work/yes.png"
fi

# a file that may grow no further
for limited in "generate --prompt a --steps 1 --threads 1 -o $work/here/x.png" "convert tests/cases/pipeline_sd15/model $work/here/x.safetensors" \
    "make-model --class sd15 --scale tiny $work/here/x"; do
    # shellcheck disable=SC2086
    (ulimit -f 4; exec "$program" $limited) >/dev/null 2>"$work/err.big"
    check "tessera $limited ends in an error where files may not grow" test "$?" -eq 1
    nothing_in "$work/here"
done

# an address space that is too small is named
for size in 60000 100000 140000; do
    (ulimit -v $size; exec "$program" generate --prompt a --steps 1 --threads 1 -o "$work/here/x.png") >"$work/out" 2>"$work/err"
    check "ulimit -v $size ends in an error" test "$?" -ne 0
    ! grep -q "tessera: error: " "$work/err" || says "ulimit -v"
    nothing_in "$work/here"
done

# one that the code generator behind the products does not get through is named, too: by itself it
# ends the process by a signal (the sanitizers take more addresses than that for themselves)
if (ulimit -v 4000000; exec "$program" -V) >/dev/null 2>&1; then
    for size in 450000 500000 600000 700000 750000 900000 1500000; do
        (ulimit -v $size; exec "$program" generate --prompt a --steps 1 --threads 2 -o "$work/here/x.png") >"$work/out" 2>"$work/err"
        got=$?
        check "ulimit -v $size ends in a picture or an error, not by a signal" test "$got" -le 1
        test "$got" -ne 1 || says "ulimit -v"
        rm -f "$work/here/x.png"
        nothing_in "$work/here"
    done
fi

# so are threads that the system does not give (the sanitizers take more addresses than that for
# themselves)
if (ulimit -v 4000000; exec "$program" -V) >/dev/null 2>&1; then
    (ulimit -v 4000000; exec "$program" generate --prompt a --steps 1 --threads 1000 -o "$work/here/x.png") >"$work/out" 2>"$work/err"
    check "threads beyond the limit end in an error" test "$?" -eq 1
    says "threads: the system allows this process [0-9]*, not 1000 (.*; ulimit -u is .*); use fewer"
    nothing_in "$work/here"
fi

exit $failed
