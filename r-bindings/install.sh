#!/usr/bin/env bash
# Installs the package, its gRPC part too, into r-bindings/dist/library for tests and benchmarks that serve models from R.
# Compiles only what changed; waits for another run of itself.
set -euo pipefail
cd "$(dirname "$0")"

mkdir -p dist/library
exec 9> dist/.lock
command -v flock > /dev/null && flock 9
bash build.sh --sources
R CMD INSTALL --no-docs --no-test-load --library=dist/library . > dist/install.log 2>&1 || { tail -n 40 dist/install.log >&2; exit 1; }
