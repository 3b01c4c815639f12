"""The ring of slots against records of the original program, and its laws."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.interfaces import Episodes, TaskSpec
from memrl.replay import Replay

CPU = torch.device("cpu")


def spec(horizon, shape=(1,), dtype=np.float32):
    box = gymnasium.spaces.Box(0, 255, shape, dtype)
    return TaskSpec(box, gymnasium.spaces.Discrete(4), horizon)


def episode(number, length, padding=0, terminated=True):
    """Observation 100 * number + t, action number % 4, reward number + t / 100; as recorded."""
    t = torch.arange(length + padding + 1)
    ends = (t[:-1] == length - 1) & terminated
    return Episodes(
        obs=(100.0 * number + t).view(-1, 1, 1),
        action=torch.full((length + padding, 1), number % 4),
        reward=(number + 0.01 * t[:-1]).float().unsqueeze(1),
        terminated=ends.unsqueeze(1),
        mask=(t[:-1] < length).unsqueeze(1),
    )


def side_by_side(episodes):
    """Pad to the longest and join along the batch."""
    longest = max(len(e.mask) for e in episodes)

    def pad(x, to):
        return torch.cat([x, x.new_zeros(to - len(x), *x.shape[1:])])

    return Episodes(
        *(
            torch.cat([pad(getattr(e, name), longest + (name == "obs")) for e in episodes], dim=1)
            for name in Episodes._fields
        )
    )


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("window", [5, 9])
def test_golden_ring(window, joined):
    data = np.load(GOLDEN / "sequence_buffer.npz")
    tops = [0] + [int(data[f"efficient_S{window}/after{n:02d}/top"]) for n in range(1, 13)]
    capacity = 64
    lengths = [(b - a) % capacity - 1 for a, b in itertools.pairwise(tops)]
    replay = Replay(spec(max(lengths)), window, capacity, CPU)
    for n, length in enumerate(lengths):
        if joined:  # all episodes so far in one batch, into a new ring
            replay = Replay(spec(max(lengths)), window, capacity, CPU)
            replay.add(side_by_side([episode(i, lengths[i]) for i in range(n + 1)]))
        else:
            replay.add(episode(n, length, padding=n % 3))
        record = {
            key: data[f"efficient_S{window}/after{n + 1:02d}/{key}"]
            for key in ("starts", "top", "size", "obs", "obs2", "act", "rew", "term", "mask")
        }
        assert (replay.top, replay.size) == (record["top"], record["size"])
        np.testing.assert_array_equal(replay.starts, record["starts"])
        batch = replay.windows(torch.from_numpy(record["starts"]))
        mask = record["mask"].astype(bool)
        np.testing.assert_array_equal(batch.mask, mask)
        for ours, theirs in (
            (batch.obs[:-1].squeeze(-1), "obs"),
            (batch.obs[1:].squeeze(-1), "obs2"),
            (batch.action, "act"),
            (batch.terminated, "term"),
        ):
            np.testing.assert_array_equal(ours.numpy()[mask], record[theirs][mask], theirs)
        np.testing.assert_allclose(batch.reward.numpy()[mask], record["rew"][mask], atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 12))
def test_windows_never_mix_episodes(lengths, window):
    replay = Replay(spec(12), window, 30, CPU)
    for number, length in enumerate(lengths):
        replay.add(episode(number, length))
        batch = replay.windows(replay.starts)
        assert batch.mask[0].all()
        number_of = torch.div(batch.obs.squeeze(-1), 100, rounding_mode="floor")
        same = number_of[:-1] == number_of[0]
        assert same[batch.mask].all(), "a step of another episode is unmasked"
        n = torch.tensor(lengths)[number_of[0].long()]
        first = batch.obs[0].squeeze(-1) % 100
        assert (batch.mask.sum(0) == torch.minimum(n - first, torch.tensor(window))).all()
        longest = int(batch.mask.sum(0).max())
        for whole, part in zip(batch, replay.windows(replay.starts, cut=True), strict=True):
            assert torch.equal(whole[: longest + (whole is batch.obs)], part)


@pytest.mark.parametrize("cut", [False, True])
def test_sampled_windows_are_cut_to_the_longest_if_they_may_be(cut):
    replay = Replay(spec(12), 9, 60, CPU, cut)
    for number, lengths in enumerate([(12, 9), (5, 3)]):
        for length in lengths:
            replay.add(episode(number, length))
        assert replay.has_short is (number == 1)  # before that there is nothing to cut
    replay.starts = replay.starts[-2:]
    (other := Replay(spec(12), 9, 60, CPU, cut)).load_state_dict(replay.state_dict())
    assert other.has_short
    torch.manual_seed(0)
    assert len(replay.sample(20).mask) == (5 if cut else 9)


def test_sampling_is_uniform_over_starts():
    replay = Replay(spec(12), 5, 100, CPU)
    for number, length in enumerate([9, 4, 6]):
        replay.add(episode(number, length))
    torch.manual_seed(0)
    n = 20000
    first = replay.sample(n).obs[0].flatten()
    values, counts = first.unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4, 100, 200, 201]
    expected = n / len(values)
    assert ((counts - expected).abs() < 5 * expected**0.5).all(), counts


@pytest.mark.parametrize("best", [0.0, 0.25, 1.0])
def test_a_share_of_a_batch_comes_from_the_best_sixteenth(best):
    """40 episodes in a ring for 33, each with one window; the best are 3 of those that are left."""
    replay = Replay(spec(4), 4, 33 * 5, CPU, best=best)
    returns = torch.randperm(40).float()
    for number, value in enumerate(returns):
        one = episode(number, 4)
        replay.add(one._replace(reward=torch.zeros(4, 1).index_fill(0, torch.tensor(2), value)))
    torch.manual_seed(0)
    if best:
        (other := Replay(spec(4), 4, 33 * 5, CPU, best=best)).load_state_dict(replay.state_dict())
        replay = other
    top = set(sorted(returns[7:].tolist())[-3:])
    rewards = torch.stack([replay.sample(8).reward.sum(0) for _ in range(200)])  # (200, 8)
    from_best = torch.isin(rewards, torch.tensor(sorted(top)))
    n = round(8 * best)
    assert from_best[:, 8 - n :].all()
    assert from_best[:, : 8 - n].float().mean().nan_to_num(3 / 33) == pytest.approx(
        3 / 33, abs=0.03
    )
    assert set(rewards[from_best].tolist()) == top


def test_pixels_stay_bytes():
    replay = Replay(spec(4, (3, 5, 5), np.uint8), 4, 10, CPU)
    obs = torch.randint(256, (5, 1, 3, 5, 5), dtype=torch.uint8)
    replay.add(episode(0, 4)._replace(obs=obs))
    batch = replay.sample(3)
    assert batch.obs.dtype == torch.uint8
    assert (batch.obs == obs).all()


def test_state_is_only_what_is_filled_and_restores_sampling():
    def filled(n):
        replay = Replay(spec(12), 5, 40, CPU)
        for number in range(n):
            replay.add(episode(number, 3 + number % 7))
        return replay

    for n in (2, 9):  # before and after the ring is full
        replay, other = filled(n), Replay(spec(12), 5, 40, CPU)
        state = replay.state_dict()
        assert state["obs"].untyped_storage().nbytes() == replay.size * 4
        other.load_state_dict(state)
        for ring in (replay, other):
            ring.add(episode(50, 6))
        torch.manual_seed(1)
        a = replay.sample(16)
        torch.manual_seed(1)
        b = other.sample(16)
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("window", "capacity", "message"),
    [
        (0, 20, "window must be at least 1, got 0"),
        (5, 12, "capacity must be at least one episode, 13 slots, got 12"),
    ],
)
def test_refusals_name_the_argument(window, capacity, message):
    with pytest.raises(ValueError, match="^" + message):
        Replay(spec(12), window, capacity, CPU)


def test_refuses_an_episode_it_cannot_hold():
    replay = Replay(spec(4), 4, 8, CPU)
    with pytest.raises(ValueError, match="an episode of 9 steps exceeds the 8 slots"):
        replay.add(episode(0, 9))
    with pytest.raises(ValueError, match="an episode without a step"):
        replay.add(episode(0, 0, padding=2))
