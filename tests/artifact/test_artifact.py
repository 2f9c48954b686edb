"""The artifact: it gives back what was quantized, round-trips byte for byte, and refuses every lie by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bitwright
from bitwright.artifact import ArtifactModel, Manifest, SafetensorsFile, SafetensorsWriter, StoredTensor, open_artifact
from bitwright.artifact.manifest import SIZE_LIMIT, VERSION
from bitwright.core import Recipe, Scheme
from bitwright.errors import (
    BitwrightError,
    HeaderError,
    ManifestError,
    MissingTensorError,
    ModelConfigError,
    ModelNotFoundError,
    NonFiniteError,
    OffsetError,
    SchemeError,
    ShapeError,
    TokenizerError,
    TruncatedFileError,
)
from bitwright.models.base import Dense, LanguageModel, Packed

Edit = Callable[[dict[str, Any]], object]
Q, K, NORM = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight", "model.norm.weight"
GATE_1, EMBEDDING = "model.layers.1.mlp.gate_proj.weight", "model.embed_tokens.weight"
UP_1 = "model.layers.1.mlp.up_proj.weight"
GATE, DOWN = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight"


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def damaged(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, to be changed."""
    return Path(shutil.copytree(artifact, tmp_path / "damaged"))


def edit_manifest(directory: Path, edit: Edit) -> None:
    fields = json.loads((directory / "manifest.json").read_text())
    edit(fields)
    (directory / "manifest.json").write_text(json.dumps(fields))


def edit_tensors(directory: Path, edit: Edit) -> None:
    """`edit` changes {part: (dtype, array)}; the file is then written anew, in the order of that dict."""
    path = directory / "model.safetensors"
    file = SafetensorsFile(path)
    parts = {name: (file.dtype(name), file.view(name).copy()) for name in file.names()}
    edit(parts)
    path.unlink()
    with SafetensorsWriter(path, {name: (dtype, array.shape) for name, (dtype, array) in parts.items()}) as writer:
        for name, (_, array) in parts.items():
            writer.write(name, array)


def read_all(directory: Path) -> None:
    model = bitwright.load(directory)
    assert isinstance(model, ArtifactModel)
    for name in model.names():
        model.read(name)
    model.tokenizer().encode("some text")


def test_gives_back_what_was_quantized(source: LanguageModel, recipe: Recipe, artifact: Path) -> None:
    quantized, opened = bitwright.quantize(source, recipe), bitwright.load(artifact)
    assert isinstance(opened, ArtifactModel)
    assert opened.names() == quantized.names()
    assert opened.architecture == source.architecture
    assert opened.roles() == source.roles()
    for name in opened.names():
        np.testing.assert_array_equal(opened.read(name), quantized.read(name))
        assert opened.shape(name) == quantized.shape(name) == opened.read(name).shape
        assert opened.scheme_of(name) == quantized.scheme_of(name)
        assert opened.stored_bits(name) == quantized.stored_bits(name)
    text = "The quick brown fox, 12 times."
    assert opened.tokenizer().encode(text) == source.tokenizer().encode(text)


def test_stored_bits_are_the_bits_in_the_file(artifact: Path) -> None:
    model, file = open_artifact(artifact), SafetensorsFile(artifact / "model.safetensors")
    assert sum(model.stored_bits(name) for name in model.names()) == 8 * sum(file.nbytes(part) for part in file.names())


def test_round_trips_byte_for_byte(artifact: Path, tmp_path: Path) -> None:
    again = open_artifact(artifact).save(tmp_path / "again")
    assert files(again.path) == files(artifact)


def test_quantizing_twice_gives_the_same_bytes(source: LanguageModel, recipe: Recipe, artifact: Path, tmp_path: Path) -> None:
    assert files(bitwright.quantize(source, recipe).save(tmp_path / "again").path) == files(artifact)


def test_tensors_are_views_of_the_mapped_file(artifact: Path) -> None:
    packed = open_artifact(artifact).stored(Q)
    assert isinstance(packed, Packed)
    assert not packed.codes.flags.owndata and not packed.codes.flags.writeable


def test_a_fingerprint_is_of_the_content(artifact: Path, damaged: Path) -> None:
    before = open_artifact(damaged).fingerprint()
    assert open_artifact(damaged).fingerprint() == before
    edit_manifest(damaged, lambda m: m["source"].update(name="other"))
    assert open_artifact(damaged).fingerprint() != before


def test_an_artifact_without_a_tokenizer_says_so(damaged: Path) -> None:
    (damaged / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError):
        open_artifact(damaged).tokenizer()


def rename(key: str, other: str) -> Edit:
    return lambda m: m["tensors"].update({other: m["tensors"].pop(key)})


MANIFEST_FAULTS: dict[str, tuple[Edit, type[BitwrightError], str]] = {
    "another format": (lambda m: m.update(format="gguf"), ManifestError, "format"),
    "a later version": (lambda m: m.update(version=VERSION + 1), ManifestError, "upgrade it or quantize again"),
    "version true": (lambda m: m.update(version=True), ManifestError, "version True"),
    "version a string": (lambda m: m.update(version="1"), ManifestError, "version 1"),
    "no config": (lambda m: m.pop("config"), ManifestError, "'config'"),
    "an unknown key": (lambda m: m.update(path="/etc/passwd"), ManifestError, "'path'"),
    "config a list": (lambda m: m.update(config=[]), ManifestError, "'config'"),
    "config empty": (lambda m: m.update(config={}), ModelConfigError, "config"),
    "config of another size": (lambda m: m["config"].update(hidden_size=128), ShapeError, "shape"),
    "config of more layers": (lambda m: m["config"].update(num_hidden_layers=3), MissingTensorError, "layers.2"),
    "recipe a number": (lambda m: m.update(recipe=1), ManifestError, "'recipe'"),
    "source a list": (lambda m: m.update(source=[]), ManifestError, "'source'"),
    "source of numbers": (lambda m: m["source"].update(name=1), ManifestError, "'source'"),
    "no tensors": (lambda m: m.update(tensors={}), ManifestError, "at least one tensor"),
    "tensors a list": (lambda m: m.update(tensors=[]), ManifestError, "'tensors'"),
    "tensor a string": (lambda m: m["tensors"].update({Q: "int4"}), ManifestError, "scheme and a shape"),
    "tensor with a path": (lambda m: m["tensors"][Q].update(file="../x"), ManifestError, "scheme and a shape"),
    "scheme unknown": (lambda m: m["tensors"][Q].update(scheme="int9-g32"), ManifestError, "int9"),
    "scheme spelled otherwise": (lambda m: m["tensors"][Q].update(scheme="INT4-g32"), ManifestError, "write int4-g32"),
    "scheme does not divide": (lambda m: m["tensors"][Q].update(scheme="int4-g48"), ManifestError, "does not divide"),
    "scheme of 9999 digits": (lambda m: m["tensors"][Q].update(scheme="int4-g" + "9" * 9999), ManifestError, "int4-g9"),
    "scheme of another width": (lambda m: m["tensors"][Q].update(scheme="int8-g32"), ShapeError, "codes"),
    "scheme of another group": (lambda m: m["tensors"][Q].update(scheme="int4-g16"), ShapeError, "scale"),
    "scheme of another scale": (lambda m: m["tensors"][Q].update(scheme="int4-g32-sbf16"), ManifestError, "BF16"),
    "scheme affine": (lambda m: m["tensors"][Q].update(scheme="int4-g32-affine"), MissingTensorError, "zero_point"),
    "scheme not affine": (lambda m: m["tensors"][K].update(scheme="int3-g16-sbf16"), ManifestError, "does not name"),
    "scheme of rows": (lambda m: m["tensors"][Q].update(scheme="int4-g32-srow5"), ShapeError, "scale"),
    "scheme not of rows": (lambda m: m["tensors"][DOWN].update(scheme="int4-g32"), ShapeError, "scale"),
    "scheme of a table": (lambda m: m["tensors"][EMBEDDING].update(scheme="kmeans3-g16"), ShapeError, "table"),
    "scheme of no table": (lambda m: m["tensors"][EMBEDDING].update(scheme="nf3-g16"), ManifestError, "does not name"),
    "scheme by its full name": (lambda m: m["tensors"][GATE_1].update(scheme="fp4e2m1-g16-se4m3"), ManifestError, "nvfp4"),
    "rotation zero": (lambda m: m["tensors"][DOWN].update(rotation=0), ManifestError, "impossible rotation"),
    "rotation one": (lambda m: m["tensors"][DOWN].update(rotation=1), ManifestError, "impossible rotation"),
    "rotation true": (lambda m: m["tensors"][DOWN].update(rotation=True), ManifestError, "impossible rotation"),
    "rotation null": (lambda m: m["tensors"][DOWN].update(rotation=None), ManifestError, "impossible rotation"),
    "rotation a float": (lambda m: m["tensors"][DOWN].update(rotation=64.0), ManifestError, "impossible rotation"),
    "rotation huge": (lambda m: m["tensors"][DOWN].update(rotation=2**200), ManifestError, "impossible rotation"),
    "rotation of three": (lambda m: m["tensors"][DOWN].update(rotation=3), ManifestError, "cannot be rotated by 3"),
    "rotation too wide": (lambda m: m["tensors"][DOWN].update(rotation=128), ManifestError, "impossible rotation"),
    "rotation of floats": (lambda m: m["tensors"][GATE].update(rotation=64), ManifestError, "cannot be rotated by 64"),
    "rotation of a vector": (lambda m: m["tensors"][NORM].update(rotation=64), ManifestError, "cannot be rotated by 64"),
    "vector quantized": (lambda m: m["tensors"][NORM].update(scheme="int8-channel"), ManifestError, "matrices"),
    "shape empty": (lambda m: m["tensors"][Q].update(shape=[]), ManifestError, "shape"),
    "shape of zeros": (lambda m: m["tensors"][Q].update(shape=[0, 64]), ManifestError, "impossible"),
    "shape negative": (lambda m: m["tensors"][Q].update(shape=[-64, -64]), ManifestError, "impossible"),
    "shape huge": (lambda m: m["tensors"][Q].update(shape=[2**62, 2**62]), ManifestError, "impossible"),
    "shape wraps to 4096": (lambda m: m["tensors"][Q].update(shape=[2**58 + 64, 64]), ManifestError, "impossible"),
    "shape of floats": (lambda m: m["tensors"][Q].update(shape=[64.0, 64]), ManifestError, "impossible"),
    "shape of booleans": (lambda m: m["tensors"][Q].update(shape=[True, 64]), ManifestError, "impossible"),
    "shape turned": (lambda m: m["tensors"]["lm_head.weight"].update(shape=[64, 320]), ShapeError, "shape"),
    "shape of nine sizes": (lambda m: m["tensors"][Q].update(shape=[1] * 9), ManifestError, "1 to 8"),
    "name reserved": (rename(NORM, "__metadata__"), ManifestError, "can be called"),
    "name empty": (rename(NORM, ""), ManifestError, "can be called"),
    "name with an escape": (rename(NORM, "\x1b[2J"), ManifestError, "can be called"),
    "name with a surrogate": (rename(NORM, "\ud800"), ManifestError, "can be called"),
    "name too long": (rename(NORM, "n" * 9999), ManifestError, "can be called"),
    "name of a part": (rename(NORM, Q + ".scale"), ManifestError, "two tensors"),
    "tensor not in the file": (rename(NORM, "model.other"), MissingTensorError, "model.other"),
    "tensor not in the manifest": (lambda m: m["tensors"].pop(NORM), ManifestError, "does not name"),
    "order": (rename(Q, Q), HeaderError, "order"),
}


@pytest.mark.parametrize("case", MANIFEST_FAULTS)
def test_a_manifest_that_lies(damaged: Path, case: str) -> None:
    edit, error, message = MANIFEST_FAULTS[case]
    edit_manifest(damaged, edit)
    with pytest.raises(error, match=re.escape(message)) as caught:
        open_artifact(damaged)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and str(caught.value).isprintable()


RAW_MANIFESTS = {
    "empty": b"",
    "not JSON": b"hello",
    "a list": b"[]",
    "not UTF-8": b'{"\xff": 1}',
    "a key twice": b'{"format": "bitwright", "format": "bitwright"}',
    "NaN": b'{"format": NaN}',
    "deep nesting": b'{"format":' + b"[" * 200_000,
    "10,000 digits": b'{"version": ' + b"1" * 10_000 + b"}",
    "over the limit": b" " * (SIZE_LIMIT + 1),
}


@pytest.mark.parametrize("case", RAW_MANIFESTS)
def test_a_manifest_that_is_none(damaged: Path, case: str) -> None:
    (damaged / "manifest.json").write_bytes(RAW_MANIFESTS[case])
    with pytest.raises(ManifestError):
        bitwright.load(damaged)


def put(part: str, place: Any, value: float) -> Edit:
    def edit(parts: dict[str, Any]) -> None:
        parts[part][1].reshape(-1)[place] = value

    return edit


def replace(part: str, dtype: str, array: Any) -> Edit:
    return lambda parts: parts.update({part: (dtype, array)})


HEAD = "lm_head.weight"
TENSOR_FAULTS: dict[str, tuple[Edit, type[BitwrightError], str]] = {
    "a part less": (lambda t: t.pop(Q + ".scale"), MissingTensorError, "lacks"),
    "a part more": (lambda t: t.update(extra=("U8", np.zeros(4, np.uint8))), ManifestError, "'extra'"),
    "a part of another dtype": (replace(NORM, "BF16", np.zeros(64, np.uint16)), ManifestError, "BF16"),
    "a part of another shape": (replace(NORM, "F16", np.zeros(63, np.float16)), ShapeError, "shape"),
    "another order": (lambda t: t.update({NORM: t.pop(NORM)}), HeaderError, "order"),
}


@pytest.mark.parametrize("case", TENSOR_FAULTS)
def test_a_tensor_file_that_contradicts_the_manifest(damaged: Path, case: str) -> None:
    edit, error, message = TENSOR_FAULTS[case]
    edit_tensors(damaged, edit)
    with pytest.raises(error, match=re.escape(message)):
        open_artifact(damaged)


VALUE_FAULTS: dict[str, tuple[str, Edit, type[BitwrightError]]] = {
    "scale NaN": (Q, put(Q + ".scale", 3, np.nan), NonFiniteError),
    "scale infinite": (HEAD, put(HEAD + ".scale", -1, -np.inf), NonFiniteError),
    "bf16 scale infinite": (K, put(K + ".scale", 0, 0x7F80), NonFiniteError),
    "scale whose weights overflow": (
        "model.layers.1.self_attn.o_proj.weight",
        put("model.layers.1.self_attn.o_proj.weight.scale", 0, 3e38),
        NonFiniteError,
    ),
    "fp8 multiple NaN": (GATE_1, put(GATE_1 + ".multiple", 5, 0xFF), NonFiniteError),
    "tensor's scale infinite": (GATE_1, put(GATE_1 + ".scale", 0, np.inf), NonFiniteError),
    "level -128": (EMBEDDING, put(EMBEDDING + ".table", 9, -128), NonFiniteError),
    "level NaN": (UP_1, put(UP_1 + ".table", 9, np.nan), NonFiniteError),
    "level huge": (UP_1, put(UP_1 + ".table", 9, 60000), NonFiniteError),
    "multiple -16": (DOWN, put(DOWN + ".multiple", 0, 0), ManifestError),
    "zero point outside the format": (K, put(K + ".zero_point", 1, 8), ManifestError),
}


@pytest.mark.parametrize("case", VALUE_FAULTS)
def test_values_are_checked_when_they_are_read(damaged: Path, case: str) -> None:
    name, edit, error = VALUE_FAULTS[case]
    edit_tensors(damaged, edit)
    model = open_artifact(damaged)
    with pytest.raises(error, match=re.escape(name)):
        model.stored(name)


def test_reordered_header_entries_are_refused(damaged: Path) -> None:
    """The same bytes, listed in another order: fine for safetensors, not for an artifact."""
    path = damaged / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(dict(reversed(header.items())), separators=(",", ":")).encode().ljust(length)
    path.write_bytes(content[:8] + text + content[8 + length :])
    with pytest.raises(HeaderError, match="order"):
        open_artifact(damaged)


def test_truncated_and_lengthened(damaged: Path) -> None:
    path = damaged / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(TruncatedFileError):
        bitwright.load(damaged)
    path.write_bytes(content + b"\0")
    with pytest.raises(OffsetError):
        bitwright.load(damaged)
    path.unlink()
    with pytest.raises(ModelNotFoundError, match="no file"):
        bitwright.load(damaged)


def test_absent(tmp_path: Path, artifact: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        open_artifact(tmp_path / "none")
    with pytest.raises(ManifestError, match="check the path"):
        open_artifact(tmp_path)
    with pytest.raises(MissingTensorError, match="'other'"):
        open_artifact(artifact).stored("other")


def test_what_json_cannot_hold_is_refused_on_writing() -> None:
    line = {"norm": StoredTensor(Scheme.parse("fp16"), (4,))}
    for config in ({"x": float("nan")}, {"x": b"bytes"}):
        with pytest.raises(ManifestError, match="config.json"):
            Manifest(config, line, "0").encode()


def test_a_tensor_that_is_not_what_was_announced_is_refused() -> None:
    line = StoredTensor(Scheme.parse("fp16"), (4,))
    with pytest.raises(SchemeError, match="was announced"):
        line.arrays("x", Dense("fp16", np.zeros(5, np.float16)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_damage_ends_in_a_named_error_or_a_readable_artifact(
    artifact: Path, tmp_path: Path, file: str, data: st.DataObject
) -> None:
    directory = tmp_path / "damaged"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(artifact, directory)
    content = bytearray((directory / file).read_bytes())
    # Headers are a small part of a file, and the part worth damaging.
    reach = data.draw(st.sampled_from([8, min(4096, len(content)), len(content)]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, reach - 1)) % len(content)
        kind = data.draw(st.sampled_from(["flip", "splice", "cut"]))
        if kind == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "splice":
            other = data.draw(st.integers(0, len(content) - 1))
            content[place : place + 8] = content[other : other + 8]
        else:
            del content[place + 1 :]
    (directory / file).write_bytes(content)
    try:
        read_all(directory)
    except BitwrightError:
        pass
