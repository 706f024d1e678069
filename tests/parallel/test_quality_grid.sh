#!/bin/sh
# bench/quality_grid.c goes on where it was stopped: a setting is measured once, one whose line was
# cut is measured again, and so is none else.
#   sh test_quality_grid.sh BUILD          in the repository root
. tests/check.sh
grid=$1/bench/quality_grid results=$work/results.csv
key() { sed -n "$1p" "$results" | cut -d, -f1-9; }

check "the first setting" "$grid" "$results" "$work/pictures" 1 1
check "is a line" test "$(wc -l <"$results")" -eq 2
check "of q8_0" test "$(key 2)" = "DDIMScheduler,20,128,128,1,weights,,,q8_0"
check "near the exact picture, and not equal" sh -c "awk -F, 'NR == 2 { exit !(\$11 > 35 && \$11 < 80 && \$13 > 0.98 && \$13 < 1) }' '$results'"
there "$work/pictures/exact-128-0.png"
first=$(sed -n 2p "$results")
printf 'DDIMScheduler,20,128,128,1,weights,,,q4_0,1,3' >>"$results"
check "after a stop" "$grid" "$results" "$work/pictures" 1 1
check "the first line stays" test "$(sed -n 2p "$results")" = "$first"
check "the cut one is made again" test "$(key 3)" = "DDIMScheduler,20,128,128,1,weights,,,q4_0"
check "and is whole" test "$(tail -n 1 "$results" | tr ',' '\n' | wc -l)" -eq 16
check "the page" "$1/tessera" report "$results" -o "$work/report.html"
exit $failed
