"""Laws of TD3 and SAC, beside what was recorded (test_td3.py)."""

import copy
import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from memrl.actions import ContinuousActions
from memrl.algos.actor_critic import TwinCritic, frozen, orthogonal_memory_
from memrl.algos.sac import SAC, SeparateSAC, mean_and_log_std, squashed
from memrl.algos.td3 import TD3, SeparateTD3
from memrl.encoders import MLPEncoder
from memrl.experiment import build_agent, resolve
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.run.config import compose_config
from memrl.run.outcome import ConfigError
from memrl.seq_models.gpt import GPT
from memrl.seq_models.rnn import Recurrent

OBS, A = 3, 2
SPEC = TaskSpec(
    gymnasium.spaces.Box(-1, 1, (OBS,), np.float32), gymnasium.spaces.Box(-1, 1, (A,)), 6
)
SHARED = [f"{algo} {v}" for algo in ("td3", "sac") for v in ("all", "critic", "attached")]
SEPARATE = ["td3 separate", "sac separate"]
KINDS = [*SHARED, *SEPARATE]
PLAIN = ["td3 all", "sac all", *SEPARATE]
SETTINGS = {"gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": (12, 10)}
SETTINGS |= {"dropout_scope": "everywhere"}
OWN = {
    "td3": {"exploration_noise": 0.1, "target_noise": 0.0, "noise_clip": 0.5},
    "sac": {"alpha": 0.1, "target_entropy": -1.0},
}
GRADIENTS = {"all": "freeze_all", "critic": "freeze_critic", "attached": "attached"}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def lstm():
    encoder = MLPEncoder(SPEC, A, obs_dim=4, action_dim=3, reward_dim=1)
    return Memory(encoder, Recurrent(8, "lstm", 8, 1), ContinuousActions(A))


def gpt(dropout=0.0):
    encoder = MLPEncoder(SPEC, A, obs_dim=4, action_dim=3, reward_dim=1)
    model = GPT(8, 1, 2, "sine", context_len=6, dropout=dropout, attention_dropout=dropout)
    return Memory(encoder, model, ContinuousActions(A))


def agent_of(kind, new_memory=lstm, **changes):
    algo, variant = kind.split()
    settings = SETTINGS | OWN[algo] | changes
    if variant == "separate":
        cls = {"td3": SeparateTD3, "sac": SeparateSAC}[algo]
        return cls(new_memory(), new_memory, **settings)
    cls = {"td3": TD3, "sac": SAC}[algo]
    return cls(new_memory(), **({"policy_gradient": GRADIENTS[variant]} | settings))


def batch_of(T=6, B=3, seed=0):
    torch.manual_seed(seed)
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[T // 2 :, 0] = False
    return Episodes(
        obs=torch.randn(T + 1, B, OBS),
        action=torch.rand(T, B, A) * 2 - 1,
        reward=torch.randn(T, B),
        terminated=torch.rand(T, B) < 0.3,
        mask=mask,
    )


# Sizes and initial weights of the paper ------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ((17, 8), (394_458, 503_370)),  # Ant-P: observations, actions; LSTM, GPT
        ((11, 8), (394_266, 502_986)),
        ((17, 6), (392_888, 501_704)),  # HalfCheetah
        ((9, 6), (392_632, 501_192)),
        ((9, 3), (390_277, 498_693)),  # Hopper
        ((6, 3), (390_181, 498_501)),
        ((13, 6), (392_760, 501_448)),  # Walker
    ],
)
def test_parameter_counts(sizes, counts):
    n_action = sizes[1]
    spaces = (gymnasium.spaces.Box(-1, 1, (n,), np.float32) for n in sizes)
    spec, settings = TaskSpec(*spaces, 1000), SETTINGS | {"hidden_dims": (256, 256)}
    for width, count in zip((32, 64), counts, strict=True):
        encoder = MLPEncoder(spec, n_action, width, {32: 16, 64: 64}[width], 0)
        model = (
            Recurrent(48, "lstm", 128, 1)
            if width == 32
            else GPT(128, 1, 1, "sine", context_len=64, dropout=0.1, attention_dropout=0.1)
        )
        memory = Memory(encoder, model, ContinuousActions(n_action))
        for cls, more in ((TD3, OWN["td3"]), (SAC, OWN["sac"])):
            agent = cls(copy.deepcopy(memory), policy_gradient="freeze_all", **settings, **more)
            learned = sum(p.numel() for _, p in agent.named_parameters())
            # SAC's policy has a log std beside each mean.
            assert learned == count + (cls is SAC) * n_action * 257


@pytest.mark.parametrize("kind", PLAIN)
def test_weights_are_orthogonal_and_biases_are_0(kind):
    agent = agent_of(kind, hidden_dims=(16, 16))

    def is_orthogonal(weight):
        small = weight if len(weight) <= weight.shape[1] else weight.T
        return torch.allclose(small @ small.T, torch.eye(len(small)), atol=1e-5)

    memories = {id(m): m for m in (agent.memory, getattr(agent.critic, "memory", agent.memory))}
    for memory in memories.values():
        assert is_orthogonal(memory.encoder.obs.weight)
        for name in ("weight_ih_l0", "weight_hh_l0"):
            gates = getattr(memory.seq_model.layers, name).chunk(4)
            assert all(map(is_orthogonal, gates))
        biases = [p for n, p in memory.named_parameters() if "bias" in n]
        assert len(biases) == 5 and not any(bias.any() for bias in biases)
        fixed = [n for n, p in memory.named_parameters() if not p.requires_grad]
        assert fixed == ["seq_model.layers.bias_ih_l0"]
    *hidden, last = (layer for layer in agent.policy.head if isinstance(layer, torch.nn.Linear))
    policy = [*(layer.weight for layer in hidden), *last.weight.split(A)]  # means, and log stds
    assert all(map(is_orthogonal, policy))
    heads = getattr(agent.critic, "heads", agent.critic)
    joint = torch.cat([heads.h.weight, heads.action.weight], dim=1).chunk(2)
    assert all(map(is_orthogonal, [*joint, *(w for weights in heads.weights for w in weights)]))


def test_twin_critics_are_two_independent_mlps():
    critic = TwinCritic(5, A, (7, 6))
    h, action = torch.randn(4, 3, 5), torch.randn(4, 3, A)
    q = critic(critic.project(h), action)
    assert q.shape == (2, 4, 3)
    for i in (0, 1):
        first = torch.cat([critic.h.weight, critic.action.weight], dim=1).chunk(2)[i]
        y = torch.relu(F.linear(torch.cat([h, action], -1), first, critic.h.bias.chunk(2)[i]))
        y = torch.relu(y @ critic.weights[0][i] + critic.biases[0].chunk(2)[i])
        expected = y @ critic.weights[1][i] + critic.biases[1].chunk(2)[i]
        torch.testing.assert_close(q[i], expected.squeeze(-1))
    gradient = torch.autograd.grad(q[0].sum(), [critic.weights[0]])[0]
    assert gradient[0].any() and not gradient[1].any()


# Updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind):
    agent, batch = agent_of(kind), batch_of()
    other = copy.deepcopy(agent)
    noise, mask = batch_of(seed=1), batch.mask
    later = torch.cat([torch.ones(1, 3, dtype=torch.bool), mask])  # the last observation counts
    changed = batch._replace(
        obs=torch.where(later[..., None], batch.obs, noise.obs),
        action=torch.where(mask[..., None], batch.action, noise.action),
        reward=torch.where(mask, batch.reward, noise.reward),
        terminated=torch.where(mask, batch.terminated, noise.terminated),
    )
    torch.manual_seed(2)
    first = agent.update(batch)
    torch.manual_seed(2)
    second = other.update(changed)
    for name in first:
        torch.testing.assert_close(first[name], second[name], msg=name)
    ours = dict(agent.named_parameters())
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name].grad, msg=name)
    for name, rank in agent.diagnostics(batch).items():
        assert rank == other.diagnostics(changed)[name] <= 8, name


@pytest.mark.parametrize("kind", SHARED)
def test_the_policys_loss_trains_what_policy_gradient_says(kind):
    """The gradient of an update is the critics' own plus this."""
    agent, batch = agent_of(kind), batch_of()
    before = copy.deepcopy(agent)
    torch.manual_seed(3)
    agent.update(batch)
    torch.manual_seed(3)
    h = before.memory(batch.obs, batch.action, batch.reward)
    target = before.target_of(batch, h[1:].detach())
    q = before.critic(before.critic.project(h[:-1]), batch.action)
    loss = (q - target).square().sum(0)[batch.mask].mean()
    loss.backward(retain_graph=True)
    variant = before.policy_gradient
    state = h[:-1].detach() if variant == "freeze_all" else h[:-1]
    action, cost, _ = before.sample(before.policy.head(state))
    projected = before.critic.project(h[:-1])
    critic = before.critic
    if variant != "attached":
        projected, critic = projected.detach(), copy.deepcopy(critic).requires_grad_(False)
    (cost - critic(projected, action).amin(0))[batch.mask].mean().backward()
    expected = dict(before.named_parameters())
    for name, parameter in agent.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_terminated_step_is_worth_its_reward(kind):
    agent, batch = agent_of(kind), batch_of()
    q, cost = torch.randn(2, 6, 3), torch.randn(6, 3)
    target = agent.target(batch, q, cost)
    value = torch.minimum(*q) - cost
    expected = torch.where(batch.terminated, batch.reward, batch.reward + 0.99 * value)
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_next_actions_and_their_values_come_from_the_networks_that_the_paper_names(kind):
    """TD3: from target policy and target critics. SAC: from the policy, and the target critics."""
    agent, batch = agent_of(kind), batch_of()
    with torch.no_grad():
        for _, parameter in agent.named_parameters():  # the targets stay behind
            parameter.add_(torch.randn_like(parameter) * 0.3)
    inputs = (batch.obs, batch.action, batch.reward)
    actor = agent.target_policy if kind.startswith("td3") else agent.policy
    outputs = actor(*inputs)[1:]
    if kind.startswith("td3"):
        action, log_p = outputs.tanh(), 0.0
    else:
        torch.manual_seed(5)
        action, log_p = squashed(*outputs.chunk(2, -1))
    if "separate" in kind:
        heads = agent.target_critic.heads
        h = agent.target_critic.memory(*inputs)[1:]
        given = agent.policy(*inputs)[1:]
    else:
        heads, h = agent.target_critic, agent.target_policy.memory(*inputs)[1:]
        given = agent.memory(*inputs)[1:]
    value = torch.minimum(*heads(heads.project(h), action)) - 0.1 * log_p
    expected = batch.reward + 0.99 * value * ~batch.terminated
    torch.manual_seed(5)
    torch.testing.assert_close(agent.target_of(batch, given), expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_frozen_critic_computes_no_gradient_of_its_weights(kind):
    critic = getattr(agent_of(kind).critic, "heads", agent_of(kind).critic)
    h, action = torch.randn(5, 8), torch.randn(5, A, requires_grad=True)
    frozen(critic)(critic.project(h).detach(), action).sum().backward()
    assert action.grad.any()
    assert all(p.grad is None for p in critic.parameters())
    nodes, seen = [frozen(critic)(critic.project(h).detach(), action).grad_fn], set()
    for node in nodes:
        new = [below for below, _ in node.next_functions if below is not None]
        nodes += [below for below in new if id(below) not in seen]
        seen |= set(map(id, new))
    leaves = [node for node in nodes if type(node).__name__ == "AccumulateGrad"]
    assert [leaf.variable for leaf in leaves] == [action]


@pytest.mark.parametrize("kind", PLAIN)
def test_weight_decay_reaches_no_bias(kind):
    agent = agent_of(kind, weight_decay=0.1)
    names = {id(p): name for name, p in agent.named_parameters()}
    optimizers = [o for o in vars(agent).values() if isinstance(o, torch.optim.Optimizer)]
    decayed = [
        names[id(p)]
        for optimizer in optimizers
        for group in optimizer.param_groups
        if group["weight_decay"]
        for p in group["params"]
    ]
    assert len(decayed) > 8 and not [name for name in decayed if "bias" in name]


@pytest.mark.parametrize("kind", PLAIN)
def test_diagnostics_neither_switch_dropout_off_nor_fail_on_a_diverged_run(kind):
    agent, batch = agent_of(kind, lambda: gpt(0.5)), batch_of()
    agent.update(batch)
    agent.diagnostics(batch)
    agent.act(batch.obs[0], torch.zeros(3), agent.initial_state(3), explore=True)
    assert all(module.training for module in agent.policy.modules())
    agent.diagnostics(batch)
    agent.update(batch)
    assert all(module.training for module in agent.policy.modules())
    with torch.no_grad():
        agent.memory.encoder.obs.weight[0, 0] = math.nan
    assert all(rank.isfinite() for rank in agent.diagnostics(batch).values())


class Pretrained(torch.nn.Module):
    """An encoder of somebody else."""

    output_dim = 4

    def __init__(self):
        super().__init__()
        self.obs = torch.nn.Linear(OBS, 4, bias=False)

    def forward(self, obs, prev_action, prev_reward):
        return self.obs(obs)


def test_only_our_own_encoders_and_recurrent_layers_are_initialised_anew():
    model = torch.nn.Sequential()
    model.output_dim, model.lstm = 8, torch.nn.LSTM(4, 8)
    theirs = Memory(Pretrained(), model, ContinuousActions(A))
    before = copy.deepcopy(theirs.state_dict())
    orthogonal_memory_(theirs)
    assert all(torch.equal(before[name], value) for name, value in theirs.state_dict().items())
    assert all(parameter.requires_grad for parameter in theirs.parameters())


@pytest.mark.parametrize(("cell", "biases"), [("lstm", 1), ("rnn", 1), ("gru", 2)])
def test_recurrent_layers_have_one_bias_but_for_a_gru_whose_two_do_not_add_up(cell, biases):
    memory = Memory(lstm().encoder, Recurrent(8, cell, 8, 1), ContinuousActions(A))
    orthogonal_memory_(memory)
    learned = [n for n, p in memory.seq_model.named_parameters() if p.requires_grad]
    assert sum("bias" in name for name in learned) == biases and len(learned) == 2 + biases


@pytest.mark.parametrize("kind", KINDS)
def test_targets_move_by_tau_and_by_nothing_else(kind):
    agent, batch = agent_of(kind, tau=0.25), batch_of()
    pairs = {"critic": agent.target_critic}
    if hasattr(agent, "target_policy"):
        pairs["policy"] = agent.target_policy
    before = copy.deepcopy(pairs)
    agent.update(batch)
    for name, target in pairs.items():
        assert all(p.grad is None for p in target.parameters())
        online = getattr(agent, name)
        triples = zip(
            target.parameters(), before[name].parameters(), online.parameters(), strict=True
        )
        for now, old, new in triples:
            torch.testing.assert_close(now, 0.75 * old + 0.25 * new)
    assert ("policy" in pairs) == (kind != "sac separate")  # whose next actions are its own


@pytest.mark.parametrize("kind", SEPARATE)
def test_separate_memories_share_nothing_and_the_policy_is_judged_by_the_new_critics(kind):
    agent, batch = agent_of(kind, lr=0.05), batch_of()
    critic = {id(p) for p in agent.critic.parameters()}
    assert not critic & {id(p) for p in agent.policy.parameters()}
    before = copy.deepcopy(agent)
    torch.manual_seed(4)
    loss = agent.update(batch)["policy_loss"].item()
    losses = []
    early = (batch.obs[:-1], batch.action[:-1], batch.reward[:-1])
    for judge in (before.critic, agent.critic):
        torch.manual_seed(4)
        before.target_of(batch, before.policy(batch.obs, batch.action, batch.reward)[1:])
        outputs = before.policy.head(before.memory(*early))
        projected = judge.project(*early)
        n = batch.mask.sum()
        losses.append(before.policy_loss(judge.heads, projected, outputs, batch.mask, n)[0].item())
    assert loss == pytest.approx(losses[1], abs=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("kind", PLAIN)
def test_a_restored_agent_goes_on_identically(kind):
    agent, batch = agent_of(kind), batch_of()
    for _ in range(3):
        agent.update(batch)
    other = agent_of(kind)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for seed in range(2):
        metrics = []
        for each in (agent, other):
            torch.manual_seed(seed)
            metrics.append({k: v.item() for k, v in each.update(batch).items()})
        assert metrics[0] == metrics[1]
    for (name, a), (_, b) in zip(agent.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", PLAIN)
def test_learns_the_action_that_pays(kind):
    """It is the first observation, halved, and must be remembered for a step."""
    agent = agent_of(kind, lr=3e-3, gamma=0.0, hidden_dims=(32, 32))
    for seed in range(300):
        batch = batch_of(T=2, B=64, seed=seed)
        batch = batch._replace(mask=torch.ones_like(batch.mask), obs=batch.obs.clamp(-1, 1))
        wanted = batch.obs[0, :, :A] / 2
        batch = batch._replace(reward=-(batch.action - wanted).square().sum(-1))
        agent.update(batch)
    state, reward = agent.initial_state(64), torch.zeros(64)
    for t in (0, 1):
        action, state = agent.act(batch.obs[t], reward, state, explore=False)
        assert (action - wanted).abs().mean() < 0.2  # of actions of 0: 0.33


# Actions -------------------------------------------------------------------------------------


def test_densities_of_squashed_actions_are_those_of_torch():
    torch.manual_seed(0)
    mean, std = torch.randn(500, A) * 3, torch.rand(500, A) * 2 + 0.1
    action, log_p = squashed(mean.double(), std.double().log())
    distribution = TransformedDistribution(
        Normal(mean.double(), std.double()), [TanhTransform(cache_size=1)]
    )
    inside = (action.abs() < 1 - 1e-9).all(-1)  # beyond, torch's own inverse is infinite
    assert inside.sum() > 400
    expected = distribution.log_prob(action.clamp(-1 + 1e-12, 1 - 1e-12)).sum(-1)
    torch.testing.assert_close(log_p[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert log_p.isfinite().all()
    far, _ = squashed(torch.full((1, A), 50.0), torch.zeros(1, A))
    assert far.abs().max() == 1
    mean, log_std = mean_and_log_std(torch.tensor([-100.0, 0.5, 100.0, -100.0]))
    assert mean.tolist() == [-100, 0.5] and log_std.tolist() == [2, -20]  # as published


@pytest.mark.parametrize("kind", PLAIN)
def test_greedy_actions_are_the_means_and_exploring_ones_scatter_around_them(kind):
    torch.manual_seed(0)
    agent, n = agent_of(kind), 20_000
    with torch.no_grad():
        agent.policy.head[-1].bias[:A] = torch.tensor([0.0, 2.5])
    obs = torch.zeros(n, OBS)
    greedy, _ = agent.act(obs, torch.zeros(n), agent.initial_state(n), explore=False)
    action, state = agent.act(obs, torch.zeros(n), agent.initial_state(n), explore=True)
    assert (greedy == greedy[0]).all() and action.shape == (n, A)
    assert torch.equal(state.prev_action, action) and action.abs().max() <= 1
    if kind.startswith("td3"):
        noise = action - greedy
        assert abs(noise[:, 0].std() - 0.1) < 0.005 and abs(noise[:, 0].mean()) < 0.005
        assert (action[:, 1] == 1).float().mean() > 0.3  # clipped
    else:
        h, _ = agent.memory.step(
            obs[:1], state.prev_action[:1] * 0, torch.zeros(1), agent.initial_state(1)[0]
        )
        mean, log_std = agent.policy.head(h)[0].chunk(2)
        assert torch.allclose(greedy[0], mean.tanh())
        u = action.double().atanh()
        assert torch.allclose(u.mean(0), mean.double(), atol=0.05)
        assert torch.allclose(u.std(0), log_std.exp().double(), rtol=0.05)


def test_target_noise_is_clipped_and_so_are_target_actions():
    torch.manual_seed(0)
    agent = agent_of("td3 all", target_noise=0.2, noise_clip=0.3)
    outputs = torch.full((1000, 10, A), 0.25)
    noise = agent.next_action(outputs)[0] - outputs.tanh()
    assert noise.abs().max().item() == pytest.approx(0.3, abs=1e-6)
    assert abs(noise.std() - 0.177) < 0.005
    assert agent.next_action(outputs * 100)[0].max() == 1
    exact = agent_of("td3 all", target_noise=0.0)
    assert torch.equal(exact.next_action(outputs)[0], outputs.tanh())


@pytest.mark.parametrize("kind", ["sac all", "sac separate"])
@pytest.mark.parametrize(("target", "sign"), [(-20.0, -1), (-1.0, 1)])
def test_a_learned_temperature_grows_while_the_entropy_is_below_its_target(kind, target, sign):
    agent = agent_of(kind, target_entropy=target)
    with torch.no_grad():
        agent.policy.head[-1].weight[A:] = 0
        agent.policy.head[-1].bias[A:] = -3  # of log std: little entropy
    metrics = [agent.update(batch_of()) for _ in range(3)]
    assert metrics[0]["std"].item() == pytest.approx(math.exp(-3))
    alphas = [m["alpha"].item() for m in metrics]
    assert alphas[0] == pytest.approx(0.1)
    assert all((b - a) * sign > 0 for a, b in itertools.pairwise(alphas))
    assert agent.temperature.target_entropy == target * A
    fixed = agent_of(kind, target_entropy=None)
    assert [fixed.update(batch_of())["alpha"].item() for _ in range(2)] == [pytest.approx(0.1)] * 2


@pytest.mark.parametrize("kind", PLAIN)
def test_acting_step_by_step_is_the_policy_on_the_whole_window(kind):
    agent, batch, actions = agent_of(kind, gpt), batch_of(), []
    state, rewards = agent.initial_state(3), [torch.zeros(3), *batch.reward]
    for obs, reward in zip(batch.obs, rewards, strict=True):
        action, state = agent.act(obs, reward, state, explore=False)
        actions.append(action)
    taken = torch.stack(actions)
    outputs = agent.policy(batch.obs, taken[:-1], batch.reward)[..., :A]
    torch.testing.assert_close(taken, outputs.tanh().detach())
    others = agent.policy(batch.obs, taken[:-1] + 0.5, batch.reward)[..., :A]
    assert not torch.allclose(others[1:], outputs[1:])  # they are fed to the memory


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("scope", ["everywhere", "gradient"])
def test_dropout_scope(kind, scope):
    agent = agent_of(kind, lambda: gpt(0.5), dropout_scope=scope)
    everywhere, seen = scope == "everywhere", set()  # of a pass: it is differentiated, has dropout
    networks = [*agent.networks.values(), *(target for target, _ in agent.moving)]
    for layer in (layer for network in networks for layer in network.modules()):
        if isinstance(layer, torch.nn.Dropout):
            layer.register_forward_hook(
                lambda layer, *_: seen.add((torch.is_grad_enabled(), layer.training))
            )
    for _ in range(2):
        agent.update(batch_of())
    assert seen == {(True, True), (False, everywhere)}
    agent.act(torch.zeros(1, OBS), torch.zeros(1), agent.initial_state(1), explore=True)
    assert agent.memory.training == everywhere
    agent.act(torch.zeros(1, OBS), torch.zeros(1), agent.initial_state(1), explore=False)
    assert not agent.memory.training


@pytest.mark.parametrize("kind", KINDS)
def test_weights_suffice_to_act_and_targets_follow_them(kind):
    agent, other, batch = agent_of(kind), agent_of(kind), batch_of()
    agent.update(batch)
    other.load_weights(copy.deepcopy(agent.weights()))
    inputs = (batch.obs, batch.action, batch.reward)
    assert torch.equal(agent.policy(*inputs), other.policy(*inputs))
    if hasattr(other, "target_policy"):
        assert torch.equal(other.target_policy(*inputs), other.policy(*inputs))


# Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        *((kind, "hidden_dims", []) for kind in PLAIN),
        ("td3 all", "gamma", 1.1),
        ("td3 separate", "exploration_noise", -0.1),
        ("td3 all", "target_noise", math.inf),
        ("td3 all", "noise_clip", -1),
        ("td3 all", "policy_gradient", "freeze"),
        ("sac all", "policy_gradient", "freeze"),
        ("sac separate", "target_entropy", 0.7),
        ("sac separate", "alpha", 0.0),
        ("sac all", "alpha", math.inf),
    ],
)
def test_a_bad_setting_is_named(kind, setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be"):
        agent_of(kind, **{setting: value})


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "env=pendulum_p algo=dqn",
            "algo=dqn: the task has continuous actions of width 1, which DQN cannot take: "
            "use algo=td3, sac, td3_separate or sac_separate",
        ),
        (
            "env=tmaze_passive algo=sac",
            "algo=sac: the task has 4 discrete actions, which SAC cannot take: "
            "use algo=dqn, sacd or sacd_separate",
        ),
    ],
)
def test_an_algorithm_for_the_other_kind_of_actions_is_refused(overrides, line):
    with pytest.raises(ConfigError) as error:
        build_agent(resolve(compose_config(overrides.split())))
    assert str(error.value) == line
