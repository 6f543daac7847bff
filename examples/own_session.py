"""Put anything that answers arrays behind a Model: a Session of one's own.

python examples/own_session.py
"""

import numpy as np

import mlbridge as mb
from mlbridge.interfaces import UNBOUNDED


class Thermostat:
    """A rule, with no library behind it. A plug-in would ship it as a Runtime, proved by `mlbridge.testing`."""

    device, max_concurrency = "cpu", UNBOUNDED
    signature = mb.Signature(
        (mb.TensorSpec("features", "float64", ("rows", 2), (mb.Column("indoor", unit="degC"), mb.Column("wanted", unit="degC"))),),
        (mb.TensorSpec("prediction", "float64", ("rows",)),),
    )

    def run(self, feeds, /, *, outputs=None, deadline=None):
        """Answer the power: proportional to what is missing, between 0 and 1."""
        return {"prediction": np.clip((feeds["features"][:, 1] - feeds["features"][:, 0]) / 5, 0.0, 1.0)}

    def close(self):
        """Own nothing."""


def main() -> None:
    """The checks, containers and pipelines come with the Model."""
    with mb.Model(Thermostat(), name="thermostat") as model:
        print(model.predict({"indoor": 18, "wanted": 21}))
        print(model.predict([{"indoor": 18, "wanted": 21}, {"indoor": 25, "wanted": 21}]))
        print(model.check({"indoor": "warm", "wished": 21}))


if __name__ == "__main__":
    main()
