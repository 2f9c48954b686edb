"""Every fault a user can meet, by name. Each message says what is wrong and what to do about it.

The command line turns any `BitwrightError` into one line on stderr and exit code 2.
"""

from __future__ import annotations

from collections.abc import Mapping


class BitwrightError(Exception):
    """Base of all faults that the input, not the program, is to blame for."""


class SchemeError(BitwrightError, ValueError):
    """A scheme that cannot be read, or that does not fit the tensor it is meant for."""


class NonFiniteError(BitwrightError, ValueError):
    """NaN or infinity where numbers are needed."""


class RecipeError(BitwrightError, ValueError):
    """A recipe that is malformed or names what does not exist."""


class FindingError(BitwrightError):
    """A quantized model that a guard found fault with, where that was asked to be an error. The exit code is 1."""


class ModelNotFoundError(BitwrightError, FileNotFoundError):
    """No model at this path, or the hub cannot be reached."""


class UnknownFamilyError(BitwrightError):
    """A model architecture that Bitwright has no facts about."""


class ModelConfigError(BitwrightError, ValueError):
    """A config.json (or GGUF metadata) that is missing, unreadable or contradicts the tensors."""


class TensorFileError(BitwrightError, ValueError):
    """Base of all faults in a file of tensors."""


class TruncatedFileError(TensorFileError):
    """The file ends before its header says it should."""


class HeaderError(TensorFileError):
    """The header is not readable, is oversized, or breaks a rule of the format."""


class OffsetError(TensorFileError):
    """A tensor's bytes overlap, leave the file, or do not match its dtype and shape."""


class UnknownDtypeError(TensorFileError):
    """A dtype or tensor type that this reader does not know."""


class MissingTensorError(TensorFileError, KeyError):
    """A tensor that the architecture needs is not in the file."""

    def __str__(self) -> str:  # KeyError would quote the message
        return str(self.args[0]) if self.args else ""


class ShapeError(TensorFileError):
    """A tensor's shape is not what the architecture or the manifest says."""


class ManifestError(BitwrightError, ValueError):
    """An artifact's manifest is missing, unreadable, of another version, or contradicts its tensors."""


class TokenizerError(BitwrightError, ValueError):
    """No usable tokenizer beside the model."""


class TextError(BitwrightError, ValueError):
    """A text file that is missing, empty, undecodable or too short for the asked context."""


class TaskError(BitwrightError, ValueError):
    """A file of questions that cannot be read or asked, or answers that cannot be scored."""


class OutputError(BitwrightError, OSError):
    """The output cannot be written: it exists, its folder is missing, not writable, or the disk is full."""


class ContextError(BitwrightError, ValueError):
    """More tokens than the context holds."""


class StateError(BitwrightError, ValueError):
    """A saved state of a sequence that is damaged, or that belongs to another model, cache type or context."""


class EngineError(BitwrightError, RuntimeError):
    """The engine cannot run this model, thread count or instruction set."""


class BudgetError(BitwrightError, ValueError):
    """A budget that no choice of schemes meets. `nearest` holds, for each limited quantity, a value that could be met."""

    def __init__(self, message: str, nearest: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.nearest = dict(nearest or {})


class CostError(BitwrightError, LookupError):
    """A scheme or a shape whose cost on this machine was not measured."""


class ReportError(BitwrightError, ValueError):
    """A report that lacks what its page needs, or has it in a wrong type; or the package that draws it is missing."""
