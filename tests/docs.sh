#!/bin/sh
# The commands of the guides, as a person types them: every block fenced as ```sh in README.md and
# docs/*.md is run, each file's blocks in order in an empty folder of its own where `tessera` and
# `build/tessera` are the program. Usage: sh docs.sh PROGRAM [FILE.md...], in the repository root.
# Prints a line per block; exits 1 if one failed. Also: every file in docs/ is linked from
# README.md, and every link leads to a file. Blocks that are indented instead are not run: they need
# a network, a cluster, or models that cannot be shipped.
program=$1
shift
case $program in /*) ;; *) program=$PWD/$program ;; esac
[ $# -gt 0 ] || set -- README.md docs/*.md
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
root=$PWD failed=0
mkdir "$work/bin"
ln -s "$program" "$work/bin/tessera"
PATH=$work/bin:$PATH TESSERA_DATA_DIR=${TESSERA_DATA_DIR:-$root} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
OMPI_MCA_rmaps_base_oversubscribe=1  # a guide's ranks are more than the slots of some machines
export PATH TESSERA_DATA_DIR OMP_WAIT_POLICY OMPI_MCA_rmaps_base_oversubscribe

report() { # WORD WHAT
    echo "$1  $2"
    [ "$1" != FAIL ] || failed=1
}

for file in "$@"; do
    folder=$work/$(basename "$file" .md)
    mkdir -p "$folder/build"
    ln -s "$program" "$folder/build/tessera"
    awk -v folder="$folder" '/^```sh$/ { inside = 1; count++; next } /^```/ { inside = 0 } inside { print > (folder "/block-" count ".sh") }' "$file"
    number=1
    while [ -e "$folder/block-$number.sh" ]; do
        if (cd "$folder" && timeout 300 sh -e "block-$number.sh") >"$work/out" 2>&1 </dev/null; then
            report "ok  " "$file, block $number"
        else
            report FAIL "$file, block $number"
            cat "$folder/block-$number.sh" "$work/out"
        fi
        number=$((number + 1))
    done
    for link in $(grep -v '^    ' "$file" | grep -o '](\([^)#:]*\))' | sed 's/^](//; s/)$//'); do
        [ -e "$(dirname "$file")/$link" ] || report FAIL "$file: a link to $link, which is not there"
    done
done
for file in docs/*.md; do
    grep -q "($file)" README.md || report FAIL "README.md does not link to $file"
done

# Each option that a guide names is in a command's table, or in this list of others: of mpirun,
# srun, pkg-config, our test and bench programs, and of scripts whose options
# docs/published-commands.md lists as missing here.
others="allow-run-as-root bind-to enable-recovery hostfile map-by mca mpi oversubscribe cflags libs static busy delay emulation only patch quick
    pipefusion ranks-per-host ring tensor ulysses weights without-delay block norm dataset device-map distilled-transformer-2-path
    distilled-transformer-path input-images master-addr master-port max-memory model-path nnodes node-rank nproc-per-node num num-frames pipeline
    prompt-2 rdzv-endpoint ref-batch sample-batch sample-dir table ulysses-parallel-degree world-size"
options_in() { grep -oh -e '--[a-zA-Z][a-zA-Z0-9_-]*' "$@" | tr '_' '-' | sort -u; }
for command in $("$program" help | sed -n '/^commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do "$program" help-all "$command"; done >"$work/help" 2>/dev/null
"$program" completion bash >>"$work/help"
{ options_in "$work/help"; for name in $others; do echo "--$name"; done; } >"$work/known"
for option in $(options_in README.md docs/*.md | grep -vxF -f "$work/known"); do
    report FAIL "the guides name $option, which no command has: $(grep -l -e "$(echo "$option" | sed 's/-/[-_]/g')" README.md docs/*.md | xargs)"
done
exit $failed
