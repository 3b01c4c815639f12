"""What the figures of Ni et al. 2023 show, in numbers."""

from __future__ import annotations

# Where the paper's figures end, in env steps; spread by task and length.
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

CURVE_POINTS, SCORE_POINTS = 300, 15  # of a curve; the last of them make the score

# What is best without the ability that the task asks for (the paper's reference lines).
REFERENCE_LEVELS = {
    ("tmaze_passive", "eval/return"): (0.5, "best without memory"),
    ("tmaze_active", "eval/return"): (0.5, "best without credit assignment"),
    ("visual_match", "eval/success"): (1 / 3, "best without memory"),
    ("key_to_door", "eval/success"): (0.0, "best without credit assignment"),
}

# Steps of an episode beyond ``env.length``.
EXTRA_STEPS = {"tmaze_passive": 1, "tmaze_active": 3, "visual_match": 30, "key_to_door": 25}
