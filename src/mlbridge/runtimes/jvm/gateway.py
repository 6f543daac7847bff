"""`jvm+py4j:` a live PySpark. Under construction in the next commit."""

from __future__ import annotations


def is_spark_model(model: object) -> bool:
    return False
