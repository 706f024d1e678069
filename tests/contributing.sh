#!/bin/sh
# The additions of CONTRIBUTING.md: each ```diff applies to the sources as they are, touches no more files than its heading says, and what it
# touches compiles: new files, changed ones, and those of the same folder that include a changed header. Run in the repository root, with
# the compiler's options in CFLAGS. Left out: linking a program of it. A line per check; exits 1 if one failed, 77 without patch(1).
command -v patch >/dev/null || exit 77
. tests/check.sh
root=$PWD
awk -v work="$work" '/^## / { heading = $0 } /^```diff$/ { n++; file = work "/" n ".diff"; print heading >(work "/" n ".heading"); inside = 1; next }
    /^```/ { inside = 0 } inside { print >file }' CONTRIBUTING.md
check "CONTRIBUTING.md has five additions" test -e "$work/5.diff" -a ! -e "$work/6.diff"

compile() { # FILES: none may have an error or a warning
    for file in "$@"; do
        # shellcheck disable=SC2086
        ${CC:-cc} -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-unknown-pragmas -Werror -D_GNU_SOURCE -Isrc -Iinclude -Itests $CFLAGS -fsyntax-only "$file" || return 1
    done
}
for number in 1 2 3 4 5; do
    heading=$(sed 's/^## //' "$work/$number.heading")
    tree=$work/tree$number
    mkdir -p "$tree/tests"
    cp -r src include "$tree"
    cp -r tests/fenced tests/*.h "$tree/tests"
    case $heading in *model*) cp examples/short/short_transformer.c "$tree/src/models/" ;; esac
    touched=$(sed -n 's/^+++ b\///p' "$work/$number.diff")
    most=$(echo "$heading" | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    cd "$tree" || exit 1
    check "$heading: it applies" patch -p1 --no-backup-if-mismatch -i "$work/$number.diff"
    check "$heading: no more files" test "$(echo "$touched" | wc -l)" -le "$most"
    sources=
    for file in $touched; do
        case $file in
        *.c) sources="$sources $file" ;;
        *.h) sources="$sources $(grep -l "\"${file#src/}\"" "$(dirname "$file")"/*.c)" ;;
        esac
    done
    case $heading in *model*) sources="$sources src/models/short_transformer.c" ;; esac
    # shellcheck disable=SC2086
    check "$heading: it compiles" compile $sources
    cd "$root" || exit 1
done
exit $failed
