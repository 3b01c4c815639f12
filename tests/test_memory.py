"""The shift: a state depends on the past's actions and rewards, and on its own observation."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from memrl import experiment
from memrl.actions import DiscreteActions
from memrl.encoders import MLPEncoder
from memrl.interfaces import TaskSpec
from memrl.memory import Memory
from memrl.run import config
from memrl.seq_models.gpt import GPT
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent

T, B, A, OBS = 6, 3, 4, 2
SPEC = TaskSpec(gymnasium.spaces.Box(-1, 1, (OBS,), np.float32), gymnasium.spaces.Discrete(A), T)
WIDTH = 24
MODELS = {
    "lstm": lambda: Recurrent(WIDTH, "lstm", 9, 2),
    "gpt": lambda: GPT(WIDTH, 2, 2, "sine", T, 0.1, 0.1),
    "mlp": lambda: MLP(WIDTH, 9, 1),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=MODELS)
def memory(request):
    encoder = MLPEncoder(SPEC, A, obs_dim=8, action_dim=8, reward_dim=8)
    memory = Memory(encoder, MODELS[request.param](), DiscreteActions(A)).eval()
    for parameter in memory.parameters():  # no ReLU may be dead by accident
        nn.init.normal_(parameter, std=0.5)
    return memory


def history():
    """Observations (T + 1, B, 2), actions (T, B), rewards (T, B)."""
    return torch.randn(T + 1, B, OBS), torch.randint(A, (T, B)), torch.randn(T, B)


def remembers(memory):
    return not isinstance(memory.seq_model, MLP)


class Inputs(nn.Module):
    """An encoder that hands on what it is given: action, reward, observation."""

    output_dim = A + 1 + OBS

    def forward(self, obs, prev_action, prev_reward):
        return torch.cat([prev_action, prev_reward.unsqueeze(-1), obs], dim=-1)


class Echo(nn.Module):
    """A sequence model that returns its inputs."""

    output_dim = Inputs.output_dim

    def initial_state(self, batch_size):
        return ()

    def forward(self, x, state=None):
        return x, state


# --- what each input carries ---------------------------------------------------------------------


def test_each_input_is_previous_action_previous_reward_and_this_observation():
    obs, action, reward = history()
    x = Memory(Inputs(), Echo(), DiscreteActions(A))(obs, action, reward)
    assert x.shape == (T + 1, B, A + 1 + OBS)
    for t in range(T + 1):
        for b in range(B):
            one_hot, previous = [0.0] * A, 0.0
            if t > 0:
                one_hot[action[t - 1, b]] = 1.0
                previous = reward[t - 1, b].item()
            assert x[t, b].tolist() == [*one_hot, previous, *obs[t, b].tolist()]


def test_first_input_has_a_zero_action_vector_and_a_zero_reward():
    obs, action, reward = history()
    memory = Memory(Inputs(), Echo(), DiscreteActions(A))
    stepped, _ = memory.step(obs[0], torch.full((B,), -1), torch.zeros(B), ())
    for first in (memory(obs, action, reward)[0], stepped):
        assert (first[:, : A + 1] == 0).all()
        assert torch.equal(first[:, A + 1 :], obs[0])


def test_a_window_of_one_observation_has_no_action_yet():
    obs, action, reward = history()
    x = Memory(Inputs(), Echo(), DiscreteActions(A))(obs[:1], action[:0], reward[:0])
    assert x.shape == (1, B, A + 1 + OBS)


# --- the shift, through real encoders and models -------------------------------------------------


def test_states_depend_on_earlier_rewards_and_present_observations_only(memory):
    obs, action, reward = history()
    obs.requires_grad_()
    reward.requires_grad_()
    states = memory(obs, action, reward)
    for t in range(T + 1):
        by_obs, by_reward = torch.autograd.grad(
            states[t].square().sum(), (obs, reward), retain_graph=True
        )
        assert (by_obs[t + 1 :] == 0).all(), f"h_{t} depends on a later observation"
        assert (by_reward[t:] == 0).all(), f"h_{t} depends on a reward that follows it"
        assert (by_obs[t] != 0).any(), f"h_{t} ignores o_{t}"
        if t > 0:
            assert (by_reward[t - 1] != 0).any(), f"h_{t} ignores the reward before it"
        if t > 1:
            assert (by_reward[0] != 0).any() == remembers(memory)


@torch.no_grad()
def test_states_depend_on_earlier_actions_only(memory):
    obs, action, reward = history()
    states = memory(obs, action, reward)
    for s in range(T):
        other = action.clone()
        other[s] = (other[s] + 1) % A
        changed = (memory(obs, other, reward) != states).flatten(1).any(1)  # (T + 1,)
        assert not changed[: s + 1].any(), f"the action after o_{s} reaches back"
        assert changed[s + 1], f"h_{s + 1} ignores the action before it"
        if s + 2 <= T:
            assert changed[s + 2 :].any() == remembers(memory)


@torch.no_grad()
def test_steps_equal_the_whole_window(memory):
    obs, action, reward = history()
    whole = memory(obs, action, reward)
    assert whole.shape == (T + 1, B, memory.output_dim)
    state, prev_action, prev_reward = memory.initial_state(B), torch.full((B,), -1), torch.zeros(B)
    for t in range(T + 1):
        h, state = memory.step(obs[t], prev_action, prev_reward, state)
        torch.testing.assert_close(h, whole[t], atol=1e-5, rtol=1e-5)
        if t < T:
            prev_action, prev_reward = action[t], reward[t]


def test_memory_knows_whether_it_has_dropout():
    def has_dropout(dropout, attention_dropout):
        encoder = MLPEncoder(SPEC, A, obs_dim=8, action_dim=8, reward_dim=8)
        model = GPT(WIDTH, 1, 1, "sine", T, dropout, attention_dropout)
        return Memory(encoder, model, DiscreteActions(A))

    assert has_dropout(0.1, 0.0).has_dropout
    assert has_dropout(0.0, 0.1).has_dropout
    assert not has_dropout(0.0, 0.0).has_dropout
    encoder = MLPEncoder(SPEC, A, obs_dim=8, action_dim=8, reward_dim=8)
    assert not Memory(encoder, MODELS["lstm"](), DiscreteActions(A)).has_dropout
    own = MODELS["lstm"]()
    own.attention = torch.nn.MultiheadAttention(4, 2, dropout=0.1)
    assert Memory(encoder, own, DiscreteActions(A)).has_dropout


# --- the encoder ---------------------------------------------------------------------------------


def encode(encoder):
    obs, action, reward = history()
    return encoder(obs[:T], torch.nn.functional.one_hot(action, A).float(), reward)


@torch.no_grad()
def test_concatenation_order_is_action_reward_observation():
    encoder = MLPEncoder(SPEC, A, obs_dim=2, action_dim=3, reward_dim=1)
    for layer, bias in ((encoder.action, 1.0), (encoder.reward, 2.0), (encoder.obs, 3.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, bias)
    out = encode(encoder)
    assert out.shape == (T, B, encoder.output_dim)
    assert (out == torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 3.0])).all()


@torch.no_grad()
def test_each_embedding_is_linear_with_relu():
    encoder = MLPEncoder(SPEC, A, obs_dim=5, action_dim=6, reward_dim=7)
    obs, action, reward = torch.randn(T, B, OBS), torch.randn(T, B, A), torch.randn(T, B)
    parts = [
        (inputs @ layer.weight.T + layer.bias).clamp(min=0)
        for layer, inputs in (
            (encoder.action, action),
            (encoder.reward, reward.unsqueeze(-1)),
            (encoder.obs, obs),
        )
    ]
    torch.testing.assert_close(encoder(obs, action, reward), torch.cat(parts, dim=-1))


@pytest.mark.parametrize(
    ("action_dim", "reward_dim", "parameters"), [(0, 0, 15), (3, 0, 30), (0, 2, 19), (3, 2, 34)]
)
def test_an_embedding_of_size_0_is_absent(action_dim, reward_dim, parameters):
    encoder = MLPEncoder(SPEC, A, obs_dim=5, action_dim=action_dim, reward_dim=reward_dim)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert encoder.output_dim == action_dim + reward_dim + 5
    assert encode(encoder).shape == (T, B, encoder.output_dim)


@torch.no_grad()
def test_an_absent_embedding_is_blind():
    encoder = MLPEncoder(SPEC, A, obs_dim=5, action_dim=0, reward_dim=0)
    obs = torch.randn(T, B, OBS)
    a = encoder(obs, torch.zeros(T, B, A), torch.zeros(T, B))
    b = encoder(obs, torch.randn(T, B, A), torch.randn(T, B))
    assert torch.equal(a, b)


@torch.no_grad()
def test_pixels_become_float_and_are_flattened():
    spec = SPEC._replace(observation_space=gymnasium.spaces.Box(0, 255, (3, 2, 2), np.uint8))
    encoder = MLPEncoder(spec, A, obs_dim=5, action_dim=3, reward_dim=2)
    obs = torch.randint(256, (T, B, 3, 2, 2), dtype=torch.uint8)
    action, reward = torch.randn(T, B, A), torch.randn(T, B)
    out = encoder(obs, action, reward)
    assert out.dtype == torch.float32
    assert torch.equal(out, encoder(obs.float(), action, reward))  # whatever their dtype here
    step = encoder(obs[0], action[0], reward[0])  # which has no T
    torch.testing.assert_close(out[0], step)  # its sums may be taken in another order
    weight, bias = encoder.obs.weight, encoder.obs.bias
    expected = (obs.float().reshape(T, B, 12) / 255 @ weight.T + bias).clamp(min=0)
    torch.testing.assert_close(out[..., 5:], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_dim": 0}, "obs_dim must be at least 1, got 0"),
        ({"action_dim": -1}, "action_dim must be at least 0, got -1"),
        ({"reward_dim": -2}, "reward_dim must be at least 0, got -2"),
    ],
)
def test_encoder_refusals_name_the_argument(changes, message):
    with pytest.raises(ValueError, match="^" + message):
        MLPEncoder(SPEC, A, **({"obs_dim": 5, "action_dim": 3, "reward_dim": 2} | changes))


# --- the baseline without memory -----------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("model", ["mlp", "lstm"])
def test_only_the_mlp_of_conf_sees_nothing_of_the_past(model):
    overrides = [f"seq_model={model}", "budget=smoke", "device=cpu", "env.length=5"]
    trainer = experiment.build(experiment.resolve(config.compose_config(overrides)))
    online = trainer.agent.online.eval()
    obs, action, reward = history()
    other, other_action, other_reward = history()
    other[T] = obs[T]
    same = torch.equal(online(obs, action, reward)[T], online(other, other_action, other_reward)[T])
    assert same == (model == "mlp")
    online_step = online.memory.step
    fresh, _ = online_step(
        obs[T], torch.full((B,), -1), torch.zeros(B), online.memory.initial_state(B)
    )
    later, _ = online_step(obs[T], action[0], reward[0], online.memory.initial_state(B))
    assert torch.equal(fresh, later) == (model == "mlp")
