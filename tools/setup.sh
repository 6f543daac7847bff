#!/usr/bin/env bash
# Set-up for a fresh Debian or Ubuntu machine. One argument: python | system | bindings | test-bindings.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

apt_install() {
  command -v apt-get >/dev/null || { echo "please install by hand: $*" >&2; return 1; }
  local absent=()
  for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || absent+=("$package"); done
  [ ${#absent[@]} = 0 ] && return 0
  say "installing ${#absent[@]} system packages"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${absent[@]}" >/dev/null
}

find_python() {
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "mlbridge needs Python 3.11, 3.12 or 3.13" >&2
  return 1
}

setup_python() {
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  say "installing the Python packages (pins in constraints.txt)"
  .venv/bin/python -m pip install -q --disable-pip-version-check uv
  .venv/bin/python -m uv pip install -q --python .venv/bin/python -c constraints.txt -e '.[dev]'
  touch .venv/.python-ready
}

setup_system() {
  apt_install r-base-core r-base-dev r-cran-randomforest r-cran-ranger r-cran-glmnet r-cran-gbm r-cran-rpart r-cran-nnet \
    r-cran-kernlab r-cran-e1071 r-cran-mgcv r-cran-survival r-cran-caret r-cran-mass r-cran-rcpp r-cran-testthat \
    r-cran-roxygen2 r-cran-jsonlite r-cran-digest r-cran-reticulate r-cran-knitr r-cran-markdown zip libgrpc++-dev libprotobuf-dev protobuf-compiler \
    protobuf-compiler-grpc pkg-config ||
    echo "R is not installed; tests that need it are skipped" >&2
  if ! command -v javac >/dev/null; then apt_install openjdk-17-jdk-headless || echo "Java is not installed; tests that need it are skipped" >&2; fi
  if ! command -v mvn >/dev/null; then apt_install maven || echo "Maven is not installed; the jar is not built" >&2; fi
  if ! command -v h2load >/dev/null; then apt_install nghttp2-client || echo "h2load is not installed; throughput is not benchmarked" >&2; fi
  # rpy2 builds against the R that is there, so it comes after it; the demo needs neither
  if command -v R >/dev/null; then .venv/bin/python -m uv pip install -q --python .venv/bin/python -c constraints.txt -e '.[r]'; fi
  touch .venv/.system-ready
}

setup_bindings() {
  if [ -f jvm-bindings/build.sh ] && command -v mvn >/dev/null && command -v javac >/dev/null; then bash jvm-bindings/build.sh; fi
}

test_bindings() {
  if [ -d r-bindings/tests ] && command -v Rscript >/dev/null; then bash r-bindings/check.sh; fi
  if [ -f jvm-bindings/build.sh ] && command -v mvn >/dev/null && command -v javac >/dev/null; then bash jvm-bindings/build.sh --test; fi
}

case "${1:-}" in
  python) setup_python ;;
  system) setup_system ;;
  bindings) setup_bindings ;;
  test-bindings) test_bindings ;;
  *) echo "usage: $0 python|system|bindings|test-bindings" >&2; exit 2 ;;
esac
