"""Spaces: observations as arrays of numbers that know their parts; actions, discrete or in a box.

A part is what an encoder treats as one thing: numbers, categories, or an image of either. Letters:
N numbers of an observation; C channels, H height, W width of an image; A numbers of an action.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

NUMBERS = "biuf"  # numpy's kinds of dtype: bool, integers, floats
MOST_ACTIONS = 1000  # combinations of a MultiDiscrete, each an action of its own
MOST_CATEGORIES = 10_000  # of one part: networks see one-hot vectors
LARGEST_BOUND = 1e30  # of an action: the largest float32, 3.4e38, means that there is none
LONGEST_TEXT = 100  # characters of a space in a message


class Part(NamedTuple):
    """One part of an observation, a slice of its numbers."""

    shape: tuple[int, ...]  # of an image (C, H, W), otherwise (n,)
    sizes: tuple[int, ...] = ()  # of categories: how many each number, or each channel, may be
    scale: float = 1.0  # what numbers are divided by: 255 for bytes

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{size} of {self.channels} categories" if self.sizes else f"{size} numbers"

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def channels(self) -> int:
        """Of an image, and of other parts their width, with categories as one-hot vectors."""
        return sum(self.sizes) if self.sizes else self.shape[0]


class Packed(spaces.Box):
    """Arrays (N,), uint8 or float32, of observations of another space.

    Args:
        parts: in the order of their numbers.
        dtype: uint8 if that holds them all.
    """

    def __init__(self, parts: tuple[Part, ...], dtype: Any) -> None:
        self.parts = parts
        width = sum(math.prod(part.shape) for part in parts)
        low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
        super().__init__(low, high, (width,), dtype)


def parts_of(space: spaces.Space[Any]) -> tuple[Part, ...]:
    """Return the parts of an observation as it is stored.

    Of the spaces that are not ``Packed``, those of three dimensions (C, H, W) are images, and all
    others numbers.
    """
    if isinstance(space, Packed):
        return space.parts
    assert space.shape is not None
    if len(space.shape) == 3:
        return (Part(space.shape, scale=255.0 if space.dtype == np.uint8 else 1.0),)
    return (Part((math.prod(space.shape),)),)


# --- observations --------------------------------------------------------------------------------


class Source(NamedTuple):
    """Where a part comes from, and how it becomes numbers."""

    path: tuple[Any, ...]  # the keys and indices that lead to it
    shape: tuple[int, ...]  # of the environment's array
    part: Part
    is_bytes: bool  # whether uint8 holds it
    axes: tuple[int, ...] = ()  # of an image: which are channels, rows and columns
    start: Any = np.zeros(1, np.int64)  # the first of its categories, in the part's shape
    limits: Any = np.array([256])  # how many there are, or bytes

    def __str__(self) -> str:
        return f"the environment's {_name(self.path)}"

    def read(self, obs: Any) -> Any:
        """Return the part's numbers, (n,); of a single category, perhaps an integer.

        Raises:
            ValueError: they do not belong to the space.
        """
        try:
            for key in self.path:
                obs = obs[key]
        except (LookupError, TypeError):
            kind = type(obs).__name__
            raise ValueError(f"{self} must be there, got a {kind}") from None
        if not self.shape and self.part.sizes and isinstance(obs, int | np.integer):
            code = int(obs) - int(self.start[0])  # much faster than arrays
            if 0 <= code < self.part.sizes[0]:
                return code
        value = np.asarray(obs)
        if value.shape != self.shape:
            raise ValueError(f"{self} must have shape {self.shape}, got {value.shape}")
        if self.axes:
            value = (value if value.ndim == 3 else value[..., None]).transpose(self.axes)
        else:
            value = value.reshape(-1)
        if self.part.sizes or (self.is_bytes and value.dtype != np.uint8):
            value = self._checked(value)
        return value.reshape(-1)

    def _checked(self, numbers: NDArray[Any]) -> NDArray[Any]:
        codes: NDArray[Any] = numbers - self.start
        wrong = (codes < 0) | (codes >= self.limits)
        if codes.dtype.kind == "f":
            wrong |= codes % 1 != 0
        if wrong.any():
            got = numbers[wrong].flat[0]
            raise ValueError(f"{self} must be in its space, got {got}")
        return codes


class Packer:
    """Turns observations of a space into arrays of one ``Packed`` space, ``space``.

    Box, Discrete, MultiDiscrete and MultiBinary of any shape, and Tuple and Dict of these. A Box of
    bytes with three dimensions, or two, is an image, its channels first or last; so is a
    MultiDiscrete with three whose categories differ between channels only. Text is left out.

    Raises:
        ValueError: another space, or nothing is left.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.left_out: list[str] = []  # names of parts that are text
        self.sources = [*_sources(space, (), self.left_out)]
        if not self.sources:
            raise ValueError(f"its observation_space must hold numbers, got {_short(space)}")
        dtype = np.uint8 if all(source.is_bytes for source in self.sources) else np.float32
        self.space = Packed(tuple(source.part for source in self.sources), dtype)
        ends = [0, *itertools.accumulate(math.prod(source.part.shape) for source in self.sources)]
        self._places = [slice(*pair) for pair in itertools.pairwise(ends)]

    def __call__(self, obs: Any, out: NDArray[Any]) -> None:
        """Write an observation into ``out``, (N,), as ``Source.read`` reads it."""
        for source, place in zip(self.sources, self._places, strict=True):
            out[place] = source.read(obs)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, ("observation", *path)))


def _short(space: spaces.Space[Any]) -> str:
    """Return a space in one line, however long its bounds are."""
    text = " ".join(str(space).split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _sources(
    space: spaces.Space[Any], path: tuple[Any, ...], left_out: list[str]
) -> Iterator[Source]:
    """Yield the parts of a space, depth first; append the names of those that are text."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, below in items:
            yield from _sources(below, (*path, key), left_out)
    elif isinstance(space, spaces.Discrete):
        yield _categories(path, np.array(space.n), np.array(space.start))
    elif isinstance(space, spaces.MultiDiscrete):
        yield _categories(path, space.nvec, space.start)
    elif isinstance(space, spaces.MultiBinary):
        yield Source(path, space.shape, Part((math.prod(space.shape),)), True)
    elif isinstance(space, spaces.Box) and space.dtype.kind in NUMBERS and 0 not in space.shape:
        yield _numbers(path, space)
    elif space.dtype is not None and np.dtype(space.dtype).kind == "U":
        left_out.append(_name(path))
    else:
        known = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple or Dict of these"
        raise ValueError(f"its observation_space must be made of {known}, got {_short(space)}")


def _numbers(path: tuple[Any, ...], space: spaces.Box) -> Source:
    is_bytes = space.dtype == np.uint8
    scale = 255.0 if is_bytes and space.high.max() == 255 else 1.0
    if is_bytes and len(space.shape) in (2, 3):
        axes = _image_axes(path, space.shape)
        sides = (*space.shape, 1)
        part = Part(tuple(sides[axis] for axis in axes), scale=scale)
        return Source(path, space.shape, part, True, axes)
    return Source(path, space.shape, Part((math.prod(space.shape),), scale=scale), is_bytes)


def _image_axes(path: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return which axes are channels, rows and columns: the fewest are the channels."""
    if len(shape) == 2 or shape[2] < min(shape[:2]):
        return 2, 0, 1
    if shape[0] < min(shape[1:]):
        return 0, 1, 2
    allowed = "an image whose channels, fewer than its rows and columns, come first or last"
    raise ValueError(f"its observation_space: {_name(path)} must be {allowed}, got {shape}")


def _categories(path: tuple[Any, ...], sizes: NDArray[Any], start: NDArray[Any]) -> Source:
    shape, axes = sizes.shape, tuple[int, ...]()
    part, start = Part((sizes.size,), (*sizes.reshape(-1).tolist(),)), start.reshape(-1)
    if sizes.ndim == 3 and (sizes == sizes[0, 0]).all():
        height, width, channels = shape
        part = Part((channels, height, width), (*sizes[0, 0].tolist(),))
        start, axes = start.reshape(shape).transpose(2, 0, 1), (2, 0, 1)
    if part.channels > MOST_CATEGORIES:
        allowed = f"at most {MOST_CATEGORIES:,} categories"
        text = f"{_name(path)} must have {allowed}, got {part.channels:,}"
        raise ValueError(f"its observation_space: {text}")
    limits = np.array(part.sizes).reshape(-1, *(1,) * (start.ndim - 1))
    return Source(path, shape, part, bool(sizes.max() <= 256), axes, start, limits)


# --- actions -------------------------------------------------------------------------------------


class NumberedActions:
    """The actions of a space as numbers from 0 to n - 1, ``space``.

    Discrete, and every combination of a MultiDiscrete or MultiBinary, the last number fastest.

    Raises:
        ValueError: too many combinations.
    """

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> None:
        if isinstance(space, spaces.Discrete):
            sizes, start = np.array(space.n), np.array(space.start)
        elif isinstance(space, spaces.MultiDiscrete):
            sizes, start = space.nvec, space.start
        else:
            sizes, start = np.full(space.shape, 2), np.zeros(space.shape, np.int64)
        n = math.prod(sizes.reshape(-1).tolist())
        if sizes.ndim and n > MOST_ACTIONS:
            text = f"at most {MOST_ACTIONS:,} combinations, got {_short(space)} with {n:,}"
            raise ValueError(f"its action_space must have {text}")
        self.space = spaces.Discrete(n)
        self.shape, self.sizes, self.dtype = sizes.shape, sizes, space.dtype
        self.start = start if sizes.ndim else int(start)  # arithmetic of integers is much faster

    def __call__(self, number: Any) -> Any:
        """Return the action with a number, as the environment takes it."""
        if not self.shape:
            return int(number) + self.start
        index = np.unravel_index(int(number), self.sizes.reshape(-1))
        return (np.array(index).reshape(self.shape) + self.start).astype(self.dtype)


class RescaledActions:
    """The actions of a Box with finite bounds as float32 (A,) from -1 to 1, ``space``.

    They are rescaled linearly: -1 is the lower bound, and 1 the upper one. Numbers outside are
    clipped. Where the bounds are -1 and 1, numbers arrive bit for bit.
    """

    def __init__(self, space: spaces.Box) -> None:
        self.space = spaces.Box(-1.0, 1.0, (math.prod(space.shape),), np.float32)
        self.shape, self.dtype = space.shape, space.dtype
        self.low = space.low.reshape(-1).astype(np.float64)
        self.high = space.high.reshape(-1).astype(np.float64)
        centre = self.low / 2 + self.high / 2
        self.centre = np.where(centre == 0, -0.0, centre)  # x + -0.0 is x, also if x is -0.0
        self.half = self.high / 2 - self.low / 2

    def __call__(self, action: NDArray[Any]) -> NDArray[Any]:
        """Return the action, (A,), as the environment takes it."""
        scaled = self.centre + np.clip(action, -1, 1) * self.half
        inside: NDArray[Any] = np.clip(scaled, self.low, self.high)  # despite rounding
        return inside.reshape(self.shape).astype(self.dtype)


def action_reader(space: spaces.Space[Any]) -> NumberedActions | RescaledActions:
    """Return the actions of a space as the learning core gives them.

    Raises:
        ValueError: another space, or too many combinations.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return NumberedActions(space)
    if isinstance(space, spaces.Box) and space.dtype.kind == "f" and 0 not in space.shape:
        if float(np.abs([space.low, space.high]).max()) <= LARGEST_BOUND:
            return RescaledActions(space)
    box = f"a Box of floats with finite bounds (at most {LARGEST_BOUND:.0e})"
    allowed = f"Discrete, MultiDiscrete, MultiBinary, or {box}"
    raise ValueError(f"its action_space must be {allowed}, got {_short(space)}")
