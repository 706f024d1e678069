#!/bin/sh
# Whole models on aarch64: sh test_reproducible_aarch64.sh FOLDERS..., run in the repository root;
# FOLDERS: where MPI's headers are.
#
# The engine is compiled for aarch64 as one static program without MPI, HTTP, oneDNN and the
# libraries that are not there for another processor (tests/builds/static), and makes a picture of
# every family under qemu-user: tokens, text encoders, denoiser, sampler, autoencoder. The SHA-256
# of its latents and pixels must be the value that every path of x86-64 has
# (parallel/test_reproducible_pictures.c). Skipped with a word where Debian's gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross and qemu-user are not installed (make cross).
. tests/check.sh

if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    echo "skip  aarch64: install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user (make cross)"
    exit 0
fi
rooms="base tensor nn models schedulers parallel comm pipelines checkpoint hub tokenizers"
sources="tests/parallel/reproducible_picture.c tests/builds/static/*.c tests/backend/no_onednn.c src/backend/*.c src/backend/cpu/cpu.c
    src/backend/cpu/kernels*.c src/backend/cpu/reproducible/*.c $(for room in $rooms; do echo "src/$room/*.c"; done)"
# Headers of libraries, of which no program is linked, are those of this machine.
headers="-idirafter /usr/include -idirafter /usr/include/$(uname -m)-linux-gnu $(for folder; do echo "-idirafter $folder"; done)"
flags="-O2 -ffp-contract=off -fno-math-errno -fno-trapping-math -std=gnu11 -D_GNU_SOURCE -DKERNELS_SUFFIX=plain -fopenmp
    -DTESSERA_SOURCE_DIR=\"\" -DTESSERA_INSTALL_DATA_DIR=\"\" -ffunction-sections -fdata-sections -Iinclude -Isrc -Itests $headers"

# $work/NAME.o of each source, on all processors; then the program, from what it reaches of them.
build() {
    ls $sources | xargs -P "$(nproc)" -I{} sh -c 'aarch64-linux-gnu-gcc -c "$@" {} -o "$0/$(echo {} | tr / _).o"' "$work" $flags &&
        aarch64-linux-gnu-gcc -static -fopenmp -Wl,--gc-sections "$work"/*.o -lm -o "$work/reproducible_picture"
}
# same_picture SUBJECT THREADS
same_picture() {
    qemu-aarch64 "$work/reproducible_picture" "$1" "$2" >"$work/picture" || return 1
    sum=$(sha256sum <"$work/picture" | cut -d' ' -f1)
    grep -qx "$1.0 $sum" tests/parallel/reproducible.txt || { echo "$1.0 $sum is not in tests/parallel/reproducible.txt"; return 1; }
}

check "the engine compiles for aarch64" build
[ $failed -eq 0 ] || exit 1
for subject in sd15 sdxl-bf16 sd3 flux pixart hunyuandit-bf16; do
    check "$subject on aarch64 gives the stored latents and pixels" same_picture $subject 2
done
check "and so it does on one thread" same_picture sd3 1
exit $failed
