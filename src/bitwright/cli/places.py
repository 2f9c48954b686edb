"""Where a command writes: looked at before any work, so that nothing is written over what it reads, nor over its other files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitwright.cli.command_line import UsageError


def check_places(read: Mapping[str, object], written: Mapping[str, Path | None], command: str) -> None:
    """Raises `OutputError` unless a file can stand at each place, and `UsageError` where it would stand over another of these."""
    from bitwright.artifact.staging import check_file

    taken = {Path(str(place)).resolve(): option for option, place in read.items() if place is not None}
    for option, place in written.items():
        if place is None:
            continue
        check_file(place)
        first = taken.setdefault(place.resolve(), option)
        if first != option:
            raise UsageError(f"{option} would be written over {first}, {place}; choose another place", command)
