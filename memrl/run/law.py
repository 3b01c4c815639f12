"""The laws of sequence models, checked on short random histories.

A model that breaks one raises no error when it is trained; its results are just wrong.
T inputs of a history, B histories of a batch, D width of an input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memrl.interfaces import State
from memrl.networks import frozen_copy, products_in
from memrl.run.machine import is_out_of_memory
from memrl.run.outcome import in_one_line

SHORT = 7  # inputs of a history that is fed in milliseconds, in every way
ROWS = 3
TOLERANCE = 1e-4  # of the largest output; in float32 rounding is a hundred times smaller
BFLOAT16_TOLERANCE = 0.1  # of the largest output: three digits, and errors add up over time

Comparison = tuple[str, Tensor, Tensor]  # how it comes that they differ; what should be equal


class Verdict(NamedTuple):
    """Whether a model obeys a law."""

    law: str
    ok: bool
    text: str  # what was measured, or what is wrong
    error: BaseException | None = None  # that the model raised


class Wrong(Exception):
    """What a model returned cannot be used, or it raised the exception that is the cause."""


@torch.no_grad()
def check_laws(
    model: nn.Module,
    input_dim: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    length: int = SHORT,
) -> list[Verdict]:
    """Feed random histories to a sequence model, and compare what must be equal.

    A copy of it is fed; afterwards random generators and number formats are as they were. Numbers
    are equal if they differ by at most ``TOLERANCE`` times the largest one, or by another fraction
    if the model has an attribute ``law_tolerance``.

    Args:
        model: a ``SequenceModel``, on ``device``.
        input_dim: D.
        precision: the number format of windows in updates.
        length: T, at least 2 and at most what the model takes at once.

    Returns:
        A verdict for each law, or only for the first if that one is broken.
    """
    with _undisturbed(device):
        trial = Trial(frozen_copy(model).eval(), (length, ROWS, input_dim), device)
        try:
            shape = tuple(trial.whole(trial.x).shape)
        except Wrong as error:
            return [Verdict("outputs", False, str(error), error.__cause__)]
        verdicts = [Verdict("outputs", True, f"(T, B, output_dim) = {shape}, finite")]
        verdicts += [_verdict(law, trial, compare) for law, compare in LAWS.items()]
        if precision != torch.float32:
            trial.tolerance = max(trial.tolerance, BFLOAT16_TOLERANCE)
            verdicts.append(_verdict("bfloat16 windows", trial, _bfloat16))
        return verdicts


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    formats = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.set_float32_matmul_precision(formats[0])
            torch.backends.cudnn.allow_tf32 = formats[1]


class Trial:
    """A model, and histories to feed to it.

    Args:
        model: a sequence model in evaluation mode.
        shape: T, B, D.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], device: torch.device) -> None:
        self.model = model
        # Not the global generator, which is seeded before each call: inputs would repeat.
        self.generator = torch.Generator(device).manual_seed(0)
        self.x = torch.randn(shape, generator=self.generator, device=device)
        self.tolerance: float = getattr(model, "law_tolerance", TOLERANCE)

    def other(self) -> Tensor:
        """Return the inputs of other histories, new ones in every call."""
        shape, device = self.x.shape, self.x.device
        return torch.randn(shape, generator=self.generator, device=device)

    def whole(self, x: Tensor, seed: int = 0) -> Tensor:
        """Return the outputs of whole histories."""
        torch.manual_seed(seed)
        return self._call("fed a whole history", x)[0]

    def trained(self, x: Tensor) -> Tensor:
        """Return the outputs of whole histories in training mode."""
        self.model.train()
        try:
            return self.whole(x)
        finally:
            self.model.eval()

    def split(self, sizes: Sequence[int], how: str, between: Tensor | None = None) -> Tensor:
        """Return the outputs of the histories, fed in pieces of these sizes.

        Args:
            sizes: numbers of inputs; their sum is T.
            how: a description for messages.
            between: inputs of another batch of histories, fed before each piece.
        """
        state = self._initial_state(self.x.shape[1])
        other = None if between is None else self._initial_state(between.shape[1])
        outputs = []
        for piece in torch.split(self.x, list(sizes)):
            if between is not None:
                other = self._call("fed a single history", between, other)[1]
            y, state = self._call(how, piece, state)
            outputs.append(y)
        return torch.cat(outputs)

    def _initial_state(self, batch_size: int) -> State:
        with _naming(f"initial_state({batch_size})"):
            return self.model.initial_state(batch_size)  # type: ignore[operator]

    def _call(self, how: str, x: Tensor, *state: State) -> tuple[Tensor, State]:
        """Call the model as memrl does; check the form of what it returns."""
        with _naming(f"{how}, it"):
            result = self.model(x.clone(), *state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise Wrong(f"{how}, it must return (outputs, state), got {type(result).__name__}")
        y, after = result
        if not isinstance(y, Tensor):
            raise Wrong(f"{how}, its outputs must be a tensor, got {type(y).__name__}")
        shape = (*x.shape[:2], self.model.output_dim)
        if y.shape != shape:
            form = f"(T, B, output_dim) = {shape}"
            raise Wrong(f"{how}, its outputs must have the shape {form}, got {tuple(y.shape)}")
        if y.dtype != x.dtype and not (y.is_floating_point() and x.dtype == torch.bfloat16):
            raise Wrong(f"{how}, its outputs must be {x.dtype} as its inputs are, got {y.dtype}")
        if y.device != x.device:
            raise Wrong(f"{how}, its outputs must be on {x.device}, got {y.device}")
        if not y.isfinite().all():
            raise Wrong(f"{how}, its outputs are not all finite")
        return y, after


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say what raised an exception; memory that is full is no fault of a model."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise Wrong(f"{what} raised {in_one_line(error)}") from error


def _verdict(law: str, trial: Trial, compare: Callable[[Trial], Iterator[Comparison]]) -> Verdict:
    largest = scale = 0.0
    try:
        for text, a, b in compare(trial):
            difference = (a - b).abs().max().item()
            scale = max(a.abs().max().item(), b.abs().max().item())
            if difference > trial.tolerance * scale:
                size = f"by up to {difference:.2g}, where outputs are up to {scale:.2g}"
                return Verdict(law, False, f"{text} {size}")
            largest = max(largest, difference)
    except Wrong as error:
        return Verdict(law, False, str(error), error.__cause__)
    return Verdict(law, True, f"differences up to {largest:.1g} in outputs up to {scale:.2g}")


# --- the laws ------------------------------------------------------------------------------------


def _repeatability(trial: Trial) -> Iterator[Comparison]:
    y = trial.whole(trial.x)
    cause = "it remembers something between calls, and so"
    yield f"{cause} the outputs of the same history differ", y, trial.whole(trial.x)
    cause = "it is random in evaluation mode, and so"
    yield f"{cause} the outputs of the same history differ", y, trial.whole(trial.x, seed=1)


def _independence(trial: Trial) -> Iterator[Comparison]:
    row = slice(1, 2)  # not at the edge of the batch: either side could leak
    x, y = trial.x, trial.whole(trial.x)[:, row]
    others = trial.other()
    others[:, row] = x[:, row]
    change = "a history's outputs change when other rows of the batch change,"
    yield change, y, trial.whole(others)[:, row]
    yield "a history's outputs change when it is fed alone,", y, trial.whole(x[:, row])
    for a, b in _in_training(trial, others):
        yield f"in training mode {change}", a[:, row], b[:, row]


def _causality(trial: Trial) -> Iterator[Comparison]:
    past = slice(0, len(trial.x) // 2)
    later = trial.other()
    later[past] = trial.x[past]
    change = "outputs change when later inputs change,"
    yield change, trial.whole(trial.x)[past], trial.whole(later)[past]
    for a, b in _in_training(trial, later):
        yield f"in training mode {change}", a[past], b[past]


def _in_training(trial: Trial, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the outputs of the histories and of other ones, with the same dropout.

    Nothing is yielded if the seed does not fix the outputs: some layers have random generators of
    their own, as cuDNN's dropout, or change with every call.
    """
    y = trial.trained(trial.x)
    if torch.equal(y, trial.trained(trial.x)):
        yield y, trial.trained(other)


def _pieces(trial: Trial) -> Iterator[Comparison]:
    T, y = len(trial.x), trial.whole(trial.x)
    half = T // 2
    several = [half, 1, T - half - 1] if T > 2 else [1, 1]
    splits = {
        "fed step by step": [1] * T,
        f"fed in pieces of {', '.join(map(str, several))} inputs": several,
        "fed at once with an initial state": [T],
    }
    differ = "its outputs differ from those of the whole history"
    for how, sizes in splits.items():
        yield f"{how}, {differ}", y, trial.split(sizes, how)
    how = "fed in pieces with another history in between"
    between = trial.other()[:1, :1]
    yield f"{how}, {differ}", y, trial.split([half, T - half], how, between)
    if hasattr(trial.model, "outputs_at"):
        at = torch.tensor([0, T - 1], device=y.device)
        with _naming("outputs_at"):
            some = trial.model.outputs_at(trial.x, at)  # type: ignore[operator]
        yield f"asked for some steps by outputs_at, {differ}", y[at], some


def _bfloat16(trial: Trial) -> Iterator[Comparison]:
    x = trial.x.bfloat16()
    y = trial.whole(trial.x)
    with products_in(x.dtype, x.device):
        rounded = trial.whole(x).float()
    yield "the outputs of bfloat16 windows differ from those of float32", y, rounded


LAWS: dict[str, Callable[[Trial], Iterator[Comparison]]] = {
    "repeatability": _repeatability,
    "independence of rows": _independence,
    "causality": _causality,
    "whole = pieces = steps": _pieces,
}
