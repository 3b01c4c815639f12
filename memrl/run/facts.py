"""What is known of a task's metrics: when it is solved, and levels to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from memrl.run.identity import task_name

# Returns of Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline for Many POMDPs", by
# task: with positions, and with velocities.
PYBULLET = {
    f"{variant} {robot}": level
    for robot, levels in (
        ("ant", (348.0, 1113.0)),
        ("halfcheetah", (2693.0, 1980.0)),
        ("hopper", (2133.0, 1495.0)),
        ("walker", (982.0, 121.0)),
    )
    for variant, level in zip(("pybullet_p", "pybullet_v"), levels, strict=True)
}


class Facts(NamedTuple):
    """What is known of a task's metric."""

    solved_at: float | None = None  # the task counts as solved from this value on
    reference: Mapping[str, float] = {}  # levels that figures show, by what they are


# By task and metric. Where nothing is cited, a level is the best without the ability that the task
# asks for. Other tasks state theirs in their YAML: ``solved_at`` and ``reference``.
FACTS = {
    ("tmaze", "eval/return"): Facts(0.95),
    ("tmaze_passive", "eval/return"): Facts(0.95, {"best without memory": 0.5}),
    ("tmaze_active", "eval/return"): Facts(0.95, {"best without credit assignment": 0.5}),
    ("visual_match", "eval/success"): Facts(0.95, {"best without memory": 1 / 3}),
    ("key_to_door", "eval/success"): Facts(0.95, {"best without credit assignment": 0.0}),
    **{
        (task, "eval/return"): Facts(reference={"Ni et al. 2022": level})
        for task, level in PYBULLET.items()
    },
}


def facts_of(env: Mapping[str, Any], metric: str, main: str) -> Facts:
    """Return what is known of a metric of the task of an ``env`` section.

    A task states it of its ``main`` metric in its YAML. The paper's tasks need not: what holds for
    them is known, but nothing of the return of a T-Maze with other rewards.
    """
    in_memrl = str(env.get("_target_", "memrl.envs.")).startswith("memrl.envs.")  # none: imported
    as_published = (env.get("goal_reward", 1), env.get("distract_reward", 0)) == (1, 0)
    known = Facts()
    if in_memrl and (as_published or metric != "eval/return"):
        known = FACTS.get((task_name(env), metric), known)
    if metric != main:
        return known
    solved_at, reference = (env.get(k, v) for k, v in known._asdict().items())
    # The keys of an older version, or of another program, may hold anything.
    levels = reference.items() if isinstance(reference, Mapping) else ()
    return Facts(
        solved_at if _is_number(solved_at) else None,
        {str(text): level for text, level in levels if _is_number(level)},
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
