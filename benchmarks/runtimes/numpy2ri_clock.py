"""The reference of bench_r.py: rpy2's own numpy2ri route, in a process of its own, timed whenever it is asked.

A line on standard input is a number of rows and a number of calls; the answer is seconds a call.
"""

import sys
import time
import warnings

import numpy as np

warnings.simplefilter("ignore")
import rpy2.robjects as ro  # noqa: E402
from rpy2.robjects import default_converter, numpy2ri  # noqa: E402
from rpy2.robjects.conversion import localconverter  # noqa: E402

function = ro.r("function(x) rowSums(x)")
converter = default_converter + numpy2ri.converter

for line in sys.stdin:
    rows, calls = map(int, line.split())
    x = np.random.default_rng(0).normal(size=(rows, 10))
    began = time.perf_counter()
    for _ in range(calls):
        with localconverter(converter):
            answer = function(x)
    seconds = time.perf_counter() - began
    assert np.allclose(answer, x.sum(axis=1))
    sys.stdout.write(f"{seconds / calls}\n")
    sys.stdout.flush()
