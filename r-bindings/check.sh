#!/usr/bin/env bash
# Builds the R package and checks it: R CMD check, its tests and examples among it. Fails on an error, a warning or a failed test.
set -euo pipefail
cd "$(dirname "$0")"

python=$(pwd)/../.venv/bin/python
[ -n "${MLBRIDGE_PYTHON:-}" ] || [ ! -x "$python" ] || export MLBRIDGE_PYTHON=$python
export _R_CHECK_FORCE_SUGGESTS_=false MAKEFLAGS="${MAKEFLAGS:--j2}"
bash build.sh
cd dist
# the stubs of gRPC are large and not what is tested here: unoptimised they compile in a fraction of the time
printf 'CXXFLAGS = -O0 -g0\nCXX17FLAGS = -O0 -g0\n' > Makevars.check
export R_MAKEVARS_USER=$PWD/Makevars.check
# the vignette was run when the package was built, and the manual needs LaTeX
R CMD check --no-manual --no-vignettes mlbridge_*.tar.gz || { cat mlbridge.Rcheck/00install.out mlbridge.Rcheck/tests/*.Rout.fail 2>/dev/null | tail -n 80; exit 1; }
if grep -q '^Status:.*\(ERROR\|WARNING\)' mlbridge.Rcheck/00check.log; then
  echo "R CMD check has a warning; see above" >&2
  exit 1
fi
counts=$(grep -o '\[ FAIL [^]]*\]' mlbridge.Rcheck/tests/testthat.Rout | tail -n 1)
[ -n "$counts" ] || { echo "the R tests did not run" >&2; exit 1; }
echo "R package: $(sed -n 's/^Status: //p' mlbridge.Rcheck/00check.log); tests $counts"
