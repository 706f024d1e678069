#!/bin/sh
# A host that goes away: two network namespaces with a cable between them stand for two hosts, each
# runs two ranks, the cable is cut. The ranks on both sides must end within 10 s and name one of the
# other side. Needs root, `ip` and `unshare`: exits 77 (skipped) without.
#   test_network.sh FOLDER_OF_THE_TEST_PROGRAMS
set -u
programs=$1 # also in the launcher's agent, below
if [ "${2-}" = agent ]; then # what mpirun runs for ssh: test_network.sh FOLDER agent HOST COMMAND...
    shift 3
    exec nsenter --net="/run/netns/$TESSERA_TEST_NAMESPACE" unshare --uts sh -c "hostname far; export TMPDIR=$TESSERA_TEST_FOLDER; $*"
fi
[ "$(id -u)" -eq 0 ] && command -v ip nsenter unshare >/dev/null || exit 77
export TESSERA_TEST_NAMESPACE="tessera$$" TESSERA_TEST_FOLDER
TESSERA_TEST_FOLDER=$(mktemp -d)
output=$TESSERA_TEST_FOLDER/output near="tsn$$" far="tsf$$"
ip netns add "$TESSERA_TEST_NAMESPACE" 2>/dev/null || { rm -rf "$TESSERA_TEST_FOLDER"; exit 77; }

pids() { sed -n 's/^rank . pid //p' "$output"; }
cleanup() {
    for pid in $(pids); do kill -9 "$pid" 2>/dev/null; done
    ip link delete "$near" 2>/dev/null
    ip netns delete "$TESSERA_TEST_NAMESPACE"
    rm -rf "$TESSERA_TEST_FOLDER"
}
trap cleanup EXIT

in_namespace() { ip netns exec "$TESSERA_TEST_NAMESPACE" "$@"; }
ip link add "$near" type veth peer name "$far" || exit 77
ip link set "$far" netns "$TESSERA_TEST_NAMESPACE"
ip address add 10.213.77.1/24 dev "$near"
ip link set "$near" up
in_namespace ip address add 10.213.77.2/24 dev "$far"
in_namespace ip link set "$far" up
in_namespace ip link set lo up

mpirun --mca plm_rsh_agent "$0 $programs agent" --mca oob_tcp_if_include 10.213.77.0/24 --mca btl self,tcp \
    --mca btl_tcp_if_include 10.213.77.0/24 -H 10.213.77.1:2,10.213.77.2:2 -n 4 "$programs/comm_rank" work 60 >"$output" 2>&1 &
launcher=$!
for _ in $(seq 1200); do # as in test_failure.sh
    [ "$(pids | wc -l)" -eq 4 ] && break
    kill -0 "$launcher" 2>/dev/null || break
    sleep 0.1
done
[ "$(pids | wc -l)" -eq 4 ] || { cat "$output" >&2; exit 1; }
sleep 1
ip link set "$near" down
start=$(date +%s%N)
left=4
while [ $left -gt 0 ] && [ $((($(date +%s%N) - start) / 1000000)) -lt 10000 ]; do
    left=0
    for pid in $(pids); do
        state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
        [ -z "$state" ] || [ "$state" = Z ] || left=$((left + 1))
    done
    sleep 0.1
done
kill "$launcher" 2>/dev/null
if [ $left -gt 0 ] || ! grep -q 'rank [01] failed: rank [23] on far: no sign of life' "$output"; then
    echo "FAIL: $left ranks go on after the network was cut" >&2
    cat "$output" >&2
    exit 1
fi
echo "2 passed, 0 failed"
