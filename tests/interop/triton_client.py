"""The stock client of the matrix: tritonclient, raw and typed. See docs/interop.md."""

from __future__ import annotations

import argparse
import json
import threading
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as tg
import vectors
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

OIP = {f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
OIP |= {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "string": "BYTES"}
TYPED = {
    "bool": "bool_contents",
    "int64": "int64_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
TYPED |= {k: "int_contents" for k in ("int8", "int16", "int32")} | {k: "uint_contents" for k in ("uint8", "uint16", "uint32")}


def why_not(case: dict) -> str | None:
    """Say what of a case the stock client has no call for."""
    flat = [v for t in case["feeds"] for v in t.get("levels", t.get("strings", []))]
    if any(v is None for v in flat) or any(t["name"] == "plan" and len(case["feeds"]) > 1 for t in case["feeds"]):
        return "the stock client has no missing levels or text"
    return None


def tensor(given: dict) -> tuple[str, np.ndarray]:
    """Return the protocol's datatype and the array it takes."""
    array = vectors.values(given)
    if given["dtype"] == "level":
        datatype, dtype = {str: ("BYTES", object), int: ("INT64", np.int64), bool: ("BOOL", bool)}[type(array.ravel()[0])]
        return datatype, array.astype(dtype)
    return OIP[given["dtype"]], array


class Client:
    """One server, asked in the two ways the stock package has."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.headers = {"authorization": f"Bearer {given.token}"} if given.token else {}
        self.client = tg.InferenceServerClient(given.target, ssl=bool(given.authority), root_certificates=given.authority)
        self.channel = grpc.insecure_channel(given.target)

    def ask(self, case: dict) -> list[dict]:
        """Ask, and write the answers."""
        if case.get("encoding") == "typed":
            return self._typed(case)
        inputs = []
        for t in case["feeds"]:
            datatype, array = tensor(t)
            one = tg.InferInput(t["name"], list(array.shape), datatype)
            one.set_data_from_numpy(array)
            inputs.append(one)
        if "cancel_after_s" in case:
            return self._cancelled(case, inputs)
        result = self.client.infer(case["model"], inputs, headers=self.headers, client_timeout=case.get("timeout_s"))
        found = {o.name: o.datatype for o in result.get_response().outputs}
        return [_answer(name, datatype, result.as_numpy(name), case) for name, datatype in found.items()]

    def _cancelled(self, case: dict, inputs: list) -> list[dict]:
        done, errors = threading.Event(), []
        context = self.client.async_infer(
            case["model"], inputs, lambda result, error: (errors.append(error), done.set()), headers=self.headers
        )
        done.wait(case["cancel_after_s"])
        context.cancel()
        done.wait(5)
        raise errors[0]

    def _typed(self, case: dict) -> list[dict]:
        request = pb.ModelInferRequest(model_name=case["model"])
        for t in case["feeds"]:
            datatype, array = tensor(t)
            one = request.inputs.add(name=t["name"], datatype=datatype, shape=array.shape)
            flat = array.ravel().tolist()
            if t["dtype"] == "string":
                one.contents.bytes_contents.extend(v.encode() for v in flat)
            else:
                getattr(one.contents, TYPED[t["dtype"]]).extend(flat)
        response = service_pb2_grpc.GRPCInferenceServiceStub(self.channel).ModelInfer(request, timeout=30)
        if response.raw_output_contents:
            raise AssertionError("typed in, raw out")
        answers = []
        for out, t in zip(response.outputs, case["feeds"], strict=True):
            if t["dtype"] == "string":
                array = np.array([b.decode() for b in out.contents.bytes_contents], object)
            else:
                array = np.array(getattr(out.contents, TYPED[t["dtype"]]), t["dtype"])
            answers.append(vectors.written(out.name, t["dtype"], array.reshape(list(out.shape))))
        return answers


def _answer(name: str, datatype: str, array: np.ndarray, case: dict) -> dict:
    given = next(t for t in case["feeds"] if t["name"] == name)
    if datatype == "BYTES":
        array = np.array([b.decode() for b in array.ravel()], object).reshape(array.shape)
    return vectors.written(name, given["dtype"], array)


def main() -> None:
    """Print a line a case."""
    given = vectors.asked(__doc__)
    cases = vectors.read(given.vectors)["cases"]
    client = Client(given)
    for name in given.case:
        case = cases[name]
        line: dict[str, Any] = {"case": name}
        if (reason := why_not(case)) is not None:
            line["skipped"] = reason
        else:
            try:
                line |= {"code": "OK", "answers": client.ask(case)}
            except InferenceServerException as exc:
                line |= {"code": str(exc.status()).removeprefix("StatusCode."), "message": exc.message()}
            except grpc.RpcError as exc:
                line |= {"code": exc.code().name, "message": exc.details()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
