#!/bin/sh
# The layer test: a folder of src/ includes only itself and folders above it in this list (DESIGN: "Rooms"). `parallel` and `nn` may
# use each other's headers at one documented place: src/parallel/exchange.h.
#   tests/layers.sh SOURCE_FOLDER
set -eu
rooms="base hub image tensor backend comm parallel nn models metrics checkpoint schedulers tokenizers pipelines split cli"
failed=0 checked=0 above=
for room in $rooms; do
    above="$above $room"
    [ -d "$1/$room" ] || continue
    for file in $(find "$1/$room" -name '*.[ch]' -o -name '*.cc' -o -name '*.cu'); do
        for used in $(sed -n 's/^ *# *include *"\([a-z_0-9]*\)\/[^"]*".*/\1/p' "$file" | sort -u); do
            checked=$((checked + 1))
            [ "$room/$used" = parallel/nn ] && [ "$(basename "$file")" = exchange.h ] && continue
            case " $above " in *" $used "*) ;; *)
                # a subfolder of the same room, included by its short name
                [ -d "$1/$room/$used" ] || { echo "$file: includes $used/, which is below $room/" >&2; failed=$((failed + 1)); } ;;
            esac
        done
    done
done
for folder in "$1"/*/; do
    case " $rooms " in *" $(basename "$folder") "*) ;; *) echo "$folder: not a room of the list in $0" >&2; failed=$((failed + 1)) ;; esac
done
echo "$((checked - failed)) passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$checked" -gt 0 ]
