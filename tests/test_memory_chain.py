"""Memory chain: episodes recorded with bsuite replay exactly, and the rules hold."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from memrl.envs.memory_chain import MemoryChainVec

with np.load(Path(__file__).parent / "golden" / "memory_chain.npz") as file:
    RECORDED = {name: file[name] for name in file.files}
SETTINGS = sorted({name.rpartition("/")[0] for name in RECORDED})  # memory length / bits


@pytest.mark.parametrize("setting", SETTINGS)
def test_recorded_episodes_replay(setting: str) -> None:
    length, num_bits = map(int, setting.split("/"))
    context, query, action, obs, reward, last = (
        RECORDED[f"{setting}/{name}"]
        for name in ("context", "query", "action", "obs", "reward", "last")
    )
    env = MemoryChainVec(num_envs=len(query), length=length, num_bits=num_bits)
    assert env.horizon == len(action) == length + 1
    first, _ = env.reset(seed=0, options={"context": context, "query": query})
    np.testing.assert_array_equal(first, obs[0], strict=True)
    for t in range(env.horizon):
        after, paid, terminated, truncated, info = env.step(action[t])
        np.testing.assert_array_equal(after, obs[t + 1], strict=True)
        np.testing.assert_array_equal(paid, reward[t])
        np.testing.assert_array_equal(terminated, last[t], strict=True)
        assert after in env.observation_space and not truncated.any()
        assert ("success" in info) == (t == length)
    np.testing.assert_array_equal(info["success"], reward[-1] == 1)


def test_choices_are_uniform_and_rows_can_be_reset_alone() -> None:
    env = MemoryChainVec(num_envs=4000, length=3, num_bits=3)
    env.reset(seed=0)
    np.testing.assert_allclose(env.context.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(np.bincount(env.query) / 4000, 1 / 3, atol=0.03)
    before, mask = env.context, np.arange(4000) % 2 == 0
    env.step(np.zeros(4000, int))
    env.reset(options={"reset_mask": mask})
    assert (env.context[~mask] == before[~mask]).all() and (env.t == ~mask).all()
    assert (env.context[mask] != before[mask]).any()


def test_it_is_a_gymnasium_environment_and_refuses_what_it_cannot_be() -> None:
    single = gymnasium.make("memrl/MemoryChain-v0", length=4, num_bits=2, render_mode="rgb_array")
    check_env(single.unwrapped)
    for name, value, text in (
        ("length", 0, "length must be at least 1, got 0"),
        ("num_bits", 0.5, "num_bits must be an integer, got 0.5"),
    ):
        with pytest.raises(ValueError, match=text):
            MemoryChainVec(**{name: value})
    env = MemoryChainVec(num_envs=2, num_bits=2)
    for option, text in (
        ({"context": [[0, 2], [0, 0]]}, r"context must be integers from 0 to 1 of shape \(2, 2\)"),
        ({"query": 1}, r"query must be integers from 0 to 1 of shape \(2,\), got 1"),
        ({"goal": 1}, "options must be among 'context', 'query' and 'reset_mask', got 'goal'"),
    ):
        with pytest.raises(ValueError, match=text):
            env.reset(options=option)
