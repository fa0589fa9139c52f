#!/bin/sh
# Writes requirements/*.txt from requirements/*.in: exact versions with hashes for every platform, and no address in them.
set -eu
cd "$(dirname "$0")/../requirements"
lock() {
    ../.venv/bin/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --no-header "$@"
}
lock run.in -o run.txt
lock -c run.txt otlp.in -o otlp.txt
lock -c run.txt -c otlp.txt test.in -o test.txt
lock -c run.txt bootstrap.in -o bootstrap.txt
if grep -n '://' ./*.txt; then
    echo "a lock names an address; next step: see which package was not taken from an index" >&2
    exit 1
fi
echo "locks written; next step: make test, then commit requirements/"
