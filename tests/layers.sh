#!/bin/sh
# The layer test (DESIGN: "Rooms"): sh layers.sh SOURCE_FOLDER [BUILD_FOLDER]
#
#   includes   a file of src/ROOM includes only headers of its own room and of rooms above it in the list
#   headers    no header of src/ includes itself by way of others
#   symbols    the objects of a room call only functions of their own room and of rooms above it
#   circles    no two files of a room need each other, but those in the list of circles below
#   families   code that all families share compares nothing with the name of one
#
# Symbols and circles need a build. `parallel` and `nn` may use each other at one documented place:
# src/parallel/exchange.h, by which strategies work on nn/run.c's runs.
set -eu
rooms="base hub image tensor backend comm parallel nn models metrics checkpoint schedulers tokenizers pipelines split cli"
# Circles that a subject has in itself: files that may reach each other, with the reason. Add none
# without one. cli: `tessera completion` writes out the table of subcommands, of which it is one.
circles="
cli: commands completion
"
source=$1 build=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 checked=0
fail() {
    echo "$*" >&2
    failed=$((failed + 1))
}

# ---- includes ----
above=
for room in $rooms; do
    above="$above $room"
    [ -d "$source/$room" ] || continue
    for file in $(find "$source/$room" -name '*.[ch]' -o -name '*.cc' -o -name '*.cu'); do
        for used in $(sed -n 's/^ *# *include *"\([a-z_0-9]*\)\/[^"]*".*/\1/p' "$file" | sort -u); do
            checked=$((checked + 1))
            [ "$room/$used" = parallel/nn ] && [ "$(basename "$file")" = exchange.h ] && continue
            [ "$used" = tessera_model ] && continue # include/, which is nobody's room
            case " $above " in *" $used "*) ;; *)
                # a subfolder of the same room, included by its short name
                [ -d "$source/$room/$used" ] || fail "$file: includes $used/, which is below $room/" ;;
            esac
        done
    done
done
for folder in "$source"/*/; do
    case " $rooms " in *" $(basename "$folder") "*) ;; *) fail "$folder: not a room of the list in $0" ;; esac
done
# base/ works for every room: it knows nothing of layers.
for file in "$source"/base/*.[ch]; do
    checked=$((checked + 1))
    ! grep -lE '"tessera_model(\.h|/(layers|loading|tokens|transformers|denoiser|sampling)\.h)"' "$file" >/dev/null || fail "$file: base/ includes layers"
done

# ---- headers ----

# Reads lines "a b" (a needs b), all of one room; prints each pair of files that reach each other.
cat >"$work/circles.awk" <<'EOF'
{ reaches[$1, $2] = 1; name[$1] = name[$2] = 1 }
END {
    for (k in name) for (i in name) if ((i, k) in reaches) for (j in name) if ((k, j) in reaches) reaches[i, j] = 1
    for (i in name) for (j in name) if (i <= j && (i, j) in reaches && (j, i) in reaches) print i, j
}
EOF
for room in $rooms; do
    for file in "$source/$room"/*.h; do
        [ -f "$file" ] || continue
        sed -n "s|^ *# *include *\"$room/\([^\"]*\)\".*|$(basename "$file") \1|p" "$file"
    done | awk -f "$work/circles.awk" >"$work/found"
    checked=$((checked + 1))
    [ ! -s "$work/found" ] || fail "src/$room: headers include each other: $(tr '\n' ';' <"$work/found")"
done

# ---- symbols and circles ----

# "file symbol" of all that a room's objects define (D) or need (U).
symbols() {
    room=$1 kind=$2
    if [ -f "$build/libroom_$room.a" ]; then objects=$build/libroom_$room.a; else objects=$(find "$build" -path "*/tessera.dir/src/$room/*.o"); fi
    [ -z "$objects" ] || nm -g -A $objects 2>/dev/null | sed 's,^.*[:/]\([^:/]*\)\.cc*\.o:,\1 ,' |
        awk -v kind="$kind" '{ needs = $(NF - 1) == "U" || $(NF - 1) == "w" } (kind == "U") == needs { print $1, $NF }' | sort -u
}
if [ -n "$build" ]; then
    : >"$work/defined"
    for room in $rooms; do
        symbols "$room" D | sed "s|^|$room |" >>"$work/defined"
    done
    place=0
    for room in $rooms; do
        place=$((place + 1))
        symbols "$room" U >"$work/needed"
        [ -s "$work/needed" ] || continue
        checked=$((checked + 1))
        # Lines "file other-room other-file symbol".
        awk 'NR == FNR { if (!($3 in room)) { room[$3] = $1; file[$3] = $2 } next } $2 in room { print $1, room[$2], file[$2], $2 }' \
            "$work/defined" "$work/needed" >"$work/uses"
        awk -v rooms="$rooms" -v me="$room" 'BEGIN { n = split(rooms, list); for (i = 1; i <= n; i++) place[list[i]] = i }
            place[$2] > place[me] && !(me == "parallel" && $2 == "nn" && $3 == "run") { print me "/" $1 " calls " $4 " of " $2 "/" $3 ", which is below" }' \
            "$work/uses" >"$work/found"
        [ ! -s "$work/found" ] || fail "$(cat "$work/found")"
        awk -v me="$room" '$2 == me && $1 != $3 { print $1, $3 }' "$work/uses" | sort -u | awk -f "$work/circles.awk" |
            awk '$1 != $2' >"$work/found"
        known=$(echo "$circles" | sed -n "s/^$room://p" | tr '\n' ' ')
        while read -r a b; do
            case " $known " in *" $a "*) case " $known " in *" $b "*) continue ;; esac ;; esac
            fail "src/$room: $a.c and $b.c need each other"
        done <"$work/found"
    done
fi

# ---- families ----

# Formats of files (checkpoint/), models/ and the file of each family are about families; everywhere
# else a family says itself what it is.
families='SD3|Flux|FLUX|PixArt|PIXART|Hunyuan|HUNYUAN|StableDiffusion|SDXL'
for file in $(find "$source" -name '*.[ch]' | grep -vE '/(models|checkpoint)/|(sd3|flux|pixart|hunyuandit|stable_diffusion(_xl)?)\.[ch]$'); do
    checked=$((checked + 1))
    ! grep -nE "(strcmp|strncmp|begins|starts)\([^;]*\"($families)|(==|!=) *[A-Z_]*($families)" "$file" >"$work/found" ||
        fail "$file: asks for a family by its name: $(cat "$work/found")"
done

echo "$((checked - failed)) passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$checked" -gt 0 ]
