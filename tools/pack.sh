#!/bin/sh
# Replaces files by FILE.xz, from which the build makes them again (unpack.sh). Then name FILE in a
# .gitignore and commit FILE.xz. usage: pack.sh BYTES FILE...; BYTES of a number in the files: 2 for
# bfloat16 and float16, 4 for float32, 1 for text. Numbers of a model do not repeat, but their
# exponents do: the settings make xz expect other bytes at each place of a number, and spend little
# time on repetitions.
set -eu
case $1 in
1) settings=preset=9e ;;
2) settings=preset=6,lc=3,lp=1,pb=1,mf=hc4,nice=8 ;;
4) settings=preset=6,lc=2,lp=2,pb=2,mf=hc4,nice=8 ;;
*) echo "pack.sh: $1: must be 1, 2 or 4" >&2; exit 2 ;;
esac
shift
xz --force --check=sha256 --lzma2="$settings" "$@"
