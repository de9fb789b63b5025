#!/usr/bin/env bash
# Three nodes on one machine, each in a network namespace of its own, and a target in a fourth: a cluster
# to pull plugs in. All traffic stays inside; nothing leads out.
#
#   up [PROGRAM]         start it (the program that `cargo build --release --features rt --example cluster` makes)
#   status               nodes and runs, as the first node that answers sees them
#   run [TPS] [SECONDS]  load the target (30000 a second for 10 s), and wait for the end
#   partition N, heal N  cut node N off from the other nodes, not from the target; join it again
#   kill N, start N      kill -9, and start again
#   down                 stop all, and remove the namespaces
#
# Needs root, iproute2, curl, and nginx for the target.
set -euo pipefail

PREFIX=balter
STATE=${TMPDIR:-/tmp}/balter-namespaces
NET=10.77.0
TARGET=$NET.9
PORT=7621

die() { echo "$*" >&2; exit 1; }
inside() { ip netns exec "$PREFIX-$1" "${@:2}"; }
has() { ip netns list | grep -qw "$PREFIX-$1"; }
token() { cat "$STATE/token"; }

ask() { # node, path, more arguments of curl
    inside "$1" curl -fsS --max-time 5 -H "Authorization: Bearer $(token)" "http://$NET.$1:$PORT$2" "${@:3}"
}

# The first node that answers.
living() {
    for node in 1 2 3; do
        if has "$node" && ask "$node" /health >/dev/null 2>&1; then echo "$node"; return; fi
    done
    die 'no node answers: is it up?'
}

# Programs are told by the namespace that they are in.
stop() { # namespace
    has "$1" || return 0
    ip netns pids "$PREFIX-$1" | xargs -r kill -9 2>/dev/null || true
}

host() { # name, address
    ip netns add "$PREFIX-$1"
    ip -n "$PREFIX-hub" link add "to-$1" type veth peer name eth0 netns "$PREFIX-$1"
    ip -n "$PREFIX-hub" link set "to-$1" master bridge up
    ip -n "$PREFIX-$1" addr add "$2/24" dev eth0
    ip -n "$PREFIX-$1" link set eth0 up
    ip -n "$PREFIX-$1" link set lo up
}

start() { # number
    local cores
    cores=$(nproc)
    # The last core is the target's, where there is another.
    local core=$(( cores > 1 ? ($1 - 1) % (cores - 1) : 0 ))
    BALTER_CORES=$core inside "$1" "$(cat "$STATE/program")" --bind "$NET.$1" --peers "$NET.1,$NET.2,$NET.3" \
        --token-file "$STATE/token" --allow-targets >"$STATE/node-$1.log" 2>&1 &
}

up() {
    local program=${1:-target/release/examples/cluster}
    [ -x "$program" ] || die "there is no program $program: cargo build --release --features rt --example cluster"
    command -v nginx >/dev/null || die 'nginx is missing: apt-get install nginx'
    down
    trap 'down' ERR
    mkdir -p "$STATE/nginx"
    realpath "$program" >"$STATE/program"
    (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$STATE/token")
    ip netns add "$PREFIX-hub"
    ip -n "$PREFIX-hub" link add bridge type bridge
    ip -n "$PREFIX-hub" link set bridge up
    host target "$TARGET"
    cat >"$STATE/nginx.conf" <<NGINX
worker_processes 1;
pid $STATE/nginx/pid;
error_log $STATE/nginx/error.log;
events { worker_connections 8192; }
http {
    access_log off;
    keepalive_requests 1000000;
    server { listen $TARGET:80; location / { return 200 "Hello world\n"; } }
}
NGINX
    inside target taskset -c $(( $(nproc) - 1 )) nginx -c "$STATE/nginx.conf"
    for node in 1 2 3; do host "$node" "$NET.$node"; start "$node"; done
    for _ in $(seq 100); do
        if [ "$(ask 1 /peers 2>/dev/null | grep -o '"state":"alive"' | wc -l)" = 3 ]; then
            echo "three nodes at $NET.1 to $NET.3, port $PORT; the target is http://$TARGET/"
            echo "$0 run"
            return
        fi
        sleep 0.2
    done
    cat "$STATE"/node-*.log >&2
    down
    die 'the nodes did not find each other'
}

down() {
    trap - ERR
    for name in 1 2 3 target hub; do
        stop "$name"
        has "$name" && ip netns del "$PREFIX-$name"
    done
    rm -rf "$STATE"
}

status() {
    local node
    node=$(living)
    { ask "$node" /peers; echo; } | tr '{' '\n' | sed -n 's/.*"name":"\([^"]*\)".*"state":"\([^"]*\)".*/node \1 \2/p'
    ask "$node" /metrics | grep '^balter_run_' || true
}

run() {
    local node id view
    node=$(living)
    id=$(ask "$node" /run --json "{\"name\": \"visitor\", \"duration\": ${2:-10}, \"max_tps\": ${1:-30000},
        \"args\": {\"url\": \"http://$TARGET/\"}}" | sed 's/.*"id":"\([^"]*\)".*/\1/')
    echo "run $id, led by node $node"
    while view=$(ask "$node" "/runs/$id"); do
        # shellcheck disable=SC2001 # one expression for all
        echo "$view" | sed 's/.*"state":"\([a-z]*\)","request".*"elapsed":\([0-9.]*\).*"goal_tps":\([0-9]*\),"tps":\([0-9]*\).*"succeeded":\([0-9]*\),"failed":\([0-9]*\).*/\1: \2 s, \4 of \3 a second/'
        case $view in *'"state":"finished"'* | *'"state":"failed"'*) break ;; esac
        sleep 1
    done
    # shellcheck disable=SC2001
    echo "$view" | sed 's/.*"verdict":"\([^"]*\)".*/\1/'
}

cut_off() { # add or del, number
    for other in 1 2 3; do
        [ "$other" = "$2" ] || ip -n "$PREFIX-$2" route "$1" blackhole "$NET.$other/32"
    done
}

[ "$(id -u)" = 0 ] || die 'network namespaces are made by root: sudo'
case ${1:-} in
    up) up "${2:-}" ;;
    down) down ;;
    status) status ;;
    run) run "${2:-}" "${3:-}" ;;
    partition) cut_off add "${2:?which node}" ;;
    heal) cut_off del "${2:?which node}" ;;
    kill) stop "${2:?which node}" ;;
    start) start "${2:?which node}" ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
