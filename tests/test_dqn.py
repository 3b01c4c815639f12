"""DQN against update steps recorded with the original program, and the laws of its pieces."""

import gymnasium
import numpy as np
import pytest
import torch
from conftest import GOLDEN

from memrl.actions import DiscreteActions
from memrl.algos.dqn import DQN
from memrl.encoders import MLPEncoder
from memrl.interfaces import Episodes, TaskSpec
from memrl.memory import Memory
from memrl.seq_models.gpt import GPT
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent

SPEC = TaskSpec(gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(4), 6)
WINDOW = 6


def seq_model(case, dropout=0.0, width=8):
    gpt = {"context_len": WINDOW, "dropout": dropout, "attention_dropout": dropout}
    return {
        "lstm1": lambda: Recurrent(width, "lstm", 8, 1),
        "rnn1": lambda: Recurrent(width, "rnn", 8, 1),
        "gpt_l2h2": lambda: GPT(width, 2, 2, "sine", **gpt),
        "gpt_l1h1_learnedpos": lambda: GPT(width, 1, 1, "learned", **gpt),
    }[case]()


def agent(model, hidden_dims=(12, 10), **changes):
    encoder = MLPEncoder(SPEC, 4, obs_dim=4, action_dim=4, reward_dim=0)
    memory = Memory(encoder, model, DiscreteActions(4))
    settings = {
        "horizon": 6,
        "train_steps": 600,
        "gamma": 0.99,
        "tau": 0.005,
        "lr": 3e-4,
        "hidden_dims": hidden_dims,
        "explore_fraction": 0.1,
        "dropout_scope": "everywhere",
        "shared_forward": False,
    }
    return DQN(memory, **(settings | changes))


NAMES = [  # the original program's name -> ours; transposed where it stores (in, out)
    ("observ_embedder.fc", "memory.encoder.obs"),
    ("action_embedder.fc", "memory.encoder.action"),
    ("seq_model.model", "memory.seq_model.layers"),
    ("seq_model.embed_timestep.pe.weight", "memory.seq_model.position"),
    ("seq_model.transformer.ln_f", "memory.seq_model.norm"),
    ("seq_model.transformer.h", "memory.seq_model.blocks"),
    (".ln_1", ".norm1"),
    (".ln_2", ".norm2"),
    (".attn.c_attn", ".qkv"),
    (".attn.c_proj", ".attention_out"),
    (".mlp.c_fc", ".mlp.0"),
    (".mlp.c_proj", ".mlp.2"),
    ("qf.fc0", "head.0"),
    ("qf.fc1", "head.2"),
    ("qf.last_fc", "head.4"),
]


def recorded(data, prefix):
    """Parameters under ``prefix``, by our names."""
    out = {}
    for key in data.files:
        if not key.startswith(prefix + "."):
            continue
        name, value = key[len(prefix) + 1 :], torch.from_numpy(data[key])
        if ".c_" in name and value.ndim == 2:
            value = value.T
        for old, new in NAMES:
            name = name.replace(old, new)
        out[name] = value
    return out


def load(case):
    data = np.load(GOLDEN / f"agent_dqn_{case}.npz")
    dqn = agent(seq_model(case))
    dqn.online.load_state_dict(recorded(data, "init/critic"))
    dqn.target.load_state_dict(recorded(data, "init/critic_target"))
    get = {k: torch.from_numpy(data[f"batch/{k}"]) for k in ("obs", "obs2", "act", "rew", "term")}
    batch = Episodes(
        obs=torch.cat([get["obs"][:1], get["obs2"]]),
        action=get["act"].squeeze(-1).long(),
        reward=get["rew"].squeeze(-1),
        terminated=get["term"].squeeze(-1).bool(),
        mask=torch.from_numpy(data["batch/mask"]).squeeze(-1).bool(),
    )
    return data, dqn, batch


CASES = ["lstm1", "rnn1", "gpt_l2h2", "gpt_l1h1_learnedpos"]
FORWARD = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_golden_updates(case, shared):
    data, dqn, batch = load(case)
    dqn.shared_forward = shared
    inputs = (batch.obs, batch.action, batch.reward)
    hidden = dqn.online.memory(*inputs).detach().numpy()
    np.testing.assert_allclose(hidden, data["fwd/hidden"], **FORWARD)
    np.testing.assert_allclose(dqn.online(*inputs).detach(), data["fwd/q_all"], **FORWARD)
    prediction, target = dqn.predict(batch)
    np.testing.assert_allclose(prediction.detach(), data["fwd/q_pred"].squeeze(-1), **FORWARD)
    np.testing.assert_allclose(target, data["fwd/q_target"].squeeze(-1), **FORWARD)

    adam = 2e-4 if case.startswith("gpt") else 1e-6  # Adam scales up a gradient that should be 0
    for k in (1, 2, 3):
        metrics = dqn.update(batch)
        assert metrics["loss"].item() == pytest.approx(data[f"update{k}/log/critic_loss"], abs=1e-6)
        assert metrics["q"].item() == pytest.approx(data[f"update{k}/log/q"], abs=1e-6)
        if k == 1:
            for ours, theirs in (("grad_norm", ""), ("seq_grad_norm", "seq_")):
                norm = data[f"update1/gradnorm/critic_{theirs}grad_norm"]
                assert metrics[ours].item() == pytest.approx(norm, abs=1e-6)
            grads = recorded(data, "update1/grad/critic")
            params = dict(dqn.online.named_parameters())
            assert grads.keys() == params.keys()
            for name, grad in grads.items():
                np.testing.assert_allclose(params[name].grad, grad, atol=1e-6, err_msg=name)
        if k in (1, 3):
            for module, prefix in ((dqn.online, "critic"), (dqn.target, "critic_target")):
                after = recorded(data, f"update{k}/param/{prefix}")
                for name, value in module.named_parameters():
                    np.testing.assert_allclose(
                        value.detach(), after[name], atol=adam, err_msg=f"{prefix}.{name}"
                    )


@pytest.mark.parametrize("case", CASES)
def test_golden_acting_beyond_the_window(case):
    data, dqn, batch = load(case)
    for _ in range(3):
        dqn.update(batch)
    dqn.online.load_state_dict(recorded(data, "update3/param/critic"))
    memory = dqn.online.memory.eval()
    state, action, reward = memory.initial_state(1), torch.tensor([-1]), torch.zeros(1)
    for t, hidden in enumerate(data["infer/hidden"]):
        obs = torch.from_numpy(data["infer/obs"][t : t + 1])
        h, state = memory.step(obs, action, reward, state)
        np.testing.assert_allclose(h[0].detach(), hidden, err_msg=f"step {t}", **FORWARD)
        action = torch.from_numpy(data["infer/action"][t : t + 1])
        reward = torch.from_numpy(data["infer/reward"][t : t + 1])


def test_golden_epsilon_schedule():
    data = np.load(GOLDEN / "epsilon_schedule.npz")
    for case in ("case0", "case1", "case2"):
        T, episodes = int(data[f"{case}/T"]), int(data[f"{case}/episodes"])
        dqn = agent(MLP(8, 8, 1), horizon=T, train_steps=T * episodes)
        for count, epsilon in zip(data[f"{case}/count"], data[f"{case}/eps"], strict=True):
            dqn.explored_steps = int(count)
            # The original computes in float32.
            assert dqn.epsilon == pytest.approx(epsilon, abs=2e-7)
