#!/bin/sh
# A random delay of every message changes no bit of what models compute over 4 ranks: each line of the conformance program ends with a hash
# of the numbers.
#   test_delay.sh CONFORMANCE
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# On 4 ranks: $1 is the file that it prints to, the rest are arguments.
conform() {
    out=$1
    shift
    mpirun -n 4 "$program" "$@" >"$folder/$out"
    grep -q 'bits [0-9a-f]' "$folder/$out" || { echo "FAIL: no result is printed" >&2; exit 1; }
}

program=$1
passed=0
for arguments in "tests/cases/sd3_crop" "--tensor 2 --ring 2 tests/cases/unet_odd_size" "--cfg 2 --ulysses 2 tests/cases/pipefusion/pipefusion_p1_w0" \
    "--cfg 2 --pipefusion 2 tests/cases/pipefusion/pipefusion_p4_w1" "--pipefusion 4 tests/cases/pipefusion_multistep/hunyuandit_unipc_p4_w1" \
    "--pipefusion 2 --ring 2 tests/cases/pipefusion/pipefusion_flux_p3_w2" \
    "tests/cases/displaced/displaced_sd3_p4_w1 tests/cases/displaced/displaced_flux_p4_w4" \
    "tests/cases/distrifusion/distrifusion_patch4_corrected tests/cases/distrifusion/distrifusion_cfg2_patch2_corrected"; do
    conform plain $arguments
    start=$(date +%s%N)
    export TESSERA_COMM_DELAY_MS=50
    conform delayed $arguments
    unset TESSERA_COMM_DELAY_MS
    [ $((($(date +%s%N) - start) / 1000000)) -gt 500 ] || { echo "FAIL: nothing was delayed" >&2; exit 1; }
    cmp "$folder/plain" "$folder/delayed" || { echo "FAIL: other numbers with $arguments" >&2; exit 1; }
    passed=$((passed + 2))
done
echo "$passed passed, 0 failed"
