#!/bin/sh
# Builds the jar and puts it where the Python package looks for it: src/mlbridge/_jvm/mlbridge-jvm.jar.
# Usage: jvm-bindings/build.sh [--test]     with --test the Java and Scala tests run, those of Spark where pyspark is installed
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v mvn >/dev/null || { echo "Maven is not installed: apt-get install maven openjdk-17-jdk-headless" >&2; exit 69; }
set -- "${1:-}"
if [ "$1" = --test ]; then
  set -- -DskipTests=false
  for jars in "$here"/../.venv/lib/python3*/site-packages/pyspark/jars; do
    if [ -d "$jars" ]; then set -- "$@" "-Dspark.jars=$jars"; fi
  done
else
  set -- -DskipTests
fi
mvn -B -q -ntp -f "$here/pom.xml" "$@" package
mkdir -p "$here/../src/mlbridge/_jvm"
# put in place whole: a JVM that runs from the old one keeps it
cp "$here/worker/target/mlbridge-jvm.jar" "$here/../src/mlbridge/_jvm/.mlbridge-jvm.jar"
mv "$here/../src/mlbridge/_jvm/.mlbridge-jvm.jar" "$here/../src/mlbridge/_jvm/mlbridge-jvm.jar"
