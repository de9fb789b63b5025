#!/usr/bin/env bash
# Checks a node against its own OpenAPI document with schemathesis: every answer has to be one that the
# document describes, for requests that it allows and for ones that it does not.
#
# usage: schemathesis.sh NODE_PROGRAM FOLDER, where FOLDER is for schemathesis itself and its report
set -euo pipefail
node=$1 folder=$2
version=4.32.5
here=$(cd "$(dirname "$0")" && pwd)

if ! "$folder/bin/schemathesis" --version 2>/dev/null | grep -qF "$version"; then
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet "schemathesis==$version"
fi

export BALTER_TOKEN=a-token-for-schemathesis
# The scenario rests for a millisecond, ten times a second at most: there is nothing to load here.
"$node" --port 17621 --max-tps 10 --max-duration 1 --max-runs 4 --max-concurrency 10 \
    --max-requests 100000 --allow-closed-loops &
process=$!
trap 'kill $process 2>/dev/null; wait $process 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    curl -fsS 127.0.0.1:17621/health >/dev/null 2>&1 && break
    sleep 0.1
done

cd "$folder"
"$folder/bin/schemathesis" --config-file "$here/schemathesis.toml" run http://127.0.0.1:17621/openapi.json \
    --header "Authorization: Bearer $BALTER_TOKEN" --url http://127.0.0.1:17621
kill -0 $process
echo 'schemathesis: 1 passed, 0 failed'
