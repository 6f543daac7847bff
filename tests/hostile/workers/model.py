"""A model whose first value says what it does wrong; the rest is y = 2 x. Loaded by the real Python worker."""

import ctypes
import os
import signal
import sys
import time

print("loaded")


class OddError(ValueError):
    """A foreign class."""


def run(feeds):
    x = feeds["x"]
    what = int(x.flat[0]) if x.size else 0
    if what == -1:
        raise OddError("the model does not like this")
    if what == -2:
        time.sleep(600)
    if what == -3:  # a call that no interrupt ends
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        time.sleep(600)
    if what == -4:
        ctypes.string_at(0)
    if what == -5:
        os._exit(0)
    if what == -6:
        sys.exit(0)
    if what == -7:
        print("<4>careful\nplain")
        print("to stderr", file=sys.stderr)
        print("x" * 100_000)
    if what == -8:
        return {"y": bytearray(1 << 40)}
    if what == -9:
        os.abort()
    if what == -10:  # two of these at once, or neither ends
        mine, other = (os.path.join(os.environ["MEETING"], str(i)) for i in (int(x.flat[1]), 1 - int(x.flat[1])))
        open(mine, "w").close()
        while not os.path.exists(other):
            time.sleep(0.001)
    return {"y": 2 * x}
