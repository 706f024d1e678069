#!/bin/sh
# `tessera generate` on several ranks, as a person uses it: sh test_ranks.sh PROGRAM, run in the
# repository root. What records hold of the mesh and how --from goes back to it, who speaks, and
# what times are of. Left out: what the strategies compute (tests/parallel, conformance).
program=$(realpath "$1") launcher=${MPIEXEC:-mpirun}
. tests/check.sh
OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
export OMP_WAIT_POLICY OMP_NUM_THREADS
quick="--prompt lion --steps 2 --seed 3 --threads 1"
run() { # RANKS STATUS ARGUMENTS...
    ranks=$1 want=$2
    shift 2
    timeout 300 "$launcher" -n "$ranks" --oversubscribe "$program" generate --overwrite "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    check "on $ranks ranks: tessera generate $* exits $want" test "$got" -eq "$want"
}
never_says() { check "stderr does not say '$1'" sh -c "! grep -q -e '$1' '$work/err'"; }
records() { check "$(basename "$1") records $2" grep -qa -e "$2" "$1"; }

# the record and the mesh
run 2 0 $quick --use_cfg_parallel --use_onediff -o "$work/cfg.png"; says_once "use_onediff has no effect"
check "only the path on stdout" test "$(cat "$work/out" | tr -d '\r')" = "$work/cfg.png"
records "$work/cfg.png" '"mesh":"cfg 2","ranks":2'
run 2 0 --from "$work/cfg.png" -o "$work/again.png"; says "^bit for bit the same"
run 1 0 --from "$work/cfg.png" -o "$work/one.png"; says_once "not bit for bit: the mesh is 1, was cfg 2"
run 2 0 --from "$work/cfg.png" --use-cfg-parallel false --ulysses-degree 2 -o "$work/other.png"
says_once "use-cfg-parallel is not what the record has"; says_once "the mesh is ulysses 2, was cfg 2"
run 2 0 --from "$work/one.png" --ring-degree 2 -o "$work/other.png"; says "the mesh is ring 2, was 1"

# what one rank cannot do ends the run on all, with its words: a picture that only rank 1 wants;
# pictures that rank 0 finds there already
timeout 300 "$launcher" --oversubscribe -n 1 "$program" generate $quick -o "$work/x.png" : \
    -n 1 "$program" generate $quick --init-image no/such.png -o "$work/x.png" >"$work/out" 2>"$work/err" </dev/null
check "rank 1's missing picture: status 1" test $? -eq 1
says "no/such.png"; check "nothing is written" test ! -e "$work/x.png"
printf '{"images": [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": "a lion"}]}]}' >"$work/captions.json"
mkdir "$work/captions" && cp "$work/cfg.png" "$work/captions/a.png"
run 2 1 --caption-file "$work/captions.json" --use-cfg-parallel --steps 2 --threads 1 -o "$work/captions/"
says "a.png is there already, made with another prompt"
# exact strategies go on with each other's pictures; the others with their own on the same mesh alone
captions="--caption-file $work/captions.json --steps 2 --threads 1"
run 1 0 $captions -o "$work/exact/"
run 2 0 $captions --use-cfg-parallel -o "$work/exact/"; says "1 of 1 pictures are there"
run 2 1 $captions --parallelism naive_patch --no-split-batch -o "$work/exact/"; says "made with another parallelism (none, now naive_patch)"
run 2 0 $captions --parallelism naive_patch --no-split-batch -o "$work/naive/"
run 2 0 $captions --parallelism naive_patch --no-split-batch -o "$work/naive/"; says "1 of 1 pictures are there"
run 1 1 $captions -o "$work/naive/"; says "made with another parallelism (naive_patch, now none)"
run 4 1 $captions --parallelism naive_patch --no-split-batch -o "$work/naive/"; says "made with another mesh (naive patch 2, now naive patch 4)"

# groups of ranks make pictures of their own, and the record is that of one group
run 4 0 $quick --num-images 2 --data_parallel_degree 2 --ulysses_degree 2 --output_root "$work/many" --test_times 2
says_once "^latency: .* of 2 runs of 2 pictures"
for i in 0 1; do records "$work/many/lion_3_$i.png" '"mesh":"ulysses 2","ranks":2'; done
run 2 0 --from "$work/many/lion_3_1.png" -o "$work/second.png"; says "^bit for bit the same"

# DistriFusion's words: the mesh that they come to, and the record of a picture that is not exact
sd=tests/cases/pipeline_sd15/model
run 4 0 --model $sd $quick --image_size 128 --parallelism patch --warmup_steps 0 --sync_mode no_sync -o "$work/patch.png"
records "$work/patch.png" '"mesh":"cfg 2 x patch 2","ranks":4'; records "$work/patch.png" '"sync_mode":"no_sync","warmup_steps":0'
run 4 0 --from "$work/patch.png" --allow-record-files -o "$work/again.png"; says "^bit for bit the same"; never_says "not bit for bit"
run 2 0 --model $sd $quick --image_size 128 --parallelism tensor --no_split_batch -o "$work/tensor.png"
records "$work/tensor.png" '"mesh":"tensor 2"'

# pictures without guidance have one prediction a step: nothing splits two, whichever word says so
for words in "--guidance-scale 1" "--cfg-scale 1" "--cfg 0"; do
    run 2 0 $quick $words -o "$work/unguided.png"; says_once "no option says how 2 ranks"; never_says "cfg 2"
    for kind in patch naive_patch tensor pcpp; do
        run 2 0 $quick $words --parallelism $kind -o "$work/unguided.png"
        says_once "not guided, so --parallelism $kind has no predictions to split: "
        records "$work/unguided.png" '"mesh":"[a-z ]* 2","ranks":2'
    done
done
run 2 0 $quick --cfg-scale 1 --parallelism patch --no-split-batch -o "$work/unguided.png"; never_says "not guided"
run 2 0 $quick --cfg-scale 1 --parallelism patch -q -o "$work/unguided.png"; never_says "not guided"
run 2 0 --from "$work/unguided.png" -o "$work/again.png"; says "^bit for bit the same"
run 2 0 --from "$work/unguided.png" --guidance-scale 3 -o "$work/again.png"; records "$work/again.png" '"mesh":"cfg 2","ranks":2'
run 2 1 $quick --guidance-scale 1 --use-cfg-parallel -o "$work/x.png"; says_once "leave --use-cfg-parallel out"
flux=tests/cases/pipeline_flux/model
run 2 0 --model $flux $quick --width 64 --height 64 --parallelism tensor -o "$work/flux.png"; says_once "not guided"
run 2 0 --model $flux $quick --width 64 --height 64 --parallelism patch --cfg-scale 2 -o "$work/flux.png"; never_says "not guided"
records "$work/flux.png" '"mesh":"cfg 2"'

# PipeFusion: the picture depends on the patches, not on the stages, so the record brings the
# patches back on any number of ranks
run 2 0 $quick --steps 4 --dtype f32 --pipefusion_parallel_degree 2 --num_pipeline_patch 4 --attn_layer_num_for_pp 3,5 -o "$work/stages.png"
records "$work/stages.png" '"pipefusion_parallel_degree":2,"num_pipeline_patch":4,"attn_layer_num_for_pp":\["3,5"\]'
records "$work/stages.png" '"mesh":"pipefusion 2"'
run 2 0 --from "$work/stages.png" -o "$work/again.png"; says "^bit for bit the same"
run 1 0 --from "$work/stages.png" -o "$work/one.png"; says_once "the mesh is 1, was pipefusion 2"; never_says "num-pipeline-patch"
records "$work/one.png" '"pipefusion_parallel_degree":1,"num_pipeline_patch":4,"attn_layer_num_for_pp":\[\]'
run 2 0 $quick --pipefusion_parallel_degree 2 --warmup_steps 0 -o "$work/stages.png"; records "$work/stages.png" '"num_pipeline_patch":2'
records "$work/stages.png" '"warmup_steps":0'
run 2 0 --model $sd $quick --image_size 128 --pipefusion_parallel_degree 2 -o "$work/stages.png"; records "$work/stages.png" '"num_pipeline_patch":null'

# a step cache says what it left out, and is part of the record
run 2 0 $quick --steps 12 --use_teacache --cache_threshold 0.8 --ulysses_degree 2 -o "$work/cache.png"
says_once "^step cache: left out [1-9][0-9]* of 96 blocks"; records "$work/cache.png" '"use_teacache":true,"cache_threshold":0.8'
run 2 0 --from "$work/cache.png" --json -o "$work/again.png"; says "^bit for bit the same"
check "--json has the blocks" grep -q '"blocks":.96,' "$work/out"
run 1 0 $quick -o "$work/plain.png"; never_says "step cache"

# strength 0 keeps the picture on any number of ranks
for ranks in 1 2; do
    run $ranks 0 --prompt lion --init-image tests/reports/03-init-size/64x64.png --strength 0 --steps 2 --threads 1 -o "$work/kept-$ranks.png"
done
check "strength 0 keeps the picture" test "$(tail -c 200 "$work/kept-1.png" | cksum)" = "$(tail -c 200 "$work/kept-2.png" | cksum)"

# offloaded in blocks, every strategy makes the picture that it makes from memory
for way in "--use-cfg-parallel" "--ring-degree 2" "--ulysses-degree 2 --use-parallel-vae" "--tensor-parallel-degree 2" \
    "--pipefusion-parallel-degree 2" "--parallelism patch --no-split-batch" "--ulysses-degree 2 --use-fbcache"; do
    run 2 0 $quick $way -o "$work/whole.png"
    run 2 0 $quick $way --offload blocks -o "$work/blocks.png"; says "from the disk"
    check "the same picture in blocks: $way" test "$(tail -c 2000 "$work/whole.png" | cksum)" = "$(tail -c 2000 "$work/blocks.png" | cksum)"
done

run 2 0 $quick --ring-degree 2 --max-memory 0:2GiB,1:3GiB -o "$work/limited.png"
run 2 1 $quick --ring-degree 2 --max-memory 0:2GiB,1:1MiB -o "$work/limited.png"; says "more"

# a product that is not the number of ranks
run 2 1 $quick --ulysses_degree 3 -o "$work/x.png"; says_once "error:"

exit $failed
