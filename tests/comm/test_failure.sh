#!/bin/sh
# What the others do when a rank dies, is cut off (a stopped process, which answers as little as a
# host without a network), fails by itself or was started differently: all end within 10 s, and say
# which rank and why. And what is no failure: a long computation.
#   test_failure.sh FOLDER_OF_THE_TEST_PROGRAMS
set -u
programs=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failed=0

check() { # WHAT CONDITION...
    what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL: $what" >&2; cat "$folder/output" >&2; fi
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

start() { # MODE VALUE [MPIRUN_OPTION...]: four ranks in the background, until all have said who they are
    mode=$1 value=$2
    shift 2
    mpirun -n 4 "$@" "$programs/comm_rank" "$mode" "$value" >"$folder/output" 2>&1 &
    launcher=$!
    for _ in $(seq 1200); do # a machine that is busy with other things starts four ranks in tens of seconds
        [ "$(grep -c '^rank . pid' "$folder/output")" -eq 4 ] && return
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.1
    done
    ps -eo pid,stat,time,comm --sort=-time | head -n 20 >>"$folder/output" # what keeps them, or keeps the machine busy
    check "four ranks start" false
    exit 1
}

pid_of() { sed -n "s/^rank $1 pid //p" "$folder/output"; }

gone() { # RANK: it has ended, a zombie counts
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$(pid_of "$1")/status" 2>/dev/null)
    [ -z "$state" ] || [ "$state" = Z ]
}

end_within() { # SECONDS RANK...: these ranks end in time
    limit=$(($(milliseconds) + $1 * 1000))
    shift
    while [ "$(milliseconds)" -lt "$limit" ]; do
        all=yes
        for rank in "$@"; do gone "$rank" || all=no; done
        [ $all = yes ] && return 0
        sleep 0.1
    done
    return 1
}

says() { grep -q "$1" "$folder/output"; }

finish() { # whatever is left of a failed check
    for rank in 0 1 2 3; do gone "$rank" || kill -9 "$(pid_of "$rank")" 2>/dev/null; done
    wait "$launcher"
    status=$?
}

for _ in 1 2 3; do
    start work 60
    sleep "0.$(($(od -An -N1 -tu1 /dev/urandom) % 100 + 100))"
    kill -9 "$(pid_of 2)"
    check "all end after a rank was killed" end_within 10 0 1 2 3
    finish
    check "a failing status after a rank was killed" [ "$status" -ne 0 ]
    check "the killed rank is named" says 'rank 2'
done

# A launcher that leaves the others alone: they notice by themselves.
start work 60 --enable-recovery
kill -9 "$(pid_of 2)"
check "the others notice a killed rank" end_within 10 0 1 3
check "rank 0 names it, its host and the cause" says "rank 0 failed: rank 2 on [^ ]*: no sign of life"
finish

start work 60
kill -STOP "$(pid_of 3)"
check "the others end when a rank is cut off" end_within 10 0 1 2
for rank in 0 1 2; do check "rank $rank names the one cut off" says "rank $rank failed: rank 3 on [^ ]*: no sign of life"; done
finish

# A machine that was asleep: nobody hears anybody for a while, and nobody is to blame.
start sleep 9
for rank in 0 1 2 3; do kill -STOP "$(pid_of "$rank")"; done
sleep 8
for rank in 0 1 2 3; do kill -CONT "$(pid_of "$rank")"; done
check "ranks that were all stopped go on" end_within 15 0 1 2 3
finish
check "and end well" [ "$status" -eq 0 ]

start abort 1
check "all end when one fails" end_within 10 0 1 2 3
for rank in 0 2 3; do check "rank $rank says what rank 1 said" says "rank $rank failed: rank 1 on [^ ]*: models/x: out of memory"; done
finish

start leave 1
check "all end when one leaves before the others are done" end_within 10 0 1 2 3
check "and say which" says "rank [023] failed: rank [023] on [^ ]*: rank 1 has left the world"
finish
check "with a failing status" [ "$status" -ne 0 ]

start options 3
check "all end when options differ" end_within 10 0 1 2 3
for rank in 0 1 2 3; do
    check "rank $rank names both values" \
        says "rank $rank failed: options differ.*rank 0 has \"--seed 7\", rank 3 has \"--seed 8\""
done
finish

start sleep 9
check "a long computation ends" end_within 15 0 1 2 3
finish
check "nine seconds of computing are no failure" [ "$status" -eq 0 ]

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
