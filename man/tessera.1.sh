#!/bin/sh
# Writes tessera(1) from what the program says of itself: sh tessera.1.sh PROGRAM OUTPUT. Of
# `tessera help` it takes the commands and the examples, of `tessera help-all COMMAND` usage,
# options and text; lines that are indented further continue the one before.
set -eu
program=$1 output=$2

# Help text on stdin as roff: "  --option PLACE   text" and "  command   text" become tagged paragraphs, "word:" a heading, examples stay.
to_roff() {
    awk '
    function plain(text) {
        gsub(/\\/, "\\e", text)
        gsub(/-/, "\\-", text)
        gsub(/"/, "\\(dq", text)
        gsub(/\|/, "|\\:", text) # a line may break there
        return text ~ /^[.\047]/ ? "\\&" text : text
    }
    NR == 1 && /^Tessera / { next }
    /^usage: / { print ".PP\n.B " plain(substr($0, 8)); next }
    /^       tessera / { print ".br\n.B " plain(substr($0, 8)); next } # the second line of usage
    /^examples:/ { print ".PP\nExamples:\n.PP\n.nf"; examples = 1; next }
    examples { print plain($0); next }
    /^commands:$/ { print ".PP"; next }
    /^[A-Z].*:$/ { sub(/:$/, ""); print ".SS \"" plain($0) "\""; next }
    /^$/ { print ".PP"; next }
    /^  -/ { # the tag has 32 characters, or more and a line of its own
        own_line = length($0) > 34 && substr($0, 34, 1) != " " && NF <= ($1 ~ /,$/ ? 3 : 2)
        tag = own_line ? substr($0, 3) : substr($0, 3, 32)
        text = own_line ? "" : substr($0, 36)
        sub(/ +$/, "", tag)
        print ".TP\n.B " plain(tag)
        if (text != "") print plain(text)
        next
    }
    /^  [a-z]/ {
        tag = $1
        sub(/^ *[^ ]+ +/, "")
        print ".TP\n.B " plain(tag) "\n" plain($0)
        next
    }
    { sub(/^ +/, ""); print plain($0) }
    END { if (examples) print ".fi" }'
}

{
    version=$("$program" version)
    echo ".TH TESSERA 1 \"\" \"$version\" \"User commands\""
    echo .ad l
    echo '.SH NAME'
    echo 'tessera \- pictures from diffusion models'
    echo '.SH SYNOPSIS'
    "$program" help | to_roff
    commands=$("$program" help | awk '/^commands:/ { inside = 1; next } /^$/ { inside = 0 } inside { print $1 }')
    for command in $commands; do
        case $command in help | help-all | version) continue ;; esac
        echo ".SH \"TESSERA $(echo "$command" | tr a-z A-Z)\""
        "$program" help-all "$command" | to_roff
    done
    cat <<'END'
.SH "EXIT STATUS"
0: done. 1: failed; the error is on standard error. 2: the command line is wrong. 128 and a signal's number: stopped by it.
.SH ENVIRONMENT
.TP
.B TESSERA_DATA_DIR
the folder that holds the models and data that come with Tessera
.TP
.B HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN
as the Hugging Face hub's own programs read them
.SH "SEE ALSO"
.BR libtessera (3)
END
} >"$output.tmp"
mv "$output.tmp" "$output"
