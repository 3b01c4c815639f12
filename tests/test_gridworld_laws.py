"""The grid engine against the same rules written once more, slowly, for one environment."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.envs import gridworld as board
from memrl.envs.gridworld import GridVec
from memrl.envs.key_to_door import KeyToDoorVec
from memrl.envs.single import SingleEnv
from memrl.envs.visual_match import VisualMatchVec

Cell = tuple[int, int]
STEP = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}
GREY, DARK, WHITE = (204, 204, 204), (25, 25, 25), (255, 255, 255)
PLAYER, KEY, DOOR, APPLE = (228, 148, 109), (159, 81, 44), (134, 206, 235), (140, 178, 0)
LETTER_CELLS = {"b": (1, 2), "c": (1, 5), "e": (1, 8)}
seeds = st.integers(0, 2**31)


def cross(rows: Any, columns: Any) -> set[Cell]:
    return {(r, c) for r in rows for c in columns}


TWO_ROOMS = cross((0, 6), range(2, 9)) | cross((1, 2, 3, 4, 5), (2, 8)) | {(3, 3), (3, 7)}
SMALL_ROOM = {(1, 3), (1, 4), (1, 6), (1, 7)} | cross((2, 3, 4), (3, 7)) | cross([5], range(3, 8))
BOX = cross((0, 6), range(11)) | cross(range(7), (0, 10))
HALL = cross([0], range(11)) | cross((1, 2, 3), (0, 10)) | {(5, 3), (5, 7)}
HALL |= cross([4], (0, 1, 2, 3, 7, 8, 9, 10)) | cross([6], range(3, 8))


class Slow:
    """One episode, by the published rules; ``choice`` holds cells, target and colours."""

    def __init__(self, task: str, kwargs: dict[str, Any], choice: dict[str, Any]) -> None:
        self.task, self.choice, self.frames = task, choice, kwargs["frames"]
        self.final, self.apple = kwargs["final_reward"], kwargs["apple_reward"]
        self.respawn, self.passive = kwargs["respawn_every"], kwargs.get("passive", True)
        self.cca = kwargs.get("reward_room") == "cca"
        self.has_key = self.success = False
        self.t = 0
        self.enter(0)

    def enter(self, phase: int) -> None:
        self.phase, self.frame, c = phase, 0, self.choice
        self.white = self.door_open = False
        self.things: dict[Cell, str] = {}
        self.eaten: dict[Cell, int] = {}
        if phase == 1:
            self.walls, self.at = BOX, (5, 5)
            self.things = {cell: "apple" for cell in c["apples"]}
        elif phase == 0:
            self.at, self.walls = c["start_explore"], TWO_ROOMS
            if self.task == "key":
                self.things = {c["key"]: "key"}
            else:
                if self.passive:
                    self.walls = cross((1, 2, 3), (4, 5, 6)) - {(2, 5)}
                self.things = {c["square"]: "shown"}
        elif self.task == "key":
            self.at, self.walls = c["start_reward"], TWO_ROOMS if self.cca else SMALL_ROOM
            self.things = {c["door"]: "door"}
        else:
            self.at, self.walls = c["start_reward"], HALL
            self.things = {cell: letter for letter, cell in LETTER_CELLS.items()}

    def blocked(self, cell: Cell) -> bool:
        r, c = cell
        if not (0 <= r < 7 and 0 <= c < 11):
            return True
        thing = self.things.get(cell)
        if thing == "door":
            self.door_open = self.door_open or self.has_key
            return not self.door_open
        return thing == "shown" or cell in self.walls

    def step(self, action: int) -> float:
        self.t, self.frame, reward = self.t + 1, self.frame + 1, 0.0
        new = (self.at[0] + STEP[action][0], self.at[1] + STEP[action][1])
        self.at = self.at if self.blocked(new) else new
        thing, self.white = self.things.get(self.at), False
        if thing == "key":
            del self.things[self.at]
            self.has_key = self.white = True
        elif thing == "door" and self.has_key:
            reward, self.has_key, self.success = self.final, False, True
        elif thing == "apple":
            reward = self.apple
            del self.things[self.at]
            self.eaten[self.at] = self.frame
        elif thing in LETTER_CELLS:
            self.success = thing == self.choice["target"]
            reward = self.final * self.success
            self.things = {}
        for cell, frame in self.eaten.items():
            if self.respawn and self.frame > frame + self.respawn:
                self.things[cell] = "apple"
        if self.frame == self.frames[self.phase] and self.phase < 2:
            self.enter(self.phase + 1)
        return reward

    def colour(self, cell: Cell) -> tuple[int, ...]:
        thing = self.things.get(cell)
        if cell == self.at and thing != "door":
            return PLAYER
        if thing in LETTER_CELLS or thing == "shown":
            letter = self.choice["target"] if thing == "shown" else thing
            return tuple(self.choice["colours"]["bce".index(letter)])
        if thing is not None:
            return {"key": KEY, "door": DOOR, "apple": APPLE}[thing]
        if self.white and cell == (0, 5):
            return WHITE
        return DARK if cell in self.walls else GREY

    def image(self) -> np.ndarray:
        r, c = self.at
        rows = [[self.colour((r + i, c + j)) for j in range(-2, 3)] for i in range(-2, 3)]
        return np.array(rows, np.uint8).transpose(2, 0, 1)


@st.composite
def settings_of(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kwargs: dict[str, Any] = {
        "frames": [draw(st.integers(1, 20)), draw(st.integers(1, 60)), draw(st.integers(1, 20))],
        "final_reward": draw(st.sampled_from([5.0, 0.5])),
        "apple_reward": draw(st.sampled_from([1.0, -0.25])),
        "respawn_every": draw(st.sampled_from([0, 1, 3, 20])),
        "num_apples": draw(st.integers(0, 22)),
    }
    if draw(st.booleans()):
        return "key", kwargs | {"reward_room": draw(st.sampled_from(["sr", "cca"]))}
    meaning = draw(st.sampled_from(["per_env", "shared", "per_episode"]))
    return "match", kwargs | {"passive": draw(st.booleans()), "colours": meaning}


def build(task: str, kwargs: dict[str, Any], num_envs: int) -> GridVec:
    cls: Any = KeyToDoorVec if task == "key" else VisualMatchVec
    return cls(num_envs=num_envs, **kwargs)


def choice_of(env: GridVec, b: int) -> dict[str, Any]:
    choice: dict[str, Any] = {}
    for name, value in env.choices.items():
        if name == "target":
            choice[name] = "bce"[int(value[b])]
        elif name == "colours":
            choice[name] = value[b].tolist()
        elif name == "apples":
            choice[name] = [tuple(cell) for cell in board.places_of(value[b]).tolist()]
        else:
            choice[name] = tuple(board.places_of(value[b]).tolist())
    return choice


def actions_of(env: GridVec, seed: int) -> np.ndarray:
    """Random walks with a favoured way that changes now and then, so that they get somewhere."""
    rng = np.random.default_rng(seed)
    shape = (env.horizon, env.num_envs)
    favoured = rng.integers(4, size=(env.horizon // 5 + 1, env.num_envs)).repeat(5, axis=0)
    return np.where(rng.random(shape) < 0.6, favoured[: env.horizon], rng.integers(4, size=shape))


def purposeful(slow: list[Slow], action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Now and then go towards something that lies in the room, so that rewards are not rare."""
    chosen = action.copy()
    for b, s in enumerate(slow):
        goals = sorted(s.things)
        if not goals or rng.random() < 0.3:
            continue
        down, right = (g - a for g, a in zip(goals[s.t // 20 % len(goals)], s.at, strict=True))
        along = abs(right) > abs(down) if rng.random() < 0.7 else right != 0
        if down or right:
            chosen[b] = (2 + (right > 0)) if along else int(down > 0)
    return chosen


@settings(max_examples=50, deadline=None)
@given(settings_of(), st.integers(1, 4), seeds)
def test_the_engine_is_the_rules(chosen: tuple[str, dict[str, Any]], B: int, seed: int) -> None:
    env = build(*chosen, num_envs=B)
    for episode in range(2):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        slow = [Slow(*chosen, choice_of(env, b)) for b in range(B)]
        rng = np.random.default_rng(seed)
        for t, action in enumerate(actions_of(env, seed + episode), start=1):
            action = purposeful(slow, action, rng)
            obs, reward, terminated, truncated, info = env.step(action)
            assert reward.tolist() == [s.step(int(a)) for s, a in zip(slow, action, strict=True)]
            for b, s in enumerate(slow):
                np.testing.assert_array_equal(obs[b], s.image(), err_msg=f"step {t}")
                assert tuple(env.player[b]) == s.at
                assert (env.phase[b], env.frame[b], env.has_key[b]) == (s.phase, s.frame, s.has_key)
            assert not truncated.any()
            assert (terminated == (t == env.horizon)).all()
        assert info["success"].tolist() == [s.success for s in slow]


@settings(max_examples=20, deadline=None)
@given(settings_of(), seeds)
def test_rows_that_began_at_different_times_keep_to_the_rules(
    chosen: tuple[str, dict[str, Any]], seed: int
) -> None:
    """Some rows, and all that have ended, begin anew while the others go on."""
    env, rng = build(*chosen, num_envs=3), np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    slow = [Slow(*chosen, choice_of(env, b)) for b in range(3)]
    for action in np.concatenate([actions_of(env, seed + i) for i in range(2)]):
        action = purposeful(slow, action, rng)
        obs, reward, terminated, _, info = env.step(action)
        assert reward.tolist() == [s.step(int(a)) for s, a in zip(slow, action, strict=True)]
        assert terminated.tolist() == [s.t == sum(s.frames) for s in slow]
        if terminated.any():
            assert info["_success"].tolist() == terminated.tolist()
            assert info["success"].tolist() == [s.success and s.t == env.horizon for s in slow]
        else:
            assert info == {}
        again = terminated | (rng.random(3) < 0.02)
        if again.any():
            obs, _ = env.reset(options={"reset_mask": again})
            for b in np.flatnonzero(again):
                slow[b] = Slow(*chosen, choice_of(env, b))
        for b, s in enumerate(slow):
            np.testing.assert_array_equal(obs[b], s.image())
            assert (env.t[b], env.phase[b], env.frame[b]) == (s.t, s.phase, s.frame)


@settings(max_examples=20, deadline=None)
@given(settings_of(), st.integers(1, 4), seeds)
def test_rows_are_single_environments(
    chosen: tuple[str, dict[str, Any]], B: int, seed: int
) -> None:
    env = build(*chosen, num_envs=B)
    singles = [SingleEnv(build(*chosen, num_envs=1)) for _ in range(B)]
    obs, _ = env.reset(seed=seed)
    for b, single in enumerate(singles):
        choice = {k: np.array(v) for k, v in choice_of(env, b).items()}
        np.testing.assert_array_equal(single.reset(options=choice)[0], obs[b])
    for action in actions_of(env, seed):
        obs, reward, terminated, _, info = env.step(action)
        for b, single in enumerate(singles):
            single_obs, *rest, single_info = single.step(int(action[b]))
            np.testing.assert_array_equal(single_obs, obs[b])
            assert rest == [reward[b], terminated[b], False]
            assert single_info == ({"success": info["success"][b]} if terminated[b] else {})


@settings(max_examples=20, deadline=None)
@given(settings_of(), seeds)
def test_invariants(chosen: tuple[str, dict[str, Any]], seed: int) -> None:
    env = build(*chosen, num_envs=3)
    obs, _ = env.reset(seed=seed)
    chosen_cells = np.zeros((3, 7, 11), bool)
    for b in range(3):
        rows, columns = board.places_of(env.choices["apples"][b]).reshape(-1, 2).T
        chosen_cells[b, rows, columns] = True
    assert (chosen_cells.sum((1, 2)) == env.num_apples).all()
    before, phases, finals = env.player, [env.phase[0]], np.zeros(3, int)
    for action in actions_of(env, seed):
        phase = env.phase
        obs, reward, *_ = env.step(action)
        assert obs in env.observation_space
        apples = env.board == board.APPLE
        assert not (apples & ~chosen_cells).any()
        under = env.board[np.arange(3), env.player[:, 0], env.player[:, 1]]
        assert board.PASSABLE[under].all()
        if (phase == env.phase).all():
            assert np.abs(env.player - before).sum(1).max() <= 1
        allowed = (0, env.apple_reward) if phase[0] == 1 else (0, env.final_reward)
        assert np.isin(reward, allowed if phase[0] else (0,)).all()
        finals += (phase == 2) & (reward > 0)
        before = env.player
        phases.append(env.phase[0])
    assert (finals <= 1).all()
    np.testing.assert_array_equal(finals == 1, env.success)
    frames = env.frames
    assert np.bincount(phases, minlength=3).tolist() == [frames[0], frames[1], frames[2] + 1]


@settings(max_examples=15, deadline=None)
@given(settings_of(), seeds)
def test_a_seed_gives_one_sequence_of_episodes(
    chosen: tuple[str, dict[str, Any]], seed: int
) -> None:
    first, second = build(*chosen, num_envs=2), build(*chosen, num_envs=2)
    for episode in range(2):
        begin = {"seed": seed} if episode == 0 else {}
        np.testing.assert_array_equal(first.reset(**begin)[0], second.reset(**begin)[0])
        for action in actions_of(first, seed)[:40]:
            for a, b in zip(first.step(action)[:2], second.step(action)[:2], strict=True):
                np.testing.assert_array_equal(a, b)


# How many values each choice has, in every variant.
SIZES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("key", {}, {"key": 10, "start_explore": 10, "start_reward": 1, "door": 1}),
    (
        "key",
        {"reward_room": "cca"},
        {"key": 10, "start_explore": 10, "start_reward": 10, "door": 10},
    ),
    ("match", {}, {"square": 8, "target": 3, "start_explore": 1, "start_reward": 1, "colours": 1}),
    (
        "match",
        {"passive": False, "colours": "per_episode"},
        {"square": 26, "target": 3, "start_explore": 10, "start_reward": 1, "colours": 6},
    ),
]


@pytest.mark.parametrize(("task", "kwargs", "sizes"), SIZES)
def test_every_choice_is_drawn_about_equally_often(
    task: str, kwargs: dict[str, Any], sizes: dict[str, int]
) -> None:
    n = 4000
    env = build(task, {"frames": [15, 3, 10], **kwargs}, n)
    state = pickle.dumps(np.random.get_state())
    env.reset(seed=0)
    assert pickle.dumps(np.random.get_state()) == state  # NumPy's own generator is left alone
    assert set(env.choices) == {*sizes, "apples"}
    for name, size in sizes.items():
        values = env.choices[name].reshape(n, -1)
        counts = np.unique(values, axis=0, return_counts=True)[1]
        assert len(counts) == size
        assert np.abs(counts - n / size).max() <= 5 * (n / size) ** 0.5, name
    apples = env.choices["apples"]
    assert all(len(set(row)) == 10 for row in apples.tolist())
    counts = np.unique(apples, return_counts=True)[1]
    assert len(counts) == 22
    assert np.abs(counts - n * 10 / 22).max() <= 5 * (n * 10 / 22) ** 0.5


@pytest.mark.parametrize(
    ("task", "mean", "deviation", "success"), [("key", 5.6, 2.0, 0.01), ("match", 5.8, 2.1, 0.06)]
)
def test_a_random_player_gets_what_was_measured_with_the_original(
    task: str, mean: float, deviation: float, success: float
) -> None:
    """There over 300 episodes, so four standard errors are 0.5 in the mean."""
    env = build(task, {"length": 60}, 1000)
    env.reset(seed=0)
    rng, total = np.random.default_rng(0), np.zeros(1000)
    for _ in range(env.horizon):
        _, reward, _, _, info = env.step(rng.integers(4, size=1000))
        total += reward
    assert abs(total.mean() - mean) < 0.5
    assert abs(total.std() - deviation) < 0.4
    assert abs(info["success"].mean() - success) < 0.04
