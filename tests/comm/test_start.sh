#!/bin/sh
# Ranks that are stopped or killed at any moment from the first on: the others end, nothing is left.
#   test_start.sh PROGRAM TRIALS
# In each trial a few ranks make a picture, and one of them gets a signal. Within 15 s (longer on a
# machine with more work than processors) all have ended, the launcher with a failing status or with
# the picture, and there is no process and no other file. Now and then Open MPI's launcher itself
# hangs or crashes when a rank dies in the moment in which it connects, after the ranks have ended,
# or leaves its own files: that is counted, and no fault of theirs. A third of the trials tells the
# launcher to leave the other ranks alone (--enable-recovery).
set -u
program=$(realpath "$1") trials=$2 launcher=${MPIEXEC:-mpirun}
. tests/check.sh
OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 TESSERA_START_SECONDS=10
export OMP_WAIT_POLICY OMP_NUM_THREADS TESSERA_START_SECONDS

milliseconds() { echo $(($(date +%s%N) / 1000000)); }
random() { echo $((0x$(od -An -N3 -tx1 /dev/urandom | tr -d ' ') % $1)); } # below $1

patience() { # milliseconds
    awk -v processors="$(nproc)" '{ print int(15000 * ($1 > processors ? $1 / processors : 1)) }' /proc/loadavg
}

ranks() { pgrep -s "$job" -x "$(basename "$program")"; }

in_time() { # COMMAND...: whether it comes true before the deadline
    until "$@"; do
        [ "$(milliseconds)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}
ended() { ! kill -0 "$job" 2>/dev/null; }
runs() { ps -o stat= -p "$(ranks | paste -s -d ,)" 2>/dev/null | grep -qv '^[ZT]'; } # a rank that has neither ended nor been stopped
finished() { # the launcher, or all ranks ten seconds ago
    ended && return
    runs && quiet=$(milliseconds)
    [ $(($(milliseconds) - quiet)) -gt 10000 ]
}
launcher_crashed() { grep -q "^\[[^]]*:0*$job\] \*\*\* Process received signal" "$work/err"; } # a rank's own crash would bear the rank's number
launcher_hangs() { ! { ended || runs; }; }
deserted() { ! pgrep -s "$job" >/dev/null; }
began() { ranks >/dev/null || ended; }

fault() {
    echo "FAIL  trial $trial ($count ranks${recovery:+, $recovery}; rank process $victim got SIG$signal after $delay ms): $1"
    sed 's/^/      /' "$work/err"
    failed=1
}

# What shows whose fault it is: each process of the trial with its state, and where the launcher is.
evidence() {
    ps -o pid=,stat=,wchan:24=,args= -s "$job" | cut -c 1-120
    ! ended && gdb --version >/dev/null 2>&1 && gdb -p "$job" -batch -ex "thread apply all bt 12" 2>/dev/null | grep '^#\|^Thread'
    tail -n 30 "$work/err"
}

launcher_fault() { # WHAT
    echo "      trial $trial ($count ranks${recovery:+, $recovery}; rank process $victim got SIG$signal after $delay ms): the launcher ($job) $1"
    evidence | sed 's/^/          /'
    launcher_faults=$((launcher_faults + 1))
}

try() {
    count=$((2 + $(random 3))) delay=$(random 600) recovery= signal=KILL folder=$work/t$trial
    [ $((trial % 2)) -eq 0 ] && signal=STOP
    [ $((trial % 8)) -eq 1 ] && signal=TERM
    [ $((trial % 3)) -eq 0 ] && recovery=--enable-recovery
    mkdir "$folder"
    TMPDIR=$folder setsid "$launcher" -n "$count" --oversubscribe --mca btl_vader_backing_directory "$folder" $recovery "$program" generate \
        --prompt lion --steps 100 --threads 1 -o "$folder/lion.png" >"$work/out" 2>"$work/err" </dev/null &
    job=$! deadline=$(($(milliseconds) + 60000))
    in_time began
    sleep "$(printf '0.%03d' "$delay")"
    victim=$(ranks | sort -R | head -n 1)
    [ -n "$victim" ] && kill -s "$signal" "$victim" 2>/dev/null && hits=$((hits + 1))
    start=$(milliseconds) quiet=$(milliseconds)
    deadline=$((start + $(patience)))
    in_time finished
    if launcher_crashed || launcher_hangs; then
        launcher_fault "$(launcher_crashed && echo crashed || echo 'hangs although the ranks have ended')"
        pkill -KILL -s "$job"
        rm -rf "$folder"
        return
    fi
    ended || fault "it hangs"
    took=$(($(milliseconds) - start))
    [ "$took" -gt "$longest" ] && longest=$took
    in_time deserted || fault "processes are left: $(pgrep -s "$job" | xargs)"
    pkill -KILL -s "$job"
    wait "$job"
    status=$?
    [ "$status" -ne 0 ] || [ -s "$folder/lion.png" ] || fault "exit status 0 without a picture"
    rm -f "$folder/lion.png"
    if [ -n "$(ls "$folder" | grep -v '^ompi\.\|^vader_segment')" ]; then
        fault "files are left: $(ls "$folder" | xargs)"
    elif ! rmdir "$folder" 2>/dev/null; then
        launcher_fault "left files: $(ls "$folder" | xargs)" # its own to remove
        rm -rf "$folder"
    fi
}

longest=0 hits=0 launcher_faults=0
for trial in $(seq "$trials"); do try; done
echo "$trials trials, in $hits of them a rank got a signal; the longest took $longest ms; the launcher itself broke in $launcher_faults"
check "most trials hit a rank" test $((2 * hits)) -gt "$trials"
check "nearly all trials leave the launcher in order" test $((20 * launcher_faults)) -le $((trials + 20))
exit $failed
