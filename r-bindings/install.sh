#!/usr/bin/env bash
# Installs the package, its gRPC part too, into r-bindings/dist/library for tests and benchmarks that serve models from R.
# Compiles only what changed, and does nothing where nothing did: others may be running what is there.
set -euo pipefail
cd "$(dirname "$0")"

mkdir -p dist/library
exec 9> dist/.lock
command -v flock > /dev/null && flock 9
bash build.sh --sources
state=$({ R --version; pkg-config --modversion grpc++ protobuf || true; find configure DESCRIPTION NAMESPACE R inst src -type f ! -name '*.o' ! -name '*.so' ! -name '*.pb.*' \
  ! -name Makevars -print0 | sort -z | xargs -0 cat; } 2> /dev/null | cksum)
[ -d dist/library/mlbridge ] && [ "$state" = "$(cat dist/library/.state 2> /dev/null)" ] && exit 0
R CMD INSTALL --no-docs --no-test-load --library=dist/library . > dist/install.log 2>&1 || { tail -n 40 dist/install.log >&2; exit 1; }
echo "$state" > dist/library/.state
