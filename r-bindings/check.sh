#!/usr/bin/env bash
# Builds the R package and checks it: R CMD check without error or warning, its tests among it.
set -euo pipefail
cd "$(dirname "$0")"

bash build.sh
cd dist
R CMD check --no-manual mlbridge_*.tar.gz
