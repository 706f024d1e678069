#!/bin/sh
# Makes FILE from each FILE.xz below the folders, where FILE is missing or older. The build runs it,
# and git ignores what it makes. xz checks each file against the SHA-256 that pack.sh put into
# FILE.xz. usage: unpack.sh FOLDER...
set -eu
packed=$(find "$@" -name '*.xz' | sort)
new= count=0
trap 'rm -f "$new"' EXIT
for from in $packed; do
    file=${from%.xz}
    [ ! -e "$file" ] || [ "$from" -nt "$file" ] || continue
    new=$file.$$ # another build of the same tree may be here, too
    xz --decompress --stdout "$from" >"$new"
    mv "$new" "$file"
    count=$((count + 1))
done
[ $count -eq 0 ] || echo "unpack.sh: $count files made from their .xz"
