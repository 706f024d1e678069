#!/bin/sh
# Tests `tessera plan`: sh test_plan.sh PROGRAM, run in the repository root. Prints a line per
# check; exits 1 if any failed. Left out: whether predictions are right
# (tests/parallel/test_plan*.c).
program=$(realpath "$1")
. tests/check.sh

# run STATUS-EXPECTED ARGUMENTS...: output in $work/out and $work/err.
run() {
    want=$1
    shift
    XDG_CACHE_HOME=$work/cache "$program" plan "$@" >"$work/out" 2>"$work/err"
    got=$?
    check "plan $* exits $want" test "$got" -eq "$want"
}

emoji="--model models/emoji --speed 100G"

run 0 $emoji --ranks 8 --bandwidth 1Gbit --latency 1ms
prints 'SD3Transformer2DModel'
prints 'limited by'
prints 'mpirun -n 8 tessera generate'
run 0 $emoji --ranks 4 --bandwidth 10GB/s --latency 20us --top 0 --dtype f32
prints 'ring 2 x ulysses 2 .* 4.3 MB *1.1 MB'  # 1072128 + 12288 by each
check "nothing is left out" sh -c '! grep -q more "$1"' - "$work/out"
check "plans are exact" sh -c '! grep -q "not exact" "$1"' - "$work/out"
run 0 $emoji --ranks 4 --bandwidth 10GB/s --latency 20us --top 0 --allow-displaced
prints 'patch 4 (not exact)'
prints 'pipefusion 4, patches 8 (not exact)'

# JSON, hosts, memory
run 1 $emoji --hosts 2x2 --bandwidth 100Mbit --latency 0.1ms --memory 1MiB --json --top 3
says 'nothing fits --memory 1.0 MiB on 4 ranks' 
prints '"ranks":[[:space:]]*4'
prints '"missing_bytes":[[:space:]]*[1-9]'
prints '"limited_by":[[:space:]]*"memory"'
check "three plans" test "$(grep -c '"mesh"' "$work/out")" -eq 3
run 1 $emoji --ranks 2 --bandwidth 1Gbit --latency 1ms --memory 1MiB
check "nothing is recommended" sh -c '! grep -q "the best" "$1"' - "$work/out"
says 'nor on any number up to 256'
run 1 $emoji --ranks 1 --memory 20MiB
says 'ranks would do, as'
would=$(sed -n 's/.*: \([0-9]*\) ranks would do.*/\1/p' "$work/err")
run 0 $emoji --ranks "$would" --memory 20MiB
run 1 $emoji --ranks 2 --bandwidth 1Gbit --latency 1ms --memory 1MiB
prints 'memory: .* missing'
run 0 $emoji --ranks 1
prints 'one rank'
run 0 $emoji --ranks 1024 --bandwidth 10Gbit --latency 10us --width 512 --height 512 --num-images 64
prints 'more (--top 0 shows all)'

# no rank is recommended to idle: pictures of one's own need as many pictures
run 0 $emoji --ranks 8 --top 0
check "one picture has no data degree" sh -c '! grep -q "^data\|idle" "$1"' - "$work/out"
run 0 $emoji --ranks 8 --num-images 8 --top 0
prints '^data 8'

# a published model by its name, and a command that can be pasted
run 0 --model sdxl --speed 1T --ranks 4 --size 512x768 --steps 7 --num-images 2
prints "^the best: mpirun -n 4 tessera generate --model sdxl --steps 7 --num-images 2 --width 512 --height 768 --prompt 'a lion' --"
mkdir "$work/a model"
cp -r models/emoji/. "$work/a model/"
run 0 --model "$work/a model" --speed 100G --ranks 2 --steps 1
if command -v mpirun >/dev/null; then
    sed -n 's/^the best: mpirun/mpirun --oversubscribe/p' "$work/out" >"$work/command.sh"
    (cd "$work" && mkdir bin && ln -s "$program" bin/tessera && PATH=$work/bin:$PATH OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive timeout 300 sh command.sh) \
        >"$work/out" 2>"$work/err" </dev/null
    there "$work/tessera-a-lion-0.png"
fi

# a drawing
run 0 $emoji --hosts 4x2 --bandwidth 1Gbit --latency 1ms --svg "$work/mesh.svg"
check "the drawing begins as SVG" grep -q '^<svg xmlns="http://www.w3.org/2000/svg"' "$work/mesh.svg"
check "eight ranks are drawn" test "$(grep -c '<circle' "$work/mesh.svg")" -eq 8
check "four hosts are drawn" test "$(grep -c '<title>host' "$work/mesh.svg")" -eq 4
check "lines are drawn" grep -q 'bytes a step' "$work/mesh.svg"

# config files are enough
for part in transformer vae text_encoder text_encoder_2 tokenizer; do
    mkdir -p "$work/bare/$part"
    cp models/emoji/$part/*.json "$work/bare/$part/"
done
cp models/emoji/*.json "$work/bare/"
run 0 --model "$work/bare" --speed 100G --ranks 4 --bandwidth 1Gbit --latency 1ms
prints 'SD3Transformer2DModel'

# the measured speed is kept
run 0 --model models/emoji --ranks 2
check "a speed is kept, of these kernels" grep -qE 'onednn [a-z0-9_]+ \+ [a-z0-9]+; .* channels' "$work/cache/tessera/speed.json"
cp "$work/cache/tessera/speed.json" "$work/kept"
run 0 --model models/emoji --ranks 2
check "and used again" cmp "$work/kept" "$work/cache/tessera/speed.json"
echo '[' >"$work/cache/tessera/speed.json"
run 0 --model models/emoji --ranks 2
check "a broken one is written anew" grep -q 'channels' "$work/cache/tessera/speed.json"

# wrong use
run 2 --ranks 4 --model
says '--model'
# a small b behind k, M or G is a bit: 1000 kb/s are 1 Mbit/s, 1000 kB/s eight of them
for bandwidth in 1Mbit 1000kb/s 1Mbps 8Mbit 1000kB/s 1MB/s; do
    "$program" plan $emoji --speed 100G --hosts 2x1 --bandwidth $bandwidth --json 2>/dev/null | cksum >"$work/plan-$(echo $bandwidth | tr / -)"
done
for same in "1Mbit 1000kb-s" "1Mbit 1Mbps" "8Mbit 1000kB-s" "8Mbit 1MB-s"; do
    check "$same" cmp "$work/plan-${same% *}" "$work/plan-${same#* }"
done
check "bits are not bytes" sh -c "! cmp -s '$work/plan-1Mbit' '$work/plan-8Mbit'"
# exactly so many of the plainest unit, and the defaults that the help names
while read -r option value plain; do
    [ "$value" != default ] && set -- "--$option" "$value" || set --
    "$program" plan --model models/emoji --speed 100G --hosts 4x2 --json --top 1 "$@" >"$work/plan" 2>/dev/null
    "$program" plan --model models/emoji --speed 100G --hosts 4x2 --json --top 1 "--$option" "$plain" >"$work/plain" 2>/dev/null
    check "$option: $value is $plain" cmp "$work/plan" "$work/plain"
done <<END
bandwidth default 125000000B/s
bandwidth 1000000000bit 125000000B/s
bandwidth 1000kbit 125000B/s
bandwidth 1Mbit 125000B/s
bandwidth 1Gbit 125000000B/s
bandwidth 0.001Tbit 125000000B/s
bandwidth 1000kB/s 1000000B/s
bandwidth 1MB/s 1000000B/s
bandwidth 1GB/s 1000000000B/s
bandwidth 0.001TB/s 1000000000B/s
bandwidth 1024KiB/s 1048576B/s
bandwidth 1MiB/s 1048576B/s
bandwidth 1GiB/s 1073741824B/s
host-bandwidth default 2000000000B/s
latency default 0.0001s
latency 1ms 0.001s
latency 1000us 0.001s
latency 1000µs 0.001s
latency 1000μs 0.001s
latency 1000000ns 0.001s
host-latency default 0.00002s
memory 1000kB 1000000B
memory 1MB 1000000B
memory 0.001GB 1000000B
memory 0.000001TB 1000000B
memory 1024K 1048576B
memory 1M 1048576B
memory 0.0009765625G 1048576B
memory 0.00000095367431640625T 1048576B
memory 1024KiB 1048576B
memory 1MiB 1048576B
memory 0.0009765625GiB 1048576B
memory 0.00000095367431640625TiB 1048576B
speed 100000000k 100000000000
speed 100000M 100000000000
speed 100G 100000000000
speed 0.1T 100000000000
speed 0.0001P 100000000000
END
run 2 $emoji --ranks 4 --bandwidth 1gb/s
says 'such as 1Gbit'
for same in 1Gb/s 1Gbps 1Gbit/s 125MB/s '1 Gbit'; do
    run 0 $emoji --ranks 2 --bandwidth "$same" --latency 100µs --memory 16G
    prints '125 MB/s and 0.1 ms'
done
run 2 $emoji --ranks 4 --latency 5
says 'such as 1ms'
run 2 $emoji --ranks 4 --memory lots
says 'such as 16GiB'
run 2 $emoji --hosts 2 --ranks 2
says 'HOSTSxRANKS'
run 2 $emoji --hosts 2x2 --ranks 5
says 'more than'
run 2 $emoji --ranks 2 --width 100
says 'multiples of 16'
run 1 --model "$work/none" --ranks 2 --speed 100G
says 'no such folder'

exit $failed
