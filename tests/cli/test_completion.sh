#!/bin/sh
# Shell completion: sh test_completion.sh PROGRAM. bash really completes; for zsh and fish, which are run where they are installed, the script is
# read at least. Prints a line per check; exits 1 if any failed.
program=$(realpath "$1")
. tests/check.sh

for shell in bash zsh fish; do
    run 0 completion $shell
    cp "$work/out" "$work/$shell"
    for option in guidance-scale quiet sync-mode overwrite; do prints "$option"; done
    check "no option of other programs in $shell's" sh -c "! grep -q onediff '$work/$shell'"
    command -v $shell >/dev/null && check "$shell reads it" $shell -n "$work/$shell"
done
run 2 completion tcsh; says "bash|zsh|fish"
run 2 completion; says "name of a shell"

# completes EXPECTED WORD...: the last word is the one to complete.
completes() {
    expected=$1
    shift
    check "bash completes: tessera $* to $expected" bash -c '. "$1"; expected=$2; shift 2; COMP_WORDS=(tessera "$@"); COMP_CWORD=$#; _tessera
        printf "%s\n" "${COMPREPLY[@]}" | sort | tr "\n" " " | grep -qx -e "$expected *" || { echo "${COMPREPLY[@]}"; exit 1; }' \
        bash "$work/bash" "$expected" "$@"
}
completes "inspect" ins
completes "--guidance-rescale --guidance-scale" generate --guidance-
completes "--guidance-rescale --guidance-scale" "a lion" --guidance-
completes "bf16 f32" generate --dtype ""
completes "--cache-dir" download --ca
completes "generate" help gen
completes "" generate --model ""

exit $failed
