#!/bin/sh
# The additions of CONTRIBUTING.md: sh contributing.sh BUILD_FOLDER. Each ```diff applies to the
# sources as they are and touches no more files than its heading says. What it touches compiles: new
# files, changed ones, and those of the same folder that include a changed header. Then the program
# is linked with it, from the objects that BUILD_FOLDER has of everything else, and does what was
# added; of an operator, which changes a struct that most files know, only the kernels are linked.
# Run in the repository root, with the compiler's options in CFLAGS. A line per check; exits 1 if
# one failed, 77 without patch(1).
build=$1
command -v patch >/dev/null || exit 77
. tests/check.sh
root=$PWD
awk -v work="$work" '/^## / { heading = $0 } /^```diff$/ { n++; file = work "/" n ".diff"; print heading >(work "/" n ".heading"); inside = 1; next }
    /^```/ { inside = 0 } inside { print >file }' CONTRIBUTING.md
check "CONTRIBUTING.md has five additions" test -e "$work/5.diff" -a ! -e "$work/6.diff"

each() { # -c|-fsyntax-only FILES: no file may have an error or a warning
    how=$1
    shift
    for file in "$@"; do
        [ "$how" = -c ] && into="-o objects/$(basename "$file").o" || into=
        # shellcheck disable=SC2086
        ${CC:-cc} -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-unknown-pragmas -Werror -D_GNU_SOURCE -Isrc -Iinclude -Itests $CFLAGS $more \
            $how $into "$file" || return 1
    done
}
compile() { mkdir -p objects && each -c "$@"; } # into objects/
check_only() { each -fsyntax-only "$@"; }
# The build's link of tessera, with the objects of this tree in front of the libraries, which then
# leave theirs out, and in place of the command's own.
link() {
    line=$(cat "$build/CMakeFiles/tessera.dir/link.txt" 2>/dev/null || ninja -C "$build" -t commands tessera | tail -1)
    for object in objects/*.o; do line=$(printf '%s' "$line" | sed "s,[^ ]*/cli/$(basename "$object") ,,"); done
    line=$(printf '%s' "$line" | sed "s,-o tessera ,-o '$PWD/tessera' $PWD/objects/*.o ,")
    (cd "$build" && eval "$line")
}
# A picture of sd3-medium made tiny, whose denoiser is said to be of the new class.
draws_short() {
    ./tessera make-model --class sd3-medium --scale tiny tiny && sed -i 's/SD3Transformer2DModel/ShortTransformer2DModel/' tiny/transformer/config.json &&
        ./tessera -q --model tiny --prompt a --steps 1 --width 32 --height 32 -o a.png
}
negates() {
    more="-O1 -ffp-contract=off -DKERNELS_SUFFIX=plain"
    compile src/backend/cpu/kernels_elementwise.c src/backend/cpu/reproducible/elementwise.c || return 1
    cat >negate.c <<'END'
#include "backend/backend.h"
void kernels_fill_elementwise_plain(struct backend_ops *ops);
void reproducible_fill_elementwise_plain(struct backend_ops *ops);
int main(void) {
    void (*const fill[])(struct backend_ops *) = {kernels_fill_elementwise_plain, reproducible_fill_elementwise_plain};
    int wrong = 0;
    for (int i = 0; i < 2; i++) {
        float in[] = {1, -2, 0.5f}, out[3] = {0};
        struct tensor x = {.ndim = 1, .shape = {3}, .data = in}, y = {.ndim = 1, .shape = {3}, .data = out};
        struct backend_ops ops = {0};
        struct backend backend = {.threads = 1};
        fill[i](&ops);
        ops.negate(&backend, &y, &x);
        for (int k = 0; k < 3; k++) wrong += out[k] != -in[k];
    }
    return wrong;
}
END
    # shellcheck disable=SC2086
    compile negate.c && ${CC:-cc} $CFLAGS -o negate objects/negate.c.o objects/kernels_elementwise.c.o objects/elementwise.c.o \
        "$build/libroom_tensor.a" "$build/libroom_base.a" -lm && ./negate
}
for number in 1 2 3 4 5; do
    heading=$(sed 's/^## //' "$work/$number.heading")
    tree=$work/tree$number more=
    mkdir -p "$tree/tests"
    cp -r src include "$tree"
    ln -s "$root/models" "$root/assets" "$tree"
    cp -r tests/fenced tests/*.h "$tree/tests"
    case $heading in *model*) cp examples/short/short_transformer.c "$tree/src/models/" ;; esac
    touched=$(sed -n 's/^+++ b\///p' "$work/$number.diff")
    most=$(echo "$heading" | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    cd "$tree" || exit 1
    check "$heading: it applies" patch -p1 --no-backup-if-mismatch -i "$work/$number.diff"
    check "$heading: no more files" test "$(echo "$touched" | wc -l)" -le "$most"
    # Objects of new files and of the file that reads the table; of all that include the header, whether they compile.
    tables='' others=''
    for file in $touched; do
        case $file in
        *.c) tables="$tables $file" ;;
        *.h)
            tables="$tables $(grep -lE '(SCHEDULER_CLASSES|COMMANDS|STRATEGY_TABLE|DENOISER_CLASSES)\(' "$(dirname "$file")"/*.c)"
            others="$others $(grep -l "\"${file#src/}\"" "$(dirname "$file")"/*.c)"
            ;;
        esac
    done
    case $heading in *model*) tables="$tables src/models/short_transformer.c" ;; esac
    tables=$(echo "$tables" | tr ' ' '\n' | sort -u)
    # shellcheck disable=SC2086
    case $heading in
    *operator*) check "$heading: it compiles" check_only $tables $others ;;
    *)
        check "$heading: it compiles" check_only $others
        check "$heading: its objects compile" compile $tables
        check "$heading: the program links" link
        ;;
    esac
    case $heading in
    *sampler*) check "$heading: a picture" ./tessera -q --prompt a --steps 2 --scheduler FlowMatchLCMScheduler -o a.png ;;
    *subcommand*)
        check "$heading: it runs" sh -c './tessera families | grep -qx FluxPipeline'
        check "$heading: help lists it" sh -c './tessera help | grep -q "^  families "'
        ;;
    *operator*) check "$heading: it computes" negates ;;
    *strategy*)
        ! command -v mpirun >/dev/null ||
            check "$heading: a picture on two ranks" mpirun -n 2 --oversubscribe ./tessera -q --prompt a --steps 1 --ring-degree 2 -o a.png
        ;;
    *model*) check "$heading: a picture" draws_short ;;
    esac
    cd "$root" || exit 1
done
exit $failed
