"""Initialisations and parameter counts of the published program, and the small helpers."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from memrl import experiment
from memrl.encoders import MLPEncoder
from memrl.interfaces import TaskSpec
from memrl.networks import Head, adam, mean_grad_norm, polyak_, set_training
from memrl.run import config
from memrl.seq_models.gpt import GPT
from memrl.seq_models.rnn import Recurrent

SPEC = TaskSpec(gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(4), 6)
SHORT = ["budget=smoke", "device=cpu"]  # neither changes a network


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def built(*overrides):
    """The agent of a command line."""
    cfg = config.compose_config([*SHORT, *overrides])
    return experiment.build(experiment.resolve(cfg)).agent


def count(module):
    return sum(p.numel() for p in module.parameters())


def assert_uniform(values, bound):
    """Uniform in +-bound: within it, close to it, and with its mean and standard deviation."""
    n, values = values.numel(), values.detach().double()
    assert values.abs().max() <= bound * (1 + 1e-6)
    assert values.abs().max() > bound * (1 - 20 / n)
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * n)
    assert values.square().mean().sqrt() == pytest.approx(bound / math.sqrt(3), rel=5 / n**0.5)


def assert_normal(values, std):
    """Normal around 0 with this standard deviation, tails included."""
    n, values = values.numel(), values.detach().double()
    assert abs(values.mean()) < 5 * std / n**0.5
    assert values.std() == pytest.approx(std, rel=5 / n**0.5)
    outside = (values.abs() > 2 * std).double().mean()
    assert outside == pytest.approx(0.0455, abs=5 * (0.0455 / n) ** 0.5)


# --- heads ---------------------------------------------------------------------------------------


def test_head_is_linear_layers_with_relu_between_and_none_after():
    head = Head(5, (7, 3), 4, last_init=3e-3)
    x = torch.randn(6, 2, 5)
    y = x
    for linear in (head[0], head[2]):
        y = (y @ linear.weight.T + linear.bias).clamp(min=0)
    y = y @ head[4].weight.T + head[4].bias
    assert len(head) == 5
    assert (y < 0).any() and (y > 0).any()
    torch.testing.assert_close(head(x), y)


def test_head_hidden_weights_are_uniform_by_the_number_of_outputs():
    head = Head(700, (100, 400), 4, last_init=3e-3)  # inputs and outputs differ in number
    assert_uniform(head[0].weight, 0.1)
    assert_uniform(head[2].weight, 0.05)


def test_head_hidden_biases_are_a_tenth():
    head = Head(7, (20, 30), 4, last_init=3e-3)
    for linear in (head[0], head[2]):
        assert (linear.bias == 0.1).all()


@pytest.mark.parametrize("bound", [3e-3, 1e-3])
def test_head_last_layer_is_uniform_in_last_init_biases_too(bound):
    head = Head(7, (100,), 300, last_init=bound)
    assert_uniform(head[2].weight, bound)
    assert_uniform(head[2].bias, bound)


@pytest.mark.parametrize("widths", [(), (0,), (8, -1)])
def test_head_refusals_name_the_argument(widths):
    with pytest.raises(ValueError, match=r"^hidden_dims must be widths of at least 1, got \["):
        Head(7, widths, 4, last_init=3e-3)


# --- encoders and sequence models ----------------------------------------------------------------


def test_embeddings_keep_pytorchs_uniform_by_the_number_of_inputs():
    encoder = MLPEncoder(SPEC, 4, obs_dim=500, action_dim=400, reward_dim=300)
    for linear, inputs in ((encoder.obs, 2), (encoder.action, 4), (encoder.reward, 1)):
        assert linear.in_features == inputs
        assert_uniform(linear.weight, inputs**-0.5)
        assert_uniform(linear.bias, inputs**-0.5)


def assert_semi_orthogonal(matrix):
    matrix = matrix.detach().double()
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    torch.testing.assert_close(
        tall.T @ tall, torch.eye(tall.shape[1]).double(), atol=1e-5, rtol=0.0
    )


@pytest.mark.parametrize("n_layer", [1, 3])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_matrices_are_orthogonal_and_biases_zero(cell, n_layer):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    model = Recurrent(48, cell, 128, n_layer)
    parameters = dict(model.layers.named_parameters())
    assert len(parameters) == 4 * n_layer
    for name, parameter in parameters.items():
        if name.startswith("weight"):
            assert parameter.shape == (gates * 128, 48 if name == "weight_ih_l0" else 128)
            assert_semi_orthogonal(parameter)
        else:
            assert (parameter == 0).all(), name


def test_stacked_gates_are_one_orthogonal_matrix_not_four():
    weight = Recurrent(48, "lstm", 128, 1).layers.weight_hh_l0.detach()
    assert weight.shape == (512, 128)
    assert weight.std() == pytest.approx(512**-0.5, rel=0.01)  # 0.044; four would give 0.088
    one = weight[:128].T @ weight[:128]
    assert not torch.allclose(one, torch.eye(128), atol=0.1)


@pytest.mark.parametrize("n_layer", [1, 4])
def test_gpt_projections_are_normal_without_depth_scaling(n_layer):
    model = GPT(128, n_layer, n_layer, "sine", 10, 0.1, 0.1)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 4 * n_layer
    for linear in linears:
        assert_normal(linear.weight, 0.02)
        assert (linear.bias == 0).all()


def test_gpt_layer_norms_are_one_and_zero():
    model = GPT(128, 2, 2, "sine", 10, 0.1, 0.1)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 5
    for norm in norms:
        assert norm.eps == 1e-5
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_gpt_learned_positions_are_standard_normal_and_sine_ones_are_no_parameter():
    learned = GPT(128, 1, 1, "learned", 200, 0.1, 0.1)
    assert_normal(learned.position, 1.0)
    sine = GPT(128, 1, 1, "sine", 200, 0.1, 0.1)
    assert count(learned) - count(sine) == 203 * 128
    assert not any("position" in name for name in sine.state_dict())


# --- the DQN that conf/ builds -------------------------------------------------------------------

LSTM, GPT_NAME = "seq_model=lstm", "seq_model=gpt"
COUNTS = [  # model, layers -> total, embeddings, sequence model: as published
    (LSTM, 1, 191_156, 176, 91_136),
    (LSTM, 2, 323_252, 176, 223_232),
    (LSTM, 4, 587_444, 176, 487_424),
    ("seq_model=gru", 1, 168_372, 176, 68_352),
    ("seq_model=rnn", 1, 122_804, 176, 22_784),
    (GPT_NAME, 1, 298_884, 512, 198_528),
    (GPT_NAME, 2, 497_156, 512, 396_800),
    (GPT_NAME, 4, 893_700, 512, 793_344),
]


@pytest.mark.parametrize(("model", "n_layer", "total", "embeddings", "seq_model"), COUNTS)
def test_parameter_counts(model, n_layer, total, embeddings, seq_model):
    dqn = built("env=tmaze_passive", "env.length=5", model, f"seq_model.n_layer={n_layer}")
    assert count(dqn.online) == total
    assert count(dqn.online.memory.encoder) == embeddings
    assert count(dqn.online.memory.seq_model) == seq_model
    assert count(dqn.online.head) == 99_844
    assert count(dqn.target) == total


@pytest.mark.parametrize(("model", "total"), [(LSTM, 191_156), (GPT_NAME, 298_884)])
def test_parameter_counts_depend_on_neither_variant_nor_length(model, total):
    for overrides in (["env=tmaze_active"], ["env.length=30"]):
        assert count(built(model, *overrides).online) == total


def test_one_dial_sets_layers_and_heads_of_the_gpt():
    dqn = built(GPT_NAME, "seq_model.n_layer=4")
    seq_model = dqn.online.memory.seq_model
    assert (len(seq_model.blocks), seq_model.n_head) == (4, 4)
    assert seq_model.position.shape == (11 + 3, 128)  # window: the whole episode, T = 11


def test_defaults_are_the_papers():
    dqn = built()
    (group,) = dqn.optimizer.param_groups
    adam = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
    assert isinstance(dqn.optimizer, torch.optim.Adam)
    assert adam == {
        "lr": 3e-4,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0,
        "amsgrad": False,
    }
    assert {id(p) for p in group["params"]} == {id(p) for p in dqn.online.parameters()}
    assert (dqn.gamma, dqn.tau) == (0.99, 0.005)
    assert dqn.dropout_everywhere
    assert dqn.epsilon_end == 1 / 11
    assert dqn.epsilon_steps == pytest.approx(0.1 * 20 * 11)
    head = dqn.online.head
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [256, 256, 4]
    assert_uniform(head[2].weight, 0.0625)
    assert_uniform(head[4].weight, 3e-3)


@pytest.mark.parametrize("model", [LSTM, GPT_NAME, "seq_model=mlp"])
def test_target_starts_as_an_exact_copy_that_no_gradient_reaches(model):
    dqn = built(model)
    online, target = dqn.online.state_dict(), dqn.target.state_dict()
    assert online.keys() == target.keys()
    for name, value in online.items():
        assert torch.equal(value, target[name]), name
        assert value.data_ptr() != target[name].data_ptr(), name
    assert not any(p.requires_grad for p in dqn.target.parameters())
    assert all(p.requires_grad for p in dqn.online.parameters())


def test_a_seed_gives_one_network():
    a, b, other = built("seed=1"), built("seed=1"), built("seed=2")
    pairs = zip(a.online.parameters(), b.online.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert not torch.equal(a.online.head[0].weight, other.online.head[0].weight)


# --- the optimiser's groups ----------------------------------------------------------------------


class Named(Recurrent):
    """An LSTM that names two parameters as its recurrence's, a matrix and a bias."""

    def __init__(self, input_dim: int, cell: str, hidden_dim: int, n_layer: int) -> None:
        super().__init__(input_dim, cell, hidden_dim, n_layer)
        self.layers.recurrence_parameters = ("weight_hh_l0", "bias_hh_l0")


KEYS = {"memory_lr": 1e-5, "recurrence_lr": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize("algo", ["dqn", "sacd", "sacd_separate"])
def test_memory_recurrence_and_matrices_have_the_rates_and_the_decay_of_their_keys(algo):
    overrides = [f"algo={algo}", *(f"algo.{key}={value}" for key, value in KEYS.items())]
    agent = built(*overrides, "seq_model._target_=test_networks.Named")
    holders = agent.targets_and_optimizers.values()
    groups = {
        parameter: (group["lr"], group["weight_decay"])
        for optimizer in holders
        if isinstance(optimizer, torch.optim.AdamW)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    names = dict(agent.named_parameters())
    assert groups.keys() == {*names.values()}
    for name, parameter in names.items():
        recurrent = name.endswith("_hh_l0")
        rate = 1e-6 if recurrent else 1e-5 if ".memory." in name else 3e-4
        decay = 0 if recurrent or "bias" in name else 0.1
        assert groups[parameter] == (rate, decay), name


def test_a_rate_that_is_null_is_the_next_more_general_one():
    memory, head = Named(2, "lstm", 3, 1), nn.Linear(3, 2)

    def rates(**keys):
        weights = [*memory.parameters(), *head.parameters()]
        optimizer = adam(weights, 1.0, memory, **keys)
        assert type(optimizer) is torch.optim.Adam
        rate_of = {p: g["lr"] for g in optimizer.param_groups for p in g["params"]}
        return [
            rate_of[p]
            for p in (memory.layers.weight_hh_l0, memory.layers.bias_ih_l0, *head.parameters())
        ]

    assert rates() == [1, 1, 1, 1]
    assert rates(memory_lr=0.5) == [0.5, 0.5, 1, 1]
    assert rates(recurrence_lr=0.2) == [0.2, 1, 1, 1]
    assert rates(memory_lr=0.5, recurrence_lr=0.2) == [0.2, 0.5, 1, 1]
    same = adam(memory.parameters(), 1.0, memory, memory_lr=1.0)
    assert len(same.param_groups) == 1  # as in checkpoints of older versions
    memory.layers.recurrence_parameters = ("misspelt",)
    with pytest.raises(AttributeError, match="misspelt"):
        rates()


# --- helpers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.005, 0.5, 1.0])
def test_polyak_moves_every_target_parameter_by_tau(tau):
    online, target = Head(3, (5,), 2, 0.1), Head(3, (5,), 2, 0.1)
    before = [p.detach().clone() for p in online.parameters()]
    expected = [
        (1 - tau) * t.detach().double() + tau * o.detach().double()
        for t, o in zip(target.parameters(), online.parameters(), strict=True)
    ]
    polyak_(target, online, tau)
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value.float(), atol=1e-7, rtol=1e-6)
    for parameter, value in zip(online.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_mean_grad_norm_is_the_mean_over_tensors_of_their_l2_norms():
    a, b, unused = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (4,)))
    a.grad = torch.full((2, 2), 3.0)  # norm 6
    b.grad = torch.tensor([0.0, -4.0, 0.0])  # norm 4
    norm = mean_grad_norm([a, b, unused])
    assert norm.shape == ()
    assert norm.item() == pytest.approx(5.0)
    assert mean_grad_norm(iter([b])).item() == pytest.approx(4.0)


def test_set_training_reaches_every_module_and_is_idempotent():
    model = GPT(8, 1, 1, "sine", 5, 0.1, 0.1)
    for training in (False, False, True, True):
        set_training(model, training)
        assert {m.training for m in model.modules()} == {training}
