#!/bin/sh
# A random delay of every message changes no bit of what models compute over 4 ranks: each line of
# the conformance program ends with a hash of the numbers.
#   test_delay.sh CONFORMANCE
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

program=$1
fail() { echo "FAIL: $1" >&2; exit 1; }

# On 4 ranks: $1 is the file that it prints to, the rest are arguments.
conform() {
    out=$1
    shift
    mpirun -n 4 "$program" "$@" >"$folder/$out"
    grep -q 'bits [0-9a-f]' "$folder/$out" || fail "no result is printed"
}

# compare NAME ARGUMENTS...: without and with a delay, which is most of the time, so that two of
# these run side by side.
compare() {
    name=$1
    shift
    conform "$name" "$@"
    start=$(date +%s%N)
    export TESSERA_COMM_DELAY_MS=50
    conform "$name-delayed" "$@"
    [ $((($(date +%s%N) - start) / 1000000)) -gt 500 ] || fail "nothing was delayed"
    cmp "$folder/$name" "$folder/$name-delayed" || fail "other numbers with $*"
}

other= count=0
for arguments in "tests/cases/sd3_crop" "--tensor 2 --ring 2 tests/cases/unet_odd_size" "--cfg 2 --ulysses 2 tests/cases/pipefusion/pipefusion_p1_w0" \
    "--cfg 2 --pipefusion 2 tests/cases/pipefusion/pipefusion_p4_w1" "--pipefusion 4 tests/cases/pipefusion_multistep/hunyuandit_unipc_p4_w1" \
    "--pipefusion 2 --ring 2 tests/cases/pipefusion/pipefusion_flux_p3_w2" \
    "tests/cases/displaced/displaced_sd3_p4_w1 tests/cases/displaced/displaced_flux_p4_w4" \
    "tests/cases/distrifusion/distrifusion_patch4_corrected tests/cases/distrifusion/distrifusion_cfg2_patch2_corrected"; do
    count=$((count + 1))
    compare $count $arguments &
    [ -z "$other" ] || wait "$other"
    other=$!
done
wait "$other"
echo "$((2 * count)) passed, 0 failed"
