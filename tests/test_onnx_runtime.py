"""The runtime `onnx`: signatures of foreign graphs, placement, demands, caches, saving."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlbridge.artifact import open_artifact
from mlbridge.errors import ArtifactError, InputError, SignatureError, UnavailableError, UnsupportedError
from mlbridge.executor import cache
from mlbridge.interfaces import Runtime
from mlbridge.runtimes.onnx import OnnxRuntime, claimed_rows
from mlbridge.signature import Column, Signature, TensorSpec

F, D, I64, S = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model_of(nodes, inputs, outputs, weights=()):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info(*i) for i in inputs], [info(*o) for o in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10)


def relu(shape=("N", 3), dtype=F):
    return model_of([helper.make_node("Abs", ["x"], ["y"])], [("x", dtype, shape)], [("y", dtype, shape)])


def big(layers=40, width=32):
    """Over the size from which checks and optimised models are kept."""
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.normal(size=(width, width)).astype("f4") / 6, f"w{i}") for i in range(layers)]
    names = ["x", *(f"h{i}" for i in range(layers - 1)), "y"]
    nodes = []
    for i in range(layers):
        nodes += [helper.make_node("MatMul", [names[i], f"w{i}"], [f"m{i}"]), helper.make_node("Add", [f"m{i}", "b"], [f"a{i}"])]
        nodes += [helper.make_node("Tanh", [f"a{i}"], [names[i + 1]])]
    weights.append(numpy_helper.from_array(np.ones(width, "f4"), "b"))
    return model_of(nodes, [("x", F, ["N", width])], [("y", F, ["N", width])], weights)


def wrap(model, **options):
    return OnnxRuntime().wrap(model, **options)


def test_it_satisfies_the_runtime_protocol_and_knows_its_objects():
    runtime = OnnxRuntime()
    assert isinstance(runtime, Runtime)
    assert runtime.accepts(relu())
    assert not runtime.accepts(object())


@pytest.mark.parametrize(
    ("dtype", "want"),
    [
        (F, ("float32", "allow", "nearest")),
        (D, ("float64", "allow", "refuse")),
        (I64, ("int64", "refuse", "refuse")),
        (TensorProto.INT32, ("int32", "refuse", "refuse")),
    ],
    ids=["float32", "float64", "int64", "int32"],
)
def test_a_foreign_graph_keeps_names_and_symbols(dtype, want):
    with_ = wrap(relu(("N", 3), dtype))
    spec = with_.signature.input("x")
    assert (spec.dtype, spec.missing, spec.rounding) == want
    assert spec.shape == ("N", 3)
    with_.close()


def test_initializers_are_defaults_not_inputs():
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", F, ["N", 3]), ("w", F, [3])],
        [("y", F, ["N", 3])],
        [numpy_helper.from_array(np.ones(3, "f4"), "w")],
    )
    session = wrap(model)
    assert [s.name for s in session.signature.inputs] == ["x"]
    np.testing.assert_array_equal(session.run({"x": np.zeros((2, 3), "f4")})["y"], np.ones((2, 3)))
    session.close()


def test_shapes_the_file_leaves_out_are_inferred():
    model = relu()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    session = wrap(model)
    assert session.signature.output("y").shape == ("N", 3)
    session.close()


def test_a_rank_nobody_knows_needs_a_signature():
    model = model_of([helper.make_node("Reshape", ["x", "s"], ["y"])], [("x", F, ["N", 3]), ("s", I64, ["k"])], [("y", F, ["a"])])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(SignatureError, match="rank"):
        wrap(model)


def test_a_graph_that_says_rows_has_not_promised_anything():
    session = wrap(relu(("rows", 3)))
    assert not session.signature.batched
    assert claimed_rows(session.signature).batched
    session.close()


@pytest.mark.parametrize(
    "shapes",
    [(("N", 3), ("M",)), ((2, 3), (2,)), (("N", "N"), ("N",)), ((), ())],
    ids=["two symbols", "fixed", "twice in one tensor", "scalars"],
)
def test_no_claim_of_rows_where_the_axes_cannot_be_one(shapes):
    a, b = shapes
    signature = Signature([TensorSpec("a", "float32", a), TensorSpec("b", "float32", b)], [TensorSpec("y", "float32", a)])
    assert claimed_rows(signature) is None


def test_the_stored_signature_is_used_when_it_agrees():
    stored = Signature(
        [TensorSpec("x", "float32", ("rows", 3), tuple(map(Column, "abc")), "refuse", "nearest")], [TensorSpec("y", "float32", ("rows", 3))]
    )
    model = relu()
    model.metadata_props.add(key="mlbridge.signature", value=stored.to_json())
    session = wrap(model)
    assert session.signature == stored
    session.close()


@pytest.mark.parametrize(
    "given",
    [
        Signature([TensorSpec("z", "float32", ("N", 3))], [TensorSpec("y", "float32", ("N", 3))]),
        Signature([TensorSpec("x", "float64", ("N", 3))], [TensorSpec("y", "float32", ("N", 3))]),
        Signature([TensorSpec("x", "float32", ("N", 4))], [TensorSpec("y", "float32", ("N", 3))]),
        Signature([TensorSpec("x", "float32", ("N",))], [TensorSpec("y", "float32", ("N", 3))]),
    ],
    ids=["name", "dtype", "size", "rank"],
)
def test_a_given_signature_must_agree_with_the_graph(given):
    with pytest.raises(SignatureError, match="contradicts"):
        wrap(relu(), signature=given)


def test_zipmap_outputs_are_refused_with_the_way_out():
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model = model_of([node], [("x", F, ["N", 3])], [("z", F, ["N", 3])])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F, ())))
    model.graph.output[0].CopyFrom(helper.make_value_info("y", kind))
    with pytest.raises(UnsupportedError, match="sequence") as caught:
        wrap(model)
    assert "zipmap" in caught.value.hint


def test_a_file_that_is_not_onnx_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x80\x04N.")
    with pytest.raises(ArtifactError, match="pickle"):
        OnnxRuntime().load(str(tmp_path / "x.onnx"))


# ---------------------------------------------------------------- placement and demands


def test_placement_comes_from_the_assignment_record():
    session = wrap(relu())
    assert session.placement == {"CPUExecutionProvider": 1.0}
    assert session.device == "cpu"
    session.close()


def test_an_unknown_provider_is_an_error_not_a_warning():
    with pytest.raises(UnavailableError, match="MadeUpExecutionProvider"):
        wrap(relu(), provider="MadeUpExecutionProvider")


def test_a_provider_that_owns_no_node_is_refused():
    # Azure is listed by this very build and runs nothing here.
    with pytest.raises(UnavailableError, match=r"none of this model's nodes"):
        wrap(relu(), provider="AzureExecutionProvider")


def test_a_provider_this_build_lacks_comes_with_its_remedy():
    with pytest.raises(UnavailableError) as caught:
        wrap(relu(), provider="OpenVINOExecutionProvider")
    assert "onnxruntime-openvino" in caught.value.hint


def test_a_gpu_that_is_not_there_is_an_error_not_a_slow_answer():
    from mlbridge.executor.devices import list_devices

    if any(d.kind == "cuda" and d.usable for d in list_devices()):
        pytest.skip("this machine has a usable GPU")
    with pytest.raises(UnavailableError) as caught:
        wrap(relu(), device="cuda")
    assert caught.value.hint


def test_a_device_that_does_not_exist_is_the_callers_error():
    with pytest.raises(InputError, match="toaster"):
        wrap(relu(), device="toaster")


def test_options_reach_the_plan():
    session = wrap(relu(), threads=3, spin_us=0, route="inner")
    assert (session.plan.threads, session.plan.spin_us, session.plan.route) == (3, 0, "inner")
    session.close()


def test_a_warm_session_has_its_buffers_bound_when_it_is_loaded():
    session = wrap(relu(), warm_up=(1, 8))
    assert set(session._binder.pools) == {(1, 3), (8, 3)}
    session.close()


# ---------------------------------------------------------------- caches


def _answer(model):
    session = wrap(model)
    x = np.random.default_rng(0).normal(size=(5, 32)).astype("f4")
    try:
        return session.run({"x": x})["y"], session.placement
    finally:
        session.close()


def test_a_second_load_comes_from_the_cache_and_answers_alike(cache_folder):
    first, placement = _answer(big())
    assert len(list((cache_folder / "optimised").iterdir())) == 1
    second, again = _answer(big())
    np.testing.assert_array_equal(first, second)
    assert placement == again


def test_a_damaged_cache_is_reported_and_made_again(cache_folder, caplog):
    first, _ = _answer(big())
    for path in [*(cache_folder / "optimised").iterdir(), *(cache_folder / "checked").iterdir()]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING, "mlbridge.executor"):
        second, _ = _answer(big())
    np.testing.assert_array_equal(first, second)
    assert sum("damaged" in r.message for r in caplog.records) == 2
    caplog.clear()
    _answer(big())
    assert not caplog.records


def test_a_cache_of_another_machine_is_not_used(cache_folder, monkeypatch):
    _answer(big())
    monkeypatch.setattr(cache, "machine", lambda: {"onnxruntime": "another"})
    _answer(big())
    assert len(list((cache_folder / "optimised").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("MLBRIDGE_CACHE", str(blocked))
    _answer(big())


def test_what_passed_the_checks_once_is_checked_again_under_tighter_limits():
    _answer(big())
    with pytest.raises(ArtifactError, match="limit"):
        wrap(big(), max_tensor_bytes=1000)


def test_cache_off_keeps_nothing(cache_folder):
    wrap(big(), cache=False).close()
    assert not (cache_folder / "optimised").exists()


# ---------------------------------------------------------------- saving


def test_a_saved_session_loads_and_answers_alike(tmp_path):
    session = wrap(big(4))
    made = OnnxRuntime().save(session, tmp_path / "out")
    assert (made.runtime, made.path, made.format) == ("onnx", "model.onnx", "onnx")
    again = OnnxRuntime().load(open_artifact(tmp_path / "out" / made.path))
    x = np.random.default_rng(0).normal(size=(5, 32)).astype("f4")
    np.testing.assert_array_equal(session.run({"x": x})["y"], again.run({"x": x})["y"])
    session.close()
    again.close()


def test_side_files_are_saved_beside_the_model(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    onnx.save_model(big(4), str(source / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    session = OnnxRuntime().load(str(source / "net.onnx"))
    OnnxRuntime().save(session, tmp_path / "out")
    again = OnnxRuntime().load(str(tmp_path / "out" / "model.onnx"))
    x = np.random.default_rng(0).normal(size=(5, 32)).astype("f4")
    np.testing.assert_array_equal(session.run({"x": x})["y"], again.run({"x": x})["y"])
    session.close()
    again.close()


def test_another_runtimes_session_cannot_be_saved(tmp_path):
    with pytest.raises(UnsupportedError):
        OnnxRuntime().save(object(), tmp_path)
