#!/usr/bin/env bash
# Makes the source package r-bindings/dist/mlbridge_*.tar.gz: copies the worker's R files and the protocol's in, documents, builds.
# `--sources` stops after copying, `--documents` before building: run it after a change of roxygen comments, and commit NAMESPACE and man/.
set -euo pipefail
cd "$(dirname "$0")"

for part in answers frame_of frames outputs; do cp "../src/mlbridge/_r/$part.R" "R/shared-$part.R"; done
mkdir -p src/proto
cp ../proto/inference.proto ../proto/mlbridge.proto src/proto/
twice=$(grep -hoE '^[.[:alnum:]_]+ <- ' R/*.R | sort | uniq -d)  # the copied files share one namespace with ours
[ -z "$twice" ] || { echo "defined in two files of R/: $twice" >&2; exit 1; }
[ "${1:-}" = --sources ] && exit 0
Rscript -e 'roxygen2::roxygenise(load_code = "source")'
[ "${1:-}" = --documents ] && exit 0
mkdir -p dist
cd dist
rm -f mlbridge_*.tar.gz
MLBRIDGE_GRPC=off R CMD build ..  # it installs the package for the vignette, which serves nothing: C++ is compiled by the check
