import errno
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.artifact import open_artifact
from mlbridge.errors import ArtifactError, InputError
from mlbridge.package import MANIFEST, read_package


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(50, 3))
    here = tmp_path_factory.mktemp("packages")
    with mb.wrap(LogisticRegression().fit(x, x[:, 0] > 0), sample=x) as model:
        model.save(here / "m.mlb")
        model.save(here / "tree.mlb", form="folder")
    return here


@pytest.mark.parametrize("name", ["m.mlb", "tree.mlb"])
def test_file_and_folder_answer_alike(folder, name):
    with mb.load(folder / name) as model:
        feeds, want = model.samples
        got = model.run(feeds)
        np.testing.assert_allclose(got["probabilities"], want["probabilities"], rtol=1e-9)
        assert model.report.verified


def test_the_zip_is_stored_and_starts_with_its_manifest(folder):
    with zipfile.ZipFile(folder / "m.mlb") as z:
        assert z.infolist()[0].filename == MANIFEST
        assert {i.compress_type for i in z.infolist()} == {zipfile.ZIP_STORED}


def test_samples_are_as_many_as_said(folder, tmp_path):
    with mb.load(folder / "m.mlb") as model:
        assert model.save(tmp_path / "a.mlb", samples=5) == 5
        assert model.save(tmp_path / "b.mlb", samples=0) == 0
    assert read_package(open_artifact(tmp_path / "b.mlb")).samples is None


def test_an_existing_package_is_not_replaced_by_chance(folder):
    with mb.load(folder / "m.mlb") as model, pytest.raises(InputError, match="overwrite"):
        model.save(folder / "m.mlb")


def test_a_flipped_byte_in_any_file_is_refused(folder, tmp_path):
    data = (folder / "m.mlb").read_bytes()
    with zipfile.ZipFile(folder / "m.mlb") as z:
        entries = z.infolist()
    for e in entries:
        head = e.header_offset + 30 + len(e.filename)
        bad = bytearray(data)
        bad[head + max(e.file_size // 2, 0)] ^= 0x10
        (tmp_path / "bad.mlb").write_bytes(bad)
        with pytest.raises(ArtifactError):
            mb.load(tmp_path / "bad.mlb")


def test_a_changed_file_with_a_right_checksum_is_refused(folder, tmp_path):
    def change(name, data):
        return data[:-1] + bytes([data[-1] ^ 1]) if name.endswith(".onnx") else data

    _rewrite(folder / "m.mlb", tmp_path / "bad.mlb", change)
    with pytest.raises(ArtifactError, match="sha256 differs"):
        mb.load(tmp_path / "bad.mlb")


def _rewrite(source, target, change=lambda n, d: d, extra=()):
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w") as b:
        for i in a.infolist():
            b.writestr(i.filename, change(i.filename, a.read(i)))
        for name, data in extra:
            b.writestr(name, data)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "C:evil", "a\\b", "CON", "model/onnx/MODEL.onnx", "a//b", "trailing. "]
)
def test_unsafe_names_are_refused(folder, tmp_path, name):
    _rewrite(folder / "m.mlb", tmp_path / "bad.mlb", extra=[(name, b"x")])
    with pytest.raises(ArtifactError):
        mb.load(tmp_path / "bad.mlb")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(folder, tmp_path):
    _rewrite(folder / "m.mlb", tmp_path / "bad.mlb", extra=[("README.md", b"x")])
    with pytest.raises(ArtifactError, match="two files"):
        mb.load(tmp_path / "bad.mlb")


def test_links_are_refused(folder, tmp_path):
    info = zipfile.ZipInfo("model/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    _rewrite(folder / "m.mlb", tmp_path / "bad.mlb", extra=[(info, b"/etc/passwd")])
    with pytest.raises(ArtifactError, match="link"):
        mb.load(tmp_path / "bad.mlb")
    with mb.load(folder / "tree.mlb") as model:
        model.save(tmp_path / "tree.mlb", form="folder")
    (tmp_path / "tree.mlb" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="link"):
        mb.load(tmp_path / "tree.mlb")


def test_a_ratio_bomb_is_refused_before_it_is_unpacked(folder, tmp_path):
    with zipfile.ZipFile(folder / "m.mlb") as a, zipfile.ZipFile(tmp_path / "bad.mlb", "w", zipfile.ZIP_DEFLATED) as b:
        for i in a.infolist():
            b.writestr(i.filename, a.read(i))
        b.writestr("bomb", bytes(50_000_000))
    with pytest.raises(ArtifactError):
        mb.load(tmp_path / "bad.mlb")


def test_a_million_entries_are_refused(tmp_path):
    with open(tmp_path / "bad.mlb", "wb") as f:  # written by hand: zipfile takes minutes for it
        f.write(_local(MANIFEST, b"{}"))
        start, n = f.tell(), 1_000_000
        f.write(_central(MANIFEST, b"{}"))
        f.write(b"".join(_central(f"f{i:07}", b"") for i in range(n - 1)))
        size = f.tell() - start
        f.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, n, n, size, start))
        f.write(struct.pack("<IIQI", 0x07064B50, 0, start + size, 1))
        f.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    with pytest.raises(ArtifactError, match="entries"):
        mb.load(tmp_path / "bad.mlb")


def _local(name, data):
    return (
        struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0)
        + name.encode()
        + data
    )


def _central(name, data):
    sizes = (zlib.crc32(data), len(data), len(data), len(name), 0, 0, 0, 0, 0, 0)
    return struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0x21, *sizes) + name.encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format_version=2), "format version 2"),
        (lambda m: m.update(format_version="1"), "format_version"),
        (lambda m: m.update(implementations=[]), "no implementation"),
        (lambda m: m["implementations"][0].update(path="../x"), "unsafe"),
        (lambda m: m["implementations"][0].update(path="nothing"), "not there"),
        (lambda m: m["signature"].update(colour=1), "unknown keys"),
        (lambda m: m.pop("files"), "lists no files"),
        (lambda m: m["files"].pop("README.md"), "README.md"),
    ],
)
def test_a_malformed_manifest_is_refused_in_words(folder, tmp_path, change, words):
    def edit(name, data):
        if name != MANIFEST:
            return data
        made = json.loads(data)
        change(made)
        return json.dumps(made).encode()

    _rewrite(folder / "m.mlb", tmp_path / "bad.mlb", edit)
    with pytest.raises(ArtifactError) as caught:
        mb.load(tmp_path / "bad.mlb")
    assert words in str(caught.value)


def test_a_truncated_package_is_refused(folder, tmp_path):
    data = (folder / "m.mlb").read_bytes()
    for n in (0, 3, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "bad.mlb").write_bytes(data[:n])
        with pytest.raises(ArtifactError):
            mb.load(tmp_path / "bad.mlb")


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_full_disk_leaves_the_old_package_whole(folder, tmp_path, monkeypatch, form):
    with mb.load(folder / "m.mlb") as model:
        model.save(tmp_path / "p.mlb", form=form)
        before = mb.artifact.open_artifact(tmp_path / "p.mlb").sha256
        real = os.replace

        def full(source, target):
            if str(target).endswith("p.mlb") and "old" not in str(source):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(source, target)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(ArtifactError, match="No space"):
            model.save(tmp_path / "p.mlb", form=form, overwrite=True)
    monkeypatch.undo()
    assert mb.artifact.open_artifact(tmp_path / "p.mlb").sha256 == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.mlb"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no limits on the size of files")
@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_write_the_system_refuses_leaves_the_old_package_whole(folder, tmp_path, form):
    # In a process of its own: the limit on file sizes stands for a full disk, and holds for good.
    code = f"""
import resource, signal, sys
import mlbridge as mb
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with mb.load({str(folder / "m.mlb")!r}) as model:
    model.save("p.mlb", form={form!r})
    before = mb.artifact.open_artifact("p.mlb").sha256
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
    try:
        model.save("p.mlb", form={form!r}, overwrite=True)
    except mb.errors.ArtifactError as exc:
        print("refused:", exc.message)
print(before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "refused: " in done.stdout, done.stderr
    assert mb.artifact.open_artifact(tmp_path / "p.mlb").sha256 == done.stdout.split()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["p.mlb"]
