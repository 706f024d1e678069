#!/bin/sh
# The table families x strategies of docs/parallel-table.md, from the runs that it reports:
#
#     sh tests/parallel/table.sh PROGRAMS OUTPUT.md [RANKS...]
#
# PROGRAMS is the folder of `conformance`, `test_parallel_generate` and `test_pipeline_pictures`
# (build/tests), RANKS are the numbers of ranks (2 3 4 6 8). Runs in the repository root.
# conformance gives a line per case and mesh: agreement with the reference, and bytes, work and
# weights of each rank against the formulas; the others give a line per model: whole pictures over
# every mesh, without and with a pipeline. Exits 1 if anything failed; the table then says so too.
programs=${1:?usage: table.sh PROGRAMS OUTPUT.md [RANKS...]}
output=${2:?usage: table.sh PROGRAMS OUTPUT.md [RANKS...]}
shift 2
[ $# -gt 0 ] || set -- 2 3 4 6 8
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

cases=
for name in sd3 sd35 flux_dev flux_schnell pixart_alpha pixart_sigma hunyuandit hunyuandit_style hunyuandit_tall unet_sd15_tall unet_sd21 \
    unet_sdxl_tall distrifusion/distrifusion_sd15_single distrifusion/distrifusion_single pipefusion/pipefusion_p1_w0 \
    pipefusion/pipefusion_flux_p1_w0 pipefusion/pipefusion_p4_w1 pipefusion/pipefusion_flux_p3_w2 \
    pipefusion_multistep/hunyuandit_dpmpp_2m_p4_w1 pipefusion_multistep/pixart_unipc_p4_w2; do
    [ -d "tests/cases/$name" ] && cases="$cases tests/cases/$name"
done
models=models/emoji
for family in sd15 sdxl sd3 flux pixart hunyuandit; do models="$models tests/cases/pipeline_$family/model"; done
pipelines="models/emoji,patches=1:2 tests/cases/pipeline_sd15/model,patches=1 tests/cases/pipeline_sdxl/model,patches=1"
for family in sd3 flux pixart hunyuandit; do pipelines="$pipelines tests/cases/pipeline_$family/model,patches=1:2:4"; done

# A program that ends without its last line has crashed or hangs: that is a failure, too.
ended() {
    grep -q "$1" "$2" || echo "crash of $3 on $4 ranks" >>"$work/crashes"
}
: >"$work/meshes"; : >"$work/patches"; : >"$work/pictures"; : >"$work/pipelines"; : >"$work/crashes"
# Pictures by the program $1 on $2 ranks, of the models that follow; its lines go to the file $3.
pictures() {
    picture_program=$1 picture_ranks=$2 lines=$3
    shift 3
    timeout 1800 mpirun -n "$picture_ranks" "$programs/$picture_program" "$@" >"$work/out" 2>/dev/null </dev/null
    ended '^[0-9]* passed' "$work/out" "$picture_program" "$picture_ranks"
    grep ' meshes of ' "$work/out" >>"$lines"
    awk -v ranks="$picture_ranks" '/^[0-9]+ passed, [0-9]+ failed/ && $3 > 0 { failed += $3 }
        END { if (failed) print failed " checks of pictures on " ranks " ranks" }' "$work/out" >>"$work/crashes"
}
# Cases of patches, each on the ranks that it has.
patches() {
    patch_ranks=$1
    shift
    timeout 1800 mpirun -n "$patch_ranks" "$programs/conformance" --dtype f32 "$@" >"$work/out" 2>/dev/null </dev/null
    ended '^[0-9]* passed' "$work/out" conformance "$patch_ranks"
    sed "s/^/$patch_ranks /" "$work/out" >>"$work/patches"
}
published=tests/cases/distrifusion/distrifusion
patches 2 tests/cases/displaced/*_p2_* ${published}_patch2_* ${published}_sd15_patch2_* ${published}_naive2_*
patches 3 tests/cases/displaced/*_p3_* tests/cases/pcpp/*_p3_*
patches 4 tests/cases/displaced/*_p4_* tests/cases/pcpp/*_p4_* ${published}_cfg2_* ${published}_patch4_*
for ranks in "$@"; do
    # shellcheck disable=SC2086
    timeout 1800 mpirun -n "$ranks" "$programs/conformance" --dtype f32 $cases >"$work/out" 2>/dev/null </dev/null
    ended '^[0-9]* passed' "$work/out" conformance "$ranks"
    sed "s/^/$ranks /" "$work/out" >>"$work/meshes"
    # shellcheck disable=SC2086
    pictures test_parallel_generate "$ranks" "$work/pictures" $models
    # shellcheck disable=SC2086
    pictures test_pipeline_pictures "$ranks" "$work/pipelines" $pipelines
done

# The lines of the file $1 as a table of models and numbers of ranks, the rest of the arguments.
picture_table() {
    lines=$1
    shift
    awk -v all="$*" '
    { name = $1; sub(/tests\/cases\/pipeline_/, "", name); sub(/\/model/, "", name); sub(/,.*/, "", name)
      if (!(name in seen)) { seen[name] = 1; order[++count] = name }
      cell[name, $5] = $2 ", " sprintf("%.0f", $7) " dB" }
    END {
        n = split(all, ranks, " ")
        line = "| model |"; rule = "|---|"
        for (i = 1; i <= n; i++) { line = line " " ranks[i] " ranks |"; rule = rule "---|" }
        print line; print rule
        for (m = 1; m <= count; m++) {
            line = "| `" order[m] "` |"
            for (i = 1; i <= n; i++) line = line " " ((order[m], ranks[i]) in cell ? cell[order[m], ranks[i]] : "failed") " |"
            print line
        }
    }' "$lines" >>"$work/table"
}

# Of awk: a line for each family, with passed[], runs[] and worst[] [family, column] in its cells.
# shellcheck disable=SC2016
print_cells='
function print_cells(column, columns,    row, rows, line, rule, key, c, r) {
    rows = split("Stable Diffusion 1.x, 2.x|Stable Diffusion XL|Stable Diffusion 3, 3.5|Flux.1|PixArt-alpha, -Sigma|HunyuanDiT", row, "|")
    line = "| family |"; rule = "|---|"
    for (c = 1; c <= columns; c++) { line = line " " column[c] " |"; rule = rule "---|" }
    print line; print rule
    for (r = 1; r <= rows; r++) {
        line = "| " row[r] " |"
        for (c = 1; c <= columns; c++) {
            key = row[r] SUBSEP column[c]
            line = line " " (runs[key] > 0 ? sprintf("%d of %d, %.2g", passed[key], runs[key], worst[key]) : "-") " |"
        }
        print line
    }
}
'

cat >"$work/table" <<END
# Families x strategies, as run

Written by \`tests/parallel/table.sh\` from the runs that it reports, on $(echo "$@" | sed 's/ /, /g') ranks;
\`make test-hybrids\` writes it anew. [parallel.md](parallel.md) says what the strategies are.

## Predictions and denoising loops

\`conformance\` on every mesh of those numbers of ranks that the case can have, in float32. A cell:
meshes that passed, of those that ran; the largest error in shares of the case's tolerance (1: just
allowed). Passing means: the result agrees with the reference implementation's within the tolerance;
each rank sent the bytes of the formulas in parallel.md, and its operations and weights stay within
conformance's limits for an equal division (text that is replicated by rule counted apart).
Pipelines: all steps of a loop, with the picture as a whole and in 3 or 4 patches, against
PipeFusion's reference; stages by blocks. The pictures below have U-Nets in stages, too.

END
awk "$print_cells"'
function family(name) {
    if (name ~ /^unet_sd(15|21)|^distrifusion_sd15/) return "Stable Diffusion 1.x, 2.x"
    if (name ~ /^unet_sdxl|^distrifusion_single/) return "Stable Diffusion XL"
    if (name ~ /^sd3|^pipefusion_p[0-9]/) return "Stable Diffusion 3, 3.5"
    if (name ~ /flux/) return "Flux.1"
    if (name ~ /^pixart/) return "PixArt-alpha, -Sigma"
    if (name ~ /^hunyuandit/) return "HunyuanDiT"
    return name
}
function strategy(cfg, stages, ring, ulysses, tensor) {
    if (stages > 1) return cfg * ring * ulysses * tensor > 1 ? "PipeFusion x the rest" : "PipeFusion"
    if (cfg > 1) return ring * ulysses * tensor > 1 ? "CFG x the rest" : "CFG"
    if (tensor > 1) return ring * ulysses > 1 ? "tensor x sequence" : "tensor"
    return ring > 1 ? (ulysses > 1 ? "USP" : "ring") : "Ulysses"
}
{ stages = 1 }
$5 == "pipefusion" { stages = $6; sub(/pipefusion [0-9]+ /, "") }
stages == 1 && $2 ~ /_p[2-9]_w/ { next } # parts without stages
$3 == "cfg" && $13 != "SKIP:" && $11 == "error" {
    key = family($2) SUBSEP strategy($4, stages, $6, $8, $10)
    runs[key]++
    if ($12 + 0 > worst[key] + 0) worst[key] = $12
    if ($0 ~ /FAIL/) { reason = $0; sub(/.*FAIL: /, "", reason); why[++failures] = $2 " on " $1 " ranks, cfg " $4 " pipefusion " stages " ring " $6 " ulysses " $8 " tensor " $10 ": " reason }
    else if ($0 ~ /SKIP/) runs[key]--
    else passed[key]++
}
END {
    columns = split("CFG,Ulysses,ring,USP,tensor,tensor x sequence,CFG x the rest,PipeFusion,PipeFusion x the rest", column, ",")
    print_cells(column, columns)
    print "\n\"-\": no case here has two predictions a step (the pictures below have, but for Flux.1),\nor these numbers of ranks allow none."
    if (failures) print "\nFailed:\n"
    for (i = 1; i <= failures; i++) print "- " why[i]
}' "$work/meshes" >>"$work/table"

cat >>"$work/table" <<END

## Patches that see other patches late, or not at all

\`conformance\` on as many ranks as a case has patches, in float32, all steps of a loop against the
reference of the strategy. A cell: cases that passed, of those that ran; the largest error in shares
of the case's tolerance. Displaced patches of U-Nets are DistriFusion's, with its group norms; PCPP
on two ranks is displaced patches.

END
awk "$print_cells"'
function family(name) {
    if (name ~ /^distrifusion_sd15/) return "Stable Diffusion 1.x, 2.x"
    if (name ~ /^distrifusion/) return "Stable Diffusion XL"
    if (name ~ /_sd3_/) return "Stable Diffusion 3, 3.5"
    if (name ~ /_flux_/) return "Flux.1"
    if (name ~ /_pixart_/) return "PixArt-alpha, -Sigma"
    return "HunyuanDiT"
}
function strategy(name) { return name ~ /^pcpp/ ? "PCPP" : name ~ /naive/ ? "naive patches" : "displaced patches" }
{ key = family($2) SUBSEP strategy($2) ", " $1 " ranks" }
match($0, /error +[0-9.e+-]+/) {
    error = substr($0, RSTART + 5, RLENGTH - 5) + 0
    runs[key]++
    if (error > worst[key]) worst[key] = error
    if ($0 ~ /FAIL/) failed[++failures] = $0; else passed[key]++
}
END {
    columns = split("displaced patches, 2 ranks|displaced patches, 3 ranks|displaced patches, 4 ranks|PCPP, 3 ranks|PCPP, 4 ranks|naive patches, 2 ranks|naive patches, 4 ranks", column, "|")
    print_cells(column, columns)
    if (failures) print "\nFailed:\n"
    for (i = 1; i <= failures; i++) print "- " failed[i]
}' "$work/patches" >>"$work/table"

cat >>"$work/table" <<END

## Whole pictures

\`test_parallel_generate\`: text, denoising and decoding over every mesh data x cfg x ring x ulysses x
tensor of so many ranks that the model can have, half of them with \`--use-parallel-vae\`, float32,
against one rank. A cell: meshes; the smallest PSNR of a picture, which must be 50 dB. The models
are tiny, so some meshes are impossible for them; those are refused with an error that says what is
possible.

END
picture_table "$work/pictures" "$@"
cat >>"$work/table" <<END

## Whole pictures through pipelines of stages

\`test_pipeline_pictures\`: the same over every mesh data x cfg x pipefusion x ring x ulysses x tensor
with a pipeline, or with the picture in patches (transformers in 1, 2 and 4, the embedded model in 1
and 2), against one rank with the same number of patches.

END
picture_table "$work/pipelines" "$@"
[ -s "$work/crashes" ] && { echo; echo "Failed:"; echo; sed 's/^/- /' "$work/crashes"; } >>"$work/table"

cp "$work/table" "$output"
! grep -q '^Failed:' "$output"
