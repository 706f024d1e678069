#!/bin/sh
# `tessera worker` as a person starts it: sh test_worker.sh PROGRAM, run in the repository root.
# What it answers is in tests/split.
program=$(realpath "$1")
. tests/check.sh
model=tests/cases/sd3/model

run 0 worker --make-identity --identity "$work/id.pem"
prints "sha256//"
check "the identity is its owner's" test "$(stat -c %a "$work/id.pem")" = 600
run 1 worker --make-identity --identity "$work/id.pem"
says "id.pem"
run 0 split --model $model --split-start 1 --split-end 2 --key "$work/id.pem" -o "$work/part.safetensors"
run 0 split --model $model --split-start 0 --split-end 1 -o "$work/other.safetensors"
(umask 077; echo 0123456789abcdef0123456789abcdef >"$work/tokens")

# what is missing is named
run 2 worker; says "--identity"
run 2 worker --identity "$work/id.pem"; says "--split-model-file-path"
run 2 worker --identity "$work/id.pem" --part "$work/part.safetensors"; says "--token-file"
run 2 worker --identity "$work/id.pem" --part "$work/part.safetensors" --token-file "$work/tokens" --manifest-pin x; says "--manifest"
run 2 worker --identity "$work/id.pem" --part "$work/part.safetensors" --token-file "$work/tokens" --device cuda; says "device"
run 2 worker --identity "$work/id.pem" --part "$work/part.safetensors" --token-file "$work/tokens" --max-request 1PiB; says "max-request"

# files that are wrong
serve() { run 1 worker --identity "$work/id.pem" --token-file "$work/tokens" --port 0 --threads 1 "$@"; }
serve --part "$work/none"; says "none"
serve --part "$work/other.safetensors" --manifest "$work/part.manifest.json"; says "not a part of the manifest"
serve --part "$work/part.safetensors" --manifest "$work/part.manifest.json" --manifest-pin AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; says "manifest"
serve --part "$work/part.safetensors" --host 256.1.1.1; says "256.1.1.1"
serve --part "$work/part.safetensors" --insecure --host 0.0.0.0; says "127.0.0.1"
chmod 644 "$work/tokens"; serve --part "$work/part.safetensors"; says "chmod 600"; chmod 600 "$work/tokens"
chmod 644 "$work/id.pem"; serve --part "$work/part.safetensors"; says "id.pem"; chmod 600 "$work/id.pem"
# a changed weight is another part
cp "$work/part.safetensors" "$work/changed.safetensors"
size=$(stat -c %s "$work/changed.safetensors")
printf '\001\002' | dd of="$work/changed.safetensors" bs=1 seek=$((size - 8)) conv=notrunc 2>"$work/err"
serve --part "$work/changed.safetensors" --manifest "$work/part.manifest.json"; says "not a part of the manifest"

# plain HTTP for programs on this machine, without tokens
"$program" worker --part "$work/part.safetensors" --port 0 --identity "$work/id.pem" --insecure --threads 1 -q >"$work/out" 2>"$work/err" &
pid=$!
wait_until grep -q serves "$work/out"
prints "http://127.0.0.1:"
kill -INT $pid
wait $pid
check "SIGINT ends it with 0" test $? -eq 0
# as the published server is called; it serves until SIGTERM, and ends well
"$program" worker --split_model_file_path "$work/part.safetensors" --host 127.0.0.1 --port 0 --device cpu --identity "$work/id.pem" \
    --token-file "$work/tokens" --manifest "$work/part.manifest.json" --threads 1 >"$work/out" 2>"$work/err" &
pid=$!
wait_until grep -q serves "$work/out"
prints "SD3Transformer2DModel, blocks 1 to 2"
prints "tessera-split-1 reproducible bf16"
prints "https://127.0.0.1:"
# SIGHUP: the token file is read again; one that is wrong changes nothing
echo fedcba9876543210fedcba9876543210 >"$work/tokens"
kill -HUP $pid
wait_until grep -q "read again: 1 tokens added, 1 revoked" "$work/err"
says "read again: 1 tokens added, 1 revoked"
echo short >"$work/tokens"
kill -HUP $pid
wait_until grep -q "tokens of before stay valid" "$work/err"
says "line 1.*the tokens of before stay valid"
kill -TERM $pid
wait $pid
check "SIGTERM ends it with 0" test $? -eq 0
says "stopping"
exit $failed
