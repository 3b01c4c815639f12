"""TD3 against update steps recorded with the original program, and its published sizes."""

import gymnasium
import numpy as np
import pytest
import torch
from conftest import GOLDEN

from memrl.actions import ContinuousActions
from memrl.algos.td3 import TD3
from memrl.encoders import MLPEncoder
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.seq_models.rnn import Recurrent

OBS, A, T, B = 5, 2, 6, 3
SPEC = TaskSpec(
    gymnasium.spaces.Box(-1, 1, (OBS,), np.float32), gymnasium.spaces.Box(-1, 1, (A,)), T
)
CASES = {"freezeall": "freeze_all", "freezecritic": "freeze_critic"}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def agent(policy_gradient):
    encoder = MLPEncoder(SPEC, A, obs_dim=4, action_dim=4, reward_dim=0)
    return TD3(
        Memory(encoder, Recurrent(8, "lstm", 8, 1), ContinuousActions(A)),
        **{"gamma": 0.99, "tau": 0.005, "lr": 3e-4, "hidden_dims": (10, 12)},
        **{"exploration_noise": 0.1, "target_noise": 0.0, "noise_clip": 0.5},
        policy_gradient=policy_gradient,
        dropout_scope="everywhere",
    )


def recorded(data, prefix):
    """Parameters under ``prefix``, by our names: of the policy, its memory among them, and critic.

    There, observations stand before actions in the encoder's output, gates are separate, and both
    critics are stacked.
    """

    def get(name):
        return torch.from_numpy(data[f"{prefix}/{name}"])

    def lstm(kind, end):
        gates = [get(f"seq_model/cell/{kind}{gate}/{end}") for gate in "ifgo"]
        return torch.cat([gate.T if gate.ndim == 2 else gate for gate in gates])

    policy = {}
    for ours, theirs in (("obs", "obs_embedding_layer"), ("action", "act_embedding_layer")):
        policy[f"memory.encoder.{ours}.weight"] = get(f"{theirs}/Dense_0/kernel").T
        policy[f"memory.encoder.{ours}.bias"] = get(f"{theirs}/Dense_0/bias")
    cell = "memory.seq_model.layers."
    policy[f"{cell}weight_ih_l0"] = lstm("i", "kernel")[:, [4, 5, 6, 7, 0, 1, 2, 3]]
    policy[f"{cell}weight_hh_l0"] = lstm("h", "kernel")
    policy[f"{cell}bias_hh_l0"] = lstm("h", "bias")
    policy[f"{cell}bias_ih_l0"] = torch.zeros(32)
    layers = ("MLP_0/Dense_0", "MLP_0/Dense_1", "action_last_layer")
    for ours, theirs in zip(("head.0", "head.2", "head.4"), layers, strict=True):
        policy[f"{ours}.weight"] = get(f"actor/{theirs}/kernel").T
        policy[f"{ours}.bias"] = get(f"actor/{theirs}/bias")
    critic = {}
    twins = "critic/VmapMarkovCritic_0/MLP_0/Dense_"
    first = get(f"{twins}0/kernel").transpose(1, 2).flatten(0, 1)  # (2 W, 8 + A)
    critic["h.weight"], critic["action.weight"] = first[:, :8], first[:, 8:]
    critic["h.bias"] = get(f"{twins}0/bias").flatten()
    for i in (1, 2):
        critic[f"weights.{i - 1}"] = get(f"{twins}{i}/kernel")
        critic[f"biases.{i - 1}"] = get(f"{twins}{i}/bias").flatten()
    return policy, critic


def load(case):
    data = np.load(GOLDEN / f"td3_shared_lstm_{case}.npz")
    td3 = agent(CASES[case])
    for prefix, parts in (
        ("init/online", (td3.policy, td3.critic)),
        ("init/target", (td3.target_policy, td3.target_critic)),
    ):
        for module, values in zip(parts, recorded(data, prefix), strict=True):
            module.load_state_dict(values)
    get = {k.removeprefix("batch/"): data[k] for k in data.files if k.startswith("batch/")}
    get = {k: torch.from_numpy(v).transpose(0, 1) for k, v in get.items()}
    batch = Episodes(
        obs=torch.cat([get["observations"][:1], get["next_observations"]]),
        action=get["actions"],
        reward=get["rewards"].squeeze(-1),
        terminated=get["terminals"].bool(),
        mask=get["masks"].bool(),
    )
    return data, td3, batch


@pytest.mark.parametrize("case", CASES)
def test_golden_updates(case):
    data, td3, batch = load(case)
    logs = {"critic_loss": "critic_loss", "policy_loss": "actor_loss", "q1": "q1", "q2": "q2"}
    for k in (1, 2, 3):
        ranks = {name: int(x) for name, x in td3.diagnostics(batch).items()}
        assert ranks == {f"rank_{i}": int(data[f"update{k}/log/rank-{i}"]) for i in (1, 2, 3)}
        metrics = td3.update(batch)
        for ours, theirs in logs.items():
            assert metrics[ours].item() == pytest.approx(data[f"update{k}/log/{theirs}"], abs=1e-6)
        grads = [p.grad for _, p in td3.named_parameters() if p.grad is not None]
        largest = max(grad.abs().max().item() for grad in grads)
        assert largest == pytest.approx(data[f"update{k}/log/actorcritic_grad_norm"], abs=1e-6)
        if k == 2:
            continue
        for prefix, parts in (
            ("online", (td3.policy, td3.critic)),
            ("target", (td3.target_policy, td3.target_critic)),
        ):
            values = recorded(data, f"update{k}/param/{prefix}")
            for module, after in zip(parts, values, strict=True):
                for name, value in module.named_parameters():
                    np.testing.assert_allclose(
                        value.detach(), after[name], err_msg=f"{prefix}.{name}", **CLOSE
                    )


@pytest.mark.parametrize("case", CASES)
def test_golden_acting(case):
    data, td3, batch = load(case)
    for _ in range(3):
        td3.update(batch)
    state, reward = td3.initial_state(1), torch.zeros(1)
    for t, obs in enumerate(torch.from_numpy(data["infer/obs"])):
        action, state = td3.act(obs[None], reward, state, explore=False)
        np.testing.assert_allclose(action[0], data["infer/action"][t], **CLOSE)
        reward = torch.from_numpy(data["infer/reward"][t : t + 1])
