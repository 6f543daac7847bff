"""Which Java, which jar, which class path, which flags: the command that starts a JVM worker."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError, MissingDependencyError, UnavailableError
from ...workers import WorkerCommand

__all__ = ["JAR", "JvmOptions", "jar", "spark_jars", "worker_command"]

JAR = Path(__file__).parents[2] / "_jvm" / "mlbridge-jvm.jar"
_MIN_JAVA = 17
_MAIN = "dev.mlbridge.worker.Main"
_HEAP_MB = 1024
# nothing in the worker deserialises Java objects; a model that must says so by the option serial_filter
_SERIAL_FILTER = "maxdepth=32;maxrefs=100000;maxbytes=16777216;java.base/*;!*"
_SPARK_SERIAL_FILTER = "maxdepth=1000;maxarray=2147483647"  # Spark ships its own closures between its own threads
# what Spark's own launcher opens on Java 17 and later
_SPARK_OPENS = (
    "java.base/java.lang", "java.base/java.lang.invoke", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.net",
    "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic",
    "java.base/sun.nio.ch", "java.base/sun.nio.cs", "java.base/sun.security.action", "java.base/sun.util.calendar",
    "java.base/jdk.internal.ref", "java.security.jgss/sun.security.krb5",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JvmOptions:
    """`options["jvm"]`: what the process is like. Models with equal ones share it.

    Parameters
    ----------
    classpath : str or sequence of str
        Jars and folders put behind mlbridge's own; runtimes in them are found by ServiceLoader.
    heap_mb : int, default=1024
        Limit of the Java heap in MiB.
    java : str, optional
        The `java` program; default `$JAVA_HOME/bin/java`, else the one on PATH.
    java_options : sequence of str
        More flags of the JVM.
    concurrency : int, default=1
        Calls a process runs at once; a session that is not made for it takes turns. When one is killed for
        not listening past its deadline, the others in that process die with it: hence 1.
    serial_filter : str, optional
        `jdk.serialFilter` of the process; the default lets no class outside java.base be deserialised.
    spark_home : str, optional
        Where Spark is, for Spark models; default the installed pyspark, else `SPARK_HOME`.
    start_timeout_s, load_timeout_s : float
        How long a start and a load may take.
    """

    classpath: tuple[str, ...] = ()
    heap_mb: int = _HEAP_MB
    java: str | None = None
    java_options: tuple[str, ...] = ()
    concurrency: int = 1
    serial_filter: str | None = None
    spark_home: str | None = None
    start_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    spark: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("classpath", "java_options"):
            value = getattr(self, name)
            items = [value] if isinstance(value, (str, os.PathLike)) else list(value)
            object.__setattr__(self, name, tuple(os.fspath(v) for v in items))
        for name in ("heap_mb", "concurrency"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a positive integer, not {value!r}", runtime="jvm")


def jar() -> Path:
    """Return mlbridge's jar.

    Raises
    ------
    MissingDependencyError
        If it was not built; the hint is the command.
    """
    if not JAR.is_file():
        raise MissingDependencyError(
            "mlbridge's jar is not there",
            hint="make jvm (needs Maven and a JDK), or install the mlbridge wheel, which holds it",
            runtime="jvm",
        )
    return JAR


def worker_command(options: JvmOptions) -> WorkerCommand:
    """Return the command that starts a worker with these options.

    Raises
    ------
    MissingDependencyError
        If Java, the jar or Spark is absent.
    UnavailableError
        If this Java is too old.
    NotFoundError
        If an entry of the class path does not exist.
    """
    java = _java(options.java)
    absent = [p for p in options.classpath if not Path(p.removesuffix("*")).exists()]
    if absent:
        raise MissingDependencyError(
            f"not on disk: {', '.join(absent)}", hint="the option 'classpath' lists jars and folders", runtime="jvm"
        )
    spark = spark_jars(options.spark_home) if options.spark else ()
    path = os.pathsep.join([*spark, str(jar()), *options.classpath])  # Spark's own Scala goes first
    default = _SPARK_SERIAL_FILTER if options.spark else _SERIAL_FILTER
    argv = [
        java,
        f"-Xmx{options.heap_mb}m",
        "-Xss4m",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Dfile.encoding=UTF-8",
        "-Djavax.xml.accessExternalDTD=",  # PMML is XML: nothing outside the file is read
        "-Djavax.xml.accessExternalSchema=",
        f"-Djdk.serialFilter={options.serial_filter if options.serial_filter is not None else default}",
        *((f"--add-opens={name}=ALL-UNNAMED" for name in _SPARK_OPENS) if options.spark else ()),
        *(("-Djdk.reflect.useDirectMethodHandle=false", "-Dio.netty.tryReflectionSetAccessible=true") if options.spark else ()),
        *options.java_options,
        "-cp",
        path,
        _MAIN,
    ]
    env: dict[str, str | None] = {"JAVA_TOOL_OPTIONS": None, "_JAVA_OPTIONS": None, "JDK_JAVA_OPTIONS": None, "CLASSPATH": None}
    if options.spark:
        env |= {"SPARK_LOCAL_HOSTNAME": "localhost", "SPARK_LOCAL_IP": "127.0.0.1"}
    return WorkerCommand(
        argv=tuple(argv),
        runtime="jvm",
        env=tuple(env.items()),
        interrupt="control",
        transport="unix" if hasattr(__import__("socket"), "AF_UNIX") and sys.platform != "win32" else "tcp",
        lanes=options.concurrency,
        start_timeout_s=options.start_timeout_s,
        load_timeout_s=options.load_timeout_s,
    )


def _java(named: str | None) -> str:
    home = os.environ.get("JAVA_HOME")
    candidate = named or (str(Path(home, "bin", "java")) if home else "java")
    found = shutil.which(candidate)
    if found is None and named is None and home:
        found = shutil.which("java")
    if found is None:
        raise MissingDependencyError(
            f"Java is not installed: there is no program {candidate!r}",
            hint="apt-get install openjdk-17-jre-headless, or set JAVA_HOME or the option 'java'",
            runtime="jvm",
        )
    version = _java_version(Path(os.path.realpath(found)))
    if version is not None and version < _MIN_JAVA:
        raise UnavailableError(
            f"{found} is Java {version}; mlbridge needs {_MIN_JAVA} or newer",
            hint="apt-get install openjdk-17-jre-headless, and set JAVA_HOME or the option 'java'",
            runtime="jvm",
        )
    return found


def _java_version(program: Path) -> int | None:
    """Read the major version from the file every JDK keeps beside its bin; None where it is not there."""
    for folder in (program.parents[1], program.parents[1].parent):
        release = folder / "release"
        if release.is_file():
            text = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release.read_text(errors="replace"), re.MULTILINE)
            return int(text[1]) if text else None
    return None


def spark_jars(home: str | None = None) -> Sequence[str]:
    """Return the class path of a Spark: the one named, the installed pyspark's, or `SPARK_HOME`'s.

    Raises
    ------
    MissingDependencyError
        If there is none.
    """
    import importlib.util

    candidates = [home] if home else []
    if not home:
        spec = importlib.util.find_spec("pyspark")
        if spec is not None and spec.submodule_search_locations:
            candidates += list(spec.submodule_search_locations)
        if os.environ.get("SPARK_HOME"):
            candidates.append(os.environ["SPARK_HOME"])
    for folder in candidates:
        jars = Path(folder, "jars")
        if any(jars.glob("spark-mllib_2.1*.jar")):
            return (str(jars / "*"),)
    raise MissingDependencyError(
        f"no Spark with jars{' in ' + home if home else ' is installed'}",
        hint="pip install pyspark, or set SPARK_HOME or the option 'spark_home'",
        runtime="jvm",
    )
