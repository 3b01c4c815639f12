"""Discrete SAC against update steps recorded with the original program."""

import gymnasium
import numpy as np
import pytest
import torch
from conftest import GOLDEN

from memrl.actions import DiscreteActions
from memrl.algos.agent import twin_loss
from memrl.algos.sacd import SACD, SeparateSACD
from memrl.algos.soft import taken
from memrl.encoders import CNNEncoder
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.networks import mean_grad_norm
from memrl.seq_models.rnn import Recurrent

IMAGES = gymnasium.spaces.Box(0, 255, (3, 5, 5), np.uint8)
SPEC = TaskSpec(IMAGES, gymnasium.spaces.Discrete(4), 6)
FORWARD = {"rtol": 1e-5, "atol": 1e-6}
SETTINGS = {
    **{"gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": (12, 10), "alpha": 0.1},
    **{"target_entropy": None, "dropout_scope": "everywhere"},
}
CASES = {  # case -> what differs
    "freeze": {"freeze_critic": True},
    "nofreeze": {"freeze_critic": False},
    "freeze_autotemp": {"freeze_critic": True, "alpha": 1.0, "target_entropy": 0.5},
}
NAMES = [  # the original program's name -> ours
    ("observ_embedder.cnn", "memory.encoder.convolutions"),
    ("observ_embedder.linear", "memory.encoder.obs"),
    ("seq_model.model", "memory.seq_model.layers"),
    ("policy.fc0", "head.0"),
    ("policy.fc1", "head.2"),
    ("policy.last_fc", "head.4"),
    ("qf1.fc0", "q1.0"),
    ("qf1.fc1", "q1.2"),
    ("qf1.last_fc", "q1.4"),
    ("qf2.fc0", "q2.0"),
    ("qf2.fc1", "q2.2"),
    ("qf2.last_fc", "q2.4"),
]


def memory():
    encoder = CNNEncoder(SPEC, 4, channels=[2, 3], obs_dim=8, action_dim=0, reward_dim=0)
    return Memory(encoder, Recurrent(8, "lstm", 8, 1), DiscreteActions(4))


def recorded(data, prefix):
    """Parameters under ``prefix``, by our names."""
    out = {}
    for key in data.files:
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for old, new in NAMES:
                name = name.replace(old, new)
            out[name] = torch.from_numpy(data[key])
    return out


def shared_parts(data, prefix):
    """Parameters of policy, heads and target heads."""
    every = recorded(data, prefix + "/")
    target = {k: v for k, v in every.items() if "_target." in k and k.startswith("qf")}
    for old, new in NAMES:
        old = old.replace(".", "_target.", 1)
        target = {k.replace(old, new): v for k, v in target.items()}
    return {
        "policy": {k: v for k, v in every.items() if k.startswith(("memory.", "head."))},
        "heads": {k: v for k, v in every.items() if k.startswith(("q1.", "q2."))},
        "target_heads": target,
    }


def separate_parts(data, prefix):
    """Parameters of policy, critic and target critic."""

    def critic(name):
        found = recorded(data, f"{prefix}/{name}.")
        return {k if k.startswith("memory.") else f"heads.{k}": v for k, v in found.items()}

    return {
        "policy": recorded(data, f"{prefix}/actor."),
        "critic": critic("critic"),
        "target_critic": critic("critic_target"),
    }


def batch_of(data):
    get = {k: torch.from_numpy(data[f"batch/{k}"]) for k in ("obs", "obs2", "act", "rew", "term")}
    return Episodes(
        obs=torch.cat([get["obs"][:1], get["obs2"]]).view(7, 3, 3, 5, 5),
        action=get["act"].squeeze(-1).long(),
        reward=get["rew"].squeeze(-1),
        terminated=get["term"].squeeze(-1).bool(),
        mask=torch.from_numpy(data["batch/mask"]).squeeze(-1).bool(),
    )


def load(agent, parts):
    for name, values in parts.items():
        getattr(agent, name).load_state_dict(values)


def shared(case):
    data = np.load(GOLDEN / f"agent_sacd_shared_lstm_{case}.npz")
    agent = SACD(memory(), **(SETTINGS | CASES[case]))
    load(agent, shared_parts(data, "init"))
    return data, agent, batch_of(data)


def separate():
    data = np.load(GOLDEN / "agent_sacd_separate_lstm.npz")
    agent = SeparateSACD(memory(), memory, **SETTINGS)
    load(agent, separate_parts(data, "init"))
    return data, agent, batch_of(data)


def assert_logged(data, k, metrics, alpha):
    """Compare update ``k``'s metrics; ``alpha`` is the temperature after it, as was recorded."""
    ours = metrics | {"actor_loss": metrics["policy_loss"], "coef": alpha}
    for name in ("critic_loss", "q1", "q2", "actor_loss", "entropy", "coef"):
        assert ours[name].item() == pytest.approx(data[f"update{k}/log/{name}"], abs=2e-6), name


def assert_parameters(agent, parts, atol=1e-6):
    for part, values in parts.items():
        ours = getattr(agent, part).state_dict()
        assert ours.keys() == values.keys()
        for name, value in ours.items():
            np.testing.assert_allclose(value, values[name], atol=atol, err_msg=f"{part}.{name}")


@pytest.mark.parametrize("case", CASES)
def test_golden_updates_of_a_shared_memory(case):
    data, agent, batch = shared(case)
    h = agent.memory(batch.obs, batch.action, batch.reward).detach()
    np.testing.assert_allclose(h, data["fwd/hidden"], **FORWARD)
    np.testing.assert_allclose(agent.policy.head(h).detach(), data["fwd/logits"], **FORWARD)
    for q, name in zip(agent.heads(h), ("q1_all", "q2_all"), strict=True):
        np.testing.assert_allclose(q.detach(), data[f"fwd/{name}"], **FORWARD)
    alpha = 1.0 if "autotemp" in case else 0.1
    for k in (1, 2, 3):
        metrics = agent.update(batch)
        assert metrics["alpha"].item() == pytest.approx(alpha, abs=1e-7)  # the one it used
        alpha = agent.alpha.item()
        assert_logged(data, k, metrics, agent.alpha)
        half = metrics["critic_loss"] / 2 + metrics["policy_loss"]
        assert metrics["loss"].item() == pytest.approx(half.item(), abs=1e-6)
        if k == 1:
            for ours, theirs in (("seq", "seq"), ("critic", "critic"), ("policy", "actor")):
                norm = data[f"update1/gradnorm/{theirs}_grad_norm"]
                assert metrics[f"{ours}_grad_norm"].item() == pytest.approx(norm, abs=1e-6)
            grads = shared_parts(data, "update1/grad")
            for part in ("policy", "heads"):
                for name, parameter in getattr(agent, part).named_parameters():
                    expected = grads[part][name]
                    np.testing.assert_allclose(parameter.grad, expected, atol=1e-6, err_msg=name)
        if k in (1, 3):
            assert_parameters(agent, shared_parts(data, f"update{k}/param"))


def test_golden_updates_of_separate_memories():
    data, agent, batch = separate()
    for k in (1, 2, 3):
        metrics = agent.update(batch)
        assert_logged(data, k, metrics, agent.alpha)
        if k == 1:
            for name in ("", "seq_"):
                norm = data[f"update1/gradnorm/actor_{name}grad_norm"]
                assert metrics[f"policy_{name}grad_norm"].item() == pytest.approx(norm, abs=1e-6)
            grads = separate_parts(data, "update1/grad")["policy"]
            for name, parameter in agent.policy.named_parameters():
                np.testing.assert_allclose(parameter.grad, grads[name], atol=1e-6, err_msg=name)
        if k in (1, 3):
            assert_parameters(agent, separate_parts(data, f"update{k}/param"))


def test_golden_gradients_of_a_separate_critic():
    """The record holds what the policy's loss sends through the new critic too.

    The original program did not clear the critic's gradients before it logged them. That part moves
    nothing, and ours leaves it out.
    """
    data, agent, batch = separate()
    logits = agent.policy.head(agent.memory(batch.obs, batch.action, batch.reward))
    q1, q2 = agent.target_critic(batch.obs, batch.action, batch.reward)
    target = agent.target(batch, logits[1:].detach(), (q1[1:], q2[1:]))
    early = (batch.obs[:-1], batch.action[:-1], batch.reward[:-1])
    n = batch.mask.sum()
    q = taken(agent.critic(*early), batch.action)
    twin_loss(q, batch, target, n)[0].backward()
    agent.critic_optimizer.step()
    q = torch.minimum(*agent.critic(*early))
    agent.policy_loss(logits[:-1], q, batch.mask, n)[0].backward()
    grads = separate_parts(data, "update1/grad")["critic"]
    for name, parameter in agent.critic.named_parameters():
        np.testing.assert_allclose(parameter.grad, grads[name], atol=1e-6, err_msg=name)
    norm = mean_grad_norm(agent.critic.parameters()).item()
    assert norm == pytest.approx(data["update1/gradnorm/critic_grad_norm"], abs=1e-6)


@pytest.mark.parametrize("case", [*CASES, "separate"])
def test_golden_acting(case):
    data, agent, batch = separate() if case == "separate" else shared(case)
    for _ in range(3):
        agent.update(batch)
    assert len(data["infer/hidden"]) > 6 + 1  # beyond the window
    # With separate memories the record is of the policy's.
    memory = agent.memory.eval()
    state, action, reward = memory.initial_state(1), torch.tensor([-1]), torch.zeros(1)
    for t, hidden in enumerate(data["infer/hidden"]):
        obs = torch.from_numpy(data["infer/obs"][t : t + 1]).view(1, 3, 5, 5)
        h, state = memory.step(obs, action, reward, state)
        np.testing.assert_allclose(h[0].detach(), hidden, err_msg=f"step {t}", rtol=1e-5, atol=2e-6)
        action = torch.from_numpy(data["infer/action"][t : t + 1])
        reward = torch.from_numpy(data["infer/reward"][t : t + 1])
