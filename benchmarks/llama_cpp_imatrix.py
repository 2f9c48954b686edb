"""llama.cpp's importance matrix: the mean square of each column of a matrix's inputs, over calibration tokens.

What its tools/imatrix does, on the tokens that every contender sees: a callback looks at each product of llama.cpp's own
forward pass, finds the matrix's name in the first operand, and adds up the squares of the second.
"""

from __future__ import annotations

import ctypes

import llama_cpp as api
import numpy as np
import numpy.typing as npt
from llama_cpp._ggml import libggml

from llama_cpp_worker import LlamaCpp

Importance = dict[str, npt.NDArray[np.float32]]  # GGUF name of a matrix -> (columns,)


class Tensor(ctypes.Structure):
    """The head of `struct ggml_tensor`, from ggml.h."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


def importance(path: str, windows: npt.NDArray[np.int64]) -> Importance:
    """Of the matrices of the blocks of the GGUF at `path`. `windows` is (windows, tokens)."""
    libggml.ggml_op_desc.restype, libggml.ggml_op_desc.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    sums: dict[str, npt.NDArray[np.float64]] = {}

    @api.ggml_backend_sched_eval_callback  # type: ignore[untyped-decorator]
    def look(address: int, ask: bool, _: object) -> bool:
        tensor = ctypes.cast(address, ctypes.POINTER(Tensor)).contents
        product = bool(libggml.ggml_op_desc(address) == b"MUL_MAT")
        if ask:
            return product and tensor.src[0].contents.name.startswith(b"blk.")
        name, inputs = tensor.src[0].contents.name.decode(), tensor.src[1].contents
        columns, tokens = inputs.ne[0], inputs.ne[1]
        data = ctypes.cast(inputs.data, ctypes.POINTER(ctypes.c_float))
        values = np.ctypeslib.as_array(data, (tokens, columns)).astype(np.float64)
        sums[name] = sums.get(name, 0.0) + (values**2).sum(0)
        return True

    model = LlamaCpp(path, 2, windows.shape[1], look)
    for window in windows:
        model.logits(window.tolist())  # of all tokens: else the last block would see one of them
    return {name: (total / windows.size).astype(np.float32) for name, total in sums.items()}
