#!/bin/sh
# Runs a command with mpirun over emulated links, to know what a network would do before buying it.
# Each host is a network namespace; what joins them is in a namespace of its own, so this machine's
# network and firewall are never touched:
#
#   relay   the program links_relay, which holds packets back for their delay and lets a port send at the bandwidth; works on any kernel
#   netem   a bridge and a veth pair to each host; the bridge's end has delay and bandwidth (tc netem)
#   tbf     the same bridge: bandwidth alone
#
# In all of them the host's own end has the bandwidth by tc tbf: so the host's TCP finds its card
# busy and keeps what it cannot send yet, as it would on a real card, in place of filling a queue
# that its acknowledgements then wait in. Everything goes when the command ends, fails or is
# interrupted. Left out: loss, jitter, IPv6, links that differ from each other.
set -u
usage() {
    cat <<'END'
usage: links.sh [OPTIONS] -- COMMAND...
Runs COMMAND with mpirun on emulated hosts that reach each other by TCP over links of a given bandwidth and delay. Needs root.

  --hosts N            hosts (2 to 250); default 2
  --ranks-per-host N   ranks on each (1 to 1024); default 1
  --bandwidth B        of each host's link, each way: a number and kbit, mbit or gbit; default unlimited
  --delay D            from host to host, one way: a number and us, ms or s; default 0ms
  --emulation HOW      netem or relay (see docs/links.md); default relay
  --without-delay      limit the bandwidth alone (tc tbf), for machines that can emulate no delay
  --relay PROGRAM      links_relay; default build/bench/links_relay of this source tree
  --help               this text

The exit status is the command's; 2: wrong usage, 3: this machine cannot do it; 130, 143: interrupted. At the end the time and what each
host sent go to standard error.

examples:
  bench/links.sh --bandwidth 1gbit --delay 1ms -- build/tests/comm_rank speed
  bench/links.sh --hosts 4 --ranks-per-host 2 --bandwidth 10gbit --delay 0.1ms -- \
      build/tessera generate --prompt "a lion" --ulysses-degree 8 --threads 1 -o lion.png
END
}
fail() { # STATUS MESSAGE
    echo "links: $2" >&2
    exit "$1"
}

# number_of OPTION VALUE LARGEST: checks a whole number from 1
number_of() {
    case $2 in '' | *[!0-9]* | 0* | ?????*) fail 2 "$1 $2: not a whole number from 1 to $3" ;; esac
    [ "$2" -le "$3" ] || fail 2 "$1 $2: at most $3"
}
# quantity OPTION VALUE UNIT=FACTOR...: the value as a whole number of the smallest unit
quantity() {
    option=$1 value=$2
    shift 2
    for unit; do
        number=${value%"${unit%=*}"}
        [ "$number" != "$value" ] || continue
        case $number in '' | . | *.*.* | *[!0-9.]*) continue ;; esac
        awk "BEGIN { printf \"%.0f\", $number * ${unit#*=} }"
        return
    done
    fail 2 "$option $value: a number and a unit are wanted, as in --bandwidth 1gbit, --delay 0.5ms"
}

parse() {
    hosts=2 ranks=1 bandwidth=unlimited delay=0ms emulation=relay without_delay=no relay=$(dirname "$0")/../build/bench/links_relay
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in --help | -h) usage; exit 0 ;; --without-delay) without_delay=yes; shift; continue ;; esac
        case $1 in
            --hosts | --ranks-per-host | --bandwidth | --delay | --emulation | --relay) [ $# -gt 1 ] || fail 2 "$1 wants a value" ;;
            *) fail 2 "$1: no such option (the command comes after --); see --help" ;;
        esac
        case $1 in
            --hosts) hosts=$2 ;;
            --ranks-per-host) ranks=$2 ;;
            --bandwidth) bandwidth=$2 ;;
            --delay) delay=$2 ;;
            --emulation) emulation=$2 ;;
            --relay) relay=$2 ;;
        esac
        shift 2
    done
    [ $# -gt 1 ] || fail 2 "no command: links.sh [OPTIONS] -- COMMAND...; see --help"
    number_of --hosts "$hosts" 250
    number_of --ranks-per-host "$ranks" 1024
    [ "$hosts" -ge 2 ] || fail 2 "--hosts $hosts: at least 2"
    case $emulation in netem | relay) ;; *) fail 2 "--emulation $emulation: netem or relay" ;; esac
    bits=0
    [ "$bandwidth" = unlimited ] || bits=$(quantity --bandwidth "$bandwidth" gbit=1e9 mbit=1e6 kbit=1e3) || exit 2
    microseconds=$(quantity --delay "$delay" us=1 ms=1e3 s=1e6) || exit 2
}

in_host() { # NUMBER COMMAND...
    namespace=$name-host$1
    shift
    ip netns exec "$namespace" "$@"
}
host_list() { seq "$hosts"; }

# Never fails: whatever was made goes, whoever runs in the namespaces is ended.
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$launcher" ] && kill -TERM "$launcher" 2>/dev/null; then
        for _ in $(seq 50); do
            kill -0 "$launcher" 2>/dev/null || break
            sleep 0.1
        done
    fi
    for namespace in $(ip netns list | sed -n "s/^\($name-[a-z0-9]*\).*/\1/p"); do
        for pid in $(ip netns pids "$namespace" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
        ip netns delete "$namespace"
    done
    rm -rf "$folder"
}

# Which emulation, once the switch's namespace is there to try it in.
choose() {
    if [ $without_delay = yes ]; then emulation=tbf; delay=none; microseconds=0; fi
    if [ "$bits$microseconds" = 00 ]; then emulation=none; return; fi
    instead="use --without-delay to have the bandwidth alone"
    if [ "$bits" != 0 ]; then
        answer=$(in_switch tc qdisc add dev lo root tbf rate 1mbit burst 64kb limit 64mb 2>&1) || fail 3 "no tc tbf (module sch_tbf): $answer"
        in_switch tc qdisc delete dev lo root
    fi
    case $emulation in
        netem)
            answer=$(in_switch tc qdisc add dev lo root netem delay 1ms 2>&1) ||
                fail 3 "this kernel has no netem (module sch_netem): $answer Use --emulation relay; or $instead"
            ;;
        relay)
            [ -x "$relay" ] || fail 3 "no program $relay: run make, or name it with --relay; or use --emulation netem; or $instead"
            [ -c /dev/net/tun ] || fail 3 "no /dev/net/tun for links_relay (module tun): use --emulation netem; or $instead"
            ;;
    esac
}

in_switch() { ip netns exec "$name-switch" "$@"; }

# tc's words for a link's bandwidth. 0.97: Ethernet's 38 bytes around every 1500, which tbf does not
# count. The burst is what 2 ms can send: less, and a busy machine's late timers lower the
# bandwidth.
limit() { awk "BEGIN { burst = $bits / 8 * 0.002; printf \"tbf rate %.0fbit burst %.0f limit 64mb\", $bits * 0.97, burst < 65536 ? 65536 : burst }"; }

join_by_bridge() {
    in_switch ip link add bridge type bridge && in_switch ip link set bridge up || return 1
    case $emulation$bits in
        netem0) port="netem delay ${microseconds}us limit 100000" ;;
        netem*) port="netem delay ${microseconds}us limit 100000 rate ${bits}bit" ;;
        *) port=$(limit) ;;
    esac
    for i in $(host_list); do
        in_switch ip link add "port$i" type veth peer name link0 netns "$name-host$i" &&
            in_switch ip link set "port$i" master bridge up || return 1
        # shellcheck disable=SC2086
        [ $emulation = none ] || in_switch tc qdisc add dev "port$i" root $port || return 1
    done
}

join_by_relay() {
    : >"$folder/relay"
    # shellcheck disable=SC2046
    in_switch "$relay" "$bits" "$microseconds" $(host_list | sed 's/^/port/') >"$folder/relay" 2>&1 &
    relay_process=$!
    for _ in $(seq 100); do
        grep -q ready "$folder/relay" && break
        kill -0 $relay_process 2>/dev/null || break
        sleep 0.05
    done
    grep -q ready "$folder/relay" || { cat "$folder/relay" >&2; return 1; }
    for i in $(host_list); do
        in_switch ip link set "port$i" netns "$name-host$i" && in_host "$i" ip link set "port$i" name link0 txqueuelen 1000 || return 1
    done
}

build() {
    ip netns add "$name-switch" || fail 3 "no network namespace can be made here"
    choose
    for i in $(host_list); do
        ip netns add "$name-host$i" && mkdir "$folder/host$i" || return 1
    done
    if [ "$emulation" = relay ]; then join_by_relay; else join_by_bridge; fi || return 1
    for i in $(host_list); do
        in_host "$i" ip address add "$subnet.$i/24" dev link0 && in_host "$i" ip link set link0 up && in_host "$i" ip link set lo up || return 1
        in_host "$i" sh -c 'echo cubic >/proc/sys/net/ipv4/tcp_congestion_control' 2>/dev/null # the usual one, whatever this machine has
        # shellcheck disable=SC2046
        [ "$bits" = 0 ] || in_host "$i" tc qdisc add dev link0 root $(limit) || return 1
    done
}

report() { # SECONDS
    echo "links: $hosts hosts of $ranks, $bandwidth, $delay one way (emulation: $emulation): $1 s, status $status" >&2
    for i in $(host_list); do
        echo "links: host $i sent $(in_host "$i" cat /sys/class/net/link0/statistics/tx_bytes) bytes" >&2
    done
}

parse "$@"
while [ "$1" != -- ]; do shift; done
shift
[ "$(id -u)" -eq 0 ] || fail 3 "only root may make network namespaces: run it with sudo"
for tool in ip:iproute2 tc:iproute2 unshare:util-linux awk:mawk mpirun:openmpi-bin; do
    command -v "${tool%:*}" >/dev/null || fail 3 "${tool%:*} is missing: apt-get install ${tool#*:}"
done
name=links$$ subnet=10.77.0 launcher='' relay_process=''
folder=$(mktemp -d) || fail 3 "no folder for temporary files"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
ln -s "$(cd "$(dirname "$0")" && pwd)/links_agent.sh" "$folder/agent" # mpirun cuts the agent's name at spaces
build || fail 3 "the links could not be made"

export LINKS_NAME="$name" LINKS_FOLDER="$folder" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 TMPDIR="$folder/host1"
placed=$(host_list | sed "s/.*/$subnet.&:$ranks/" | paste -sd, -)
start=$(date +%s%N)
# shellcheck disable=SC2016
in_host 1 unshare --uts sh -c 'hostname host1; exec "$@"' sh mpirun --mca plm rsh --mca plm_rsh_agent "$folder/agent" \
    --mca plm_rsh_no_tree_spawn 1 --mca oob_tcp_if_include link0 --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include link0 \
    --bind-to none -H "$placed" -n $((hosts * ranks)) "$@" <&0 &
launcher=$!
wait $launcher
status=$?
launcher=''
report "$(awk "BEGIN { printf \"%.2f\", ($(date +%s%N) - $start) / 1e9 }")"
exit $status
