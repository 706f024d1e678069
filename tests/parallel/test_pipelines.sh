#!/bin/sh
# `tessera generate` over pipelines of stages as a person runs it: sh test_pipelines.sh PROGRAM, in
# the repository root. Prints a line per check; exits 1 if any failed. What the pictures show is
# test_pipeline_pictures.c's; here: options, what must be refused, that delays of messages change no
# bit, and the number of stages nothing but rounding. Ranks that die are test_generate.sh's.
program=$(realpath "$1") cases=tests/cases
. tests/check.sh

# Each rank leaves its exit status.
cat >"$work/rank" <<END
#!/bin/sh
"$program" generate --no-preview --prompt a --seed 3 --threads 1 "\$@"
status=\$?
echo \$status >"$work/status.\$OMPI_COMM_WORLD_RANK"
exit \$status
END
chmod +x "$work/rank"

# ranks N STATUS ARGUMENTS...: all N ranks must end with it.
ranks() {
    count=$1 want=$2
    shift 2
    rm -f "$work"/status.*
    timeout 120 mpirun --enable-recovery -n "$count" --oversubscribe "$work/rank" "$@" >"$work/out" 2>"$work/err" </dev/null
    check "each of $count ranks exits $want: $*" test "$(cat "$work"/status.* | grep -cx "$want")" -eq "$count"
}
# refused N STATUS MESSAGE ARGUMENTS...: said once, and nothing is written.
refused() {
    count=$1 want=$2 message=$3
    shift 3
    ranks "$count" "$want" "$@" --steps 2 -o "$work/refused.png"
    says_once "$message"
    check "nothing is written" test ! -e "$work/refused.png"
}
near() { "$(dirname "$program")/tests/near_latents" $cases/pipeline_pixart "$work/$1" "$work/$2"; }
same() { check "$1 and $2 are the same" cmp "$work/$1" "$work/$2"; }

# as in the guides
ranks 2 0 --pipefusion-parallel-degree 2 --steps 2 --comm-stats -o "$work/two.png"; there "$work/two.png"
check "the table of messages has stages and latents" sh -c "grep -q stages $work/err && grep -q latents $work/err"
ranks 8 0 --model $cases/pipeline_sd3/model --pipefusion-parallel-degree 2 --use-cfg-parallel --data-parallel-degree 2 --num-pipeline-patch 4 \
    --warmup-steps 1 --steps 3 --num-images 2 -o "$work/d/"
check "both pictures of data parallel ranks are there" test "$(ls "$work/d" | wc -l)" -eq 2
ranks 3 0 --model $cases/pipeline_hunyuandit/model --pipefusion_parallel_degree 3 --pp-num-patch 2 --attn-layer-num-for-pp 1,2,1 --steps 3 \
    --num-images 3 -o "$work/h/"
check "all pictures of three stages are there" test "$(ls "$work/h" | wc -l)" -eq 3

# the parts alone decide what comes out
for stages in 1 2 3 4; do
    ranks $stages 0 --model $cases/pipeline_pixart/model --dtype f32 --pipefusion-parallel-degree $stages --num-pipeline-patch 4 --steps 4 \
        --output-type latent -o "$work/stages$stages.safetensors"
    check "stages1.safetensors and stages$stages.safetensors are the same but for rounding" near stages1.safetensors stages$stages.safetensors
done
ranks 2 0 --model $cases/pipeline_pixart/model --dtype f32 --pipefusion-parallel-degree 2 --num-pipeline-patch 2 --steps 4 \
    --output-type latent -o "$work/parts2.safetensors"
differ() { near "$@" && return 1 || [ $? -eq 1 ]; }
check "another number of parts makes another picture" differ parts2.safetensors stages2.safetensors

# delays
delayed() {
    picture=$1 size=$2
    shift 2
    ranks "$size" 0 "$@" -o "$work/$picture.png"
    export TESSERA_COMM_DELAY_MS=20
    ranks "$size" 0 "$@" -o "$work/$picture-delayed.png"
    unset TESSERA_COMM_DELAY_MS
    there "$work/$picture.png"; same "$picture.png" "$picture-delayed.png"
}
delayed sd3 4 --model $cases/pipeline_sd3/model --pipefusion-parallel-degree 2 --use-cfg-parallel --num-pipeline-patch 4 --steps 4
delayed flux 4 --model $cases/pipeline_flux/model --pipefusion-parallel-degree 2 --ring-degree 2 --num-pipeline-patch 3 --steps 3
delayed hunyuandit 4 --model $cases/pipeline_hunyuandit/model --pipefusion-parallel-degree 4 --num-pipeline-patch 2 --steps 4
delayed sdxl 3 --model $cases/pipeline_sdxl/model --pipefusion-parallel-degree 3 --steps 3

# what must be refused, once, with what is possible
sd3="--model $cases/pipeline_sd3/model"
refused 8 1 "has 4 blocks: 1 to 4 stages are possible" $sd3 --pipefusion-parallel-degree 8
refused 2 1 "8 rows of tokens: at most 8 are possible" $sd3 --pipefusion-parallel-degree 2 --num-pipeline-patch 9
refused 8 1 "cannot be cut over 4 ranks: lower num-pipeline-patch" $sd3 --height 32 --width 32 --pipefusion-parallel-degree 2 --ring-degree 4 \
    --num-pipeline-patch 2
refused 2 1 "add up to 3, but the model has 4" $sd3 --pipefusion-parallel-degree 2 --attn-layer-num-for-pp 1 2
refused 2 1 "add up to more than 4, but the model has 4" $sd3 --pipefusion-parallel-degree 2 --attn-layer-num-for-pp 4,1
refused 2 2 "takes whole numbers from 1, not '0'" $sd3 --pipefusion-parallel-degree 2 --attn-layer-num-for-pp 0 4
refused 2 2 "has 3 numbers for --pipefusion-parallel-degree 2" $sd3 --pipefusion-parallel-degree 2 --attn-layer-num-for-pp 1 1 2
refused 3 1 "that is 2 ranks, but there are 3" $sd3 --pipefusion-parallel-degree 2
refused 8 1 "exclude each other" $sd3 --pipefusion-parallel-degree 2 --parallelism patch
refused 4 1 "exclude each other" $sd3 --num-pipeline-patch 2 --parallelism patch
refused 2 1 "a U-Net goes through a pipeline as a whole" --model $cases/pipeline_sd15/model --pipefusion-parallel-degree 2 --num-pipeline-patch 2
exit $failed
