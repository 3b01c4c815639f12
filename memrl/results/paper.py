"""What the figures of Ni et al. 2023 show, in numbers."""

from __future__ import annotations

from typing import NamedTuple

from memrl.run.facts import PYBULLET

# Where the paper's figures end, in env steps, by task and length.
FIGURE_ENDS: dict[tuple[str, float | None], float] = {
    (task, length): million * 1e6
    for task, lengths, ends in (
        ("tmaze_passive", (50, 100, 250, 500, 750, 1000, 1250, 1500), (1, 2, 4, 4, 6, 8, 10, 10)),
        ("tmaze_active", (20, 50, 100, 250, 500), (0.8, 2, 4, 7, 7)),
        ("visual_match", (60, 120, 250, 500, 750, 1000), (3.6, 4, 4, 5.3, 7.8, 10)),
        ("key_to_door", (60, 120, 250, 500), (3.4, 5.8, 7.5, 7.5)),
    )
    for length, million in zip(lengths, ends, strict=True)
}

FIGURE_ENDS |= {(task, None): 1.5e6 for task in PYBULLET}

LEAST_SHARE = 0.9  # of the steps to a figure's end; a shorter run does not count


class Alignment(NamedTuple):
    """How the curves of a task's runs are compared: at the same env steps."""

    points: int = 300  # evenly spaced from 0 to the figure's end
    scored: int = 15  # the last of these points make the score
    filled: bool = False  # a run that ends earlier has its last value there, else it has none


ALIGNMENTS = dict.fromkeys(PYBULLET, Alignment(100, 5, filled=True))  # by task


# Steps of an episode beyond ``env.length``.
EXTRA_STEPS = {"tmaze_passive": 1, "tmaze_active": 3, "visual_match": 30, "key_to_door": 25}
