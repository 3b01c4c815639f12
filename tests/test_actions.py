"""The form of an action: what networks see, what is stored, and random ones."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from memrl.actions import ContinuousActions, DiscreteActions, actions_of, no_action
from memrl.interfaces import Episodes, TaskSpec
from memrl.replay import Replay, slot_bytes

CPU = torch.device("cpu")
FORMS = [DiscreteActions(4), ContinuousActions(3)]


@pytest.mark.parametrize("actions", FORMS, ids=str)
def test_encodings_have_the_width_and_no_action_gives_zeros(actions):
    sampled = actions.sample(50, CPU)
    assert sampled.shape == (50, *actions.shape) and sampled.dtype == actions.dtype
    none = no_action(actions, 50, CPU)
    assert none.shape == sampled.shape and none.dtype == sampled.dtype
    for action in (sampled, none, torch.stack([sampled, none])):
        encoded = actions.encode(action)
        assert encoded.dtype == torch.float32
        assert encoded.shape == (*action.shape[: action.ndim - len(actions.shape)], actions.width)
    assert not actions.encode(none).any()


def test_integers_become_one_hot_vectors():
    one_hot = DiscreteActions(4).encode(torch.tensor([[-1, 0], [3, 1]]))
    assert one_hot.tolist() == [[[0, 0, 0, 0], [1, 0, 0, 0]], [[0, 0, 0, 1], [0, 1, 0, 0]]]


def test_random_actions_are_uniform():
    torch.manual_seed(0)
    x = ContinuousActions(2).sample(20_000, CPU)
    assert -1 <= x.min() < -0.999 and 0.999 < x.max() <= 1
    for column in x.T:
        counts = torch.histc(column, 10, -1, 1)
        assert (counts / 2000 - 1).abs().max() < 0.15
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 0.05
    counts = torch.bincount(DiscreteActions(4).sample(20_000, CPU), minlength=4)
    assert (counts / 5000 - 1).abs().max() < 0.1


def test_forms_are_those_of_spaces():
    assert str(actions_of(gymnasium.spaces.Discrete(3))) == "3 discrete actions"
    assert str(actions_of(Box(-1, 1, (2,)))) == "continuous actions of width 2"


@pytest.mark.parametrize("actions", FORMS, ids=str)
def test_replay_returns_the_actions_that_it_was_given(actions):
    space = gymnasium.spaces.Discrete(4) if actions.shape == () else Box(-1, 1, (3,))
    spec = TaskSpec(Box(-1, 1, (2,), np.float32), space, 5)
    replay = Replay(spec, window=3, capacity=14, device=CPU)
    bytes_of_action = 8 if actions.shape == () else 12
    assert slot_bytes(spec) == 2 * 4 + bytes_of_action + 4 + 1 + 1
    T, B = 5, 2
    action = torch.stack([actions.sample(B, CPU) for _ in range(T)])
    mask = torch.tensor([[True, True]] * 4 + [[True, False]])
    zeros = torch.zeros(T, B)
    replay.add(Episodes(torch.zeros(T + 1, B, 2), action, zeros, zeros.bool(), mask))
    for b, length in enumerate((5, 4)):
        for start in range(length - 2):
            window = replay.windows(torch.tensor([b * 6 + start]))
            assert torch.equal(window.action[:, 0], action[start : start + 3, b])
    other = Replay(spec, window=3, capacity=14, device=CPU)
    other.load_state_dict(replay.state_dict())
    assert torch.equal(other.action, replay.action)
