#!/bin/sh
# The words of the guides, beside what docs.sh runs:
#   - no guide uses a word that docs/glossary.md forbids (the regular expressions in backquotes in the last column of its tables);
#   - lines of prose end near 100 characters, and sentences of README.md and docs/first-picture.md have 30 words at most;
#   - a link's heading, a path in backquotes, a `make` target and a `tessera` command that a guide names are there.
# Usage: sh docs_words.sh PROGRAM, in the repository root. Prints what is wrong as FILE: WHAT; exits
# 1 if anything is.
program=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
guides="README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md $(ls docs/*.md)"
failed=0 checked=0

fail() { # FILE WHAT
    echo "FAIL  $1: $2"
    failed=$((failed + 1))
}

# A guide's paragraphs, one a line: without code, and without the addresses of links. Rows of
# tables, items and headings are lines too.
prose() { # FILE
    awk '
        function flush() { if (text != "") print text; text = "" }
        /^ *```/ { flush(); fence = !fence; next }
        fence { next }
        /^ *$/ { flush(); blank = 1; next }
        /^    / && (blank || code) { code = 1; next }
        { code = 0 }
        /^(\||#|<!--)/ { flush(); print; blank = 0; next }
        /^ *([-*]|[0-9]+\.) / { flush() }
        { sub(/^ */, ""); text = text == "" ? $0 : text " " $0; blank = 0 }
        END { flush() }' "$1" | sed -E 's/`[^`]*`/CODE/g; s/\]\([^)]*\)/]/g; s/!\[[^]]*\]//g'
}

grep -h '^|' docs/glossary.md | awk -F '|' '{ print $(NF - 1) }' | grep -o '`[^`]*`' | tr -d '`' >"$work/forbidden"
[ -s "$work/forbidden" ] || fail docs/glossary.md "forbids nothing: its last column is to name words in backquotes"

for file in $guides; do
    [ -e "$file" ] || continue
    checked=$((checked + 1))
    prose "$file" >"$work/prose"
    if [ "$file" != docs/glossary.md ]; then
        while read -r words; do
            case $words in *[A-Z]*) case= ;; *) case=-i ;; esac  # a capital letter means itself
            found=$(grep -oE $case -- "(^|[^[:alnum:]])($words)([^[:alnum:]]|\$)" "$work/prose" | head -1)
            [ -z "$found" ] || fail "$file" "says \"$(echo $found)\", which docs/glossary.md forbids ($words)"
        done <"$work/forbidden"
    fi
    awk '/^ *```/ { fence = !fence } !fence && length > 104 && !/^(\||    |#|!\[)/ { print FNR }' "$file" >"$work/long"
    [ ! -s "$work/long" ] || fail "$file" "prose ends near 100 characters, but not in line $(xargs <"$work/long")"
    # The headings that links lead to, as GitHub names them.
    for link in $(grep -v '^    ' "$file" | grep -o '](\([^):]*\)#[^)]*)' | sed 's/^](//; s/)$//'); do
        target=${link%%#*}
        [ -n "$target" ] && target=$(dirname "$file")/$target || target=$file
        sed -n 's/^#* //p' "$target" 2>/dev/null | tr 'A-Z' 'a-z' | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g' | grep -qxF -- "${link#*#}" ||
            fail "$file" "a link to $link, but there is no such heading"
    done
    for path in $(grep -oE '`(src|include|tests|bench|docs|tools|examples|fuzz|man|models|assets|cmake)/[a-zA-Z0-9_./*-]+`' "$file" | tr -d '`' | grep -vE '/[A-Z]+(/|\.|$)|/test_NAME'); do
        ls -d $path >/dev/null 2>&1 || fail "$file" "names $path, which is not there"
    done
    for target in $(grep -oE '(`|^    |^)make [a-z][a-z-]*' "$file" | sed 's/.*make //'); do
        grep -q "^$target:" Makefile || fail "$file" "names make $target, which is no target"
    done
done

"$program" help | sed -n '/^commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' >"$work/commands"
for command in $(grep -ohE '(`|^    )(mpirun [^`]*)?(build/)?tessera [a-z][a-z-]*' $guides 2>/dev/null | sed 's/.*tessera //' | sort -u); do
    grep -qxF -e "$command" -e help -e help-all "$work/commands" || [ "$command" = help ] || [ "$command" = help-all ] ||
        fail "the guides" "name tessera $command, which is no command: $(grep -l "tessera $command" $guides | xargs)"
done

for file in README.md docs/first-picture.md; do
    [ -e "$file" ] || continue
    prose "$file" | grep -v '^[|#]' | sed -E 's/([.!?:])["*)]* +(["*(]*[A-Z`\[])/\1\n\2/g' | awk -v file="$file" '
        NF > 30 { print "FAIL  " file ": a sentence of " NF " words: " substr($0, 1, 70) "..."; bad++ } END { exit bad > 0 }' || failed=$((failed + 1))
done
echo "$checked guides, $failed failures"
[ "$failed" -eq 0 ] && [ "$checked" -gt 0 ]
