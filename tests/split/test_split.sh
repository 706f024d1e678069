#!/bin/sh
# `tessera split` and `tessera verify` as a person uses them: sh test_split.sh PROGRAM TEST_RECEIPT,
# run in the repository root.
program=$(realpath "$1") make_receipts=$(realpath "$2")
. tests/check.sh
model=tests/cases/sd3/model out=$work/sd3

run 0 split --model $model --split-start 1 --split-end 2 -o "$out.safetensors"
there "$out.safetensors"
prints "blocks 1 to 2,"
says "no manifest was written"
run 0 split --model $model --split-start 1 --split-end 2 -o "$out.safetensors" -v
prints "2 transformer_blocks.2"
# as the published factory is called; booleans mean what they say
for word in True yes 1; do
    run 0 split --model_id $model --split_start 2 --split_end 3 --output_file "$out.safetensors" --has_last_block $word
    prints "blocks 2 to 3 and the last layers"
done
for word in False no 0; do
    run 0 split --model_id $model --split_start 2 --split_end 3 --output_file "$out.safetensors" --has_last_block $word
    prints "blocks 2 to 3,"
done
run 2 split --model $model --split-end 2 --has-last-block true -o "$out.safetensors"
says "has_last_block"
run 2 split --model $model --split-end 4 -o "$out.safetensors"
says "blocks 0 to 3"
run 2 split --model $model
run 1 split --model $model -o "$out.safetensors" --key "$work/none.pem"
says "none.pem"
run 1 split --model $work/none -o "$out.safetensors"
run 1 split --model tests/cases/single_file/sd15.safetensors -o "$out.safetensors"
says "tessera convert"

# every family, in three parts; what Python reads of them is what this program wrote
if command -v openssl >/dev/null && command -v python3 >/dev/null; then
    (umask 077; openssl genpkey -algorithm ed25519 -out "$work/key.pem" 2>"$work/err")
    for family in sd3 flux_dev pixart_sigma hunyuandit unet_sdxl; do
        run 0 split --model tests/cases/$family/model --split-start 0 --parts 3 --has-last-block true --key "$work/key.pem" -o "$work/$family.safetensors"
        check "another program reads the manifest of $family" python3 tests/split/check_manifest.py "$work/$family.manifest.json"
    done
    run 0 split --model tests/cases/pipeline_sd3/model --parts 2 --key "$work/key.pem" -o "$work/folder.safetensors"
    prints "folder-2-of-2.safetensors: blocks"
fi

# receipts of an honest worker and of one that lied in block 2, judged by the model, and by the part
check "receipts are made" "$make_receipts" "$work"
run 0 split --model $model --split-start 1 --split-end 2 -o "$work/judged.safetensors" -q
for weights in "--model $model" "--part $work/judged.safetensors"; do
    run 0 verify "$work/liar.json" $weights
    prints "convicted: block 2"
    run 3 verify "$work/honest.json" $weights
    prints "cleared: block 2"
done
run 1 verify "$work/liar.json" --model tests/cases/sd35/model
says "another part or model"
sed 's/"step":\t3/"step":\t4/' "$work/liar.json" >"$work/forged.json"
run 1 verify "$work/forged.json" --model $model
says "signature"
run 1 verify "$work/none.json" --model $model
run 2 verify "$work/liar.json"
run 2 verify "$work/liar.json" --model $model --pin x
if [ -s "$work/key.pem" ]; then
    run 0 split --model $model --split-start 1 --split-end 2 -o "$work/judged.safetensors" --key "$work/key.pem"
    pin=$(sed -n 's/.*signed by //p' "$work/out")
    run 0 verify "$work/liar.json" --part "$work/judged.safetensors" --manifest "$work/judged.manifest.json" --pin "$pin"
    run 1 verify "$work/liar.json" --part "$work/judged.safetensors" --manifest "$work/sd3.manifest.json"
    says "not a part of the manifest"
    run 1 verify "$work/liar.json" --part "$work/judged.safetensors" --manifest "$work/judged.manifest.json" --pin "A$pin"
    says "pin"
fi
exit $failed
