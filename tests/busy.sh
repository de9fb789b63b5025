#!/usr/bin/env bash
# The suite on a busy machine: runs `cargo test --workspace` so often (5 times if nothing is said)
# with two endless loops beside it, and tells how often it passed and what failed. For developers:
# a test that fails here depends on time that a busy machine does not give it.
#
#     tests/busy.sh [times] [more arguments of cargo test]
#     tests/busy.sh 20 --test stall
set -euo pipefail
cd "$(dirname "$0")/.."

times=${1:-5}
shift || true
if ! [[ $times =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 [times] [more arguments of cargo test]" >&2
    exit 2
fi

# Before the loops: what is to be busy is the tests, not the compiler.
cargo test --workspace --no-run "$@"

logs=$(mktemp -d)
loops=()
# Also when this is interrupted: the loops would run for ever.
trap 'kill "${loops[@]}" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM HUP
for _ in 1 2; do
    sh -c 'while :; do :; done' &
    loops+=($!)
done

passed=0
for ((round = 1; round <= times; round++)); do
    log=$logs/$round.log
    begun=$SECONDS
    if cargo test --workspace --no-fail-fast "$@" >"$log" 2>&1; then
        result=passed
        passed=$((passed + 1))
    else
        result=failed
    fi
    printf 'round %d of %d: %s in %d s\n' "$round" "$times" "$result" "$((SECONDS - begun))"
    # The harness names a failed test in its list and once more with what it has printed.
    grep -hE '^test .* FAILED$|^error: test failed' "$log" || true
done

printf '%d of %d passed' "$passed" "$times"
if ((passed < times)); then
    printf '; what failed said more in %s\n' "$logs"
    exit 1
fi
printf '\n'
rm -r "$logs"
