"""POPGym: partially observable tasks by name and level (Morad et al. 2023)."""

from __future__ import annotations

from typing import Literal

import gymnasium

from memrl.checks import require
from memrl.envs.gym import GymVec, require_package

# The package truncates these where they are over, in its words at their time limit.
OVER_AT_TIME_LIMIT = ("Battleship", "Concentration", "MineSweeper", "MultiarmedBandit")
DECKS = {"easy": 1, "medium": 2, "hard": 3}


class PopgymVec(GymVec):
    """B environments of POPGym.

    Its two Labyrinths are left out: its authors say that they can be solved without memory. Actions
    of its two Pendulums are continuous.

    Args:
        task: such as RepeatPrevious, as in the package's names of its environments.
        level: of difficulty.

    Raises:
        ValueError: the package is missing, or has no such task.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        task: str,
        level: Literal["easy", "medium", "hard"] = "easy",
        render_mode: str | None = None,
    ) -> None:
        require_package("popgym")
        ids = [id for id in gymnasium.registry if id.startswith("popgym-")]
        names = {id.removeprefix("popgym-").removesuffix("Easy-v0") for id in ids if "Easy" in id}
        known = sorted(name for name in names if "Labyrinth" not in name)
        require(task in known, "task", f"one of {', '.join(known)}", task)
        require(level in DECKS, "level", " or ".join(DECKS), level)
        super().__init__(
            num_envs=num_envs,
            id=f"popgym-{task}{level.capitalize()}-v0",
            # the one task that does not say it: it shows every card of its decks
            horizon=52 * DECKS[level] - 1 if task == "HigherLower" else None,
            time_limit_is_end=task in OVER_AT_TIME_LIMIT,
            render_mode=render_mode,
        )
        self.task, self.level = task, level
