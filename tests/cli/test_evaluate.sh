#!/bin/sh
# tessera coco, tessera generate --caption-file and tessera evaluate, as a person runs them one
# after the other, and what can be wrong.
#   sh test_evaluate.sh PROGRAM          in the repository root
program=$(realpath "$1") root=$PWD
case=$root/tests/metrics/case
TESSERA_DATA_DIR=${TESSERA_DATA_DIR:-$root} OMP_WAIT_POLICY=passive
export TESSERA_DATA_DIR OMP_WAIT_POLICY
. tests/check.sh
cd "$work" || exit 1

mkdir val2014 && cp "$case/a/0002.jpg" val2014/COCO_1.jpg && cp "$case/tall.png" val2014/COCO_2.jpg && cp "$case/a/0001.png" val2014/COCO_3.png
cat >dataset_coco.json <<END
{"images": [
 {"filename": "COCO_1.jpg", "split": "test", "sentences": [{"raw": "a lion"}]},
 {"filename": "COCO_2.jpg", "split": "val", "sentences": [{"raw": "a crab"}, {"raw": "a red crab"}]},
 {"filename": "COCO_3.png", "split": "val", "sentences": [{"raw": "a cat"}, {"raw": "a black cat"}]}]}
END
size() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }'; } # of a PNG

# the references: one size, their own names, their own formats
run 0 coco --output-dir references --width 64 --height 48
check "references" [ "$(ls references | tr '\n' ' ')" = "COCO_1.jpg COCO_2.jpg COCO_3.png " ]
check "their size" [ "$(size references/COCO_3.png)" = 64x48 ]
run 0 coco --output-dir middles --mode crop --size 90
check "the middle, black around it" [ "$(size middles/COCO_3.png)" = 90x90 ]
# the validation split as DistriFusion dumps it
run 0 coco
check "prompts" [ "$(tr -d ' \t\n' <coco/prompts.json)" = '["acrab","ablackcat"]' ]
check "pictures" [ "$(ls coco/images | tr '\n' ' ')" = "0000.png 0001.png " ]
check "as they are" [ "$(size coco/images/0001.png)" = 96x80 ]
# one that is missing is told, the others are there, and the status says so
mv val2014/COCO_1.jpg away.jpg
run 1 coco --output-dir again; says "COCO_1.jpg"; says "1 of 3 pictures"
check "the others" [ "$(ls again | wc -l)" -eq 2 ]
mv away.jpg val2014/COCO_1.jpg
run 1 coco --input-dir nowhere; says "nowhere"; says "input-dir"
run 1 coco --json-file val2014/COCO_1.jpg; says "COCO_1.jpg"
echo '{"images": [{"filename": "../x.jpg", "sentences": [{"raw": "a"}]}]}' >bad.json
run 1 coco --json-file bad.json --output-dir out; says "bad.json: images\[0\]"; says "filename"
echo '{"images": [{"filename": "x.jpg", "sentences": []}]}' >bad.json
run 1 coco --json-file bad.json --output-dir out; says "sentences"

# pictures of captions: their names, their seeds, and what is there is not made again
run 0 generate --caption-file dataset_coco.json --sample-images-folder made --steps 1 --seed 5 --prompt "not this"
check "pictures of captions" [ "$(ls made | tr '\n' ' ')" = "COCO_1.png COCO_2.png COCO_3.png " ]
run 0 generate --prompt "a cat" --seed 7 --steps 1 -o cat.png
mkdir one two && cp made/COCO_3.png one/x.png && cp cat.png two/x.png
run 0 evaluate --input-root0 one --input-root1 two --metrics psnr; prints "PSNR: inf"
check "the record has the picture's own seed" grep -qa '"seed":7[,}]' made/COCO_3.png
rm made/COCO_2.png
run 0 generate --caption-file dataset_coco.json --sample-images-folder made --steps 1 --seed 5; says "2 of 3 pictures are there"
prints "made/COCO_2.png"
run 1 generate --caption-file dataset_coco.json --sample-images-folder made --steps 2 --seed 5; says "is there already, made with another steps (1, now 2)"
run 1 generate --caption-file dataset_coco.json --sample-images-folder made --steps 1 --seed 6; says "made with another seed"
run 0 generate --caption-file dataset_coco.json --caption-split val --split 1 2 --steps 1 -o part/
check "a part of the split" [ "$(ls part)" = 0001.png ]
run 0 generate --caption-file dataset_coco.json --split 0 2 --steps 1 -o more/
run 0 generate --caption-file dataset_coco.json --split 1 2 --steps 1 -o fewer/
check "of three captions two and one" [ "$(ls more fewer | tr -s '\n' ' ')" = "fewer: COCO_3.png more: COCO_1.png COCO_2.png " ]
run 2 generate --caption-file dataset_coco.json --steps 1 -o one.png; says "is no folder"
run 2 generate --caption-file dataset_coco.json --steps 1 --num-images 2; says "num-images"
run 2 generate --caption-file dataset_coco.json --split 2 2 --steps 1; says "split"
run 2 generate --caption-file dataset_coco.json --caption-split train --steps 1; says "train"

# evaluation, against what clean-fid and torchmetrics computed (tests/metrics compares closely)
networks="--inception $case/model/inception.safetensors --alexnet $case/model/alexnet.safetensors --lpips $case/model/lpips.safetensors"
run 0 evaluate --input_root0 "$case/a" --input_root1 "$case/b" $networks --batch_size 8; says "batch_size has no effect"
prints "PSNR: 26\.6"; prints "SSIM: 0\.[0-9]"; prints "LPIPS: 0\.09"; prints "FID: 24[01]\."
run 0 evaluate --ref "$case/a" --sample "$case/b" $networks --json; prints '"fid":.24[01]\.'
run 1 evaluate --input-root0 references --input-root1 made --metrics psnr; says "64x48"; says "is-gt"
run 0 evaluate --input-root0 references --input-root1 made --metrics psnr --is-gt; prints "PSNR: [0-9]"
run 1 evaluate --input-root0 "$case/a" --input-root1 made --metrics lpips; says "6 pictures"; says "has 3"
run 1 evaluate --input-root0 "$case/a" --input-root1 "$case/b"; says "alexnet.safetensors"; says "docs/evaluation.md"
run 1 evaluate --ref one --sample two $networks; says "one picture"
run 1 evaluate --ref "$case/a" --sample "$case/b" --inception "$case/model/alexnet.safetensors"; says "Conv2d_1a_3x3.conv.weight"
head -c 700 "$case/model/inception.safetensors" >cut.safetensors
run 1 evaluate --ref "$case/a" --sample "$case/b" --inception cut.safetensors; says "cut.safetensors"
head -c 900 "$case/a/0002.jpg" >one/x.png
run 1 evaluate --input-root0 one --input-root1 two --metrics psnr; says "one/x.png is broken or cut off"
run 2 evaluate --input-root0 one; says "input-root1"
run 2 evaluate --ref one --sample two --metrics psnr; says "pairs"
run 2 evaluate --ref one --sample two --metrics kid; says "kid"
exit $failed
