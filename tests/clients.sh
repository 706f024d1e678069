#!/bin/sh
# `tessera generate` and `tessera plan` are clients of the public headers: their files, and those of
# the command's own room that they include, directly or not, include public headers, src/base (error
# texts, files, options) and each other alone.
#   tests/clients.sh SOURCE_FOLDER
set -eu
cd "$1"
includes() { sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$@"; }
files=$(ls cli/generate.c cli/generate_*.c cli/plan.c)
while :; do
    headers=$(includes $files | grep '^cli/' | sort -u)
    sources=$(for header in $headers; do [ ! -f "${header%.h}.c" ] || echo "${header%.h}.c"; done)
    more=$(printf '%s\n' $files $headers $sources | sort -u)
    [ "$more" != "$(printf '%s\n' $files | sort -u)" ] || break
    files=$more
done
failed=0
for file in $files; do
    foreign=$(includes "$file" | grep -v -e '^cli/' -e '^base/' -e '^tessera[a-z_/]*\.h$' || true)
    [ -z "$foreign" ] || { echo "$file: includes $foreign" >&2; failed=$((failed + 1)); }
done
echo "$(echo $files | wc -w) files, $failed failed"
[ "$failed" -eq 0 ] && [ "$(echo $files | wc -w)" -gt 20 ]
