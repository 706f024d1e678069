#!/bin/sh
# A random delay of every message changes no bit of the sums that test_collectives computes.
#   test_delay.sh FOLDER_OF_THE_TEST_PROGRAMS
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0
for ranks in 2 3 4; do
    mpirun -n $ranks "$1/test_collectives" "$folder/plain" >/dev/null
    start=$(date +%s%N)
    TESSERA_COMM_DELAY_MS=50 mpirun -n $ranks "$1/test_collectives" "$folder/delayed" >/dev/null
    [ $((($(date +%s%N) - start) / 1000000)) -gt 300 ] || { echo "FAIL: nothing was delayed" >&2; exit 1; }
    cmp "$folder/plain" "$folder/delayed" || { echo "FAIL: other sums on $ranks ranks" >&2; exit 1; }
    passed=$((passed + 2))
done
TESSERA_COMM_DELAY_MS=5 mpirun -n 3 "$1/test_comm" >/dev/null # order, with every message late by its own time
echo "$((passed + 1)) passed, 0 failed"
