"""On a CUDA device: what agents and models compute there is what they compute on the CPU.

``MEMRL_TEST_DEVICE=cpu`` tries the tests themselves where there is no such device.
"""

import copy
import os

import numpy as np
import pytest
import torch
from test_seq_models import MODELS, WIDTH, in_pieces

import memrl
from memrl.algos.graphs import update_function
from memrl.experiment import build_agent, resolve
from memrl.interfaces import Episodes
from memrl.run.config import compose_config

DEVICE = os.environ.get("MEMRL_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"
)
GPT = "seq_model=gpt dropout=0 attention_dropout=0"
CONFIGS = {
    f"dqn {model}": (f"env.length=5 budget.train_episodes=10 seq_model={model}",)
    for model in sorted(name for name in MODELS if " " not in name and name != "gpt")
}
CONFIGS |= {
    "dqn gpt": ("env.length=5 budget.train_episodes=10", GPT),
    "dqn some steps": ("env.length=20 budget.train_episodes=10 algo.loss_steps=4", GPT),
    "sacd": ("env=visual_match env.length=2 budget.train_episodes=10",),
    "sacd_separate": (
        "env=key_to_door env.length=2 budget.train_episodes=10 algo=sacd_separate",
        GPT,
    ),
    "td3": ("env=pendulum_p budget=fast seq_model=gpt",),
    "sac": ("env=pendulum_v budget=fast algo=sac",),
}


def build(name, device, *more):
    """An agent, what it knows of its task, and the form of its updates."""
    overrides = [*" ".join(CONFIGS[name]).split(), f"device={device}", "precision=float32", *more]
    config = resolve(compose_config(overrides))
    agent, spec, _ = build_agent(config)
    return agent, spec, config["update"]


def windows(spec, device, steps=6, batch=3):
    """Random windows, the last of them half as long."""
    spec.observation_space.seed(0)
    spec.action_space.seed(0)

    def draw(space, n):
        return torch.stack([torch.as_tensor(space.sample()) for _ in range(n * batch)]).unflatten(
            0, (n, batch)
        )

    mask = torch.ones(steps, batch, dtype=torch.bool)
    mask[steps // 2 :, -1] = False
    found = Episodes(
        obs=draw(spec.observation_space, steps + 1),
        action=draw(spec.action_space, steps),
        reward=torch.linspace(-1, 1, steps * batch).view(steps, batch),
        terminated=(torch.arange(steps) == steps - 1)[:, None].repeat(1, batch),
        mask=mask,
    )
    return Episodes(*(column.to(device) for column in found))


@pytest.mark.parametrize("name", CONFIGS)
def test_an_update_is_the_one_on_the_cpu(name, monkeypatch):
    agents = [build(name, device) for device in ("cpu", DEVICE)]
    spec = agents[0][1]
    agents[1][0].load_state_dict(copy.deepcopy(agents[0][0].state_dict()))
    # Devices draw other numbers: noise is zero, and an update's random steps are the last ones.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "rand", lambda n, device: torch.linspace(0, 1, n, device=device))
    for _ in range(2):
        metrics = [
            agent.update(windows(spec, device))
            for (agent, *_), device in zip(agents, ("cpu", DEVICE), strict=True)
        ]
        for key, value in metrics[0].items():
            found = metrics[1][key].cpu()
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4, msg=f"{name}: {key}")


@pytest.mark.parametrize("kind", ["compiled", "graphed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_other_forms_of_an_update_are_the_eager_one(name, kind):
    if DEVICE == "cpu":
        pytest.skip("no graphs; compiled ones: tests/test_update.py")
    if kind == "compiled" and name.split()[-1] not in ("lstm", "gpt", "sacd", "td3"):
        pytest.skip("compiling takes long")
    losses = []
    for form in ("eager", kind):
        agent, spec, update = build(name, DEVICE, f"update={form}")
        torch.manual_seed(0)
        call, batch = update_function(agent, update), windows(spec, DEVICE)
        losses.append([call(batch)["loss"].item() for _ in range(6)])
    rel = 1e-3 if name.split()[0] == "dqn" and name != "dqn some steps" else 0.3  # other noise
    assert losses[1] == pytest.approx(losses[0], rel=rel, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_steps_are_the_window(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(DEVICE)
    x = torch.randn(9, 3, WIDTH, device=DEVICE)
    whole, _ = model(x)
    for size in (1, 4):
        torch.testing.assert_close(in_pieces(model, x, size), whole, atol=1e-4, rtol=1e-4)
    on_cpu = model.cpu()(x.cpu())[0]
    torch.testing.assert_close(whole.cpu(), on_cpu, atol=1e-4, rtol=1e-4)


def test_a_run_is_the_same_again(tmp_path):
    """Same seed, same device, same result."""
    given = ["env.length=5", "budget=smoke", f"device={DEVICE}", "seq_model=gpt"]
    runs = [memrl.train([*given, f"outputs={tmp_path / name}"]) for name in "ab"]
    one, other = (run.train for run in runs)
    for key in one:
        if not key.startswith("time/"):
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
