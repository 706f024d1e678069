# What the shell tests share; they source it in the repository root. Sets $work, a folder that is
# gone at the end (a test may name one of its own before), and $failed; a test ends with `exit
# $failed`.
work=${work:-$(mktemp -d)} || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

# check NAME COMMAND...: a line that says whether the command passes; where it does not, what it
# said, and what the program under test had on standard error ($work/err).
check() {
    name=$1
    shift
    if "$@" >"$work/check" 2>&1; then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        cat "$work/check" "$work/err" 2>/dev/null | sed 's/^/      /'
        failed=1
    fi
}
# run STATUS-EXPECTED ARGUMENTS...: of $program, which the test sets; output in $work/out and $work/err.
run() {
    want=$1
    shift
    "$program" "$@" >"$work/out" 2>"$work/err"
    got=$?
    check "tessera $* exits $want" test "$got" -eq "$want"
}
# wait_until COMMAND...: until it succeeds, a minute at most: a busy machine takes seconds for what
# an idle one does at once.
wait_until() {
    for _ in $(seq 600); do
        "$@" && return
        sleep 0.1
    done
}
says() { check "stderr says '$1'" grep -q -e "$1" "$work/err"; }
says_once() { check "stderr says '$1' once" test "$(grep -c -e "$1" "$work/err")" -eq 1; }
prints() { check "stdout says '$1'" grep -q -e "$1" "$work/out"; }
there() { check "$(basename "$1") is there" test -s "$1"; }
