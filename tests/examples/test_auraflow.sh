#!/bin/sh
# A model of one's own, as somebody who has only what is installed: sh test_auraflow.sh BUILD, run
# in the repository root. Installs below BUILD, builds examples/auraflow there by pkg-config, runs
# the commands of docs/new-model.md, and then its cases on every kind of mesh. Also: the model's
# file names no strategy and no rank, and the library exports what tessera_model.h declares. CFLAGS
# are added to the compilation, MPIEXEC starts ranks. A line per check; exits 1 if one failed.
build=$1 root=$PWD
work=$build/tests/auraflow prefix=$build/tests/auraflow/prefix
rm -rf "$work"
mkdir -p "$work/examples" "$work/bin" || exit 1
. tests/check.sh

check "install" cmake --install "$build" --prefix "$prefix"
[ $failed = 0 ] || exit 1
pc=$(find "$prefix" -name tessera.pc)
libraries=$(dirname "$(dirname "$pc")")
PKG_CONFIG_PATH=$(dirname "$pc") LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_PATH LD_LIBRARY_PATH

# What tessera_model.h declares is in the library under its exported name.
header=$work/tessera_model.h model=examples/auraflow/auraflow_transformer.c
cat "$prefix"/include/tessera_model/*.h >"$header"
sed 's|/\*.*\*/||; /^ *\/\*/,/\*\//d' "$header" >"$work/code"
declared=$(grep -v '^#\|^ \|^static\|^typedef' "$work/code" | grep -o '\<[a-z0-9_]*(' | tr -d '(' | grep -v '^__attribute__$\|^format$\|^tessera_' | sort -u)
nm -D --defined-only "$libraries/libtessera.so" | awk '{ print $3 }' | sort -u >"$work/exported"
for name in $declared dit_plain_norm dit_picture_names dit_text_names; do
    grep -qx "#define $name tessera_$name" "$prefix/include/tessera_names.h" || check "tessera_names.h renames $name" false
    grep -qx "tessera_$name" "$work/exported" || check "the library exports tessera_$name" false
done
check "the header declares functions" test "$(echo "$declared" | wc -l)" -gt 80
check "the library exports tessera_sample" grep -qx tessera_sample "$work/exported"

# A model is written once: no word of who computes what, in its file and in what authors read of the
# engine's model interface.
words='rank|ranks|mesh|cfg|usp|ulysses|ring|pipefusion|pipeline|stage|stages|displaced|parallel|mpi|comm|world|strategy|fbcache|teacache'
check "the model's file names no strategy and no rank" sh -c "! grep -niwE '$words' $model"
words='rank|ranks|mesh|cfg|usp|ulysses|ring|pipefusion|mpi|comm|world'
for part in "$prefix"/include/tessera_model/*.h; do
    [ "$(basename "$part")" = sampling.h ] || check "nor does $(basename "$part")" sh -c "! grep -niwE '$words' '$part'"
    printf '#include <%s>\n' "tessera_model/$(basename "$part")" >"$work/part.c"
    check "$(basename "$part") stands alone" ${CC:-cc} -std=c11 -Wall -Werror -I "$prefix/include" -fsyntax-only "$work/part.c"
    check "tessera_model.h includes it" grep -q "tessera_model/$(basename "$part")" "$prefix/include/tessera_model.h"
done
check "the model's file includes nothing of the engine's rooms" sh -c "! grep '#include \"' $model examples/auraflow/main.c"

# The guide, block by block, where its paths lead to copies outside the source tree.
ln -s "$root/tests" "$work/tests"
cp -r examples/auraflow examples/short "$work/examples"
rm -f "$work/examples/auraflow/auraflow" "$work/examples/short/short"
ln -s "$prefix/bin/tessera" "$work/bin/tessera"
awk '/^```bash$/ { inside = 1; next } /^```/ { inside = 0 } inside' docs/new-model.md >"$work/guide.sh"
ln -s "$(command -v "${MPIEXEC:-mpirun}")" "$work/bin/mpirun"
PATH=$work/bin:$PATH OMP_NUM_THREADS=1
export PATH OMP_NUM_THREADS
cd "$work/examples/auraflow" || exit 1
CFLAGS="$CFLAGS -Werror"
export CFLAGS
runs=$(grep -c '\./auraflow' "$work/guide.sh")
check "the guide has a command for each lesson" test "$runs" -ge 10
check "the guide's commands run" sh -e "$work/guide.sh"
check "each of them passes" test "$(grep -c ': pass$' "$work/check")" -eq "$runs"
# The shortest model: the same pixels on every mesh, up to rounding; PipeFusion's patches may differ
# a little more.
alike() { paste -d ' ' one "$1" | tr ', ' '\n\n' | awk -v most="$2" '{ x[NR] = $1 } END { for (i = 1; i <= NR / 2; i++) if (x[i] - x[i + NR / 2] > most || x[i + NR / 2] - x[i] > most) exit 1; exit NR != 48 }'; }
for mesh in ring ulysses tensor; do check "the shortest model draws the same on $mesh" alike $mesh 1; done
check "and nearly the same on pipefusion" alike pipefusion 8
check "its picture is no even grey" sh -c "test \$(tr ' ,' '\n\n' <one | sort -u | wc -l) -gt 4"
check "it has fewer than 80 lines" test "$(grep -vcE '^ *(}|/\*|\*).*$|^$|^#include' ../short/short_transformer.c)" -lt 80

# run RANKS CASE OPTIONS...: the case on a mesh. The guide has run others.
run() {
    ranks=$1 case=$2
    shift 2
    check "$case on $ranks: $*" timeout 300 mpirun -n "$ranks" ./auraflow "../../tests/cases/auraflow/$case" "$@"
}
for case in forward loop odd_text pipefusion_p4 fbcache; do
    check "$case" ./auraflow "../../tests/cases/auraflow/$case"
    check "$case in bfloat16" ./auraflow "../../tests/cases/auraflow/$case" --dtype bf16
done
for axis in ring ulysses tensor pipefusion; do
    run 2 forward --$axis 2
    run 2 odd_text --$axis 2
done
run 2 odd_text --cfg 2
run 3 loop --ring 3
run 4 loop --ulysses 2 --tensor 2
run 8 loop --cfg 2 --ring 2 --ulysses 2
run 8 loop --cfg 2 --pipefusion 2 --ulysses 2
run 3 odd_text --pipefusion 3
run 4 pipefusion_p4 --ring 2 --tensor 2
run 8 pipefusion_p4 --pipefusion 2 --ring 2 --ulysses 2
run 6 pipefusion_p4 --pipefusion 3 --tensor 2
run 2 fbcache --ulysses 2
run 2 fbcache --tensor 2
run 4 fbcache --cfg 2 --pipefusion 2
run 2 loop --ring 2 --weights 3,1
run 3 odd_text --ulysses 3 --weights 1,2,1
run 2 pipefusion_p4 --pipefusion 2 --weights 1,3
run 4 displaced_p2 --patch 2 --cfg 2
run 4 displaced_p2 --patch 2 --tensor 2
run 3 displaced_p3_split --patch 3
run 6 displaced_p3_split --patch 3 --cfg 2

# What it refuses, with the reason.
refuses() { check "refused: $*" sh -c "! ./auraflow $* 2>err >/dev/null && test -s err"; }
refuses ../../tests/cases/auraflow/loop --ring 2
refuses ../../tests/cases/auraflow/displaced_p2
refuses ../../tests/cases/auraflow
check "a comparison can fail" sh -c "cp -r ../../tests/cases/auraflow cases && sed -i 's/\"guidance_scale\": 3.5/\"guidance_scale\": 3.4/' cases/loop/case.json && ! ./auraflow cases/loop | grep -q pass"
exit $failed
