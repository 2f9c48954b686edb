"""Model + recipe -> quantized model: the four verbs in a row, one tensor at a time.

    transform the model (if asked), then
    for each matrix:  weights -> prune or rotate (if asked) -> fit (scale, zero point) -> round (codes) -> pack
    then distil (if asked)

Methods that look at a layer's inputs get them from calibration/sequential.py, which walks through the model once.

Everything that can be refused is refused before the first weight is read. What is done to one matrix is in matrix.py.
(The room is not called `quantize`, or importing it would hide the function `bitwright.quantize`.)
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright import __version__
from bitwright.artifact import ArtifactModel, Manifest, StoredTensor, open_artifact, write_artifact
from bitwright.artifact.lines import OfLines
from bitwright.artifact.staging import check_place
from bitwright.artifact.writer import Progress, bytes_of, is_artifact
from bitwright.calibration.marks import KEY, Marks, marks_of, remembered, text_bytes, to_text
from bitwright.calibration.observed import CalibrationText, require_torch
from bitwright.calibration.self_written import missing_tokens
from bitwright.calibration.store import Store
from bitwright.calibration.text import Source, Tokens, Watch, unwatched
from bitwright.core import Choice, Recipe
from bitwright.errors import (
    BitwrightError,
    FindingError,
    MissingTensorError,
    TokenizerError,
)
from bitwright.formats.checks import require_finite
from bitwright.guards import Finding, Guard, relative_error
from bitwright.models.architecture import ROUTER, TensorSlice, expert_of, of_expert
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.models.row_blocks import Stacked, block_names, matrix_of, named_rows
from bitwright.quantization.matrix import blocks_of_rows, quantize_matrix, rotation_of
from bitwright.refusals import blocks_in, check_fit, check_recipe
from bitwright.rounding import needs_of
from bitwright.rounding.moments import Moments
from bitwright.runtime import RuntimeSetting
from bitwright.transforms import TRANSFORMS
from bitwright.transforms.model import TransformedModel
from bitwright.transforms.recipe import Rounding, for_recipe

if TYPE_CHECKING:
    from bitwright.calibration.forecast import Forecast
    from bitwright.calibration.paces import Walking
    from bitwright.models.tokenizer import Tokenizer


def quantize(model: LanguageModel, recipe: Recipe, calibration: str | Source = "self") -> QuantizedModel:
    """A model whose matrices are stored as the recipe says; vectors, and what no choice matches, stay as they are.

    Nothing is computed yet: a tensor is quantized when it is asked for, or by `save`. A model that is quantized already
    is dequantized and quantized anew. `calibration` is "self" (text that the model writes), a text file or a data set on
    the hub, for methods that look at a layer's inputs; the others look at none, so there it is only checked.

    Raises `RecipeError` for an unknown method, fitting, transform or tensor, and for a transform that the model cannot take,
    `SchemeError` naming the tensor a scheme does not fit, `TextError` for a missing calibration text.
    """
    source = calibration if isinstance(calibration, Source) else Source(calibration)
    source.check()
    text = CalibrationText(model, source, lambda: quantize(text.model, Recipe.uniform("int8-channel")))
    model = for_recipe(model, recipe, text, Rounding(_choices, quantize_matrix))
    check_recipe(recipe, model)
    return QuantizedModel(model, recipe, _choices(model, recipe), text)


def _choices(model: LanguageModel, recipe: Recipe) -> dict[str, Choice]:
    """What holds for each tensor, whatever it is rounded by. Raises `SchemeError` and `RecipeError`."""
    roles = model.roles()
    head, embedding = (roles[(role, -1)].name for role in ("head", "embedding"))
    routers = {place.name for (role, _), place in roles.items() if role == ROUTER}
    choices, blocks = {}, blocks_in(recipe, model)
    for name in (block for matrix in model.names() for block in blocks.get(matrix, [matrix])):
        shape = _shape(model, name)
        matrix = len(shape) == 2 and name not in routers  # noqa: PLR2004 - dimensions
        choice = recipe.choice_for(name, is_head=name == head) if matrix else None
        if choice is not None:
            check_fit(name, shape, choice)
            looked_up = matrix_of(name) == embedding != head  # multiplied by nothing that could be turned
            spared = looked_up and choice.pattern == "*"  # as the head is, which `choice_for` sees to
            prune = "" if spared else choice.prune
            choices[name] = replace(choice, rotate=choice.rotate and not looked_up, prune=prune)
    return choices


def _shape(model: LanguageModel, name: str) -> tuple[int, ...]:
    """Of a tensor of the model, or of a block of its rows."""
    shape, block = model.shape(matrix_of(name)), named_rows(name)
    return shape if block is None else (block[1][1] - block[1][0], *shape[1:])


class QuantizedModel(OfLines):
    """A `LanguageModel` that quantizes each tensor of `source` at the moment it is asked for.

    `findings` is what looked wrong in the last `save`, though nothing failed; empty before. guards.py says what is looked for.
    """

    findings: tuple[Finding, ...] = ()

    def __init__(self, source: LanguageModel, recipe: Recipe, choices: Mapping[str, Choice], text: CalibrationText) -> None:
        self.source, self.recipe, self.text, self.calibration = source, recipe, text, text.source
        self.architecture, self.path = source.architecture, source.path
        self._choices = dict(choices)
        self._blocks = block_names(choices)  # of a matrix that is stored in blocks of rows
        self._lines: dict[str, StoredTensor] = {}
        self._needs = self._needed_inputs()
        self._calibrated: Store | None = None  # matrices rounded by their inputs
        self._held: dict[str, Packed | Dense] = {}
        self._output_errors: dict[str, float] = {}  # of these, relative, as far as they were rounded by this object
        self._reached: dict[tuple[int, int], int] = {}  # (layer, expert) -> calibration tokens routed to it

    def names(self) -> Sequence[str]:
        return self.source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return _shape(self.source, name)

    def stored(self, name: str) -> Packed | Dense:
        """Quantized now, unless it is held; a block of rows, too. Raises `NonFiniteError` or `SchemeError` (a scale beyond its
        type), both naming the tensor.
        """
        if name in self._held:
            return self._held[name]
        if name in self._blocks:
            return Stacked([self.stored(block) for block in self._blocks[name]])
        if matrix_of(name) not in self.source.names():
            raise MissingTensorError(f"{self.path} has no tensor {name!r}; `bitwright inspect` lists those it has")
        if name in self._needs or self.recipe.distill:
            self.calibrate()
            assert self._calibrated is not None
            kept = self._calibrated.get(name)
            assert kept is not None or name not in self._needs  # the walk has rounded it
            if kept is not None:
                return kept
        return self._quantized(name, None)

    def _quantized(self, name: str, moments: Moments | None) -> Packed | Dense:
        tensor, choice = self._unquantized(name), self._choices.get(name)
        if choice is not None:
            made = quantize_matrix(name, tensor, choice, moments)
            if moments is not None:
                self._output_errors[name] = relative_error(tensor, made, moments.gram)
            return made
        for begin, end in blocks_of_rows(tensor.shape):
            require_finite(tensor.rows(begin, end).dequantize(), name)
        return tensor

    def _unquantized(self, name: str) -> Packed | Dense:
        tensor, block = self.source.stored(matrix_of(name)), named_rows(name)
        return tensor if block is None else tensor.rows(*block[1])

    def hold(self) -> None:
        """Quantize all matrices and keep them in memory until `save`, for those who read them again and again."""
        self._held = {name: self.stored(name) for name in self.names() if len(self.shape(name)) == 2}  # noqa: PLR2004

    def lines(self, name: str) -> list[StoredTensor]:
        """How the blocks of a matrix will be stored, or the whole where it has none; nothing is quantized for it."""
        return [self._line(block) for block in self._blocks.get(name, [name])]

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return self.source.roles()

    @property
    def runtime(self) -> tuple[RuntimeSetting, ...]:
        """Settings that the engine follows, from the recipe."""
        return self.recipe.runtime

    def tokenizer(self) -> Tokenizer:
        return self.source.tokenizer()

    def config(self) -> dict[str, Any]:
        return self.source.config()

    def fingerprint(self) -> str:
        calibration = asdict(self.calibration) if self._needs or self.recipe.distill else None
        text = json.dumps([self.source.fingerprint(), self.recipe.to_dict(), calibration])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

    @property
    def calibrates(self) -> bool:
        """Whether a method, a transform or distillation looks at text, which is then read before anything is written."""
        return bool(self._needs or self.recipe.distill) or any(TRANSFORMS[name].observes for name in self.recipe.transforms)

    def forecast(self, walking: Walking | None = None) -> Forecast:
        """What saving will take on this machine; its paces are measured, but for those of `walking`, and nothing else is done.

        That takes a few seconds where text is looked at, less than one elsewhere. Then the size is exact, too; of text that is
        still to be read, what the manifest will say of it is estimated.
        """
        from bitwright.calibration.forecast import Work, forecast

        if self.calibrates:
            require_torch()
        length = min(self.calibration.length, self.source.architecture.context_length)
        shape = (self.calibration.windows, length)
        unwritten = missing_tokens(self.text.model, shape, self.calibration.seed) if self.calibration.place == "self" else 0
        methods = {matrix_of(name): self._choices[name].method for name in self._needs}
        seen = {KEY: "0" * text_bytes(shape[0] * shape[1])} if self.calibrates else None
        size = self._size_bytes(self._manifest(seen))
        rows = [TRANSFORMS[name] for name in self.recipe.transforms]
        observations, searches = sum(row.observes for row in rows), sum(row.searches for row in rows)
        work = Work(methods, self._needs, shape, unwritten, size, observations, searches, self.recipe.distill)
        return forecast(self.text.model, work, walking)

    def marks(self) -> Marks:
        """Of the text that calibration reads, and of what the model that this one is made from was calibrated on.

        Text is read now, and written where the model writes its own. Raises `TextError`, `RecipeError` without torch.
        """
        before = remembered(self.text.model)
        if not self.calibrates:
            return before
        require_torch()
        return before | marks_of(self.text.windows)

    def calibrate(self, output: str | Path | None = None, watch: Watch = unwatched) -> None:
        """Round all matrices whose method looks at their inputs, and distil if the recipe says so, unless that is done.

        With an `output`, each is kept in a hidden directory beside it until `save`: a run that was interrupted goes on
        where it stopped. `watch` is told what is being done. Raises `TextError` and what `stored` raises.
        """
        if self._calibrated is not None or not self.calibrates:
            return
        if output is not None:
            check_place(Path(output).resolve(), is_artifact)
        require_torch()
        self.text.watch = watch
        if isinstance(self.source, TransformedModel):
            self.source.prepare()
        if not self._needs and not self.recipe.distill:
            return
        from bitwright.calibration.layers import Layers
        from bitwright.calibration.sequential import walk

        windows = self.text.windows
        digest = hashlib.sha256(self.fingerprint().encode() + windows.tobytes()).hexdigest()[:12]
        store = Store(None if output is None else Path(output).parent / f".{Path(output).name}.rounded-{digest}")
        try:
            if self._needs:
                with watch("rounding layer by layer") as progress:
                    layers = Layers(self._needs, self._quantized, store, self._blocks)
                    self._reached = walk(self.source, windows, layers, progress)
            if self.recipe.distill:
                self._distil(windows, store, watch)
        except BitwrightError:
            store.clear()
            raise
        self._calibrated = store

    def _distil(self, windows: Tokens, store: Store, watch: Watch) -> None:
        """Train what has been rounded, and have `store` hold what it became."""
        from bitwright.calibration.distillation import Distillation

        self._calibrated = store  # so that matrices are read as they were rounded
        try:
            with watch("distilling") as progress:
                training = Distillation(self.text.model, self, windows, self.recipe.distill)
                for name, tensor in training.run(store.directory and store.directory / "distillation.npz", progress):
                    store.put(name, tensor)
        finally:
            self._calibrated = None

    def _needed_inputs(self) -> dict[str, str]:
        """Matrices whose method looks at their inputs, and what it needs of them. The embedding is looked up: it has none."""
        looked_up = self.source.roles()[("embedding", -1)].name
        scaled = {name: choice for name, choice in self._choices.items() if choice.scheme.scaled}
        needs = {name: needs_of(choice.method, choice.guidance) for name, choice in scaled.items()}
        return {name: need for name, need in needs.items() if need and matrix_of(name) != looked_up}

    def _dead_experts(self) -> dict[str, int]:
        """Gate's name -> calibration tokens, of experts that too few reached, so that a method that needs inputs had none."""
        if not self._reached:
            return {}
        from bitwright.calibration.expert_walk import FEWEST_TOKENS

        roles = self.source.roles()
        needing = {(layer, expert_of(role)) for (role, layer), place in roles.items() if place.name in self._needs}
        return {
            roles[of_expert("gate", expert), layer].name: tokens
            for (layer, expert), tokens in self._reached.items()
            if tokens < FEWEST_TOKENS and (layer, expert) in needing
        }

    def save(self, path: str | Path, progress: Progress | None = None, strict: bool = False) -> ArtifactModel:
        """Quantize everything into an artifact at `path`, tensor by tensor, and open it. What looks wrong is in `findings`.

        `progress` is told (tensor, bytes written so far, bytes in all). A failure leaves nothing behind. Raises `OutputError`
        before any work where `path` cannot be written, what `stored` raises, and where `strict` `FindingError` if there are
        findings.
        """
        self.calibrate(path)
        manifest = self._manifest()
        guard = Guard(self.source, self.recipe, self._output_errors, self._dead_experts())
        last = list(manifest.tensors)[-1]
        self.findings = ()

        def stored(name: str) -> Packed | Dense:
            tensor = self.stored(name)
            guard.look(name, self._unquantized(name), tensor)
            if name == last:
                self.findings = guard.findings()
                if strict and self.findings:
                    raise FindingError(f"{len(self.findings)} finding(s), so nothing was written; leave out 'strict' to write it")
            return tensor

        try:
            write_artifact(path, manifest, stored, self._save_tokenizer, progress)
        except FindingError:
            self._forget()
            raise
        self._forget()
        return open_artifact(path)

    def size_bytes(self) -> int:
        """Of all files that `save` would write, exactly. Where a method needs calibration text, it is read first."""
        return self._size_bytes(self._manifest())

    def _size_bytes(self, manifest: Manifest) -> int:
        with tempfile.TemporaryDirectory(prefix="bitwright-size-") as directory:
            self._save_tokenizer(Path(directory))
            tokenizer = sum(path.stat().st_size for path in Path(directory).iterdir())
        return tokenizer + bytes_of(manifest)

    def _seen(self) -> dict[str, str]:
        """What the manifest says of calibration text, which is read now."""
        marks = self.marks()
        said = {"calibration": str(self.text)} if self.calibrates else {}
        return said | ({KEY: to_text(marks)} if self.calibrates or marks else {})

    def _manifest(self, seen: Mapping[str, str] | None = None) -> Manifest:
        """With `seen`, about what it will be: no text is read for it, and no edit looked for that depends on text."""
        source = {"name": self.path.resolve().name, "fingerprint": self.text.model.fingerprint()}
        source |= self._seen() if seen is None else seen
        line = self._line if seen is None else self._expected_line
        lines = {block: line(block) for name in self.names() for block in self._blocks.get(name, [name])}
        return Manifest(self.config(), lines, __version__, self.recipe.to_dict(), source)

    def _forget(self) -> None:
        """What was rounded by its inputs, and what is held."""
        self._held = {}
        if self._calibrated is not None:
            self._calibrated.clear()
            self._calibrated = None

    def _save_tokenizer(self, directory: Path) -> None:
        """A model that brings no tokenizer makes an artifact without one; a broken tokenizer is an error."""
        try:
            tokenizer = self.tokenizer()
        except TokenizerError:
            if self.path.is_dir() and not (self.path / "tokenizer.json").exists():
                return
            raise
        tokenizer.save(directory)

    def _line(self, name: str) -> StoredTensor:
        if name not in self._lines:
            choice, shape = self._choices.get(name), self.shape(name)
            kept = StoredTensor.of(self.source.stored(name)) if choice is None else None
            self._lines[name] = kept or StoredTensor(self._choices[name].scheme, shape, rotation_of(self._choices[name], shape))
        return self._lines[name]

    def _expected_line(self, name: str) -> StoredTensor:
        """How a tensor will be stored, as far as that is known before edits are."""
        if name in self._choices or not isinstance(self.source, TransformedModel):
            return self._line(name)
        return StoredTensor.of(self.source.unedited(name))
