"""Visual Match and Key-to-Door: recorded episodes replay exactly, and every rule by hand."""

from __future__ import annotations

import pickle
import warnings
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import GOLDEN
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import memrl.envs  # noqa: F401  registers the tasks
from memrl.envs import gridworld as board
from memrl.envs.gridworld import GridVec
from memrl.envs.key_to_door import KeyToDoorVec
from memrl.envs.single import SingleEnv
from memrl.envs.visual_match import VisualMatchVec

NORTH, SOUTH, WEST, EAST = range(4)
CLASSES = {"key_to_door": KeyToDoorVec, "visual_match": VisualMatchVec}
IDS = {"key_to_door": "memrl/KeyToDoor-v0", "visual_match": "memrl/VisualMatch-v0"}
CHARACTERS = {
    **{board.EMPTY: " ", board.WALL: "#", board.INDICATOR: "i", board.PLAYER: "+"},
    **{board.DOOR: "d", board.OPEN_DOOR: "d", board.KEY: "k", board.APPLE: "a"},
    **{board.B: "b", board.C: "c", board.E: "e"},
}

KINDS = [  # b, c, e, key, door, indicator
    *[(letter, board.SQUARE) for letter in (board.B, board.C, board.E)],
    *[(board.KEY,), (board.DOOR, board.OPEN_DOOR), (board.INDICATOR,)],
]


# Recorded episodes ---------------------------------------------------------------------------


def episodes_of(task: str) -> list[dict[str, Any]]:
    """Recorded episodes, each with the ``kwargs`` and ``options`` that make it happen again."""
    with np.load(GOLDEN / f"{task}.npz") as file:
        data = {name: file[name] for name in file.files}
    episodes = []
    for i in range(int(data["n_episodes"])):
        prefix = f"ep{i:02d}/"
        e = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
        e["kwargs"] = {
            "frames": e["max_frames"].tolist(),
            **{k: float(e[k]) for k in ("final_reward", "apple_reward")},
            **{k: int(e[k]) for k in ("respawn_every", "num_apples")},
        }
        e["options"] = {k: e[k] for k in ("start_explore", "start_reward")}
        e["options"]["apples"] = e["apples_init"]
        if task == "key_to_door":
            e["kwargs"]["reward_room"] = "cca" if "cca" in str(e["policy"]) else "sr"
            door = np.argwhere(e["reward_board"] == ord("d"))[0]
            e["options"] |= {"key": e["key_pos"], "door": door}
        else:
            e["kwargs"]["passive"] = bool(e["passive"])
            target = chr(int(e["target_char"]))
            e["options"] |= {
                "square": e["colour_pos"],
                "target": target,
                "colours": e["colour_bce"],
            }
        episodes.append(e)
    return episodes


RECORDED = [(task, e) for task in CLASSES for e in episodes_of(task)]


def names(recorded: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [f"{task}-{e['policy']}-{e['max_frames'][1]}" for task, e in recorded]


def drawn_board(env: GridVec, b: int, target: str) -> np.ndarray:
    """The board with the player on it, as the recordings have it: ASCII codes."""
    cells = env.board[b].copy()
    player = tuple(env.player[b])
    if cells[player] != board.OPEN_DOOR:
        cells[player] = board.PLAYER
    characters = CHARACTERS | {board.SQUARE: target}
    return np.vectorize(lambda code: ord(characters[int(code)]))(cells)


def assert_frame(env: GridVec, b: int, e: dict[str, Any], t: int, obs: np.ndarray) -> None:
    assert obs.shape == (3, 5, 5) and obs.dtype == np.uint8
    np.testing.assert_array_equal(obs.reshape(75), e["obs"][t])
    state = (env.phase[b], env.frame[b], *env.player[b], int(env.has_key[b]))
    assert state == (e["phase"][t], e["frame"][t], *e["player"][t], e["has_key"][t])
    apples = np.unpackbits(e["apples"][t])[:77].reshape(7, 11)
    np.testing.assert_array_equal(env.board[b] == board.APPLE, apples)
    target = str(e["options"].get("target", "?"))
    drawn = drawn_board(env, b, target)
    np.testing.assert_array_equal(drawn, e["board"][t])
    if env.frame[b] == 0:  # a phase's first frame
        name = ("explore", "distractor", "reward")[env.phase[b]]
        np.testing.assert_array_equal(drawn, e[f"{name}_board"])
        np.testing.assert_array_equal(env.player[b], e[f"start_{name}"])
    for codes, visible in zip(KINDS, e["visible"][t], strict=True):
        if visible >= 0:  # else no part of the phase
            assert np.isin(env.board[b], codes).any() == visible


def test_all_recorded_episodes_are_replayed() -> None:
    assert [task for task, _ in RECORDED].count("key_to_door") == 17
    assert len(RECORDED) == 37


@pytest.mark.parametrize(("task", "e"), RECORDED, ids=names(RECORDED))
def test_recorded_episodes_replay_through_make(task: str, e: dict[str, Any]) -> None:
    env = gymnasium.make(IDS[task], **e["kwargs"])
    vec: GridVec = env.unwrapped.vec  # type: ignore[attr-defined]
    obs, info = env.reset(seed=0, options=e["options"])
    assert info == {}
    assert_frame(vec, 0, e, 0, obs)
    for t, action in enumerate(e["action"], start=1):
        obs, reward, terminated, truncated, info = env.step(int(action))
        assert reward == e["reward"][t - 1]
        assert (terminated, truncated) == (bool(e["done"][t - 1]), False)
        assert info == ({"success": bool(e["success"])} if terminated else {})
        assert_frame(vec, 0, e, t, obs)
    assert terminated


def replay(task: str, episodes: list[dict[str, Any]]) -> None:
    """Play episodes with the same settings at once, every option with a leading B."""
    first = episodes[0]
    envs = gymnasium.make_vec(IDS[task], num_envs=len(episodes), **first["kwargs"])
    env = envs.unwrapped
    assert isinstance(env, CLASSES[task])
    options = {k: np.stack([e["options"][k] for e in episodes]) for k in first["options"]}
    obs, info = envs.reset(seed=0, options=options)
    assert env.horizon == len(first["action"])
    for t in range(env.horizon + 1):
        if t:
            assert info == {}
            action = np.array([e["action"][t - 1] for e in episodes])
            obs, reward, terminated, truncated, info = envs.step(action)
            assert reward.dtype == np.float64
            np.testing.assert_array_equal(reward, [e["reward"][t - 1] for e in episodes])
            assert (terminated == (t == env.horizon)).all() and not truncated.any()
        for b, e in enumerate(episodes):
            assert_frame(env, b, e, t, obs[b])
    assert set(info) == {"success", "_success"}
    np.testing.assert_array_equal(info["success"], [e["success"] for e in episodes])


def test_recorded_episodes_replay_in_batches() -> None:
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for task, e in RECORDED:
        groups.setdefault(f"{task} {e['kwargs']}", []).append((task, e))
    assert max(map(len, groups.values())) >= 5
    for group in groups.values():
        replay(group[0][0], [e for _, e in group])


# The rules, by hand --------------------------------------------------------------------------


def key_to_door(frames: tuple[int, int, int] = (3, 30, 4), **changes: Any) -> KeyToDoorVec:
    return KeyToDoorVec(frames=frames, **changes)


def play(env: GridVec, actions: Any, **options: Any) -> list[tuple[float, np.ndarray]]:
    """Reset with options (row, column) and the like; return each action's reward and image."""
    env.reset(seed=0, options={k: np.asarray(v)[None] for k, v in options.items()})
    played = []
    for action in actions:
        obs, reward, *_ = env.step(np.array([action]))
        played.append((float(reward[0]), obs[0]))
    return played


APPLES = [(1, 1), (1, 3), (1, 5), (1, 7), (1, 9), (3, 1), (3, 3), (3, 5), (3, 7), (3, 9)]
KEY = {"key": (2, 5), "start_explore": (4, 5), "apples": APPLES}


def colour(obs: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(c) for c in obs[:, row, column])


def test_colours_are_the_published_ones() -> None:
    codes = [board.PLAYER, board.WALL, board.EMPTY, board.OUTSIDE, board.KEY]
    codes += [board.DOOR, board.OPEN_DOOR, board.APPLE, board.INDICATOR]
    thousandths = [(898, 584, 430), (100,) * 3, (800,) * 3, (800,) * 3, (627, 321, 176)]
    thousandths += [(529, 808, 922), (529, 808, 922), (550, 700, 0), (1000,) * 3]
    expected = [[value * 255 // 1000 for value in three] for three in thousandths]
    assert board.COLOURS[codes].tolist() == expected


def test_the_window_is_centred_on_the_player_and_grey_outside() -> None:
    env = key_to_door()
    env.reset(options={k: np.asarray(v)[None] for k, v in KEY.items()})
    obs, *_ = env.step(np.array([SOUTH]))
    assert env.player.tolist() == [[5, 5]]
    assert colour(obs[0], 2, 2) == (228, 148, 109)
    assert (obs[0, :, 4] == 204).all()  # row 7 is past the board
    assert (obs[0, :, 3] == 25).all()  # row 6 is wall


def test_the_board_ends_at_its_edge() -> None:
    """Behind the door of the small room one can walk to the edge, and no further."""
    env = key_to_door((4, 1, 20))
    out = [NORTH, NORTH, SOUTH, SOUTH, SOUTH]
    for way, end in ((NORTH, (0, 5)), (EAST, (0, 10)), (WEST, (0, 0))):
        play(env, [*out[:4], SOUTH, NORTH, NORTH, NORTH, *[way] * 12], **KEY)
        assert tuple(env.player[0]) == end


@pytest.mark.parametrize("way", [WEST, EAST])
def test_outside_the_small_room_one_can_walk_all_around_it(way: int) -> None:
    env = key_to_door((4, 1, 50))
    leave = [NORTH, NORTH, SOUTH, SOUTH, SOUTH, NORTH, NORTH, NORTH]
    edge = 0 if way == WEST else 10
    played = play(env, [*leave, *[way] * 8, *[SOUTH] * 9, *[WEST + EAST - way] * 14], **KEY)
    assert env.player[0].tolist() == [6, 10 - edge]
    corner = played[len(leave) + 8 + 9 - 1][1]
    assert (np.delete(corner.reshape(3, 25), 12, axis=1) == 204).all()  # board and beyond alike


def test_phases_change_within_a_step() -> None:
    """Phase i is given exactly its frames, and its last frame is never seen but in the end."""
    env = key_to_door((3, 4, 2))
    env.reset(seed=0)
    seen = [(int(env.phase[0]), int(env.frame[0]))]
    for _ in range(env.horizon):
        _, _, terminated, *_ = env.step(np.array([SOUTH]))
        seen.append((int(env.phase[0]), int(env.frame[0])))
    first = [(0, f) for f in range(3)] + [(1, f) for f in range(4)]
    assert seen == [*first, (2, 0), (2, 1), (2, 2)]
    assert terminated.all()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.array([SOUTH]))


def test_taking_the_key_pays_nothing_and_shows_white_for_one_frame() -> None:
    env = key_to_door((6, 1, 1))
    (_, before), (reward, taken), (_, after) = play(env, [NORTH, NORTH, SOUTH], **KEY)
    assert reward == 0 and env.has_key[0]
    assert colour(before, 1, 2) == (159, 81, 44)
    assert colour(taken, 0, 2) == (255, 255, 255) and env.player[0].tolist() == [3, 5]
    assert colour(taken, 2, 2) == (228, 148, 109)
    assert not (after == 255).any() and not (env.board == board.KEY).any()


def test_the_wall_stays_a_wall_while_it_is_white() -> None:
    env = key_to_door((6, 1, 1))
    options = KEY | {"key": (1, 5)}
    played = play(env, [NORTH, NORTH, NORTH, NORTH], **options)
    assert env.player[0].tolist() == [1, 5]
    assert colour(played[2][1], 1, 2) == (255, 255, 255)
    assert colour(played[3][1], 1, 2) == (25, 25, 25)


def test_a_key_taken_in_the_last_frame_counts_unseen() -> None:
    env = key_to_door((2, 1, 3))
    played = play(env, [NORTH, NORTH], **KEY)
    assert env.has_key[0] and env.phase[0] == 1
    assert not (played[-1][1] == 255).any()
    rewards = [r for r, _ in play(env, [NORTH, NORTH, SOUTH, NORTH, NORTH, NORTH], **KEY)]
    assert rewards[3:] == [0, 5, 0]


def test_the_door_is_closed_without_the_key() -> None:
    env = key_to_door((2, 1, 4))
    played = play(env, [SOUTH, SOUTH, SOUTH, *[NORTH] * 4], **KEY)
    assert env.player[0].tolist() == [2, 5]
    assert sum(r for r, _ in played) == 0
    assert colour(played[-1][1], 1, 2) == (134, 206, 235)


def test_the_door_pays_once_hides_the_player_and_stays_open() -> None:
    env = key_to_door((2, 1, 7), final_reward=3.0)
    back = [NORTH, NORTH, NORTH, SOUTH, SOUTH, NORTH, NORTH]
    played = play(env, [NORTH, NORTH, SOUTH, *back], **KEY)
    assert [r for r, _ in played[3:]] == [0, 3, 0, 0, 0, 0, 0]
    assert colour(played[4][1], 2, 2) == (134, 206, 235)
    assert colour(played[5][1], 2, 2) == (228, 148, 109)  # outside
    assert env.player[0].tolist() == [0, 5] and not env.has_key[0]


def test_the_door_counts_in_the_last_frame() -> None:
    env = key_to_door((2, 1, 2))
    env.reset(options={k: np.asarray(v)[None] for k, v in KEY.items()})
    for action in (NORTH, NORTH, SOUTH, NORTH):
        *_, info = env.step(np.array([action]))
        assert info == {}
    _, reward, terminated, _, info = env.step(np.array([NORTH]))
    assert reward == 5 and terminated and info["success"] and info["_success"]


@pytest.mark.parametrize(("start", "door"), [((1, 3), (4, 3)), ((2, 7), (5, 6))])
def test_the_large_reward_room(start: tuple[int, int], door: tuple[int, int]) -> None:
    env = key_to_door((2, 1, 12), reward_room="cca")
    options = KEY | {"start_reward": start, "door": door}
    walls = "  #######  |  #     #  |  #     #  |  ##   ##  |  #     #  |  #     #  |  #######  "
    play(env, [NORTH, NORTH, SOUTH], **options)
    rows = ["".join(map(chr, row)) for row in drawn_board(env, 0, "?")]
    expected = [list(row) for row in walls.split("|")]
    expected[start[0]][start[1]], expected[door[0]][door[1]] = "+", "d"
    assert rows == ["".join(row) for row in expected]
    assert KeyToDoorVec(length=30, reward_room="cca").frames == (15, 30, 15)


# Apples --------------------------------------------------------------------------------------

BELOW = {"apples": [(5, 3), *APPLES[1:]], "key": (2, 5), "start_explore": (4, 5)}


def waiting(respawn_every: int, steps: int = 70) -> list[int]:
    """The frames in which a player is paid that waits on an apple's cell."""
    env = key_to_door((1, steps, 1), respawn_every=respawn_every)
    played = play(env, [SOUTH, *[WEST] * 2, *[SOUTH] * (steps - 2)], **BELOW)
    return [frame for frame, (reward, _) in enumerate(played) if reward]


@pytest.mark.parametrize("respawn_every", [1, 5, 20])
def test_who_waits_on_an_apple_is_paid_every_r_plus_2_frames(respawn_every: int) -> None:
    assert waiting(respawn_every) == list(range(2, 71, respawn_every + 2))


def test_without_respawning_an_apple_is_paid_once() -> None:
    assert waiting(0) == [2]


def test_an_apple_is_back_on_the_board_after_r_plus_1_frames() -> None:
    env = key_to_door((1, 40, 1), respawn_every=5)
    gone = []
    for t in range(20):
        play(env, [SOUTH, WEST, WEST, *[EAST] * t], **BELOW)
        gone.append(env.board[0, 5, 3] != board.APPLE)
    assert gone == [True] * 6 + [False] * 14


def test_an_apple_that_is_not_yet_back_pays_nothing() -> None:
    env = key_to_door((1, 40, 1), respawn_every=5)
    for wait, paid in ((4, 0), (5, 1)):  # the apple of frame 2 is on the board from frame 8 on
        actions = [SOUTH, WEST, WEST, EAST, *[SOUTH] * wait, WEST]
        assert play(env, actions, **BELOW)[-1][0] == paid, wait


def test_the_player_is_drawn_above_an_apple() -> None:
    env = key_to_door((1, 40, 1), respawn_every=1)
    played = play(env, [SOUTH, WEST, WEST, SOUTH, SOUTH], **BELOW)
    assert env.board[0, 5, 3] == board.APPLE
    assert colour(played[-1][1], 2, 2) == (228, 148, 109)


def test_an_apple_in_the_last_frame_of_the_phase_counts() -> None:
    env = key_to_door((1, 2, 1), apple_reward=0.5)
    played = play(env, [SOUTH, WEST, WEST], **BELOW)
    assert played[-1][0] == 0.5 and env.phase[0] == 2


def test_apples_lie_where_they_were_chosen() -> None:
    env = key_to_door((1, 4, 1), num_apples=3)
    play(env, [SOUTH], apples=[(1, 1), (2, 8), (5, 9)])
    assert np.argwhere(env.board[0] == board.APPLE).tolist() == [[1, 1], [2, 8], [5, 9]]
    cells = [(r, c) for r in (1, 3) for c in (1, 3, 5, 7, 9)]
    cells += [(r, c) for r in (2, 4) for c in (2, 4, 6, 8)] + [(5, c) for c in (1, 3, 7, 9)]
    assert sorted(map(tuple, board.places_of(board.APPLE_CELLS).tolist())) == sorted(cells)


# Visual Match --------------------------------------------------------------------------------

RGB = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


AROUND = [(r, c) for r in (1, 2, 3) for c in (4, 5, 6) if (r, c) != (2, 5)]


def visual_match(frames: tuple[int, int, int] = (3, 1, 12), **changes: Any) -> VisualMatchVec:
    return VisualMatchVec(frames=frames, **changes)


def test_the_passive_player_cannot_move_and_sees_the_colour() -> None:
    env = visual_match((15, 2, 3))
    for action in range(4):
        played = play(env, [action] * 14, square=(1, 4), target="e", colours=RGB)
        assert env.player[0].tolist() == [2, 5]
        for _, obs in played:
            assert colour(obs, 1, 1) == (0, 0, 255)
            assert (obs[:, 1:4, 1:4] == 25).all(0).sum() == 7
    obs, *_ = env.step(np.array([NORTH]))
    assert env.phase[0] == 1


@pytest.mark.parametrize("square", AROUND)
def test_the_colour_is_seen_from_the_reset_to_the_phase_s_last_frame(
    square: tuple[int, int],
) -> None:
    env = VisualMatchVec(length=2)
    obs, _ = env.reset(options={"square": square, "target": "b", "colours": [[9, 8, 7]] * 3})
    seen = []
    for t in range(18):
        rows, columns = np.nonzero((obs[0].transpose(1, 2, 0) == (9, 8, 7)).all(-1))
        seen += [t] * len(rows)
        if t < 15:
            assert (rows.tolist(), columns.tolist()) == ([square[0]], [square[1] - 3])
        obs, *_ = env.step(np.array([t % 4]))
    assert seen == list(range(15))


def test_the_walkable_room_has_a_coloured_wall_cell() -> None:
    env = visual_match((5, 2, 3), passive=False)
    assert len(env.places["square"]) == 26 and len(env.places["start_explore"]) == 10
    options = {"start_explore": (4, 3), "square": (4, 2), "target": "c", "colours": RGB}
    played = play(env, [WEST, EAST], **options)
    assert colour(played[0][1], 2, 1) == (0, 255, 0)  # and it cannot be entered
    assert env.player[0].tolist() == [4, 4]


UP = [NORTH] * 3
WAYS = {"b": [*UP, *[WEST] * 3, NORTH], "c": [*UP, NORTH], "e": [*UP, *[EAST] * 3, NORTH]}


def test_the_walkable_room_has_26_wall_cells_and_none_can_be_entered() -> None:
    env = visual_match((15, 1, 1), passive=False)
    for start, ways, end in (
        ((4, 3), (WEST, SOUTH), [5, 3]),
        ((5, 7), (EAST, NORTH), [4, 7]),  # (3, 7) is wall
    ):
        env.reset(options={"start_explore": start, "square": (0, 2)})
        assert (env.board == board.WALL).sum() == 25 and (env.board == board.SQUARE).sum() == 1
        for way in ways:
            for _ in range(7):
                env.step(np.array([way]))
        assert env.player[0].tolist() == end


def test_a_square_visited_in_the_last_frame_counts() -> None:
    env = visual_match((1, 1, 4))
    for target, paid in (("c", 5), ("b", 0)):
        env.reset(seed=0, options={"target": target})
        for action in (SOUTH, SOUTH, *WAYS["c"]):
            _, reward, terminated, _, info = env.step(np.array([action]))
            assert bool(info) == terminated[0]
        assert reward[0] == paid and info["success"][0] == bool(paid) and terminated


def test_a_square_visited_too_late_is_not_reached() -> None:
    env = visual_match((1, 1, 3))
    env.reset(seed=0, options={"target": "c"})
    for action in (SOUTH, SOUTH, *UP):
        *_, info = env.step(np.array([action]))
    assert env.player[0].tolist() == [2, 5] and not info["success"][0]


@pytest.mark.parametrize("target", "bce")
@pytest.mark.parametrize("visited", "bce")
def test_the_first_square_decides_and_all_vanish(target: str, visited: str) -> None:
    env = visual_match()
    played = play(env, [SOUTH] * 4 + WAYS[visited], target=target)
    assert [r for r, _ in played[:-1]] == [0] * (len(played) - 1)
    assert played[-1][0] == (5 if visited == target else 0)
    assert env.success[0] == (visited == target)
    assert not np.isin(env.board, (board.B, board.C, board.E)).any()
    there = env.player[0].tolist()
    assert there == {"b": [1, 2], "c": [1, 5], "e": [1, 8]}[visited]


def test_wrong_then_right_pays_nothing() -> None:
    env = visual_match()
    played = play(env, [SOUTH] * 4 + WAYS["c"] + [EAST] * 3, target="e")
    assert env.player[0].tolist() == [1, 8]
    assert sum(r for r, _ in played) == 0


def test_the_target_has_one_colour_throughout() -> None:
    env = visual_match()
    env.reset(seed=0, options={"target": "b", "colours": RGB[::-1], "square": (2, 4)})
    obs, *_ = env.step(np.array([NORTH]))
    assert colour(obs[0], 2, 1) == (0, 0, 255)
    for action in [SOUTH] * 3 + WAYS["b"][:-1]:
        obs, *_ = env.step(np.array([action]))
    assert colour(obs[0], 1, 2) == (0, 0, 255)


# Which colour is where -----------------------------------------------------------------------


def arrangement(env: VisualMatchVec) -> list[int]:
    return [int(c.argmax()) for c in env.choices["colours"][0]]


def test_per_env_is_one_arrangement_by_the_seed() -> None:
    seen, differ = set(), 0
    for seed in range(60):
        env, other = visual_match(num_envs=3), visual_match()
        env.reset(seed=seed)
        first = arrangement(env)
        for _ in range(3):
            assert (env.choices["colours"] == env.choices["colours"][0]).all()
            assert arrangement(env) == first
            env.reset()
        other.reset(seed=seed)
        assert arrangement(other) == first
        other.reset(seed=seed + 42)
        differ += arrangement(other) != first
        seen.add(tuple(first))
    assert len(seen) == 6
    assert 40 <= differ <= 58  # 5/6 of 60 are 50


def test_a_restored_generator_keeps_the_arrangement() -> None:
    """As a continued run does: the same seed, then the saved state of the generator."""
    env, other = visual_match(), visual_match()
    env.reset(seed=3)
    env.reset()
    other.reset(seed=3)
    other.np_random.bit_generator.state = env.np_random.bit_generator.state
    for _ in range(4):
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
        for name, value in env.choices.items():
            np.testing.assert_array_equal(value, other.choices[name])


def test_shared_is_red_green_blue_everywhere() -> None:
    for seed in range(10):
        env = visual_match(colours="shared", num_envs=2)
        env.reset(seed=seed)
        assert env.choices["colours"].tolist() == [RGB, RGB]


def test_per_episode_draws_anew_for_every_row() -> None:
    env = visual_match(colours="per_episode", num_envs=300)
    env.reset(seed=0)
    rows, counts = np.unique(env.choices["colours"].reshape(300, 9), axis=0, return_counts=True)
    assert len(rows) == 6 and counts.min() >= 25
    before = env.choices["colours"].copy()
    env.reset()
    assert (env.choices["colours"] != before).any()


# Options and constructor ---------------------------------------------------------------------

BAD_OPTIONS = [
    ("key_to_door", {"goal": 1}, "options must be among 'start_explore', 'key', "),
    ("visual_match", {"key": (1, 3)}, "options must be among "),
    ("key_to_door", {"key": (3, 3)}, "key must be among (1, 3), "),
    ("key_to_door", {"key": (1, 25)}, "key must be among "),
    ("key_to_door", {"key": (-1, 3)}, "key must be among "),
    ("key_to_door", {"key": (0, 18)}, "key must be among "),  # not (1, 3) by its number
    ("key_to_door", {"key": (2, -12)}, "key must be among "),
    ("key_to_door", {"key": []}, "key must be integers, (2,) or (2, 2), "),
    ("key_to_door", {"key": (1.0, 3.0)}, "key must be integers, (2,) or (2, 2), "),
    ("key_to_door", {"key": [[1, 3]] * 3}, "key must be integers, (2,) or (2, 2), "),
    ("key_to_door", {"start_explore": (3, 5)}, "start_explore must be among (4, 3), "),
    ("key_to_door", {"door": (1, 4)}, "door must be among (1, 5), "),
    ("key_to_door", {"start_reward": (2, 5)}, "start_reward must be among (3, 5), "),
    ("visual_match", {"start_explore": (2, 4)}, "start_explore must be among (2, 5), "),
    ("visual_match", {"square": (2, 5)}, "square must be among (1, 4), "),
    ("visual_match", {"target": "x"}, "target must be 'b', 'c' or 'e', "),
    ("visual_match", {"target": ["b", "x"]}, "target must be 'b', 'c' or 'e', "),
    ("visual_match", {"target": ["b"] * 3}, "target must be text, () or (2,), "),
    ("visual_match", {"target": 1}, "target must be text, "),
    ("visual_match", {"colours": RGB[:2]}, "colours must be integers, (3, 3) or (2, 3, 3), "),
    ("visual_match", {"colours": [[256, 0, 0]] * 3}, "colours must be from 0 to 255, "),
    ("visual_match", {"colours": [[-1, 0, 0]] * 3}, "colours must be from 0 to 255, "),
    ("visual_match", {"colours": np.ones((3, 3))}, "colours must be integers, "),
    ("key_to_door", {"apples": APPLES[:9]}, "apples must be integers, (10, 2) or (2, 10, 2), "),
    ("key_to_door", {"apples": [*APPLES[:9], (1, 1)]}, "apples must be different cells, "),
    ("key_to_door", {"apples": [*APPLES[:9], (5, 5)]}, "apples must be among (1, 1), "),
    ("key_to_door", {"apples": [APPLES, [*APPLES[:9], (1, 1)]]}, "apples must be different "),
    ("key_to_door", {"reset_mask": np.zeros(2, bool)}, "reset_mask must be bool of shape (2,) "),
    ("key_to_door", {"reset_mask": [True]}, "reset_mask must be bool of shape (2,) "),
]


@pytest.mark.parametrize(("task", "options", "message"), BAD_OPTIONS)
def test_a_bad_option_is_named_and_changes_nothing(
    task: str, options: dict[str, Any], message: str
) -> None:
    env, other = (CLASSES[task](num_envs=2, length=3) for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=1)
    with pytest.raises(ValueError) as caught:
        env.reset(seed=2, options=options)
    assert str(caught.value).startswith(message)
    assert env.np_random.bit_generator.state == other.np_random.bit_generator.state
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


ALL_OPTIONS: list[tuple[type[GridVec], dict[str, Any], dict[str, list[Any]]]] = [
    (
        KeyToDoorVec,
        {"reward_room": "cca"},
        {
            **{"start_explore": [(4, 3), (5, 7)], "key": [(1, 7), (2, 3)]},
            **{"start_reward": [(2, 7), (1, 3)], "door": [(5, 7), (4, 3)]},
            "apples": [APPLES, [(5, c) for c in (9, 7, 3, 1)] + APPLES[:6]],
        },
    ),
    (
        VisualMatchVec,
        {"passive": False},
        {
            **{"start_explore": [(4, 3), (5, 7)], "square": [(0, 2), (3, 3)]},
            **{"start_reward": [(5, 5)] * 2, "target": ["e", "b"]},
            **{"apples": [APPLES, APPLES[::-1]], "colours": [[[1, 2, 3]] * 3, RGB]},
        },
    ),
]


def given_back(env: GridVec, name: str) -> list[Any]:
    """A choice as the option was given."""
    value = env.choices[name]
    if name == "target":
        return ["bce"[index] for index in value]
    return (value if name == "colours" else board.places_of(value)).tolist()


@pytest.mark.parametrize(("cls", "kwargs", "options"), ALL_OPTIONS)
def test_every_option_is_for_all_or_for_each(
    cls: Any, kwargs: dict[str, Any], options: dict[str, list[Any]]
) -> None:
    env: GridVec = cls(num_envs=2, length=3, **kwargs)
    env.reset(seed=0)
    assert set(env.choices) == set(options)
    for name, both in options.items():
        lists = np.array(both).tolist()
        for b in range(2):
            env.reset(options={name: both[b]})
            assert given_back(env, name) == [lists[b]] * 2
        env.reset(options={name: both})
        assert given_back(env, name) == lists
        env.reset(options={name: both[0]})
        env.reset(options={name: both, "reset_mask": np.array([False, True])})
        assert given_back(env, name) == [lists[0], lists[1]]
    given = options | {"reset_mask": np.ones(2, bool)}
    env.reset(options=given)
    assert given.keys() == {*options, "reset_mask"}  # the caller's dictionary is not consumed


@pytest.mark.parametrize(("cls", "kwargs", "options"), ALL_OPTIONS)
def test_options_of_a_single_environment_have_no_leading_b(
    cls: Any, kwargs: dict[str, Any], options: dict[str, list[Any]]
) -> None:
    env = SingleEnv(cls(length=3, **kwargs))
    for name, both in options.items():
        env.reset(options={name: both[1]})
        assert given_back(env.vec, name) == [np.array(both[1]).tolist()]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"^{name} must be "):
            env.reset(options={name: both[:1]})


def test_no_apples_may_be_given_where_there_are_none() -> None:
    env = key_to_door((1, 3, 1), num_apples=0)
    play(env, [SOUTH], apples=[])
    assert env.phase[0] == 1 and not (env.board == board.APPLE).any()
    with pytest.raises(ValueError, match=r"^apples must be"):
        env.reset(options={"apples": [(1, 1)]})


def test_the_room_decides_what_is_allowed() -> None:
    walkable = visual_match(passive=False)
    walkable.reset(options={"square": (6, 8), "start_explore": (4, 3)})
    for option in ({"square": (1, 4)}, {"start_explore": (2, 5)}):
        with pytest.raises(ValueError, match=f"^{next(iter(option))} must be among "):
            walkable.reset(options=option)
    cca = key_to_door(reward_room="cca")
    for option in ({"door": (1, 5)}, {"door": (3, 5)}, {"start_reward": (3, 5)}):
        with pytest.raises(ValueError, match=f"^{next(iter(option))} must be among "):
            cca.reset(options=option)


def test_what_the_room_fixes_may_be_given_if_it_agrees() -> None:
    fixed = {"start_reward": (3, 5), "door": (1, 5)}
    key_to_door().reset(options=fixed)
    visual_match().reset(options={"start_explore": (2, 5), "start_reward": [[5, 5]]})


@pytest.mark.parametrize("task", CLASSES)
def test_fixing_a_choice_leaves_the_others_as_they_were(task: str) -> None:
    free, fixed = (CLASSES[task](num_envs=3, length=3) for _ in range(2))
    free.reset(seed=5)
    given = {"apples": APPLES}
    fixed.reset(seed=5, options=given)
    for _ in range(2):
        for name, value in free.choices.items():
            if name not in given:
                np.testing.assert_array_equal(value, fixed.choices[name], err_msg=name)
        free.reset()
        fixed.reset(options=given)


@pytest.mark.parametrize(("cls", "kwargs", "options"), ALL_OPTIONS)
def test_fixing_every_choice_leaves_the_next_episode_as_it_was(
    cls: Any, kwargs: dict[str, Any], options: dict[str, list[Any]]
) -> None:
    free, fixed = (cls(num_envs=2, length=3, **kwargs) for _ in range(2))
    for env, given in ((free, {}), (fixed, options)):
        env.reset(seed=5)
        env.reset(options=given)
        env.reset()
    for name, value in free.choices.items():
        np.testing.assert_array_equal(value, fixed.choices[name], err_msg=name)


@pytest.mark.parametrize("task", CLASSES)
def test_a_partial_reset_leaves_the_others_alone(task: str) -> None:
    env = CLASSES[task](num_envs=3, length=3)
    env.reset(seed=0)
    for _ in range(17):
        before, *_ = env.step(np.array([0, 1, 2]))
    state = {name: value.copy() for name, value in env.choices.items()}
    obs, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert env.t.tolist() == [17, 0, 17] and env.phase.tolist() == [1, 0, 1]
    for b in (0, 2):
        np.testing.assert_array_equal(obs[b], before[b])
        assert all((env.choices[name][b] == state[name][b]).all() for name in state)
    for _ in range(16):  # they go on, and the rows that end first are told of
        _, _, terminated, _, info = env.step(np.array([0, 1, 2]))
        if terminated.any():
            break
    assert terminated.tolist() == [True, False, True]
    assert info["_success"].tolist() == [True, False, True] and not info["success"][1]


@pytest.mark.parametrize("actions", [[0, 4], [-1, 0], [0], [0.0, 1.0], [True, False]])
@pytest.mark.parametrize("task", CLASSES)
def test_bad_actions_are_refused_and_change_nothing(task: str, actions: list[Any]) -> None:
    env = CLASSES[task](num_envs=2, length=3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, int))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^actions must be "):
        env.step(np.array(actions))
    assert env.t.tolist() == [0, 0]


@pytest.mark.parametrize("task", CLASSES)
def test_returned_arrays_are_not_reused(task: str) -> None:
    env = CLASSES[task](num_envs=2, length=3)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    results = [env.step(np.array([NORTH, EAST]))[:4] for _ in range(2)]
    np.testing.assert_array_equal(first, kept)
    for a, b in zip(*results, strict=True):
        assert not np.shares_memory(a, b)


def test_a_row_is_paid_and_succeeds_while_others_are_elsewhere() -> None:
    env = key_to_door((2, 3, 4), num_envs=2)
    env.reset(options=KEY)
    for t, action in enumerate((NORTH, NORTH, SOUTH, SOUTH, SOUTH, NORTH, NORTH)):
        if t == 3:
            env.reset(options=KEY | {"reset_mask": np.array([True, False])})
        _, reward, _, _, info = env.step(np.array([SOUTH, action]))
    assert reward.tolist() == [0, 5] and env.phase.tolist() == [1, 2] and info == {}
    assert env.success.tolist() == [False, True]


def test_success_is_told_of_none_but_those_that_end() -> None:
    env = key_to_door((2, 1, 4), num_envs=2)
    env.reset(options=KEY)
    for _ in range(2):
        env.step(np.array([NORTH, NORTH]))
    env.reset(options=KEY | {"reset_mask": np.array([False, True])})
    for ours, other in ((SOUTH, NORTH), (SOUTH, NORTH), (SOUTH, SOUTH), (SOUTH, NORTH)):
        env.step(np.array([ours, other]))
    _, reward, terminated, _, info = env.step(np.array([SOUTH, NORTH]))
    assert reward.tolist() == [0, 5] and terminated.tolist() == [True, False]
    assert env.success.tolist() == [False, True]
    assert info["success"].tolist() == [False, False]
    assert info["_success"].tolist() == [True, False]


BAD_ARGUMENTS = [
    ({"length": 0}, "length must be at least 1"),
    ({"length": 1.5}, "length must be an integer"),
    ({"num_envs": 0}, "num_envs must be at least 1"),
    ({"frames": (1, 2)}, "frames must be three"),
    ({"frames": (1, 0, 2)}, "frames must be at least 1"),
    ({"frames": (1, 2.5, 2)}, "frames must be an integer"),
    ({"frames": (1, 2), "length": 2}, "frames must be three"),
    ({"frames": (1, 2, 3), "length": 3}, "length must be the second of frames, 2"),
    ({"final_reward": 0}, "final_reward must be above 0"),
    ({"final_reward": -5.0}, "final_reward must be above 0"),
    ({"final_reward": float("nan")}, "final_reward must be finite"),
    ({"num_envs": 2.0}, "num_envs must be an integer"),
    ({"respawn_every": 0.5}, "respawn_every must be an integer"),
    ({"num_apples": 1.0}, "num_apples must be an integer"),
    ({"final_reward": float("inf")}, "final_reward must be finite"),
    ({"apple_reward": float("nan")}, "apple_reward must be finite"),
    ({"respawn_every": -1}, "respawn_every must be at least 0"),
    ({"num_apples": 23}, "num_apples must be at most 22"),
    ({"num_apples": -1}, "num_apples must be at least 0"),
    ({"render_mode": "human"}, "render_mode must be None or 'rgb_array'"),
]


@pytest.mark.parametrize("cls", CLASSES.values())
@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_a_bad_argument_is_named(cls: type[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        cls(**arguments)


def test_a_bad_room_or_meaning_is_named() -> None:
    with pytest.raises(ValueError, match=r"^reward_room must be"):
        KeyToDoorVec(reward_room="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^colours must be one of per_env, shared, per_episode"):
        VisualMatchVec(colours="x")  # type: ignore[arg-type]


def test_defaults() -> None:
    for cls in CLASSES.values():
        env = cls()
        assert (env.num_envs, env.length, env.final_reward, env.apple_reward) == (1, 60, 5, 1)
        assert (env.respawn_every, env.num_apples, env.render_mode) == (20, 10, None)
        space = gymnasium.spaces.Box(0, 255, (3, 5, 5), np.uint8)
        assert env.single_observation_space == space
        assert env.single_action_space == gymnasium.spaces.Discrete(4)
    assert KeyToDoorVec().reward_room == "sr" and VisualMatchVec().passive
    assert VisualMatchVec().colours == "per_env"
    assert KeyToDoorVec(reward_room="cca").frames == (15, 60, 15)


def test_frames_win_over_length() -> None:
    assert KeyToDoorVec().frames == (15, 60, 10) and VisualMatchVec().frames == (15, 60, 15)
    for cls, last in ((KeyToDoorVec, 10), (VisualMatchVec, 15)):
        assert cls(length=7).horizon == 15 + 7 + last
        assert cls(frames=(2, 3, 4)).horizon == cls(frames=(2, 3, 4), length=3).horizon == 9
        assert cls(frames=(2, 3, 4)).length == 3


# Gymnasium -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", IDS.values())
def test_the_environment_checker_is_silent(id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in (None, "rgb_array"):
            env = gymnasium.make(id, length=5, render_mode=mode)
            check_env(env.unwrapped)
            env.reset(seed=0)
            ended = False
            while not ended:
                _, _, ended, _, info = env.step(env.action_space.sample())
        assert set(info) == {"success"}


ALL_IDS = [*IDS.values(), "memrl/TMaze-v0", "memrl/TMazePassive-v0", "memrl/TMazeActive-v0"]


def assert_same(ours: Any, theirs: Any, values: bool) -> None:
    """The same kind of array, or dictionary of them, and the same values or only their shape."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key], values)
        return
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if ours.dtype == object:
        assert_same(np.stack(ours), np.stack(theirs), values)
    elif values:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("id", ALL_IDS)
def test_the_vector_environment_is_gymnasium_s(id: str, mode: AutoresetMode) -> None:
    """Equal to Gymnasium's loop: in every number for one row, in what is returned for more."""
    native = partial(gymnasium.make_vec, id, length=2, autoreset_mode=mode.value)
    create = partial(gymnasium.make, id, length=2)
    for B in (1, 3):
        ours, theirs = native(num_envs=B), SyncVectorEnv([create] * B, autoreset_mode=mode)
        assert ours.metadata == theirs.metadata
        assert ours.observation_space == theirs.observation_space
        assert ours.action_space == theirs.action_space
        rng = np.random.default_rng(0)
        for seed in (5, None):
            resets = [envs.reset(seed=seed) for envs in (ours, theirs)]
            for mine, gymnasium_s in zip(*resets, strict=True):
                assert_same(mine, gymnasium_s, values=B == 1)
            horizon = ours.spec.max_episode_steps  # type: ignore[union-attr]
            assert horizon == create().unwrapped.horizon  # type: ignore[attr-defined]
            for _ in range(horizon if mode is AutoresetMode.DISABLED else 2 * horizon + 3):
                action = rng.integers(4, size=B)
                steps = [envs.step(action) for envs in (ours, theirs)]
                for mine, gymnasium_s in zip(*steps, strict=True):
                    assert_same(mine, gymnasium_s, values=B == 1)


def trace(env: gymnasium.Env[Any, Any], length: int) -> list[Any]:
    """An episode's observations, rewards, ends and infos."""
    steps: list[Any] = [env.reset(seed=3)]
    for _ in range(length):
        obs, reward, terminated, _, info = env.step(SOUTH)  # some are truncated too at the end
        steps.append((obs, reward, terminated, info))
    assert terminated
    return steps


@pytest.mark.parametrize("id", ALL_IDS)
def test_a_specification_survives_as_json_and_an_environment_in_a_pickle(id: str) -> None:
    env = gymnasium.make(id, length=3, render_mode="rgb_array")
    assert env.spec is not None
    horizon: int = env.unwrapped.horizon  # type: ignore[attr-defined]
    assert env.spec.max_episode_steps == horizon
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    unwrapped = pickle.loads(pickle.dumps(env.unwrapped))
    assert type(again.unwrapped) is type(env.unwrapped) is type(unwrapped)
    assert type(unwrapped).__name__ == id.removeprefix("memrl/").removesuffix("-v0")
    first, *others = (trace(e, horizon) for e in (env, again, unwrapped))
    for other in others:
        np.testing.assert_equal(other, first)
    np.testing.assert_array_equal(again.render(), env.render())  # type: ignore[arg-type]
    assert type(env.unwrapped).metadata["render_modes"] == ["rgb_array"]

    mode = AutoresetMode.SAME_STEP
    envs = gymnasium.make_vec(env.spec, num_envs=2, autoreset_mode=mode)
    assert envs.spec is not None and envs.spec.max_episode_steps == horizon
    copies = [gymnasium.make_vec(EnvSpec.from_json(envs.spec.to_json()))]
    copies.append(pickle.loads(pickle.dumps(envs)))
    envs.reset(seed=0)
    for copy in copies:
        assert copy.spec == envs.spec and copy.metadata["autoreset_mode"] is mode
        np.testing.assert_array_equal(copy.reset(seed=0)[0], envs.unwrapped.reset(seed=0)[0])


def places(picture: np.ndarray, colour: tuple[int, int, int] = (228, 148, 109)) -> np.ndarray:
    """(row, column) of every cell of 20 x 20 pixels that has the colour at its centre."""
    return np.argwhere((picture[10::20, 10::20] == colour).all(-1))


@pytest.mark.parametrize("length", [3, 30])
@pytest.mark.parametrize("id", ALL_IDS)
def test_pictures_show_one_player_and_keep_their_size(id: str, length: int) -> None:
    env = gymnasium.make(id, length=length, render_mode="rgb_array_list")
    env.reset(seed=0)
    for _ in range(env.unwrapped.horizon):  # type: ignore[attr-defined]
        env.step(SOUTH)  # never into a door, which would hide the player
    pictures: Any = env.render()
    assert len(pictures) == env.unwrapped.horizon + 1  # type: ignore[attr-defined]
    assert len({picture.shape for picture in pictures}) == 1
    assert pictures[0].dtype == np.uint8 and max(pictures[0].shape) <= 600
    assert pictures[0].ndim == 3 and pictures[0].shape[2] == 3
    for picture in pictures:
        assert len(places(picture)) == 1
        rows, columns = np.nonzero((picture == (228, 148, 109)).all(-1))
        assert rows.max() - rows.min() < 20 and columns.max() - columns.min() < 20


@pytest.mark.parametrize("id", ALL_IDS)
def test_without_a_render_mode_there_is_no_picture(id: str) -> None:
    env = gymnasium.make(id, length=3)
    env.reset(seed=0)
    assert env.render_mode is None and env.unwrapped.render() is None
    vec = gymnasium.make_vec(id, num_envs=2, length=3)
    vec.reset(seed=0)
    assert vec.render() is None


@pytest.mark.parametrize("id", ALL_IDS)
def test_one_picture_is_that_of_its_row(id: str) -> None:
    env = gymnasium.make(id, length=3, render_mode="rgb_array")
    vec = gymnasium.make_vec(id, num_envs=3, length=3, render_mode="rgb_array")
    env.reset(seed=0)
    (single,) = env.unwrapped.vec.render()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(env.render(), single)  # type: ignore[arg-type]
    vec.reset(seed=0)
    pictures: Any = vec.render()
    assert [picture.shape for picture in pictures] == [single.shape] * 3


@pytest.mark.parametrize("id", ALL_IDS[2:])
def test_a_long_corridor_gives_a_small_picture_of_the_agent_s_surroundings(id: str) -> None:
    env = gymnasium.make(id, length=1500, render_mode="rgb_array")
    env.reset(seed=0, options={"goal": 1})
    shape = np.shape(env.render())
    assert max(shape) <= 600
    for t in range(env.unwrapped.horizon):  # type: ignore[attr-defined]
        env.step(0)  # right
        if t % 150 == 0 or t > 1490:
            picture: Any = env.render()
            assert picture.shape == shape and len(places(picture)) == 1


@pytest.mark.parametrize(("arm", "shift"), [(1, -1), (3, 1)])
def test_the_agent_is_drawn_in_the_arm_it_entered(arm: int, shift: int) -> None:
    env = gymnasium.make("memrl/TMazePassive-v0", length=3, render_mode="rgb_array")
    env.reset(seed=0)
    found = []
    for action in (0, 0, 0, arm):
        env.step(action)
        picture: Any = env.render()
        found.append(places(picture)[0].tolist())
    row, column = found[2]
    assert found[1] == [row, column - 1] and found[3] == [row + shift, column]


def test_the_picture_shows_the_whole_board() -> None:
    env = KeyToDoorVec(length=3, render_mode="rgb_array")
    env.reset(options=KEY)
    (picture,) = env.render() or ()
    assert picture.shape == (11 * 20, 15 * 20, 3)  # with the margin of two cells
    assert places(picture).tolist() == [[4 + 2, 5 + 2]]
    assert places(picture, (159, 81, 44)).tolist() == [[2 + 2, 5 + 2]]
    walls = places(picture, (25, 25, 25)).tolist() + places(picture, (12, 12, 12)).tolist()
    assert sorted(walls) == (np.argwhere(env.board[0] == board.WALL) + 2).tolist()


def test_the_door_hides_the_player_in_the_picture_too() -> None:
    env = key_to_door((2, 1, 4), render_mode="rgb_array")
    play(env, [NORTH, NORTH, SOUTH, NORTH], **KEY)
    for players in (1, 0, 1):  # below the door, in it, above it
        (picture,) = env.render() or ()
        assert len(places(picture, (134, 206, 235))) == 1
        assert len(places(picture)) == players
        env.step(np.array([NORTH]))


def test_every_row_s_picture_has_its_own_colours() -> None:
    env = visual_match(num_envs=3, render_mode="rgb_array")
    env.reset(options={"square": (1, 4), "colours": RGB, "target": ["b", "c", "e"]})
    pictures = env.render() or ()
    assert [picture[(1 + 2) * 20 + 10, (4 + 2) * 20 + 10].tolist() for picture in pictures] == RGB


def test_the_window_is_framed_where_the_agent_looks() -> None:
    env = KeyToDoorVec(length=3, render_mode="rgb_array")
    env.reset(options=KEY)
    (picture,) = env.render() or ()
    frame = np.argwhere((picture == (255, 220, 0)).all(-1))
    top, left = (4 - 2 + 2) * 20, (5 - 2 + 2) * 20  # with the margin of two cells
    assert frame.min(0).tolist() == [top, left]
    assert frame.max(0).tolist() == [top + 100, left + 100]
    assert picture[top + 50, left + 50].tolist() == [228, 148, 109]
    assert picture[(5 + 2) * 20 + 10, left + 50].tolist() == [204, 204, 204]  # inside: bright
    assert picture[10, 10].tolist() == [102, 102, 102]  # outside: dim
    assert KeyToDoorVec(length=3).render() is None
