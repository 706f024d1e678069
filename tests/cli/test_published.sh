#!/bin/sh
# The published commands of xDiT and DistriFusion, from published.txt beside this file, with
# `tessera` in place of their scripts.
#   sh test_published.sh PROGRAM [WORD]   in the repository root: runs each command whose line holds WORD, in an empty folder, on small models
#   sh test_published.sh --table          prints the table of docs/published-commands.md, which the test compares with the guide
# What is changed for a run, by rule: the model, the size, the steps and the repetitions are
# overridden by options behind the published ones; $N_GPUS is 4, and the folders that a command
# names by variables hold what the commands before it would have written; flux_control_example.py's
# own picture, test_imgs/016#.png, is a small one; degrees that the small models (4 heads, 4 blocks)
# cannot have are folded: ulysses 8 into ulysses 4 x ring 2, pipefusion 8 into 4, with ulysses 2
# where all 8 ranks are its own. A run passes if it exits 0 and leaves as many pictures (or latents)
# as its groups of ranks, or of meshes the fastest one's name. Left out: what the pictures show.

list=$(dirname "$0")/published.txt
root=$PWD
guide=docs/published-commands.md

lines() { sed '/^#/d' "$list"; }

# ranks ARGS...: the product of the degrees.
ranks() {
    echo "$*" | tr '= ' '\n\n' | awk 'BEGIN { n = 1 } previous ~ /^--(data_parallel|ulysses|ring|pipefusion_parallel|tensor_parallel)_degree$/ { n *= $0 }
        $0 == "--use_cfg_parallel" { n *= 2 } { previous = $0 } END { print n }'
}

# after_script COMMAND: what follows the script's name; options of the launcher go too.
after_script() { echo "$1 " | sed -E 's/^[^ ]*=[^ ]* //; s/^(torchrun (--[^ ]+ )*|python3? )//; s/^[^ ]+ //; s/ *$//'; }

# launched COMMAND: on how many ranks it runs.
launched() {
    case $1 in
    *--nnodes=2*) echo 16 ;;
    *--n_gpus\ *) echo "$1" | sed 's/.*--n_gpus \([0-9]*\).*/\1/' ;;
    *--nproc_per_node=*) echo "$1" | sed 's/.*--nproc_per_node=\([^ ]*\).*/\1/' ;;
    *) ranks "$1" ;;
    esac
}

# subcommand COMMAND: of tessera.
subcommand() {
    case $1 in
    *single_node_latency_test.py*) echo latency ;;
    *process_ref_data.py* | *dump_coco.py*) echo coco ;;
    *compute_fid.py* | *compute_metrics.py*) echo evaluate ;;
    *) echo generate ;;
    esac
}

# like COMMAND: the option that brings the defaults of a script which has its prompt, or its control
# picture, inside.
like() {
    case $1 in
    *fid/pixartalpha_generate.py*) echo " --like pixartalpha_generate" ;;
    *" scripts/generate_coco.py"*) echo " --like generate_coco" ;;
    *examples/flux_control_example.py*) echo " --like flux_control_example" ;;
    *" scripts/sdxl_example.py") echo " --like sdxl_example" ;;
    *" scripts/sd_example.py") echo " --like sd_example" ;;
    esac
}

# translate COMMAND
translate() {
    n=$(launched "$1")
    arguments=$(after_script "$1")
    [ "$n" = 1 ] || printf 'mpirun -n %s ' "$n"
    printf 'tessera %s' "$(subcommand "$1")"
    echo "$(like "$1")${arguments:+ $arguments}"
}

table() {
    echo "| published in | command | here |"
    echo "|---|---|---|"
    lines | while IFS= read -r line; do
        state=${line%% | *} rest=${line#* | }
        source=${rest%% | *} command=${rest#* | }
        [ "$state" = run ] && here="\`$(translate "$command")\`" || here=$state
        echo "| $source | \`$command\` | $here |"
    done
}

if [ "$1" = --table ]; then
    table
    exit
fi

program=$(realpath "$1") word=${2:-}
launcher=${MPIEXEC:-mpirun}
TESSERA_DATA_DIR=${TESSERA_DATA_DIR:-$root} OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
export TESSERA_DATA_DIR OMP_WAIT_POLICY OMP_NUM_THREADS
. tests/check.sh
N_GPUS=4 PATH_TO_VAL2014=val2014 SAMPLE_IMAGES_FOLODER=sample_images IMAGE_ROOT0=made IMAGE_ROOT1=sample_images

# model COMMAND: the small model that stands for the published one.
model() {
    case $1 in
    *Sigma*) name=pipeline_pixart ;;
    *PixArt*) name=pipeline_pixart ;;
    *stable-diffusion-3*) echo "$root/models/emoji" && return ;;
    *Hunyuan*) name=pipeline_hunyuandit ;;
    *stable-diffusion-xl* | *sdxl* | *generate_coco*) name=pipeline_sdxl ;;
    *sd_example*) name=pipeline_sd15 ;;
    *FLUX.1-Depth*) name=pipeline_flux_control ;;
    *FLUX.1-schnell*) name=pipeline_flux_schnell ;;
    *FLUX*) name=pipeline_flux ;;
    esac
    echo "$root/tests/cases/$name/model"
}

# folded ARGS: see above.
folded() {
    echo "$1" | sed -E 's/(--ulysses_degree[= ])8/\14 --ring_degree 2/; s/(--pipefusion_parallel_degree )8 --ulysses_degree 1/\14 --ulysses_degree 2/; s/(--pipefusion_parallel_degree[= ])8/\14/; s/--sizes 1024/--sizes 128/'
}

# small COMMAND: the options that make it small.
small() {
    networks=$root/tests/metrics/case/model
    case $(subcommand "$1") in
    latency) echo "--model '$(model "$1")' --steps 2 --threads 1 --warmup-times 0 --test-times 1" && return ;;
    coco) return ;;
    evaluate) echo "--inception $networks/inception.safetensors --alexnet $networks/alexnet.safetensors --lpips $networks/lpips.safetensors" && return ;;
    esac
    case $1 in *test_times* | *num_iterations* | *"--mode benchmark"*) times="--warmup-times 1 --test-times 2" ;; *) times= ;; esac
    echo "--model '$(model "$1")' --width 128 --height 128 --steps 6 --threads 1 --no-preview $times"
}

# data_set FOLDER: a small COCO there, and pictures that commands before would have written.
data_set() {
    pictures=$root/tests/metrics/case
    mkdir "$1/val2014" && cp "$pictures/a/0002.jpg" "$1/val2014/COCO_val2014_000000000001.jpg"
    cp "$pictures/a/0000.png" "$1/val2014/COCO_val2014_000000000002.jpg"
    cat >"$1/dataset_coco.json" <<END
{"images": [
 {"filename": "COCO_val2014_000000000001.jpg", "filepath": "val2014", "split": "val", "sentences": [{"raw": "a lion"}, {"raw": "a big lion"}]},
 {"filename": "COCO_val2014_000000000002.jpg", "filepath": "val2014", "split": "val", "sentences": [{"raw": "a crab"}, {"raw": "a red crab"}]}]}
END
    cp -r "$pictures/a" "$1/made" && cp -r "$pictures/b" "$1/sample_images"
}

# signature FILE: whether it is a picture, or a safetensors file with latents.
good_file() {
    case $1 in
    *.png) [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] ;;
    *) grep -qa '"latents"' "$1" ;;
    esac
}

# good_files FOLDER COUNT
good_files() {
    found=0
    for file in $(find "$1" -name '*.png' -o -name '*.safetensors'); do
        good_file "$file" || return 1
        found=$((found + 1))
    done
    [ "$found" -ge "$2" ]
}

# good_result COMMAND FOLDER COUNT
good_result() {
    case $(subcommand "$1") in
    coco) [ "$(find "$2/references" "$2/coco" -name '*.jpg' -o -name '*.png' 2>/dev/null | wc -l)" -eq 2 ] ;;
    evaluate) grep -q '^FID: [0-9]' "$work/out" ;;
    latency) grep -q '^the fastest: ' "$work/out" && ! grep -q refused "$work/out" ;;
    *) good_files "$2" "$3" ;;
    esac
}

# run_line SOURCE COMMAND
run_line() {
    folder=$work/run
    rm -rf "$folder" && mkdir -p "$folder/test_imgs"
    cp "$work/control.png" "$folder/test_imgs/016#.png"
    case $2 in *coco* | *fid* | *metrics*) data_set "$folder" ;; esac
    case $2 in *compute_fid.py*) REF_IMAGES_FOLODER=made ;; *) REF_IMAGES_FOLODER=references ;; esac
    printf 'prompt,number\n"a lion, drawn",1\na crab,2\n' >"$folder/prompts.csv"
    arguments="$(like "$2") $(folded "$(after_script "$2")") $(small "$2")"
    verb=$(subcommand "$2")
    n=$(eval echo "$(launched "$2")")
    [ "$n" -le 8 ] || n=8
    case $2 in *--data_parallel_degree*) pictures=2 ;; *--dataset_path* | *caption_file* | *generate_coco*) pictures=2 ;; *) pictures=1 ;; esac
    (
        cd "$folder" || exit 1
        eval "set -- $arguments"
        set -- "$verb" "$@"
        [ "$n" = 1 ] && exec "$program" "$@"
        exec timeout 300 "$launcher" -n "$n" --oversubscribe "$program" "$@"
    ) >"$work/out" 2>"$work/err" </dev/null
    if [ $? -eq 0 ] && good_result "$2" "$folder" "$pictures"; then
        echo "ok    $1: $2"
    else
        echo "FAIL  $1: $2"
        echo "      tessera $(subcommand "$2") $arguments, on $n ranks"
        sed 's/^/      /' "$work/err" | tail -5
        failed=1
    fi
}

"$program" generate --prompt "a lion" --steps 1 --threads 1 --no-preview -o "$work/control.png" >/dev/null || exit 1
lines | grep -e "$word" >"$work/lines"
while IFS= read -r line <&3; do
    rest=${line#* | }
    case $line in
    run\ *) run_line "${rest%% | *}" "${rest#* | }" ;;
    *) echo "skip  $rest (${line%% | *})" ;;
    esac
done 3<"$work/lines"

# the guide's table
table >"$work/table"
sed -n '/^| published in /,/^$/p' "$guide" | sed '/^$/d' >"$work/guide"
if cmp -s "$work/table" "$work/guide"; then
    echo "ok    $guide has this table"
else
    echo "FAIL  $guide: its table is not what test_published.sh --table prints"
    diff "$work/table" "$work/guide" | head -5
    failed=1
fi
exit $failed
