"""Laws of discrete SAC and of the encoders, beside what was recorded."""

import copy
import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch
from test_sacd import IMAGES, SETTINGS, SPEC, memory

from memrl.actions import DiscreteActions
from memrl.algos.sacd import SACD, SeparateSACD
from memrl.algos.soft import probabilities
from memrl.encoders import CNNEncoder, MLPEncoder
from memrl.experiment import build_agent, resolve
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.run.config import compose_config
from memrl.seq_models.gpt import GPT
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent

KINDS = ["shared", "unfrozen", "learned", "separate", "separate-learned"]
LEARNED = {"alpha": 1.0, "target_entropy": 0.5}


def agent_of(kind, new_memory=memory, **changes):
    settings = SETTINGS | (LEARNED if "learned" in kind else {}) | changes
    if kind.startswith("separate"):
        return SeparateSACD(new_memory(), new_memory, **settings)
    return SACD(new_memory(), **settings, freeze_critic=kind != "unfrozen")


def batch_of(T=6, B=3, seed=0):
    torch.manual_seed(seed)
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[T // 2 :, 0] = False
    return Episodes(
        obs=torch.randint(256, (T + 1, B, 3, 5, 5), dtype=torch.uint8),
        action=torch.randint(4, (T, B)),
        reward=torch.randn(T, B),
        terminated=torch.rand(T, B) < 0.3,
        mask=mask,
    )


def gradients(agent, batch):
    """What one update's gradients are, by name."""
    agent.update(batch)
    return {name: p.grad.clone() for name, p in agent.named_parameters()}


# Sizes of the paper --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "parameters"),
    [
        ("seq_model=lstm", 432_424),
        ("seq_model=lstm seq_model.n_layer=2", 564_520),
        ("seq_model=lstm seq_model.n_layer=4", 828_712),
        ("seq_model=gpt", 414_660),
        ("seq_model=gpt seq_model.n_layer=2", 535_960),
        ("seq_model=gpt seq_model.n_layer=4", 778_560),
        ("seq_model=lstm algo=sacd_separate", 332_580 + 232_736),
        ("seq_model=gpt algo=sacd_separate", 321_984 + 229_308),
    ],
)
def test_parameter_counts(overrides, parameters):
    env = "env=key_to_door" if "sacd_separate" in overrides else "env=visual_match"  # alike
    agent, _, _ = build_agent(resolve(compose_config([env, *overrides.split()])))
    assert sum(p.numel() for _, p in agent.named_parameters()) == parameters
    assert sum(p.numel() for p in agent.memory.encoder.parameters()) == 15_132
    width = 100 if "gpt" in overrides else 128
    head = sum(p.numel() for p in agent.policy.head.parameters())
    assert head == (width + 1) * 256 + 257 * 256 + 257 * 4


# Updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind):
    agent, batch = agent_of(kind), batch_of()
    other = copy.deepcopy(agent)
    noise = batch_of(seed=1)
    mask = batch.mask
    later = torch.cat([torch.ones(1, 3, dtype=torch.bool), mask])  # the last observation counts
    changed = batch._replace(
        obs=torch.where(later[..., None, None, None], batch.obs, noise.obs),
        action=torch.where(mask, batch.action, noise.action),
        reward=torch.where(mask, batch.reward, noise.reward),
        terminated=torch.where(mask, batch.terminated, noise.terminated),
    )
    assert (changed.obs != batch.obs).any()
    first, second = agent.update(batch), other.update(changed)
    for name in first:
        torch.testing.assert_close(first[name], second[name], msg=name)
    ours = dict(agent.named_parameters())
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name].grad, msg=name)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_terminated_step_is_worth_its_reward(kind):
    agent, batch = agent_of(kind, alpha=0.0), batch_of()
    logits, q = torch.randn(6, 3, 4), (torch.randn(6, 3, 4), torch.randn(6, 3, 4))
    target = agent.target(batch, logits, q)
    value = (logits.softmax(-1) * torch.minimum(*q)).sum(-1)
    expected = torch.where(batch.terminated, batch.reward, batch.reward + 0.99 * value)
    torch.testing.assert_close(target, expected)
    assert not target.requires_grad
    agent.alpha = torch.tensor(0.5)  # entropy is worth something
    more = agent.target(batch, logits, q) - target
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(more, 0.99 * 0.5 * entropy * ~batch.terminated)


def policy_gradients(agent, batch):
    """What the policy's loss alone sends into each part."""
    h = agent.memory(batch.obs, batch.action, batch.reward)
    q = torch.minimum(*agent.heads(h[:-1]))
    q = q.detach() if agent.freeze_critic else q
    loss, _ = agent.policy_loss(agent.policy.head(h)[:-1], q, batch.mask, batch.mask.sum())
    loss.backward()


@pytest.mark.parametrize("kind", ["shared", "unfrozen"])
def test_total_gradient_is_half_the_critics_plus_the_policys(kind):
    """Frozen: the critic's heads get their own loss's alone; the memory gets the policy's."""
    agent, batch = agent_of(kind), batch_of()
    alone = copy.deepcopy(agent)
    policy_gradients(alone, batch)
    head = {name: p.grad for name, p in alone.heads.named_parameters()}
    assert all(g is None for g in head.values()) == (kind == "shared")
    assert all(p.grad.abs().sum() > 0 for p in alone.memory.seq_model.parameters())
    h = alone.memory(batch.obs, batch.action, batch.reward)
    target = alone.target(batch, alone.policy.head(h)[1:], alone.target_heads(h[1:]))
    for q in alone.heads(h[:-1]):
        taken = q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        error = (taken - target).square()[batch.mask].mean()
        (error / 2).backward(retain_graph=True)
    expected = dict(alone.named_parameters())
    for name, gradient in gradients(agent, batch).items():
        torch.testing.assert_close(gradient, expected[name].grad, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_move_by_tau_and_by_nothing_else(kind):
    agent, batch = agent_of(kind, tau=0.25), batch_of()
    name = "critic" if kind.startswith("separate") else "heads"
    online, target = getattr(agent, name), getattr(agent, f"target_{name}")
    before = copy.deepcopy(target)
    agent.update(batch)
    assert all(p.grad is None for p in target.parameters())
    triples = zip(target.parameters(), before.parameters(), online.parameters(), strict=True)
    for now, old, new in triples:
        torch.testing.assert_close(now, 0.75 * old + 0.25 * new)


def test_separate_memories_share_nothing_and_the_policy_is_judged_by_the_new_critic():
    agent, batch = agent_of("separate", lr=0.05), batch_of()
    critic = {id(p) for p in agent.critic.parameters()}
    assert not critic & {id(p) for p in agent.policy.parameters()}
    before = copy.deepcopy(agent)
    loss = agent.update(batch)["policy_loss"].item()
    losses = []
    for judge in (before.critic, agent.critic):
        early = (batch.obs[:-1], batch.action[:-1], batch.reward[:-1])
        logits = before.policy.head(before.memory(*early))
        q = torch.minimum(*judge(*early))
        losses.append(before.policy_loss(logits, q, batch.mask, batch.mask.sum())[0].item())
    assert loss == pytest.approx(losses[1], abs=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_fixed_temperature_stays(kind):
    agent = agent_of(kind, alpha=0.1)
    for _ in range(3):
        assert agent.update(batch_of())["alpha"] == torch.tensor(0.1)


@pytest.mark.parametrize("kind", ["learned", "separate-learned"])
@pytest.mark.parametrize(("share", "sign"), [(0.0, -1), (1.0, 1)])
def test_a_learned_temperature_moves_the_entropy_to_its_target(kind, share, sign):
    agent = agent_of(kind, target_entropy=share)
    with torch.no_grad():
        agent.policy.head[-1].bias[0] += 1.0  # some entropy, but not all
    alphas = [agent.update(batch_of())["alpha"].item() for _ in range(3)]
    assert alphas[0] == 1.0
    assert all((b - a) * sign > 0 for a, b in itertools.pairwise(alphas))


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_agent_goes_on_identically(kind):
    agent, batch = agent_of(kind), batch_of()
    for _ in range(3):
        agent.update(batch)
    other = agent_of(kind)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for _ in range(2):
        first, second = agent.update(batch), other.update(batch)
        assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
    for (name, a), (_, b) in zip(agent.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(agent.alpha, other.alpha)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_learns_to_take_the_action_that_pays(kind):
    agent = agent_of(kind, lr=3e-3, tau=0.1, alpha=0.05)
    batch = batch_of(T=2, B=64)
    batch = batch._replace(
        reward=(batch.action == 2).float(), mask=torch.ones_like(batch.mask), obs=batch.obs // 2
    )
    for _ in range(150):
        agent.update(batch)
    state = agent.initial_state(64)
    action, _ = agent.act(batch.obs[0], torch.zeros(64), state, explore=False)
    assert (action == 2).float().mean() > 0.95


# Acting --------------------------------------------------------------------------------------


def remembering(dropout=0.0):
    """A memory that is fed previous actions and rewards, with dropout."""
    encoder = CNNEncoder(SPEC, 4, channels=[2], obs_dim=4, action_dim=2, reward_dim=2)
    model = GPT(8, 1, 2, "sine", context_len=6, dropout=dropout, attention_dropout=dropout)
    return Memory(encoder, model, DiscreteActions(4))


def logits_of(agent, act):
    """What the policy's head gives while ``act`` runs."""
    seen = []
    hook = agent.policy.head.register_forward_hook(lambda m, i, out: seen.append(out))
    act()
    hook.remove()
    return torch.stack(seen)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_acting_step_by_step_is_the_policy_on_the_whole_window(kind):
    agent, batch, actions = agent_of(kind, remembering), batch_of(), []
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.normal_(std=0.5)
    agent.policy.eval()

    def episode():
        state, rewards = agent.initial_state(3), [torch.zeros(3), *batch.reward]
        for obs, reward in zip(batch.obs, rewards, strict=True):
            action, state = agent.act(obs, reward, state, explore=False)
            actions.append(action)

    step_by_step = logits_of(agent, episode)
    taken = torch.stack(actions)
    assert torch.equal(step_by_step.argmax(-1), taken)
    whole = agent.policy.head(agent.memory(batch.obs, taken[:6], batch.reward))
    torch.testing.assert_close(step_by_step, whole)
    others = agent.policy.head(agent.memory(batch.obs, (taken[:6] + 1) % 4, batch.reward))
    assert not torch.allclose(others[1:], whole[1:])  # they are fed to the memory


def test_exploring_samples_from_the_policy():
    torch.manual_seed(0)
    agent, n = agent_of("shared"), 20_000
    with torch.no_grad():
        agent.policy.head[-1].bias.copy_(torch.tensor([0.0, 1.0, -1.0, -3.0]))
    obs = torch.zeros(n, 3, 5, 5, dtype=torch.uint8)
    action, _ = agent.act(obs, torch.zeros(n), agent.initial_state(n), explore=True)
    h, _ = agent.memory.step(obs[:1], torch.tensor([-1]), torch.zeros(1), agent.initial_state(1)[0])
    p = agent.policy.head(h)[0].softmax(-1)
    share = torch.bincount(action, minlength=4) / n
    assert ((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()
    greedy, _ = agent.act(obs, torch.zeros(n), agent.initial_state(n), explore=False)
    assert (greedy == 1).all()


@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_dropout_scope(scope):
    agent = agent_of("shared", lambda: remembering(0.5), dropout_scope=scope)
    obs = torch.full((1, 3, 5, 5), 200, dtype=torch.uint8)

    def logits(explore):
        def act():
            for _ in range(5):
                agent.act(obs, torch.zeros(1), agent.initial_state(1), explore)

        return logits_of(agent, act)

    assert (logits(False) == logits(False)[0]).all()
    assert (logits(True) == logits(True)[0]).all() == (scope == "gradient")
    agent.update(batch_of())
    assert agent.memory.training


@pytest.mark.parametrize("kind", KINDS)
def test_weights_suffice_to_act(kind):
    agent, other, batch = agent_of(kind), agent_of(kind), batch_of()
    agent.update(batch)
    other.load_weights(copy.deepcopy(agent.weights()))
    for a in (agent, other):
        a.policy.eval()
    logits = [
        a.policy.head(a.memory(batch.obs, batch.action, batch.reward)) for a in (agent, other)
    ]
    assert torch.equal(*logits)


@pytest.mark.parametrize("kind", ["shared", "separate"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("gamma", 1.1),
        ("tau", 0.0),
        ("lr", math.inf),
        ("alpha", -0.1),
        ("alpha", math.inf),
        ("target_entropy", 1.5),
        ("dropout_scope", "never"),
        ("hidden_dims", []),
    ],
)
def test_a_bad_setting_is_named(kind, setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be"):
        agent_of(kind, **{setting: value})


def test_a_learned_temperature_cannot_begin_at_0():
    agent_of("shared", alpha=0.0)
    with pytest.raises(ValueError, match=r"^alpha must be above 0, or target_entropy null, got 0"):
        agent_of("shared", alpha=0.0, target_entropy=0.5)


# Encoders ------------------------------------------------------------------------------------


def cnn(**changes):
    widths = {"channels": [8, 16], "obs_dim": 100, "action_dim": 5, "reward_dim": 3} | changes
    return CNNEncoder(SPEC, 4, **widths)


def test_the_cnn_is_the_published_one():
    encoder = cnn(action_dim=0, reward_dim=0)
    layers = [type(layer).__name__ for layer in encoder.convolutions]
    assert layers == ["Conv2d", "ReLU", "Conv2d", "ReLU"]
    assert encoder.convolutions[2].weight.shape == (16, 8, 2, 2)
    assert encoder.obs.weight.shape == (100, 144)
    for layer in (encoder.convolutions[0], encoder.convolutions[2], encoder.obs):
        bound = layer.weight[0].numel() ** -0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound
    images = torch.randint(256, (7, 3, 3, 5, 5), dtype=torch.uint8)
    y = encoder(images, torch.zeros(7, 3, 4), torch.zeros(7, 3))
    x = images.flatten(0, 1) / 255
    expected = encoder.obs(encoder.convolutions(x).flatten(1)).view(7, 3, 100)
    torch.testing.assert_close(y, expected)
    assert (y < 0).any() and (y > 0).any()  # no activation after it


def test_order_is_action_reward_observation():
    encoder = cnn()
    obs, action, reward = torch.zeros(2, 3, 5, 5), torch.zeros(2, 4), torch.zeros(2)
    y = encoder(obs, action, reward)
    assert y.shape == (2, 108) and encoder.output_dim == 108
    for part, changed in (
        (slice(0, 5), (obs, action + 9, reward)),
        (slice(5, 8), (obs, action, reward + 9)),
        (slice(8, 108), (obs + 200, action, reward)),
    ):
        different = (encoder(*changed) != y).any(0)
        assert different[part].any()
        different[part] = False
        assert not different.any()
    assert (encoder(obs, action - 9, reward - 9)[:, :8] >= 0).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_leading_dimensions(shape):
    encoder = cnn()
    images = torch.randint(256, (*shape, 3, 5, 5), dtype=torch.uint8)
    assert encoder(images, torch.zeros(*shape, 4), torch.zeros(shape)).shape == (*shape, 108)


def test_only_pixels_are_divided_by_255():
    images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    none = (torch.zeros(4, 4), torch.zeros(4))
    floats = TaskSpec(gymnasium.spaces.Box(0, 1, (3, 5, 5)), SPEC.action_space, 6)
    for make in (
        lambda spec: MLPEncoder(spec, 4, 6, 0, 0),
        lambda spec: CNNEncoder(spec, 4, [2], 6, 0, 0),
    ):
        of_bytes, of_floats = make(SPEC), make(floats)
        of_floats.load_state_dict(of_bytes.state_dict())
        torch.testing.assert_close(of_bytes(images, *none), of_floats(images / 255, *none))
    counts = gymnasium.spaces.Box(0, 255, (2,), np.uint8)  # not an image
    encoder = MLPEncoder(TaskSpec(counts, SPEC.action_space, 6), 4, 6, 0, 0)
    x = torch.tensor([[3, 250]], dtype=torch.uint8)
    expected = torch.relu(encoder.obs(x.float()))
    torch.testing.assert_close(encoder(x, *(part[:1] for part in none)), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [8] * 5}, "channels must be at most 4 numbers for images of 5 x 5"),
        ({"channels": [8, 0]}, "channels must be numbers of at least 1"),
        ({"obs_dim": 0}, "obs_dim must be at least 1"),
        ({"action_dim": -1}, "action_dim must be at least 0"),
        ({"reward_dim": -1}, "reward_dim must be at least 0"),
    ],
)
def test_bad_widths_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        cnn(**changes)


def test_the_cnn_wants_images():
    vector = TaskSpec(gymnasium.spaces.Box(-1, 1, (2,)), SPEC.action_space, 6)
    with pytest.raises(ValueError, match=r"^observations must be images \(C, H, W\), got .*\(2,\)"):
        CNNEncoder(vector, 4, [8], 10, 0, 0)
    assert IMAGES.shape == (3, 5, 5)


@pytest.mark.parametrize("model", [lambda: MLP(8, 8, 1), lambda: Recurrent(8, "gru", 8, 2)])
def test_every_memory_fits(model):
    def new_memory():
        return Memory(CNNEncoder(SPEC, 4, [2, 3], 8, 0, 0), model(), DiscreteActions(4))

    for kind in KINDS:
        assert math.isfinite(agent_of(kind, new_memory).update(batch_of())["loss"])


def test_probabilities_are_bounded_below_in_the_logarithm_alone():
    p, log_p = probabilities(torch.tensor([0.0, -50.0]))
    assert p[1] < 1e-20
    assert log_p.tolist() == pytest.approx([0, math.log(1e-8)])
