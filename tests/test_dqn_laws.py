"""Laws of DQN: its targets, its masks, where dropout acts, how it explores, how it resumes."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memrl.actions import DiscreteActions
from memrl.algos.agent import some_steps
from memrl.algos.dqn import DQN
from memrl.encoders import MLPEncoder
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.seq_models.gpt import GPT
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent

T, B, A = 5, 4, 4
SPEC = TaskSpec(gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(A), T)
SETTINGS = {
    "horizon": T,
    "train_steps": 600,
    "gamma": 0.9,
    "tau": 0.1,
    "lr": 1e-2,
    "hidden_dims": (12, 10),
    "explore_fraction": 0.1,
    "dropout_scope": "everywhere",
    "shared_forward": False,
}

MODELS = {
    "mlp": lambda: MLP(8, 8, 1),
    "lstm": lambda: Recurrent(8, "lstm", 8, 2),
    "gpt": lambda: GPT(8, 2, 2, "sine", T, 0.0, 0.0),
    "gpt with dropout": lambda: GPT(8, 1, 1, "learned", T, 0.4, 0.4),
}
NO_DROPOUT = ["mlp", "lstm", "gpt"]
DROPOUT = "gpt with dropout"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def agent(model="lstm", **changes):
    """A DQN whose values differ clearly by action and history, and whose target lags behind."""
    memory = Memory(
        MLPEncoder(SPEC, A, obs_dim=4, action_dim=3, reward_dim=1),
        MODELS[model](),
        DiscreteActions(A),
    )
    dqn = DQN(memory, **(SETTINGS | changes))
    for network in (dqn.online, dqn.target):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
        with torch.no_grad():  # no action is best on average, so that the history decides
            network.head[-1].bias -= network.eval()(*episodes()[:3]).mean((0, 1))
    return dqn


def episodes(lengths=(5, 5, 3, 1), terminated=(True, False, True, False)):
    """Random episodes padded with noise; those not terminated are cut off."""
    t = torch.arange(T).unsqueeze(1)  # (T, 1)
    n = torch.tensor(lengths)
    return Episodes(
        obs=torch.randn(T + 1, len(n), 2),
        action=torch.randint(A, (T, len(n))),
        reward=torch.randn(T, len(n)),
        terminated=(t == n - 1) & torch.tensor(terminated),
        mask=t < n,
    )


def gradients(dqn):
    return [p.grad.clone() for p in dqn.online.parameters()]


# --- the target ----------------------------------------------------------------------------------


def values_by_hand(network, obs, action, reward):
    """Q of a memory-less network (T + 1, B, A), in float64 numpy from the bare weights."""
    weights = {k: v.double().numpy() for k, v in network.state_dict().items()}

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def relu(x):
        return np.maximum(x, 0)

    prev_action, prev_reward = np.zeros((T + 1, B, A)), np.zeros((T + 1, B, 1))
    for t in range(T):
        for b in range(B):
            prev_action[t + 1, b, action[t, b]] = 1
            prev_reward[t + 1, b, 0] = reward[t, b]
    parts = [
        linear(x, f"memory.encoder.{name}")
        for x, name in ((prev_action, "action"), (prev_reward, "reward"), (obs.numpy(), "obs"))
    ]
    h = relu(linear(relu(np.concatenate(parts, -1)), "memory.seq_model.layers.0"))
    return linear(relu(linear(relu(linear(h, "head.0")), "head.2")), "head.4")


@pytest.mark.parametrize("shared", [False, True])
def test_double_dqn_target_and_loss_by_hand(shared):
    dqn, batch = agent("mlp"), episodes()
    dqn.shared_forward = shared
    online = values_by_hand(dqn.online, batch.obs, batch.action, batch.reward)
    lagging = values_by_hand(dqn.target, batch.obs, batch.action, batch.reward)
    choices_differ = total = q_total = n = 0
    prediction, target = dqn.predict(batch)
    for t in range(T):
        for b in range(B):
            best = max(range(A), key=lambda a: online[t + 1, b, a])
            choices_differ += best != max(range(A), key=lambda a: lagging[t + 1, b, a])
            y = float(batch.reward[t, b])
            if not batch.terminated[t, b]:
                y += 0.9 * lagging[t + 1, b, best]
            q = online[t, b, batch.action[t, b]]
            assert target[t, b].item() == pytest.approx(y, rel=1e-5, abs=1e-5)
            assert prediction[t, b].item() == pytest.approx(q, rel=1e-5, abs=1e-5)
            if batch.mask[t, b]:
                total, q_total, n = total + (q - y) ** 2, q_total + q, n + 1
    assert choices_differ  # else this could not tell double DQN from DQN
    metrics = dqn.update(batch)
    assert n == 14
    assert metrics["loss"].item() == pytest.approx(total / n, rel=1e-5)
    assert metrics["q"].item() == pytest.approx(q_total / n, rel=1e-5)


@pytest.mark.parametrize("model", ["lstm", "gpt"])
def test_terminated_steps_do_not_bootstrap_and_truncated_ones_do(model):
    dqn, batch = agent(model), episodes()
    _, target = dqn.predict(batch)
    ends = batch.terminated
    assert ends.sum() == 2
    assert torch.equal(target[ends], batch.reward[ends])
    assert (target[~ends] != batch.reward[~ends]).all()


def test_an_update_is_one_adam_step_then_a_soft_step_of_the_target():
    dqn, batch = agent(), episodes()
    online, target = copy.deepcopy(dqn.online), copy.deepcopy(dqn.target)
    metrics = dqn.update(batch)
    reference = torch.optim.Adam(online.parameters(), lr=1e-2)
    for mine, theirs in zip(online.parameters(), dqn.online.parameters(), strict=True):
        mine.grad = theirs.grad
    reference.step()
    norms = [p.grad.norm() for p in online.parameters()]
    assert metrics["grad_norm"].item() == pytest.approx(torch.stack(norms).mean().item())
    for mine, theirs in zip(online.parameters(), dqn.online.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    new = zip(target.parameters(), online.parameters(), dqn.target.parameters(), strict=True)
    for old, moved, theirs in new:
        torch.testing.assert_close(0.9 * old + 0.1 * moved, theirs)


# --- the mask ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NO_DROPOUT)
def test_padding_influences_neither_loss_nor_gradient(model):
    start = agent(model)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(
        st.lists(st.integers(1, T), min_size=B, max_size=B),
        st.lists(st.booleans(), min_size=B, max_size=B),
        st.integers(0, 2**31),
    )
    def check(lengths, ends, seed):
        torch.manual_seed(seed)
        batch, noise = episodes(lengths, ends), episodes(lengths, ends)
        inside = torch.cat([torch.ones(1, B, dtype=torch.bool), batch.mask])  # the last obs, too
        other = Episodes(
            obs=torch.where(inside.unsqueeze(-1), batch.obs, 3 * noise.obs),
            action=torch.where(batch.mask, batch.action, noise.action),
            reward=torch.where(batch.mask, batch.reward, 3 * noise.reward),
            terminated=torch.where(batch.mask, batch.terminated, noise.reward > 0),
            mask=batch.mask,
        )
        a, b = copy.deepcopy(start), copy.deepcopy(start)
        before, after = a.update(batch), b.update(other)
        assert before.keys() == after.keys()
        for key in before:
            torch.testing.assert_close(after[key], before[key], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradients(b), gradients(a), atol=1e-5, rtol=1e-4)

    check()


@pytest.mark.parametrize("model", ["lstm", "gpt"])
def test_the_last_observation_matters_where_the_episode_was_cut_off(model):
    def losses(terminated):
        torch.manual_seed(1)
        batch, start = episodes((3,) * B, (terminated,) * B), agent(model)
        obs = batch.obs.clone()
        obs[3] += 1
        batches = (batch, batch._replace(obs=obs))
        return [copy.deepcopy(start).update(b)["loss"].item() for b in batches]

    cut, cut_changed = losses(terminated=False)
    over, over_changed = losses(terminated=True)
    assert cut != pytest.approx(cut_changed)
    assert over == pytest.approx(over_changed)


def test_loss_is_a_sum_over_real_steps_divided_by_their_number():
    batch, start = episodes((5, 2, 4, 1)), agent()
    n = int(batch.mask.sum())
    whole = copy.deepcopy(start).update(batch)
    each = []
    for t, b in batch.mask.nonzero().tolist():
        one = torch.zeros_like(batch.mask)
        one[t, b] = True
        each.append(copy.deepcopy(start).update(batch._replace(mask=one)))
    assert n == len(each) == 12
    for key in ("loss", "q"):
        mean = sum(metrics[key].item() for metrics in each) / n
        assert whole[key].item() == pytest.approx(mean, rel=1e-5)


def test_a_batch_without_a_real_step_divides_by_1():
    dqn, batch = agent(), episodes()
    metrics = dqn.update(batch._replace(mask=torch.zeros_like(batch.mask)))
    for key in ("loss", "q", "grad_norm", "seq_grad_norm"):
        assert metrics[key].item() == 0, key


# --- a loss from some steps ----------------------------------------------------------------------


@pytest.mark.parametrize("model", NO_DROPOUT)
@pytest.mark.parametrize("shared", [False, True])
def test_some_steps_have_the_predictions_and_targets_of_all(model, shared):
    dqn, batch, at = agent(model), episodes(), torch.tensor([0, 2, 4])
    dqn.shared_forward = shared
    for some, whole in zip(dqn.predict(batch, at), dqn.predict(batch), strict=True):
        torch.testing.assert_close(some, whole[at], atol=1e-6, rtol=1e-5)


def test_a_loss_from_some_steps_is_the_mean_over_the_ends_and_some_others():
    """Of 5 steps 4: the ends, and two of three. The last row's window ends after two steps."""
    batch, start = episodes((T,) * (B - 1) + (2,)), agent(loss_steps=4)
    prediction, target = start.predict(batch)
    errors = (prediction - target).square().detach() * batch.mask
    found = set()
    for _ in range(50):
        seen = torch.get_rng_state()
        at = some_steps(batch, 4)
        torch.set_rng_state(seen)
        metrics = copy.deepcopy(start).update(batch)
        expected = errors[at].sum() / batch.mask[at].sum()
        assert metrics["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
        found.add(tuple(at.tolist()))
    assert found == {(0, 1, 2, 4), (0, 1, 3, 4), (0, 2, 3, 4)}


def test_as_many_steps_as_there_are_is_all_of_them():
    batch, start = episodes(), agent()
    some = agent(loss_steps=8)
    some.load_state_dict(start.state_dict())
    assert start.update(batch) == some.update(batch)


# --- where dropout acts --------------------------------------------------------------------------


def passes(dqn, batch):
    """The states (online, target) of the forward passes of one ``predict``, in order."""
    seen = []
    hooks = [
        network.memory.register_forward_hook(lambda m, _, h, name=name: seen.append((name, h)))
        for name, network in (("online", dqn.online), ("target", dqn.target))
    ]
    dqn.predict(batch)
    for hook in hooks:
        hook.remove()
    return seen


def with_equal_target(dqn):
    dqn.target.load_state_dict(dqn.online.state_dict())
    return dqn


def test_everywhere_the_three_passes_have_three_dropout_masks():
    dqn, batch = with_equal_target(agent(DROPOUT)), episodes()
    (p, prediction), (c, choice), (v, value) = passes(dqn, batch)
    assert [p, c, v] == ["online", "online", "target"]
    assert prediction.shape == (T, B, 8)  # the last observation has no action
    assert choice.shape == value.shape == (T + 1, B, 8)
    for a, b in ((prediction, choice[:-1]), (prediction, value[:-1]), (choice, value)):
        assert not torch.allclose(a, b)
    for (_, before), (_, again) in zip(passes(dqn, batch), passes(dqn, batch), strict=True):
        assert not torch.allclose(before, again)


def test_gradient_scope_has_dropout_in_the_prediction_only():
    dqn = with_equal_target(agent(DROPOUT, dropout_scope="gradient"))
    (_, prediction), (_, choice), (_, value) = passes(dqn, episodes())
    assert torch.equal(choice, value)
    assert not torch.allclose(prediction, choice[:-1])


@pytest.mark.parametrize("model", NO_DROPOUT)
@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_without_dropout_one_online_pass_is_enough(model, scope):
    dqn = agent(model, dropout_scope=scope)
    assert [name for name, _ in passes(dqn, episodes())] == ["online", "target"]


@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_targets_are_random_exactly_where_dropout_is_everywhere(scope):
    dqn, batch = agent(DROPOUT, dropout_scope=scope), episodes()
    results = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        results.append(dqn.predict(batch))
    (p1, y1), (p2, y2), (p3, y3) = results
    assert torch.equal(p1, p3) and torch.equal(y1, y3)  # all randomness is torch's generator
    assert not torch.allclose(p1, p2)
    assert torch.equal(y1, y2) == (scope == "gradient")


def test_gradient_scope_targets_are_those_without_dropout():
    dqn, batch = agent(DROPOUT, dropout_scope="gradient"), episodes()
    _, target = dqn.predict(batch)
    with torch.no_grad():
        inputs = (batch.obs, batch.action, batch.reward)
        best = dqn.online.eval()(*inputs)[1:].argmax(-1, keepdim=True)
        value = dqn.target.eval()(*inputs)[1:].gather(-1, best).squeeze(-1)
    assert torch.equal(target, batch.reward + 0.9 * value * ~batch.terminated)


@pytest.mark.parametrize("model", NO_DROPOUT)
def test_shared_forward_changes_nothing_without_dropout(model):
    shared, batch = agent(model), episodes()
    apart = copy.deepcopy(shared)
    apart.shared_forward = False
    assert shared.shared_forward
    close = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(shared.predict(batch), apart.predict(batch), **close)
    torch.testing.assert_close(shared.update(batch), apart.update(batch), **close)
    torch.testing.assert_close(gradients(shared), gradients(apart), **close)


def test_shared_forward_is_a_choice_with_dropout():
    batch = episodes()
    apart, shared = agent(DROPOUT), with_equal_target(agent(DROPOUT, shared_forward=True))
    assert not apart.shared_forward
    (_, once), (_, value) = passes(shared, batch)
    assert once.shape == (T + 1, B, 8)
    assert not torch.allclose(once, value)


# --- acting --------------------------------------------------------------------------------------


def acted_states(dqn, explore, seed):
    """The memory's outputs while acting T steps; observations are the same each time."""
    torch.manual_seed(7)
    observations, rewards = torch.randn(T, B, 2), torch.randn(T, B)
    action = torch.arange(B) % A
    torch.manual_seed(seed)
    seen = []
    hook = dqn.online.memory.seq_model.register_forward_hook(
        lambda module, inputs, output: seen.append(output[0].clone())
    )
    state = dqn.initial_state(B)
    for obs, reward in zip(observations, rewards, strict=True):
        _, state = dqn.act(obs, reward, state, explore)
        state = state._replace(prev_action=action)  # so that only dropout can tell two runs apart
    hook.remove()
    return torch.stack(seen)


@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_exploring_acts_with_dropout_only_if_everywhere(scope):
    dqn = agent(DROPOUT, dropout_scope=scope)
    first, second = (acted_states(dqn, explore=True, seed=seed) for seed in (1, 2))
    assert torch.equal(first, second) == (scope == "gradient")


@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_greedy_acting_never_has_dropout(scope):
    dqn = agent(DROPOUT, dropout_scope=scope)
    dqn.update(episodes())  # leaves the network in training mode
    first, second = (acted_states(dqn, explore=False, seed=seed) for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("model", MODELS)
def test_greedy_acting_takes_the_best_action_and_no_random_number(model):
    dqn, batch = agent(model), episodes()
    rng = torch.get_rng_state()
    state, prev_reward, actions = dqn.initial_state(B), torch.zeros(B), []
    for t in range(T + 1):
        action, state = dqn.act(batch.obs[t], prev_reward, state, explore=False)
        actions.append(action)
        prev_reward = batch.reward[min(t, T - 1)]
    assert torch.equal(torch.get_rng_state(), rng)
    assert dqn.explored_steps == 0
    actions = torch.stack(actions)
    with torch.no_grad():
        q = dqn.online.eval()(batch.obs, actions[:-1], batch.reward)
    assert actions.dtype == torch.int64
    assert torch.equal(actions, q.argmax(-1))
    assert len(actions.unique()) > 1


def test_acting_needs_no_gradient():
    dqn, batch = agent(), episodes()
    for explore in (False, True):
        _, state = dqn.act(batch.obs[0], torch.zeros(B), dqn.initial_state(B), explore)
        assert not any(tensor.requires_grad for tensor in state.memory)


def preferring(action, **changes):
    dqn = agent("mlp", **changes)
    nn.init.zeros_(dqn.online.head[-1].weight)
    with torch.no_grad():
        dqn.online.head[-1].bias.copy_(torch.nn.functional.one_hot(torch.tensor(action), A))
    return dqn


@pytest.mark.parametrize("epsilon", [1.0, 0.4, 0.2])
def test_epsilon_greedy_frequencies(epsilon):
    n, dqn = 40_000, preferring(2)
    dqn.explored_steps = round((1 - epsilon) / 0.8 * 60)  # from 1 to 1/5 over 60 steps
    assert dqn.epsilon == pytest.approx(epsilon)
    action, _ = dqn.act(torch.randn(n, 2), torch.zeros(n), dqn.initial_state(n), explore=True)
    share = action.bincount(minlength=A) / n
    for a in range(A):  # the greedy action is among the random ones
        expected = epsilon / A + (1 - epsilon) * (a == 2)
        assert share[a].item() == pytest.approx(expected, abs=5 * 0.5 / n**0.5)


def test_rows_explore_independently():
    dqn = preferring(2)
    dqn.explored_steps = 30  # epsilon 0.6: a row is random, or not, by itself
    n = 1000
    action, _ = dqn.act(torch.zeros(n, 2), torch.zeros(n), dqn.initial_state(n), explore=True)
    assert len(action.unique()) == A


def test_the_first_action_of_an_exploring_episode_has_an_epsilon_of_its_own():
    n, dqn = 4000, preferring(2, start_epsilon=1.0)
    dqn.explored_steps = 10**9  # epsilon 1/5
    state = dqn.initial_state(n)
    for expected in (1.0, 0.2):
        action, state = dqn.act(torch.zeros(n, 2), torch.zeros(n), state, explore=True)
        others = (action != 2).float().mean().item() * A / (A - 1)
        assert others == pytest.approx(expected, abs=0.05)
    greedy, _ = dqn.act(torch.zeros(n, 2), torch.zeros(n), dqn.initial_state(n), explore=False)
    assert (greedy == 2).all()


def test_every_action_is_tried_wherever_it_has_not_been():
    dqn = preferring(2, min_tries=7, horizon=10**9)
    dqn.explored_steps = 10**9  # epsilon 0
    seen = torch.randn(2, 1, 2)
    tried = torch.zeros(2, A, dtype=torch.int64)
    for t in range(100):
        place = t % 2
        state = dqn.initial_state(1)
        assert dqn.act(seen[place], torch.zeros(1), state, explore=False)[0] == 2
        action, state = dqn.act(seen[place], torch.zeros(1), state, explore=True)
        tried[place, action] += 1
    assert sorted(tried[0].tolist()) == sorted(tried[1].tolist()) == [7, 7, 7, 29]
    fresh, _ = dqn.act(seen[0], torch.zeros(1), state, explore=True)  # after an action: as if new
    assert fresh == 2
    counts = dqn.counts
    rows = counts.rows(seen[:, 0], torch.tensor([-1, -1]))
    assert counts.table[rows].tolist() == tried.tolist()
    counts.add(rows[:1].expand(3), torch.tensor([1, 1, 0]))  # rows of a batch that agree
    assert counts.table[rows[0]].tolist() == (tried[0] + torch.tensor([1, 2, 0, 0])).tolist()


def test_explored_steps_count_rows_inside_their_episodes_of_exploring_steps_only():
    dqn, state = agent(), None
    for explore, expected in ((True, B), (False, B), (B - 1, 2 * B - 1), (1, 2 * B), (0, 2 * B)):
        state = dqn.initial_state(B)
        dqn.act(torch.randn(B, 2), torch.zeros(B), state, explore)
        assert dqn.explored_steps == expected
    dqn.update(episodes())
    assert dqn.explored_steps == 2 * B


def test_epsilon_falls_linearly_from_1_to_1_by_horizon_and_stays():
    dqn = agent(horizon=50, train_steps=2000, explore_fraction=0.1)
    for steps, expected in ((0, 1.0), (100, 1 - 0.98 / 2), (200, 0.02), (201, 0.02), (10**9, 0.02)):
        dqn.load_state_dict(dqn.state_dict() | {"explored_steps": steps})
        assert dqn.epsilon == pytest.approx(expected)
        assert dqn.update(episodes())["epsilon"].item() == pytest.approx(expected)


# --- interruption, speed, refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("lstm", {}),
        ("gpt with dropout", {"loss_steps": 4}),
        ("lstm", {"memory_lr": 1e-3, "weight_decay": 0.1, "min_tries": 2}),
    ],
)
def test_a_restored_agent_continues_bit_identically(model, keys, tmp_path):
    def go_on(dqn):
        torch.manual_seed(3)
        batch, rows = episodes(), []
        for _ in range(3):
            rows.append({k: v.item() for k, v in dqn.update(batch).items()})
            action, _ = dqn.act(batch.obs[0], torch.zeros(B), dqn.initial_state(B), explore=True)
            rows.append(action.tolist())
        return rows, dqn.state_dict()

    dqn = agent(model, **keys)
    for _ in range(3):
        dqn.update(episodes())
    dqn.act(torch.randn(B, 2), torch.zeros(B), dqn.initial_state(B), explore=True)
    torch.save(dqn.state_dict(), tmp_path / "state.pt")
    rows, after = go_on(dqn)

    torch.manual_seed(99)
    other = agent(model, **keys)
    other.update(episodes())  # an optimizer with moments of its own
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other_rows, other_after = go_on(other)
    assert other_rows == rows
    torch.testing.assert_close(other_after, after, atol=0, rtol=0)
    assert other_after["optimizer"]["state"][0]["step"] == 6


def test_weights_are_all_that_greedy_acting_needs():
    dqn, other = agent(), agent()
    other.load_weights(dqn.weights())
    states = [acted_states(a, explore=False, seed=0) for a in (dqn, other)]
    assert torch.equal(*states)


def test_metrics_are_detached_scalars_with_fixed_names():
    metrics = agent().update(episodes())
    assert list(metrics) == ["loss", "q", "epsilon", "grad_norm", "seq_grad_norm"]
    for value in metrics.values():
        assert isinstance(value, torch.Tensor)
        assert value.shape == ()
        assert not value.requires_grad


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shared", [False, True])
def test_update_and_act_never_wait_for_the_device(model, shared, request):
    dqn, batch = agent(model, shared_forward=shared), episodes()
    request.getfixturevalue("no_sync")
    for _ in range(2):
        dqn.update(batch)
    for explore in (False, True):
        state = dqn.initial_state(B)
        for t in range(T + 1):
            _, state = dqn.act(batch.obs[t], batch.reward[0], state, explore)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gamma", (-0.1, 1.1, float("nan"))),
        ("tau", (0, -0.1, 1.1, float("nan"))),
        ("lr", (0, -1e-3, float("inf"), float("nan"))),
        ("hidden_dims", ((), (0,), (8, -1))),
        ("explore_fraction", (0, -0.1, 1.1, float("nan"))),
        ("dropout_scope", ("nowhere", "", None)),
    ],
)
def test_refusals_begin_with_the_arguments_name(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
            agent(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("gamma", 0), ("gamma", 1), ("tau", 1)])
def test_the_ends_of_ranges_are_allowed(name, value):
    assert getattr(agent(**{name: value}), name) == value
