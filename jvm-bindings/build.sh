#!/bin/sh
# Builds the jar and puts it where the Python package looks for it: src/mlbridge/_jvm/mlbridge-jvm.jar.
# Usage: jvm-bindings/build.sh [--test]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v mvn >/dev/null || { echo "Maven is not installed: apt-get install maven openjdk-17-jdk-headless" >&2; exit 69; }
tests=-DskipTests
[ "${1:-}" = --test ] && tests=-DskipTests=false
mvn -B -q -ntp -f "$here/pom.xml" $tests package
mkdir -p "$here/../src/mlbridge/_jvm"
cp "$here/worker/target/mlbridge-jvm.jar" "$here/../src/mlbridge/_jvm/mlbridge-jvm.jar"
