"""The framework `r`: fitted R models, read from their RDS files and written as ONNX, without R.

`rds.py` reads the file, `expressions.py` and `terms.py` know R's formulas, one file a model family knows what its
`predict` computes, `framework.py` ties them together.
"""

from .framework import RFramework
from .rds import read_rds
from .robject import RObject

__all__ = ["RFramework", "RObject", "read_rds"]
