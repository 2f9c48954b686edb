"""The command line, a skin: one verb, one public call. Docs: docs/cli.md.

Results go to stdout, all else to stderr. Whatever the input is to blame for ends as one line `error: ...` and exit code 2.
Nothing outside the standard library is imported before a verb runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from bitwright.cli.app import dispatch
from bitwright.errors import BitwrightError, FindingError

FINDINGS, BAD_INPUT = 1, 2
INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal, as shells count
SPINNING = "12"  # 2^12 cycles that numpy's threads wait for more work on a core that others want, not the 2^26 of OpenBLAS


class Terminated(BaseException):
    """SIGTERM, raised so that half-written output is cleared away as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminate)
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", SPINNING)
    try:
        dispatch(given)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the reader of our output, `head` say, has left: rich exits then
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that nothing complains when the rest is flushed
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except FindingError as fault:
        _failed(str(fault))
        return FINDINGS
    except BitwrightError as fault:
        return _failed(str(fault))
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        return _failed(f"{where}{fault.strerror or fault}", "check the path, the permissions and the free space")
    except MemoryError:
        return _failed("out of memory", "close other programs or take a smaller model or context")
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _failed(message: str, cure: str = "") -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}" + (f"; {cure}" if cure else "") + "\n")
    return BAD_INPUT
