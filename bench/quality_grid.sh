#!/bin/sh
# What every setting of bench/quality_settings.c makes of the U-Net's pictures, against one process:
# `make quality`.
#   bench/quality_grid.sh RESULTS.csv WORK [SETTINGS]
# Writes RESULTS.csv (a line for each setting), WORK/pictures.png and WORK/report.html. A run that
# was stopped goes on where it was; what RESULTS.csv has is not measured again. SETTINGS: at most so
# many for each number of patches (0, the default: all). The settings of 1, 2, 4 and 8 ranks are
# four runs, of which AT_ONCE go together (default 1). Run it from the repository root after `make`;
# BUILD is the folder that it built in (default: build).
set -eu
results=${1:?RESULTS.csv} work=${2:?WORK} settings=${3:-0}
build=${BUILD:-build} at_once=${AT_ONCE:-1}
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY
mkdir -p "$work"

part() { # RANKS: its lines of RESULTS.csv begin the part
    [ ! -e "$results" ] || awk -F, -v ranks="$1" 'NR == 1 || $5 == ranks' "$results" >"$work/$1.csv"
    launch=
    [ "$1" = 1 ] || launch="mpirun -n $1 --oversubscribe --bind-to none"
    # shellcheck disable=SC2086 # the launcher's words
    $launch "$build/bench/quality_grid" "$work/$1.csv" "$work" "$settings"
}

# All parts as one file, its header once; at a stop, too.
merge() {
    for ranks in 1 2 4 8; do [ ! -e "$work/$ranks.csv" ] || cat "$work/$ranks.csv"; done | awk 'NR == 1 || !/^scheduler,/' >"$results.new"
    mv "$results.new" "$results"
}
trap merge EXIT
trap 'exit 130' INT TERM

failed=0 parts=
wait_for_parts() {
    for process in $parts; do wait "$process" || failed=1; done
    parts=
}
for ranks in 1 2 4 8; do
    part "$ranks" &
    parts="$parts $!"
    # shellcheck disable=SC2086 # a list of numbers
    [ "$(set -- $parts && echo $#)" -lt "$at_once" ] || wait_for_parts
done
wait_for_parts
[ "$failed" = 0 ] || exit 1
trap - EXIT
merge

# Rows: the exact pictures, and settings with the most telling differences between them.
rows=exact-128
for ranks in 2 4; do
    for way in patch-corrected_async_gn-4- patch-stale_gn-4- patch-no_sync-4- naive_patch---1-row; do rows="$rows $ranks-$way"; done
done
files=
for row in $rows; do
    for i in 0 1 2 3 4 5; do [ ! -e "$work/$row-$i.png" ] || files="$files $work/$row-$i.png"; done
done
# shellcheck disable=SC2086 # a list of files without spaces
"$build/bench/contact_sheet" "$work/pictures.png" 6 $files
"$build/tessera" report "$results" --title "Quality of displaced patches, trained U-Net" --pictures "$work/pictures.png" -o "$work/report.html"
