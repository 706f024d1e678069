#!/bin/sh
# A short list of checks: tools/lint.sh [FOLDER...], in the repository root (src examples).
#   cppcheck       errors, and warnings that are errors in disguise: out of bounds, used after free, division by zero,
#                  lost files, formats
#   clang-format   C files that differ from the last commit, or from LINT_BASE, as .clang-format says; what was there before stays as it is
# Exits 1 if anything is found.
[ $# -gt 0 ] || set -- src examples
failed=0
# What it says of these is wrong in our code (it does not follow conditions that exclude each other,
# nor ownership that moves to a caller), or about macros that it cannot read: compilers' warnings
# and the sanitizers look for them.
leave=$(printf -- '--suppress=%s ' uninitvar memleak nullPointer autoVariables negativeIndex unknownMacro internalAstError)
# shellcheck disable=SC2086
cppcheck --std=c11 --quiet --inline-suppr $leave --error-exitcode=1 -j "$(nproc)" --template='{file}:{line}: {id}: {message}' "$@" || failed=1
if command -v git-clang-format >/dev/null && [ -e .git ]; then
    git clang-format --diff --quiet "${LINT_BASE:-HEAD}" -- '*.c' '*.h' >/tmp/lint.$$
    if grep -q '^[-+]' /tmp/lint.$$; then
        cat /tmp/lint.$$
        failed=1
    fi
    rm -f /tmp/lint.$$
fi
exit $failed
