"""What every agent's update is, however computed: in micro-batches, in bfloat16, on a device."""

import copy
import math
import shutil

import pytest
import torch
from test_actor_critic import KINDS
from test_actor_critic import agent_of as actor_critic_of
from test_actor_critic import batch_of as continuous
from test_dqn_laws import NO_DROPOUT, episodes
from test_dqn_laws import agent as dqn_of
from test_sacd_laws import agent_of as sacd_of
from test_sacd_laws import batch_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memrl.algos import agent as shared
from memrl.algos import graphs
from memrl.interfaces import Episodes
from memrl.memory import Memory
from memrl.networks import Dropout, Head
from memrl.run import machine

AGENTS = {f"dqn {name}": (lambda name=name: dqn_of(name), episodes) for name in NO_DROPOUT}
AGENTS |= {
    f"sacd {kind}": (lambda kind=kind: sacd_of(kind), batch_of)
    for kind in ("shared", "unfrozen", "learned", "separate", "separate-learned")
}
AGENTS |= {kind: (lambda kind=kind: actor_critic_of(kind), continuous) for kind in KINDS}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def no_noise(monkeypatch):
    """SAC's actions of an update are its means; else they differ with the shapes of batches."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def tensors_of(agent):
    """All that an update changes in place: weights, targets, moments, temperature; by name."""
    found, todo = {}, [("", agent.state_dict())]
    for path, value in todo:
        if isinstance(value, dict):
            todo += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, torch.Tensor):
            found[path] = value
    return found


# --- in micro-batches ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_in_micro_batches_is_the_update_of_the_whole(name, monkeypatch, no_noise):
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    whole = make()
    split = copy.deepcopy(whole)
    expected = whole.update(batch)
    monkeypatch.setattr(shared, "CPU_INPUTS", 1)
    monkeypatch.setattr(shared, "CPU_WINDOWS", 2)
    assert len(shared.micro_batches(batch)) == 2
    metrics = split.update(batch)
    assert metrics.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(metrics[key], value, msg=key)
    weights = dict(split.named_parameters())
    for key, weight in whole.named_parameters():
        torch.testing.assert_close(weights[key].grad, weight.grad, atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.parametrize(("B", "sizes"), [(16, [16]), (17, [16, 1]), (40, [16, 16, 8])])
def test_micro_batches_hold_every_window_once_and_in_order(B, sizes):
    batch = batch_of(T=3, B=B)
    split = shared.micro_batches(batch._replace(mask=batch.mask.repeat(10**4, 1)))  # long windows
    assert [rows.reward.shape[1] for rows in split] == sizes
    for whole, columns in zip(batch[:4], list(zip(*split, strict=True))[:4], strict=True):
        assert torch.equal(whole, torch.cat(columns, dim=1))


def test_a_batch_of_short_windows_stays_whole():
    batch = batch_of(T=3, B=40)
    assert shared.micro_batches(batch)[0] is batch


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_on_windows_cut_to_the_longest_is_that_on_whole_ones(name, no_noise):
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    batch.mask[3:] = False
    whole = make()
    short = copy.deepcopy(whole)
    expected = whole.update(batch)
    metrics = short.update(Episodes(batch.obs[:4], *(column[:3] for column in batch[1:])))
    for key, value in expected.items():
        torch.testing.assert_close(metrics[key], value, msg=key)
    weights = dict(short.named_parameters())
    for key, weight in whole.named_parameters():
        torch.testing.assert_close(weights[key].grad, weight.grad, atol=1e-6, rtol=1e-4, msg=key)


# --- in bfloat16 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_bf16_learns_float32_weights_from_nearly_the_same_gradients(name, no_noise):
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    exact = make()
    rough = copy.deepcopy(exact)
    for value in vars(rough).values():
        if isinstance(value, torch.nn.Module):
            for module in value.modules():
                if isinstance(module, Memory):
                    module.precision = torch.bfloat16
    expected, metrics = exact.update(batch), rough.update(batch)
    assert metrics["loss"].dtype == torch.float32
    assert metrics["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.05, abs=0.02)
    other = dict(rough.named_parameters())
    a, b = (
        torch.cat([p.grad.flatten() for _, p in sorted(x) if p.grad is not None])
        for x in (exact.named_parameters(), other.items())
    )
    assert not torch.equal(a, b)  # or nothing was computed in bfloat16
    assert {p.dtype for p in other.values()} == {torch.float32}
    assert torch.cosine_similarity(a, b, dim=0) > 0.98


def test_acting_is_in_float32_whatever_updates_are():
    memory = dqn_of("gpt").memory
    memory.precision = torch.bfloat16
    obs, action, reward = torch.randn(1, 3, 2), torch.full((3,), -1), torch.zeros(3)
    with torch.no_grad():
        h, _ = memory.step(obs[0], action, reward, memory.initial_state(3))
        window = memory(obs, action[None, :][:0], reward[None, :][:0])[0]
    assert (h.dtype, window.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(window.float(), h, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_in_bf16_a_sequence_model_is_given_and_gives_bfloat16(name):
    memory = dqn_of(name).memory
    memory.precision, seen = torch.bfloat16, []
    memory.seq_model.register_forward_hook(
        lambda _, given, out: seen.extend([given[0].dtype, out[0].dtype])
    )
    memory(torch.randn(4, 3, 2), torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 3))
    assert seen == [torch.bfloat16, torch.bfloat16]  # residual sums and norms included


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_heads_values_are_float32_and_its_last_layer_computes_in_it(dtype):
    head = Head(4, [6], 3, last_init=1.0)
    h = torch.randn(2, 5, 4).to(dtype)
    hidden = head[1](torch.nn.functional.linear(h, *(w.to(dtype) for w in head[0].parameters())))
    torch.testing.assert_close(head(h), head[2](hidden.float()), atol=1e-6, rtol=0)
    assert head(h).dtype == torch.float32


def test_a_field_of_the_processor_is_read_whole(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: Flags: A 2 @ 3GHz\nflags\t\t: fpu amx_bf16\nflags\t\t: fpu\n")
    assert machine.cpuinfo("model name", str(path)) == "Flags: A 2 @ 3GHz"
    assert machine.cpuinfo("flags", str(path)) == "fpu amx_bf16"
    assert machine.cpuinfo("Model", str(path)) == ""
    assert machine.cpuinfo("flags", str(tmp_path / "none")) == ""


def test_a_processor_has_bfloat16_if_its_flags_say_so(monkeypatch):
    known = {"fpu avx512f": False, "fpu amx_bf16 amx_tile": True, "avx512_bf16": True, "": False}
    for flags, has in known.items():
        fields = {"model name": "amx_bf16", "flags": flags}
        monkeypatch.setattr(machine, "cpuinfo", fields.get)
        assert machine.has_bf16() == has


def test_auto_is_bfloat16_only_where_that_is_fast():
    formats = {
        p: machine.window_format(p, torch.device("cpu")) for p in ("auto", "bf16", "float32")
    }
    auto = torch.bfloat16 if machine.has_bf16() else torch.float32
    assert formats == {"auto": auto, "bf16": torch.bfloat16, "float32": torch.float32}


def test_float32_is_no_tf32_in_recurrent_layers_either():
    for precision in ("bf16", "float32"):
        machine.prepare(1, precision, "cpu", "eager")
        assert not torch.backends.cudnn.allow_tf32


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999, 0.999999])
def test_dropout_drops_a_share_of_p_and_keeps_the_mean(p, dtype):
    n = 200_001  # not a multiple of four
    y = Dropout(p)(torch.ones(n, dtype=dtype))
    dropped = (y == 0).sum().item()
    assert abs(dropped - p * n) < 5 * math.sqrt(p * (1 - p) * n) + 1
    assert y.dtype == dtype
    scale = 2**16 / (2**16 - min(round(p * 2**16), 2**16 - 1))
    assert y.max().item() == torch.tensor(scale).to(dtype).item()


def test_dropout_of_neighbours_is_independent():
    y = Dropout(0.5)(torch.ones(4, 50_000)) > 0
    for a in range(4):
        for shift in (1, 2, 4):
            same = (y[a, :-shift] == y[a, shift:]).float().mean()
            assert abs(same - 0.5) < 0.015


def test_dropout_follows_torchs_seed_and_its_gradient_follows_its_mask():
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    y = Dropout(0.4)(x)
    torch.manual_seed(3)
    assert torch.equal(y, Dropout(0.4)(x))
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert Dropout(0.4).eval()(x) is x


# --- on a device ---------------------------------------------------------------------------------


def test_no_sync_would_see_one(no_sync):
    x = torch.ones(2)
    for sync in (
        lambda: x.sum().item(),
        lambda: bool(x[0] > 0),
        lambda: x.tolist(),
        lambda: x.numpy(),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: torch.ops.aten._local_scalar_dense(x[0]),
    ):
        with pytest.raises(AssertionError, match="waits for the device"):
            sync()


@pytest.mark.parametrize("name", [name for name in AGENTS if not name.startswith("dqn")])
def test_no_update_of_the_others_waits_for_the_device(name, request):
    """Nor any of DQN: tests/test_dqn_laws.py."""
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    agent = make()
    request.getfixturevalue("no_sync")
    agent.update(batch)


class Tape(TorchDispatchMode):
    """Notes every operation and the shapes of its tensors."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [tuple(x.shape) for x in tree_leaves((args, kwargs)) if hasattr(x, "shape")]
        self.notes.append((str(func), shapes))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*AGENTS, "dqn gpt with dropout"])
def test_every_update_is_the_same_operations_on_the_same_shapes(name):
    """Whatever the data: what a CUDA graph was captured with is what it does from then on."""
    make, data = AGENTS.get(name, (lambda: dqn_of("gpt with dropout"), episodes))
    agent, notes = make(), []
    for scale in (1, 1, 1000):
        batch = data()
        batch = batch._replace(reward=batch.reward * scale, mask=batch.mask.flip(0))
        with Tape() as tape:
            agent.update(batch)
        notes.append(tape.notes)
    assert len(notes[1]) > 50
    assert notes[1] == notes[2]


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_changes_its_tensors_where_they_are(name):
    """A CUDA graph reads and writes the addresses that it was captured with."""
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    agent = make()
    agent.update(batch)
    before = {key: (x.data_ptr(), x.clone()) for key, x in tensors_of(agent).items()}
    alpha = getattr(agent, "alpha", torch.zeros(()))
    agent.update(batch)
    after = tensors_of(agent)
    moved = [key for key in before if after[key].data_ptr() != before[key][0]]
    assert not [key for key in moved if key != ".log_alpha"]  # of which the state holds a copy
    assert any(not torch.equal(after[key], before[key][1]) for key in before)
    assert getattr(agent, "alpha", alpha) is alpha


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(
    "name", ["dqn lstm", "dqn gpt", "sacd shared", "sacd separate", "td3 all", "td3 separate"]
)
def test_compiled_updates_are_the_eager_ones(name):
    make, batch = AGENTS[name][0], AGENTS[name][1]()
    eager = make()
    compiled = copy.deepcopy(eager)
    graphs.compile_(compiled)
    for _ in range(3):
        expected, metrics = eager.update(batch), compiled.update(batch)
        for key, value in expected.items():
            torch.testing.assert_close(metrics[key], value, rtol=1e-4, atol=1e-5, msg=key)
