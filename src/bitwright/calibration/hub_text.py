"""The text of a data set on the Hugging Face hub: one file of it, found by the words in its path.

    org/name:config:split   config and split may be left out

Data sets lay their files out as data/train-00000-of-00001.parquet, en/c4-train.00000-of-01024.json.gz or
sample/10BT/000_00000.parquet (config sample-10BT): config and split stand in the path, between other characters than
letters and digits, "/" read as "-". Of the files that match, the first by name is read, those first whose folder or name is the
config itself; with no split, that of training, where a path says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bitwright.calibration.parquet import PARQUET, require_pyarrow
from bitwright.calibration.text_files import ENDINGS, read_text
from bitwright.errors import TextError
from bitwright.models.huggingface import is_hub_id

SHIPPED = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json.gz", PARQUET)  # a .json or .md beside them is about them
ABOUT = re.compile(r"(readme|licen[cs]e|citation|requirements).*\.txt", re.IGNORECASE)
TRAINING = "train"
SHOWN_FILES = 4


@dataclass(frozen=True)
class HubText:
    """`name` is org/name; `config` and `split` are "" where they were left out."""

    name: str
    config: str = ""
    split: str = ""

    @classmethod
    def parse(cls, place: str) -> HubText | None:
        """None where `place` is not spelled as a data set on the hub, or as a file."""
        name, *words = place.split(":")
        if not is_hub_id(name) or len(words) > 2 or name.endswith(ENDINGS):
            return None
        return cls(name, *words)

    def read(self) -> str:
        """Raises `TextError` naming what went wrong in one line."""
        from huggingface_hub import HfApi, hf_hub_download  # takes a while to import

        try:
            file = self.find(HfApi().list_repo_files(self.name, repo_type="dataset"))
            if file.endswith(PARQUET):
                require_pyarrow(f"{self.name}/{file}")
            path = Path(hf_hub_download(self.name, file, repo_type="dataset"))
        except (OSError, ValueError) as fault:  # all faults of the hub are one or the other
            if isinstance(fault, TextError):
                raise
            reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0][:160]
            raise TextError(
                f"no file {self.name}, and the hub does not give such a data set ({reason}); give a text file, or 'self'"
            ) from fault
        return read_text(path)

    def find(self, files: Sequence[str]) -> str:
        """The path of the file to read. Raises `TextError` where none matches."""
        readable = [file for file in sorted(files) if file.endswith(SHIPPED) and not ABOUT.match(PurePosixPath(file).name)]
        if not readable:
            raise TextError(f"the data set {self.name} has no {', '.join(SHIPPED)} file; give a text file, or 'self'")
        matching = [file for file in readable if stands_in(self.config, file) and stands_in(self.split, file)]
        if not matching:
            words = " and ".join(repr(word) for word in (self.config, self.split) if word)
            shown = ", ".join(readable[:SHOWN_FILES]) + (", ..." if len(readable) > SHOWN_FILES else "")
            raise TextError(f"no file of the data set {self.name} has {words} in its path; it has {shown}")
        training = [] if self.split else [file for file in matching if stands_in(TRAINING, file)]
        return min(training or matching, key=lambda file: self.config not in (*PurePosixPath(file).parts, stem(file)))


def stands_in(word: str, path: str) -> bool:
    """Does the path have this word, whole? Every path has the empty one."""
    return not word or re.search(rf"(?<![^\W_]){re.escape(word.replace('/', '-'))}(?![^\W_])", path.replace("/", "-")) is not None


def stem(path: str) -> str:
    """The file's name without what of SHIPPED it ends in."""
    name = PurePosixPath(path).name
    return next(name.removesuffix(ending) for ending in SHIPPED if name.endswith(ending))
