# What the shell tests with workers share; sourced behind tests/check.sh. Workers end with the test.
pids=
trap 'kill $pids 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
(umask 077; echo 0123456789abcdef0123456789abcdef >"$work/tokens")

export XDG_CACHE_HOME="$work/cache"

# start NAME PROGRAM ARGUMENTS...: a worker with an identity of its own, $work/NAME.pem, which was
# used before or is made. Serves when it returns.
start() {
    name=$1
    shift
    [ -f "$work/$name.pem" ] || "$program" worker --make-identity --identity "$work/$name.pem" >"$work/pin"
    rm -f "$work/$name.out" # of a worker of this name before
    "$@" --identity "$work/$name.pem" --token-file "$work/tokens" --port "${port:-0}" --threads 1 >"$work/$name.out" 2>"$work/$name.err" &
    eval "pid_$name=$!"
    pids="$pids $!"
    wait_until grep -qs '^serves' "$work/$name.out"
    grep -qs "^serves" "$work/$name.out" || cat "$work/$name.err" >"$work/err"
    check "worker $name serves" grep "^serves" "$work/$name.out"
}
# URL#PIN of a worker that was started.
address() { awk '/^pin/ {pin = $2} /^serves/ {url = $2} END {print url "#" pin}' "$work/$1.out"; }
# stop NAME [SIGNAL]
stop() {
    eval "kill -s ${2:-TERM} \$pid_$1 2>/dev/null; wait \$pid_$1 2>/dev/null"
    pids=$(echo "$pids" | tr ' ' '\n' | grep -vx "$(eval echo "\$pid_$1")" | tr '\n' ' ')
}
