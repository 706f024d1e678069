#!/bin/sh
# What is written as a client of the public headers stays one: a file of this list includes tessera.h, tessera_plan.h, its own room and
# src/base (error texts, files) alone.
#   tests/clients.sh SOURCE_FOLDER
set -eu
clients="cli/plan.c cli/quantity.c cli/quantity.h cli/command.h cli/options.c cli/options.h"
failed=0
for file in $clients; do
    foreign=$(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$1/$file" | grep -v -e '^cli/' -e '^base/' -e '^tessera\(_plan\)\?\.h$' || true)
    [ -z "$foreign" ] || { echo "$file: includes $foreign" >&2; failed=$((failed + 1)); }
done
echo "$failed failed"
[ "$failed" -eq 0 ]
