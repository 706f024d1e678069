# What zsh proposes for the end of a command line: zsh -f complete.zsh FOLDER LINE, where FOLDER holds the completion script as _tessera. An inner
# zsh in a pseudo terminal really completes; each match that it adds is printed, one a line.
zmodload zsh/zpty || exit 2
matches=$1/matches
: >$matches
read -r -d '' setup <<END
fpath=(${(q)1} \$fpath)
autoload -Uz compinit
compinit -D -u
compadd() {
    local -a hits
    [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] || builtin compadd -A hits "\$@"
    (( \$#hits )) && print -rl -- \$hits >>${(q)matches}
    builtin compadd "\$@"
}
finish() { print -r -- finished >>${(q)matches} }
zle -N finish
bindkey '^X' finish
bindkey '^I' list-choices
unsetopt zle_bracketed_paste
END
print -r -- $setup >$1/setup
zpty inner zsh -f -i
zpty -w inner ". ${(q)1}/setup"
zpty -w -n inner "$2"$'\t\x18'
for (( i = 0; i < 600; i++ )); do
    [[ $(tail -n 1 $matches) == finished ]] && break
    zpty -r -t inner >/dev/null
    sleep 0.1
done
zpty -d inner
grep -vx finished $matches | sort -u
