#!/bin/sh
# The words of the code, as docs_words.sh has those of the guides:
#   - no comment, help text or message of src/, include/, bench/ and examples/ uses a word that docs/glossary.md forbids (the regular
#     expressions in backquotes in the last column of its tables);
#   - a word of the table "Names in code" is part of names (of functions, types, fields and variables) only in the files which that table lists.
# Usage: sh code_words.sh, in the repository root. Prints what is wrong as FILE:LINE: WHAT; exits 1
# if anything is.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

# "KIND<tab>FILE:LINE<tab>TEXT" for each comment, string and name. Strings that follow each other
# are one, as for the compiler.
split() { # FILE...
    awk '
        function flush() { if (string != "") print "string\t" at "\t" string; string = "" }
        FNR == 1 { flush(); comment = "" }
        {
            rest = $0
            while (rest != "") {
                if (comment != "") {
                    end = index(rest, "*/")
                    text = end ? substr(rest, 1, end - 1) : rest
                    sub(/^ *\*? ?/, "", text)
                    comment = comment " " text
                    if (!end) break
                    print "comment\t" at "\t" comment
                    comment = ""
                    rest = substr(rest, end + 2)
                } else if (match(rest, /"([^"\\]|\\.)*"|\/\*|\/\/|'\''([^'\''\\]|\\.)*'\''|[A-Za-z_][A-Za-z_0-9]*/)) {
                    if (substr(rest, 1, RSTART - 1) ~ /[^ \t]/) flush()
                    token = substr(rest, RSTART, RLENGTH)
                    rest = substr(rest, RSTART + RLENGTH)
                    if (token !~ /^"/) flush()
                    if (string == "") at = FILENAME ":" FNR
                    if (token == "/*") comment = " "
                    else if (token == "//") { print "comment\t" at "\t" rest; break }
                    else if (token ~ /^"/) string = string substr(token, 2, length(token) - 2)
                    else if (token !~ /^'\''/) print "name\t" at "\t" token
                } else { if (rest ~ /[^ \t]/) flush(); break }
            }
        }
        END { flush() }' "$@"
}

split $(find src include bench examples -name '*.[ch]' -o -name '*.cc') >"$work/all"
grep -v '^name' "$work/all" >"$work/texts"
grep '^name' "$work/all" | cut -f2,3 >"$work/names"
[ "$(wc -l <"$work/names")" -gt 100000 ] && [ "$(grep -c ^string "$work/texts")" -gt 5000 ] || { echo "FAIL  $work/all: too few names and strings were found"; failed=1; }

grep -h '^|' docs/glossary.md | sed '/^| name |/,$d' | awk -F '|' '{ print $(NF - 1) }' | grep -o '`[^`]*`' | tr -d '`' >"$work/forbidden"
[ -s "$work/forbidden" ] || { echo "FAIL  docs/glossary.md: forbids nothing"; failed=1; }
while read -r words; do
    case $words in *[A-Z]*) case= ;; *) case=-i ;; esac # a capital letter means itself
    grep -E $case -- "(^|[^[:alnum:]_])($words)([^[:alnum:]_]|\$)" "$work/texts" | cut -f2,3 >"$work/found"
    while IFS="$(printf '\t')" read -r place text; do
        echo "FAIL  $place: says what docs/glossary.md forbids ($words): $(echo "$text" | cut -c1-100)"
        failed=$((failed + 1))
    done <"$work/found"
done <"$work/forbidden"

# "| `part` | src/split/ src/cli/split.c | ... |": a name has the word between underscores, alone or
# in the plural, in these files alone.
sed -n '/^| name |/,/^$/s/^| `\([a-z]*\)` | *\([^|]*\)|.*/\1 \2/p' docs/glossary.md >"$work/table"
[ -s "$work/table" ] || { echo "FAIL  docs/glossary.md: has no table of names in code"; failed=1; }
while read -r word places; do
    grep -iE "	([a-z0-9_]*_)?${word}s?(_[a-z0-9_]*)?\$" "$work/names" >"$work/found"
    for place in $places; do
        place=$(echo "$place" | tr -d '`,')
        grep -q "^$place" "$work/found" || { echo "FAIL  docs/glossary.md: allows names with \"$word\" in $place, where there are none"; failed=$((failed + 1)); }
        grep -v "^$place" "$work/found" >"$work/rest"
        mv "$work/rest" "$work/found"
    done
    while IFS="$(printf '\t')" read -r place name; do
        echo "FAIL  $place: the name $name has \"$word\", which docs/glossary.md leaves to $places"
        failed=$((failed + 1))
    done <"$work/found"
done <"$work/table"
echo "$(wc -l <"$work/texts") comments and strings, $(wc -l <"$work/names") names, $failed failures"
[ "$failed" -eq 0 ]
