"""Writing: an artifact appears whole or not at all, whatever goes wrong, and nothing that is not ours is ever replaced."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitwright
from bitwright.artifact import SafetensorsWriter, open_artifact
from bitwright.artifact.staging import write_file
from bitwright.core import Recipe
from bitwright.errors import BitwrightError, NonFiniteError, OutputError
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel
from handmade import make_handmade

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def quantized(source: LanguageModel, recipe: Recipe) -> QuantizedModel:
    return bitwright.quantize(source, recipe)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", ["absent", "empty", "artifact"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RuntimeError("a bug"), OSError(errno.ENOSPC, "No space left on device")])
def test_whatever_goes_wrong_leaves_everything_as_it_was(
    quantized: QuantizedModel, artifact: Path, tmp_path: Path, before: str, fault: BaseException
) -> None:
    out = tmp_path / "out"
    if before == "empty":
        out.mkdir()
    elif before == "artifact":
        shutil.copytree(artifact, out)
    listing, files = sorted(path.name for path in tmp_path.iterdir()), contents(tmp_path)

    def progress(name: str, done: int, total: int) -> None:
        assert any(".partial-" in path.name for path in tmp_path.iterdir())
        if done > total // 2:
            raise fault

    with pytest.raises(OutputError if isinstance(fault, OSError) else type(fault)):
        quantized.save(out, progress)
    assert (sorted(path.name for path in tmp_path.iterdir()), contents(tmp_path)) == (listing, files)


def test_progress_counts_the_bytes(quantized: QuantizedModel, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    quantized.save(tmp_path / "out", lambda name, done, total: seen.append((name, done, total)))
    assert [name for name, _, _ in seen] == list(quantized.names())
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert {total for _, _, total in seen} == {seen[-1][1]}


def test_a_write_that_fails_names_the_full_disk(
    quantized: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: SafetensorsWriter, name: str, tensor: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SafetensorsWriter, "write", write)
    with pytest.raises(OutputError, match="the disk is full .* free some space"):
        quantized.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_size_limit_ends_in_a_named_error(quantized: QuantizedModel, tmp_path: Path) -> None:
    """The operating system itself refuses, in the middle of the tensor file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(OutputError, match="full"):
            quantized.save(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_refused_before_any_work(
    quantized: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    monkeypatch.setattr(QuantizedModel, "stored", lambda self, name: pytest.fail("work was done"))
    with pytest.raises(OutputError, match="MB are needed"):
        quantized.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_fault_in_the_weights_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    import numpy as np

    bad = np.zeros((64, 192), np.float32)
    bad[5, 7] = np.nan
    name = "model.layers.1.mlp.down_proj.weight"
    model = bitwright.load(make_handmade(tmp_path / "source", changed={name: bad}))
    with pytest.raises(NonFiniteError, match=f"{name} holds 1 NaN"):
        bitwright.quantize(model, Recipe.uniform("int4-g32")).save(tmp_path / "out")
    with pytest.raises(NonFiniteError, match=name):  # this recipe keeps that tensor as it is
        bitwright.quantize(model, recipe).save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_artifact_is_replaced(quantized: QuantizedModel, artifact: Path, source: LanguageModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bitwright.quantize(source, Recipe.uniform("int8-channel")).save(out)
    quantized.save(out)
    assert contents(out) == contents(artifact)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_artifact_can_be_requantized_into_its_own_place(artifact: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(artifact, tmp_path / "out"))
    bitwright.quantize(open_artifact(out), Recipe.uniform("int2-g32")).save(out)
    assert open_artifact(out).scheme_of("model.layers.0.self_attn.q_proj.weight") == "int2-g32"
    assert open_artifact(out).tokenizer().encode("hello")


def test_through_a_link_the_target_is_replaced(quantized: QuantizedModel, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    quantized.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == contents(artifact)


def hugging_face(out: Path, artifact: Path) -> None:
    make_handmade(out)


def with_notes(out: Path, artifact: Path) -> None:
    shutil.copytree(artifact, out)
    (out / "notes.txt").write_text("mine")


def with_folder(out: Path, artifact: Path) -> None:
    shutil.copytree(artifact, out)
    (out / "backup").mkdir()


def with_broken_manifest(out: Path, artifact: Path) -> None:
    shutil.copytree(artifact, out)
    (out / "manifest.json").write_text('{"manifest_version": 3}')  # a browser extension's, say


def only_a_tokenizer(out: Path, artifact: Path) -> None:
    out.mkdir()
    shutil.copy(artifact / "tokenizer.json", out)


@pytest.mark.parametrize("prepare", [hugging_face, with_notes, with_folder, with_broken_manifest, only_a_tokenizer])
def test_what_is_not_ours_is_not_replaced(quantized: QuantizedModel, artifact: Path, tmp_path: Path, prepare: object) -> None:
    out = tmp_path / "out"
    assert callable(prepare)
    prepare(out, artifact)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="choose another output"):
        quantized.save(out)
    assert contents(tmp_path) == before


def test_outputs_that_cannot_be(quantized: QuantizedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, message in {
        tmp_path / "file": "is a file",
        tmp_path / "none" / "out": "create it",
        tmp_path / "file" / "out": "create it",
        tmp_path / ("n" * 250): "too long",
        Path("/proc/out"): "choose another output",
    }.items():
        with pytest.raises(OutputError, match=message) as caught:
            quantized.save(out)
        assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(quantized: QuantizedModel, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="permissions"):
        quantized.save(tmp_path / "locked" / "out")


@pytest.fixture
def failing_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    yield


@pytest.mark.usefixtures("failing_rename")
def test_a_failing_rename_brings_the_old_artifact_back(quantized: QuantizedModel, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact, tmp_path / "out")
    with pytest.raises(OutputError, match="Input/output error"):
        quantized.save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(tmp_path / "out") == contents(artifact)


def test_ctrl_c_leaves_nothing(source: LanguageModel, tmp_path: Path) -> None:
    """The real signal, in another process that is in the middle of writing."""
    code = (
        "import sys, time, bitwright as bw\n"
        "quantized = bw.quantize(bw.load(sys.argv[1]), bw.Recipe.uniform('int4-g32'))\n"
        "def progress(name, done, total):\n"
        "    print('working', flush=True)\n"
        "    time.sleep(0.2)\n"
        "quantized.save(sys.argv[2], progress)\n"
    )
    arguments = [sys.executable, "-c", code, str(source.path), str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())


def test_an_output_error_is_one_line_for_the_user(quantized: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(BitwrightError) as caught:
        quantized.save(tmp_path / "none" / "out")
    assert str(caught.value) == f"there is no folder {tmp_path / 'none'}; create it or choose another output"


def test_a_file_appears_whole_and_in_place_of_another(tmp_path: Path) -> None:
    write_file(tmp_path / "plan.json", "old")
    write_file(tmp_path / "plan.json", "new \N{SNOWMAN}\n")
    assert contents(tmp_path) == {"plan.json": "new \N{SNOWMAN}\n".encode()}


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise fault

    write_file(tmp_path / "plan.json", "old")
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError if isinstance(fault, OSError) else KeyboardInterrupt):
        write_file(tmp_path / "plan.json", "new")
    assert contents(tmp_path) == {"plan.json": b"old"}


def test_where_no_file_can_stand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder .*none; create it"):
        write_file(tmp_path / "none" / "plan.json", "")
    with pytest.raises(OutputError, match="is a folder; choose another output"):
        write_file(tmp_path, "")
    assert not list(tmp_path.iterdir())
