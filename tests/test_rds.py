"""The RDS reader: every form R writes, nothing evaluated, and only ArtifactError on damaged files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import resource
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from mlbridge.errors import ArtifactError, MlbridgeError
from mlbridge.frameworks.r import RFramework, RObject, read_rds
from mlbridge.frameworks.r.rds_stream import _unpack
from mlbridge.frameworks.r.robject import NA_INTEGER, number_text

SEEDS = Path(__file__).parent / "rds_seeds"
FILES = sorted(SEEDS.glob("*.rds"))
NA_REAL_BITS = 0x7FF00000000007A2


def seed(name: str) -> RObject | None:
    return read_rds((SEEDS / f"{name}.rds").read_bytes())


def xdr(*words: int | bytes | float) -> bytes:
    """Write a version 2 file by hand."""
    out = b"X\n" + struct.pack(">iii", 2, 0x040202, 0x020300)
    for w in words:
        out += w if isinstance(w, bytes) else struct.pack(">d", w) if isinstance(w, float) else struct.pack(">i", w)
    return out


def same(a: object, b: object) -> bool:
    """Compare two values; environments by their names only, for they may hold themselves."""
    if not isinstance(a, RObject) or not isinstance(b, RObject):
        return a is b or a == b
    if a.kind != b.kind or a.attributes.keys() != b.attributes.keys():
        return False
    if not all(same(a.attributes[k], b.attributes[k]) for k in a.attributes):
        return False
    if a.kind == "environment":
        return a.frame().keys() == b.frame().keys()
    if isinstance(a.value, (np.ndarray, range)):
        x, y = np.asarray(a.value), np.asarray(b.value)
        return x.shape == y.shape and np.allclose(x, y, rtol=1e-15, atol=0, equal_nan=True)
    if isinstance(a.value, dict):
        return all(same(a.value[k], b.value[k]) for k in a.value if k != "environment")
    if isinstance(a.value, list):
        return len(a.value) == len(b.value) and all(same(x, y) for x, y in zip(a.value, b.value))
    return a.value == b.value


NAMES = sorted({f.name.split(".")[0] for f in FILES})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["2.plain", "3.ascii"])
def test_every_form_of_a_file_reads_as_the_same_value(name, form):
    assert same(seed(f"{name}.3.gz"), seed(f"{name}.{form}"))


@pytest.mark.parametrize("way", ["bz2", "xz", "plain"])
def test_every_compression_reads_as_the_same_value(way):
    assert same(seed("frame.3.gz"), seed(f"frame.3.{way}"))


def test_hexadecimal_text_reads_as_the_same_value():
    assert same(seed("missing.3.gz"), seed("missing.3.hex"))


@pytest.mark.parametrize("form", ["3.gz", "2.plain", "3.ascii", "3.hex"])
def test_missing_values_of_each_type_are_told_from_nan(form):
    logical, integer, real, text, nan, inf, minus, number = seed(f"missing.{form}").value
    assert (logical.kind, int(logical.value[0])) == ("logical", NA_INTEGER)
    assert (integer.kind, int(integer.value[0])) == ("integer", NA_INTEGER)
    assert real.value.view(np.uint64)[0] & 0xFFFFFFFF == NA_REAL_BITS & 0xFFFFFFFF
    assert np.isnan(nan.value[0])
    assert nan.value.view(np.uint64)[0] & 0xFFFFFFFF != 1954
    assert text.value == [None]
    assert (inf.value[0], minus.value[0]) == (np.inf, -np.inf)
    assert number.kind == "complex"
    assert number.value[0].imag == 1


@pytest.mark.parametrize("form", ["3.gz", "2.plain", "3.ascii"])
def test_text_of_every_encoding_becomes_str(form):
    assert seed(f"text.{form}").value == ["plain", "café", "café", "\\xff\x01", None, "", 'tab\tnewline\n"\\€']


def test_compact_vectors_expand_to_what_they_stand_for():
    ints, down, texts, numbers, reals = seed("sequences.3.gz").value
    assert ints.integers().tolist() == list(range(1, 11))
    assert down.integers().tolist() == [5, 4, 3, 2, 1]
    assert texts.value == ["1", "2", "3"]
    assert numbers.value == ["0.5", "1e+05", None, "NaN"]
    assert reals.numbers().tolist() == [1, 2, 3, 4]


def test_code_is_read_as_inert_trees():
    call, function, compiled, formula, expressions = seed("code.3.gz").value
    assert call.kind == "language"
    assert call.value[2].tags == (None, None, "d")
    assert function.kind == compiled.kind == "closure"
    assert compiled.value["body"].kind == "bytecode"
    assert formula.classes == ("formula",)
    assert expressions.kind == "expression"


def test_an_environment_that_holds_itself_is_one_object():
    first, again, top, *_ = seed("environments.3.gz").value
    assert first is again
    assert first.frame()["me"] is first
    assert first.frame()["x"].integers().tolist() == [1, 2]
    assert top.value == "globalenv"


def test_an_s4_object_keeps_its_slots():
    point = seed("s4.3.gz")
    assert (point.kind, point.classes) == ("S4", ("Point",))
    assert point.attribute("x").numbers().tolist() == [1, 2]


def test_a_long_vector_length_is_two_halves():
    assert read_rds(xdr(14, -1, 0, 2, 1.5, 2.5)).value.tolist() == [1.5, 2.5]
    with pytest.raises(ArtifactError, match="ends too early"):
        read_rds(xdr(14, -1, 1, 0, 1.5))


def test_little_endian_files_are_read():
    data = b"B\n" + struct.pack("<iii", 2, 0, 0) + struct.pack("<iid", 14, 1, 0.25)
    assert read_rds(data).value.tolist() == [0.25]


@pytest.mark.parametrize("value", [4.0, 0.1, 1e5, 123456.0, 1e15, 1e-4, 1e-5, 0.1 + 0.2, 1 / 3, -2.5, 1e300, np.inf])
def test_numbers_are_written_as_r_writes_them(value):
    expected = {4.0: "4", 0.1: "0.1", 1e5: "1e+05", 123456.0: "123456", 1e15: "1e+15", 1e-4: "1e-04", 1e-5: "1e-05", -2.5: "-2.5",
                1e300: "1e+300", np.inf: "Inf", 1 / 3: "0.333333333333333", 0.1 + 0.2: "0.3"}  # fmt: skip
    assert number_text(value) == expected[value]


# ---------------------------------------------------------------- limits


def test_depth_costs_no_python_frames():
    depth = sys.getrecursionlimit() + 500
    value = read_rds(xdr(*[19, 1] * depth, 254))
    for _ in range(depth):
        value = value.value[0]
    assert value is None
    with pytest.raises(ArtifactError, match="nests deeper"):
        read_rds(xdr(*[19, 1] * 20_000, 254))


def test_a_compression_bomb_is_refused_before_it_unpacks():
    bomb = zlib.compress(b"X\n" + bytes(50_000_000), 9)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="more than 1000000 bytes"):
        read_rds(bomb, max_bytes=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zlib.compress])
def test_truncated_compression_is_an_artifact_error(pack):
    whole = pack((SEEDS / "lm.2.plain.rds").read_bytes())
    assert read_rds(whole).classes == ("lm",)
    for cut in (3, 12, len(whole) // 2, len(whole) - 9):
        with pytest.raises(ArtifactError):
            read_rds(whole[:cut])


def test_a_short_file_cannot_claim_a_huge_vector():
    for kind in (10, 13, 14, 15, 16, 19, 20, 24):
        with pytest.raises(ArtifactError):
            read_rds(xdr(kind, 2**31 - 1))


def test_a_compact_sequence_cannot_claim_more_than_the_limit():
    name, package = xdr(1, 9, 14, b"compact_intseq")[14:], xdr(1, 9, 4, b"base")[14:]
    info = struct.pack(">i", 2) + name + struct.pack(">i", 2) + package + struct.pack(">iiiii", 2, 13, 1, 13, 254)
    for length, good in ((3.0, True), (1e15, False), (float("nan"), False)):
        data = xdr(238) + info + struct.pack(">iiddd", 14, 3, length, 1.0, 1.0) + struct.pack(">i", 254)
        if good:
            assert read_rds(data).integers().tolist() == [1, 2, 3]
        else:
            with pytest.raises(ArtifactError):
                read_rds(data)


def _sequence(length: float) -> bytes:
    symbol = lambda name: xdr(1, 9, len(name), name)[14:]  # noqa: E731
    info = (
        struct.pack(">i", 2) + symbol(b"compact_intseq") + struct.pack(">i", 2) + symbol(b"base") + struct.pack(">iiiii", 2, 13, 1, 13, 254)
    )
    return struct.pack(">i", 238) + info + struct.pack(">iiddd", 14, 3, length, 1.0, 1.0) + struct.pack(">i", 254)


def test_many_compact_sequences_cannot_claim_more_than_one():
    assert len(read_rds(xdr(19, 2, _sequence(2.0**26), _sequence(2.0**25))).value) == 2
    with pytest.raises(ArtifactError, match="too long"):
        read_rds(xdr(19, 3, _sequence(2.0**26), _sequence(2.0**26), _sequence(2.0**26)))


def test_a_compact_sequence_becomes_numbers_at_once():
    value = read_rds(xdr(_sequence(1e6)))
    tracemalloc.start()
    assert value.numbers()[-1] == 1e6
    assert tracemalloc.get_traced_memory()[1] < 40_000_000  # three arrays, no Python integers
    tracemalloc.stop()


def test_a_long_compressed_file_is_not_copied_over_and_over():
    noise = np.random.default_rng(0).integers(0, 256, 8_000_000, dtype=np.uint8).tobytes()
    packed = gzip.compress(xdr(24, len(noise), noise), 1)
    fed = []

    class Counting:
        def __init__(self):
            self._engine = zlib.decompressobj(wbits=47)

        def __getattr__(self, name):
            return getattr(self._engine, name)

        def decompress(self, chunk, most):
            fed.append(len(chunk))
            return self._engine.decompress(chunk, most)

    assert _unpack(packed, Counting, 1 << 30, b"\x1f\x8b").endswith(noise)
    assert sum(fed) < 3 * len(packed)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_several_members_are_one_file(pack):
    plain = (SEEDS / "lm.2.plain.rds").read_bytes()
    assert read_rds(pack(plain[:100]) + pack(plain[100:])).classes == ("lm",)


def test_references_outside_the_table_are_refused():
    with pytest.raises(ArtifactError, match="refers to item 7"):
        read_rds(xdr(7 << 8 | 255))


def test_too_many_values_are_refused():
    with pytest.raises(ArtifactError, match="too many values"):
        read_rds(xdr(19, 100, *[254] * 100), max_objects=50)


def test_a_memory_mapped_vector_is_not_opened():
    name = xdr(1, 9, 9, b"mmap_real")[14:]
    info = struct.pack(">i", 2) + name + struct.pack(">i", 254)
    with pytest.raises(ArtifactError, match="mmap_real"):
        read_rds(xdr(238) + info + struct.pack(">ii", 19, 0) + struct.pack(">i", 254))


def test_other_files_are_refused_by_name():
    for data in (b"", b"X", b"PK\x03\x04", b"X\n\0\0", b"Q\n1\n"):
        with pytest.raises(ArtifactError):
            read_rds(data)
    with pytest.raises(ArtifactError, match="version 9"):
        read_rds(b"X\n" + struct.pack(">iii", 9, 0, 0))


# ---------------------------------------------------------------- damaged files


_EXTREMES = [struct.pack(">i", v) for v in (-1, -2, 0, 1, 254, 255, 238, 2**31 - 1, -(2**31), 0x7FFFFF, 21, 243, 244, 1026, 531)]


def _plain(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def damaged(rng: np.random.Generator, sources: list[bytes]) -> bytes:
    data = bytearray(sources[rng.integers(len(sources))])
    for _ in range(int(rng.integers(1, 5))):
        if len(data) < 8:
            break
        at = int(rng.integers(len(data)))
        way = rng.integers(6)
        if way == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[at] = int(rng.integers(256))
        elif way == 2:
            del data[at : at + int(rng.integers(1, 9))]
        elif way == 3:
            other = sources[rng.integers(len(sources))]
            start = int(rng.integers(len(other)))
            data[at:at] = other[start : start + int(rng.integers(1, 40))]
        elif way == 4:
            at = 14 + (at - 14) // 4 * 4 if at >= 14 else at
            data[at : at + 4] = _EXTREMES[rng.integers(len(_EXTREMES))]
        else:
            del data[at:]
    return bytes(data)


def _fuzz(count: int, first_seed: int) -> int:
    raw = [f.read_bytes() for f in FILES]
    sources = raw + 3 * [_plain(d) for d in raw if d[:3] not in (b"BZh", b"\xfd7z")]
    rng, read = np.random.default_rng(first_seed), 0
    for _ in range(count):
        data = damaged(rng, sources)
        try:
            value = read_rds(data)
        except ArtifactError:
            continue
        read += 1
        _use(value)
    return read


def _use(value: RObject | None) -> None:
    """What a damaged file still reads as may only fail with errors of ours."""
    framework = RFramework()
    if not framework.accepts(value):
        return
    try:
        signature = framework.infer(value, None)
        framework.probe(value, signature=signature, seed=0)
    except MlbridgeError:
        return


def test_5000_damaged_files_give_artifact_errors_only():
    tracemalloc.start()
    read = _fuzz(5_000, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < read < 5_000
    assert peak < 300_000_000


@pytest.mark.full
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(10))
def test_100000_damaged_files_give_artifact_errors_only(part):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    assert _fuzz(10_000, 100 + part) > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 600_000_000
