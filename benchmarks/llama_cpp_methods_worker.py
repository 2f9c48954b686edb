"""llama.cpp's quantizers behind the protocol of `worker.py`, for methods.py. Run by the interpreter of llama_cpp_build.py.

    python benchmarks/llama_cpp_methods_worker.py      answers requests from stdin

A kind is a type, and what else it says:

    IQ4_XS imatrix        the file that llama.cpp makes, with an importance matrix of the calibration tokens; the types that
                          k-quants and i-quants mix among the matrices are its own
    IQ2_XS joined         all matrices of that type alone, with an importance matrix
    Q4_K_M file           the GGUF itself, embedding and head as llama.cpp chooses, with an importance matrix

Blocks of 256 do not fit this model's rows of 576, for which llama.cpp falls back to types of 32, of 4 bits and more. So that
its types of 2 and 3 bits are in the contest nevertheless, `joined` calls its quantizer on four rows at a time, as one row of
2304 columns: it is what these types would do here if they could.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as api
import numpy as np
import numpy.typing as npt
from llama_cpp._ggml import libggml

from export import CALIBRATION, body, calibration, save_model
from llama_cpp_imatrix import Importance, importance
from llama_cpp_worker import TYPES, silence
from material import TWIN_GGUF
from smollm2 import huggingface_name, read_gguf
from worker import serve

JOINED = 4  # rows of 576 columns: nine blocks of 256
F16 = 1  # in enum ggml_type


def quantize(source: str, target: str, kind: str) -> dict[str, Any]:
    floats = Path(source).with_name(TWIN_GGUF)
    seen = importance_once(floats)
    type_name, _, way = kind.partition(" ")
    if way == "file":
        write_file(floats, Path(target), type_name, seen, ends=False)
        return {}
    if way == "joined":
        tensors, bits = joined(floats, type_name, seen)
    else:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "quantized.gguf"
            write_file(floats, path, type_name, seen if way == "imatrix" else {})
            tensors, bits = read_gguf(path), body_bits(path)
    save_model(source, target, tensors)
    return {"bits": bits}


def importance_once(floats: Path) -> Importance:
    """What an earlier worker found for the same tokens, if one did."""
    place = Path(os.environ[CALIBRATION]).with_suffix(".imatrix.npz")
    if not place.exists():
        found: dict[str, Any] = dict(importance(str(floats), calibration()))
        np.savez(place, **found)
    return dict(np.load(place))


def write_file(source: Path, target: Path, type_name: str, seen: Importance, ends: bool = True) -> None:
    """With `ends`, embedding and head stay as they are."""
    entries = [
        (name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size) for name, values in seen.items()
    ]
    table = (api.llama_model_imatrix_data * (len(entries) + 1))(*entries)  # the last, all zero, ends it
    settings = api.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = TYPES[type_name], 2
    if ends:
        settings.output_tensor_type = settings.token_embedding_type = F16
    if seen:
        settings.imatrix = table
    if api.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp cannot quantize {source} to {type_name}")


def body_bits(path: Path) -> float:
    """Bits a weight of the blocks' matrices in a GGUF file."""
    tensors = {huggingface_name(tensor.name): tensor for tensor in gguf.GGUFReader(path).tensors}
    matrices = [tensors[name] for name in body(tensors)]
    return float(sum(tensor.n_bytes for tensor in matrices) * 8 / sum(tensor.n_elements for tensor in matrices))


def joined(path: Path, type_name: str, seen: Importance) -> tuple[dict[str, npt.NDArray[np.float32]], float]:
    """All tensors, those of the blocks there and back through one type; and its bits a weight."""
    kind = gguf.GGMLQuantizationType[type_name]
    tensors = read_gguf(path)
    names = {huggingface_name(tensor.name): tensor.name for tensor in gguf.GGUFReader(path).tensors}
    for name in body(tensors):
        tensors[name] = there_and_back(tensors[name], seen[names[name]], kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return tensors, 8 * size / block


def there_and_back(
    matrix: npt.NDArray[np.float32], columns: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType
) -> npt.NDArray[np.float32]:
    """`matrix` (rows, columns) by ggml's own quantizer, then dequantized."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.ascontiguousarray(matrix.reshape(-1, JOINED * matrix.shape[1]), np.float32)
    weights = np.tile(columns, JOINED)
    codes = np.zeros((len(rows), rows.shape[1] // block * size), np.uint8)
    libggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (rows, codes, weights)]
    shape = [ctypes.c_int64(number) for number in (0, *rows.shape)]
    written = libggml.ggml_quantize_chunk(int(kind), *addresses[:2], *shape, addresses[2])
    if written != codes.nbytes:
        raise SystemExit(f"ggml wrote {written} bytes of {codes.nbytes} as {kind.name}")
    result: npt.NDArray[np.float32] = gguf.dequantize(codes, kind).reshape(matrix.shape).astype(np.float32)
    return result


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this worker only quantizes")


if __name__ == "__main__":
    silence()
    serve(unsupported, quantize, "llama.cpp")
