#!/bin/sh
# Shell completion: sh test_completion.sh PROGRAM. Each of bash, zsh and fish that is installed
# really completes; of the others the script is looked at only. Prints a line per check; exits 1 if
# any failed.
program=$(realpath "$1")
. tests/check.sh

for shell in bash zsh fish; do
    run 0 completion $shell
    mkdir "$work/$shell"
    cp "$work/out" "$work/$shell/_tessera"
    for option in guidance-scale quiet sync-mode overwrite; do prints "$option"; done
    check "no option of other programs in $shell's" sh -c "! grep -q onediff '$work/$shell/_tessera'"
    if command -v $shell >/dev/null; then check "$shell reads it" $shell -n "$work/$shell/_tessera"; else echo "SKIP  $shell is not installed"; fi
done
run 2 completion tcsh; says "bash|zsh|fish"
run 2 completion; says "name of a shell"

# What a shell proposes for the end of a command line, one word a line.
bash_proposes() {
    bash -c '. "$1"; eval "set -- ${2/=/ = }"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tessera; printf "%s\n" "${COMPREPLY[@]}"' bash \
        "$work/bash/_tessera" "$1$(echo "$1" | grep -q ' $' && echo "''")" # the empty word at the end
}
zsh_proposes() { zsh -f tests/cli/complete.zsh "$work/zsh" "$1"; }
fish_proposes() { fish -N --private -c 'source $argv[1]; complete -C $argv[2]' "$work/fish/_tessera" "$1" | cut -f 1; }

# completes LINE WORD...: each shell proposes these, and nothing else.
completes() {
    line=$1
    shift
    printf '%s\n' "$@" | grep . | sort >"$work/right"
    for shell in bash zsh fish; do
        command -v $shell >/dev/null || continue
        ${shell}_proposes "$line" | sed 's/^--dtype=//' | grep . | sort >"$work/proposed"
        check "$shell completes: $line" diff "$work/right" "$work/proposed"
    done
}
completes "tessera ins" inspect
completes "tessera generate --guidance-" --guidance-rescale --guidance-scale
completes "tessera generate --prompt plan --guidance-" --guidance-rescale --guidance-scale
completes "tessera 'a lion' --guidance-" --guidance-rescale --guidance-scale
completes "tessera --guidance-" --guidance-rescale --guidance-scale
completes "tessera generate --dtype " bf16 f32
completes "tessera generate --dtype b" bf16
completes "tessera generate --dtype=b" bf16
completes "tessera generate --steps "
completes "tessera download --ca" --cache-dir
completes "tessera plan --help" --help --help-all
completes "tessera help gen" generate
completes "tessera help-all make" make-model
completes "tessera completion " bash fish zsh
completes "tessera vers" version

exit $failed
