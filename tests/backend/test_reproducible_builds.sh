#!/bin/sh
# Reproducible arithmetic under other compilers: sh test_reproducible_builds.sh, run in the
# repository root.
#
# test_reproducible.c is compiled alone, without CMake, MPI and oneDNN, and must find the stored
# hashes: for this processor without any instruction set extension, and for aarch64, statically,
# under qemu-user (skipped with a word where Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross
# and qemu-user are not installed). With flags that change arithmetic it must fail, or not compile.
. tests/check.sh

sources="tests/backend/test_reproducible.c tests/backend/no_onednn.c src/backend/memory.c src/backend/cpu/cpu.c src/backend/cpu/reproducible/*.c
    src/backend/cpu/kernels*.c src/tensor/tensor.c src/tensor/convert.c src/tensor/quantize.c src/tensor/dequantize.c src/base/thread_limit.c
    src/base/arena.c src/base/clock.c src/base/elementary.c src/base/error.c src/base/random.c src/base/text.c"

# build NAME COMPILER FLAGS...: $work/NAME
build() {
    out=$work/$1
    shift
    "$@" -std=gnu11 -D_GNU_SOURCE -DKERNELS_SUFFIX=plain -Iinclude -Isrc -Itests -fopenmp -fno-math-errno -fno-trapping-math -o "$out" \
        $sources -lm 2>"$work/err"
}
fails() { ! "$@"; }

compiler=${CC:-cc}
check "plain C compiles" build plain "$compiler" -O2 -ffp-contract=off
check "plain C gives the stored bits" "$work/plain"
if [ "$(uname -m)" = x86_64 ] && grep -qw fma /proc/cpuinfo; then
    check "contraction compiles" build fused "$compiler" -O2 -march=x86-64-v3 -ffp-contract=fast
    check "contraction is noticed" fails "$work/fused"
    check "reordered sums compile" build reordered "$compiler" -O3 -march=x86-64-v3 -ffp-contract=off -fassociative-math -fno-signed-zeros
    check "reordered sums are noticed" fails "$work/reordered"
fi
check "-ffast-math does not compile" fails build fast "$compiler" -O2 -ffast-math
check "and says why" grep -q "reproducible arithmetic needs IEEE 754" "$work/err"

if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
    check "aarch64 compiles" build aarch64 aarch64-linux-gnu-gcc -O2 -static -ffp-contract=off
    check "aarch64 gives the stored bits" qemu-aarch64 "$work/aarch64"
else
    echo "skip  aarch64: install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user"
fi
exit $failed
