"""The choice of a plan, on imagined machines: every provider onnxruntime names, present and absent."""

from __future__ import annotations

import onnxruntime
import pytest

from mlbridge.errors import InputError, UnavailableError
from mlbridge.executor.devices import Device, Facts, facts, list_devices
from mlbridge.executor.plans import CPU, Demand, Plan, Traits, candidates, choose

PROVIDERS = [p for p in onnxruntime.get_all_providers() if p != CPU]
HOME = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "MIGraphXExecutionProvider": "rocm",
    "OpenVINOExecutionProvider": "cpu",
    "DnnlExecutionProvider": "cpu",
    "XnnpackExecutionProvider": "cpu",
    "DmlExecutionProvider": "gpu",
    "WebGpuExecutionProvider": "gpu",
}
NET = Traits(frozenset({"Conv", "Gemm"}), 50, 5_000_000, True)
FOREST = Traits(frozenset({"ai.onnx.ml:TreeEnsemble"}), 3, 0, True)


def machine(*devices, providers=(CPU,), plugins=(), cores=4):
    cpu = Device("cpu", "cpu", providers=tuple(p for p in providers if HOME.get(p, "cpu" if p == CPU else "") == "cpu"))
    return Facts(cores=cores, providers=tuple(providers), plugins=tuple(plugins), devices=(cpu, *devices), onnxruntime="1.32.0")


CUDA = "CUDAExecutionProvider"
GPUS = tuple(Device(f"cuda:{i}", "cuda", "a GPU", 8 << 30, (CUDA,)) for i in range(2))
WITH_GPUS = machine(*GPUS, providers=(CUDA, CPU))


def test_the_table_names_every_provider_of_this_onnxruntime():
    from mlbridge.executor.plans import _PROVIDERS

    assert set(onnxruntime.get_all_providers()) <= set(_PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_demanded_provider_that_is_absent_is_refused_with_the_remedy(provider):
    with pytest.raises(UnavailableError, match=provider) as caught:
        choose(machine(), NET, Demand(provider=provider))
    assert caught.value.hint


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_demanded_provider_that_is_there_is_taken_alone(provider):
    kind = HOME.get(provider, "npu")
    extra = () if kind == "cpu" else (Device(f"{kind}:0", kind, providers=(provider,)),)
    plans = choose(machine(*extra, providers=(provider, CPU)), NET, Demand(provider=provider))
    assert [p.provider for p in plans] == [provider]
    assert plans[0].demanded
    assert plans[0].device == ("cpu" if kind == "cpu" else f"{kind}:0")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_auto_takes_no_provider_that_may_change_numbers_or_compile_for_minutes(provider):
    plans = choose(machine(Device("cuda:0", "cuda", providers=(provider,)), providers=(provider, CPU)), NET)
    assert [p.provider for p in plans[:-1]] == ([provider] if provider == CUDA else [])
    assert plans[-1].provider == CPU


@pytest.mark.parametrize(
    ("traits", "first"), [(NET, CUDA), (FOREST, CPU), (Traits(batched=True), CPU)], ids=["network", "forest", "small model"]
)
def test_auto_sends_to_the_gpu_what_it_is_good_at(traits, first):
    assert choose(WITH_GPUS, traits)[0].provider == first


def test_a_numbered_gpu_reaches_the_provider():
    (plan,) = choose(WITH_GPUS, NET, Demand(device="cuda:1"))
    assert (plan.provider, plan.device, plan.provider_options["device_id"]) == (CUDA, "cuda:1", "1")
    assert choose(WITH_GPUS, NET, Demand(device="cuda"))[0].device == "cuda:0"


@pytest.mark.parametrize(
    ("devices", "word"),
    [
        ((), "onnx-gpu"),
        ((Device("cuda:0", "cuda", usable=False, remedy="install the provider"),), "install the provider"),
        ((Device("cuda", "cuda", usable=False, remedy="install the driver"),), "install the driver"),
    ],
    ids=["no GPU", "driver without provider", "provider without driver"],
)
def test_a_demanded_gpu_that_cannot_be_used_is_refused_with_the_remedy(devices, word):
    with pytest.raises(UnavailableError) as caught:
        choose(machine(*devices), NET, Demand(device="cuda"))
    assert word in caught.value.hint


def test_a_number_beyond_the_last_gpu_names_those_there_are():
    with pytest.raises(UnavailableError, match="cuda:0, cuda:1"):
        choose(WITH_GPUS, NET, Demand(device="cuda:7"))


@pytest.mark.parametrize(
    "demand",
    [Demand(device="toaster"), Demand(device="cpu", provider=CUDA), Demand(provider_options={"a": 1})],
    ids=["no such device", "provider elsewhere", "options without provider"],
)
def test_demands_that_contradict_themselves_are_the_callers_error(demand):
    with pytest.raises(InputError):
        choose(WITH_GPUS, NET, demand)


def test_a_misspelt_provider_lists_those_there_are():
    with pytest.raises(UnavailableError, match=r"CudaExecutionProvider.*CPUExecutionProvider"):
        choose(machine(), NET, Demand(provider="CudaExecutionProvider"))


def test_small_models_of_independent_rows_have_threads_that_soon_sleep():
    (plan,) = choose(machine(), FOREST)
    assert (plan.threads, plan.chunks) == (0, 1)
    assert 0 < plan.spin_us <= 200  # 500 calls a second may keep a tenth of a core busy


def test_what_may_depend_between_rows_is_never_split():
    for traits in (Traits(), Traits(frozenset({"Conv"}), 9, 10, False)):
        assert choose(machine(), traits)[0].chunks == 1


def test_heavy_models_use_every_core_in_one_call():
    assert choose(machine(), NET)[0].threads == 0


def test_low_idle_use_is_one_quiet_thread():
    (plan,) = choose(machine(), NET, Demand(objective="idle"))
    assert (plan.threads, plan.spin_us) == (1, 0)


def test_candidates_begin_with_plain_onnxruntime_and_are_distinct():
    found = candidates(WITH_GPUS, NET, 64, choose(WITH_GPUS, NET))
    assert (found[0].provider, found[0].route, found[0].threads) == (CPU, "inner", 0)
    assert len({str(p) + p.device for p in found}) == len(found)
    assert {"cuda:0", "cuda:1"} <= {p.device for p in found}


def test_candidates_span_providers_threads_spinning_routes_and_buckets():
    found = candidates(WITH_GPUS, NET, 100, choose(WITH_GPUS, NET))
    assert {p.provider for p in found} == {CPU, CUDA}
    assert {p.threads for p in found} == {0, 1}
    assert {p.spin_us for p in found} >= {None, 0}
    assert {p.route for p in found} == {"auto", "inner", "bound"}
    assert {p.bucket for p in found if p.provider == CPU} == {1, 8}
    assert {p.bucket for p in found if p.provider == CUDA} == {1, 128}


def test_rows_that_depend_on_each_other_are_never_padded():
    found = candidates(WITH_GPUS, Traits(frozenset({"Conv"}), 9, 10, False), 100)
    assert {p.bucket for p in found} == {1}


def test_a_plan_survives_json():
    plan = Plan(CUDA, "cuda:1", {"device_id": "1"}, threads=3, spin_us=0, route="bound", chunks=2, why="x")
    assert Plan.from_dict(plan.to_dict()) == plan


def test_this_machine_lists_its_processor_first():
    first = list_devices()[0]
    assert (first.name, first.usable) == ("cpu", True)
    assert CPU in first.providers
    assert facts().cores >= 1
    assert facts().onnxruntime == onnxruntime.__version__


def test_half_installed_gpus_say_what_is_missing(monkeypatch):
    from mlbridge.executor import devices

    monkeypatch.setattr(devices, "_driver", lambda: True)
    monkeypatch.setattr(devices, "_cards", lambda: [("A GPU", 1 << 30)])
    (found,) = devices._nvidia((CPU,))
    assert (found.name, found.usable) == ("cuda:0", False)
    assert "onnx-gpu" in found.remedy
    monkeypatch.setattr(devices, "_driver", lambda: False)
    (found,) = devices._nvidia((CUDA, CPU))
    assert not found.usable
    assert "driver" in found.remedy
