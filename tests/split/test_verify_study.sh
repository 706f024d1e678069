#!/bin/sh
# tessera verify-study: what docs/verify-study.md says of its tables, on this machine. Usage:
# test_verify_study.sh PROGRAM
set -eu
out=$(mktemp)
trap 'rm -f "$out"' EXIT
OMP_WAIT_POLICY=passive "$1" verify-study --trials 200 >"$out"
failed=0
check() { # WHAT WANTED GOT
    [ "$2" = "$3" ] || { echo "$1: $3, not $2" >&2; failed=$((failed + 1)); }
}
check "types with all reproducible answers equal" 2 "$(grep -c ': 8 of 8 answers are equal' "$out")"
# column 8: found with 64 projections; column 9: honest workers who are accused
check "rows of cheats" 24 "$(awk -F'|' 'NF == 10 && $5 ~ /%/ && $2 !~ /none/' "$out" | wc -l)"
# bfloat16 rounds about as much as the mildest cheats change; by how much honest kernels differ
# depends on the machine
missed() { # TYPE ALLOWED
    awk -F'|' -v type="## $1" '/^## / { here = $0 == type } here && NF == 10 && $5 ~ /%/ && $2 !~ /none/ && $8 !~ / 100.00 %/ { print $2 }' "$out" | grep -vE "$2" || true
}
check "cheats that are not always found in float32" "" "$(missed float32 nothing)"
check "cheats that are not always found in bfloat16" "" "$(missed bfloat16 'q8_0|float8')"
check "rows that accuse honest workers" 0 "$(awk -F'|' 'NF == 10 && $5 ~ /%/ && $9 !~ / 0.00 %/' "$out" | wc -l)"
check "two replicas know that one lies, not which" 2 "$(grep -c '^| 2 | 0.00 % | 100.00 % | 0.00 % | 0.00 % |' "$out")"
check "more replicas find it" 14 "$(grep -c '^| [3-9] | 100.00 % | 0.00 % | 0.00 % | 0.00 % |' "$out")"
check "one lie and three challenges" 1 "$(grep -c '^| 1 | 96.4 % | 92.9 % | 89.3 % |' "$out")"
# another model: the same one by its folder, with AVX2 in plain C's place where there is AVX2
OMP_WAIT_POLICY=passive "$1" verify-study --model models/emoji --side 64 --no-plain --trials 100 >"$out"
check "no plain C" 0 "$(grep -c 'Honest kernel paths:.*plain' "$out")"
check "cheats of both types" 24 "$(awk -F'|' 'NF == 10 && $5 ~ /%/ && $2 !~ /none/' "$out" | wc -l)"
"$1" verify-study --model tests/cases/pipeline_sd15/model --side 64 --trials 100 >"$out" 2>&1 && status=0 || status=$?
check "a U-Net is refused" 1 "$status"
check "and why" 1 "$(grep -c 'needs a transformer (no U-Net)' "$out")"
[ "$failed" -eq 0 ]
