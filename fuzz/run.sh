#!/bin/sh
# Runs every fuzz target in FOLDER for SECONDS each from its kept corpus, JOBS at a time, under
# AddressSanitizer. An input that crashes, that takes more than 10 s or for which more than 1 GiB is
# asked for is a finding, and so are fewer than 10000 mutated files over all formats. New inputs go
# to a scratch folder; a finding is left in the working directory as crash-*, timeout-* or oom-*.
#   fuzz/run.sh FOLDER SECONDS JOBS
set -eu
folder=$1 seconds=$2 jobs=$3 counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
one() {
    name=$(basename "$1"); name=${name#fuzz_}
    scratch=$(mktemp -d)
    if "$1" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 "$scratch" "fuzz/corpus/$name" >"$scratch.log" 2>&1
    then
        inputs=$(grep -o 'number_of_executed_units: *[0-9]*' "$scratch.log" | grep -o '[0-9]*$')
        echo "$inputs" >>"$counts"
        echo "fuzz $name: $inputs inputs in $seconds s, no finding"
        rm -rf "$scratch" "$scratch.log"
    else tail -n 60 "$scratch.log"; echo "fuzz $name: FINDING" >&2; rm -rf "$scratch" "$scratch.log"; return 1
    fi
}
status=0 pids= found=0
for target in "$folder"/fuzz_*; do
    case $target in *.cmake) continue ;; esac
    [ -f "$target" ] && [ -x "$target" ] || continue
    found=$((found + 1))
    one "$target" & pids="$pids $!"
    if [ "$(echo "$pids" | wc -w)" -ge "$jobs" ]; then
        for pid in $pids; do wait "$pid" || status=1; done
        pids=
    fi
done
for pid in $pids; do wait "$pid" || status=1; done
[ "$found" -gt 0 ] || { echo "fuzz/run.sh: no fuzz_* program in $folder" >&2; exit 1; }
total=$(awk '{ sum += $1 } END { print sum + 0 }' "$counts")
echo "fuzz: $total inputs over $found formats"
[ "$total" -ge 10000 ] || { echo "fuzz/run.sh: too few inputs" >&2; status=1; }
exit $status
