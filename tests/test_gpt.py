"""GPT's options: what is remembered beyond the training window, and what each of them computes.

The law of sequence models is tested with all models, in test_seq_models.
"""

import math

import pytest
import torch
from test_seq_models import CONTEXT, DROPOUT, MODELS, WIDTH, in_pieces

from memrl.networks import products_in
from memrl.seq_models.attention import SHORT, Attention, Cache
from memrl.seq_models.gates import Gate, Gelu
from memrl.seq_models.gpt import GPT
from memrl.seq_models.positions import rotate, sine_table

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}
GPTS = [name for name in MODELS if name.startswith("gpt")]
CODES = ["gpt", "gpt 2x3", "gpt learned"]  # with positions that end with the training window
ENDLESS = [name for name in GPTS if name not in CODES]


def attentive(name):
    """Return a model whose weights are so large that it attends to few inputs."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("name", CODES)
@torch.no_grad()
def test_a_window_of_position_codes_is_recomputed_when_it_slides(name):
    model = MODELS[name]().eval()
    x = torch.randn(3 * CONTEXT, 2, WIDTH)
    stepped = in_pieces(model, x, [1] * len(x))
    for t in range(len(x)):
        window = x[max(0, t - CONTEXT) : t + 1]
        torch.testing.assert_close(stepped[t], model(window)[0][-1], atol=1e-5, rtol=1e-5)
    for pieces in ([CONTEXT - 1, 4, 15], [len(x)]):
        torch.testing.assert_close(in_pieces(model, x, pieces), stepped, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="11 inputs exceed the window of 10"):
        model(x[: CONTEXT + 2])


@pytest.mark.parametrize("name", ENDLESS)
@torch.no_grad()
def test_without_position_codes_the_law_holds_beyond_the_training_window(name):
    model = attentive(name)
    x = torch.randn(3 * CONTEXT, 2, WIDTH)
    whole, _ = model(x)
    for pieces in ([1] * len(x), [CONTEXT - 1, 4, 15], [len(x)]):
        torch.testing.assert_close(in_pieces(model, x, pieces), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GPTS)
@torch.no_grad()
def test_keys_and_values_are_cached_in_place(name):
    """A buffer with a limit stays where it is, however many steps; one that grows moves seldom."""
    model = MODELS[name]().eval()
    room = min(CONTEXT + 1, model.limit or CONTEXT + 1)
    state = model.initial_state(2)
    rooms = [state.keys.data_ptr()]
    for _ in range(4 * (CONTEXT + 1)):
        state = model(torch.randn(1, 2, WIDTH), state)[1]
        if state.keys.data_ptr() != rooms[-1]:
            rooms.append(state.keys.data_ptr())
    moves = 2 if model.limit is None else 0
    assert len(rooms) == moves + 1
    assert state.keys.shape[3] == state.values.shape[3] == room * 2**moves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", GPTS)
def test_outputs_at_some_steps_are_those_of_all(name, dtype):
    model = attentive(name)
    x = torch.randn(CONTEXT + 1, 3, WIDTH).to(dtype)
    at = torch.tensor([0, 2, 2, CONTEXT])
    with products_in(dtype, x.device):
        some, whole = model.outputs_at(x, at), model(x)[0][at]
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.1}
    torch.testing.assert_close(some, whole, **close)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_picture_shows_on_which_inputs_the_model_depends(name):
    """All layers have the same mask, which the gradient of one of them shows."""
    model, x = attentive(name), torch.randn(2 * CONTEXT, 2, WIDTH, requires_grad=True)
    weights = model.attention(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, len(x)))
    assert weights.shape == (2, len(x), len(x)) and (weights.triu(1) == 0).all()
    y = model.blocks[0](x)
    for t in range(len(x)):
        (gradient,) = torch.autograd.grad(y[t].sum(), x, retain_graph=True)
        assert torch.equal((gradient != 0).any(-1).T, weights[:, t] > 0)


@torch.no_grad()
def test_an_input_attends_to_its_window_and_the_sinks_by_scores_that_grow_with_their_number():
    """In short windows, in long ones, step by step, and in pictures."""
    torch.manual_seed(0)
    T, window, sinks = SHORT + 5, 7, 2
    attention = Attention(0.0, window=window, sinks=sinks, log_length=5).eval()
    q, k, v = 2 * torch.randn(3, 1, 2, T, 4)  # (B, H, T, K) each
    cache = Cache(*torch.empty(2, 1, 1, 2, window + sinks, 4), None, 0)
    short = attention(*(part[:, :, :SHORT] for part in (q, k, v)))
    weights = attention.weights(q, k)
    outputs = []
    for t in range(T):
        visible = [j for j in range(t + 1) if j < sinks or t - j < window]
        scores = q[:, :, t : t + 1] @ k[:, :, visible].mT / 2 * math.log(len(visible)) / math.log(5)
        expected = torch.zeros(1, 2, 1, T)
        expected[..., visible] = scores.softmax(-1)
        torch.testing.assert_close(weights[:, :, t : t + 1], expected)
        outputs.append(expected @ v)
        step = [part[:, :, t : t + 1] for part in (q, k, v)]
        stepped = attention.extend(step, cache._replace(length=t), 0)
        torch.testing.assert_close(stepped, outputs[-1])
    torch.testing.assert_close(attention(q, k, v), torch.cat(outputs, 2))
    torch.testing.assert_close(short, torch.cat(outputs[:SHORT], 2))


@torch.no_grad()
def test_a_gate_is_that_of_the_paper():
    torch.manual_seed(0)
    gate = Gate(3)
    x, y = torch.randn(2, 4, 2, 3)
    w_r, w_z, w_g = gate.output_weight.split(3)
    u_r, u_z = gate.input_weight.split(3)
    relu = y.clamp(min=0)
    r = 1 / (1 + torch.exp(-(relu @ w_r.T + x @ u_r.T)))
    z = 1 / (1 + torch.exp(-(relu @ w_z.T + x @ u_z.T - 2)))
    h = torch.tanh(relu @ w_g.T + (r * x) @ gate.reset_weight.T)
    torch.testing.assert_close(gate(x, y), (1 - z) * x + z * h)


@pytest.mark.parametrize("name", GPTS)
def test_dropout_is_random_in_training_only(name):
    model, x = MODELS[name](), torch.randn(5, 2, WIDTH)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


def test_each_dropout_acts_by_itself():
    x = torch.randn(5, 2, WIDTH)
    for changes in ({"dropout": 0.3}, {"attention_dropout": 0.3}):
        model = GPT(WIDTH, 1, 1, "sine", CONTEXT, **(NO_DROPOUT | changes))
        assert not torch.equal(model(x)[0], model(x)[0]), changes


def test_gelu_is_the_tanh_form_and_in_bfloat16_no_further_from_it_than_its_rounded_argument():
    x = torch.linspace(-6, 6, 100_001)
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(Gelu()(x), tanh, atol=0, rtol=0)
    rough = x.bfloat16()
    error = Gelu()(rough).float() - tanh
    rounding = torch.nn.functional.gelu(rough.float(), approximate="tanh") - tanh
    assert error.abs().max() < 1.1 * rounding.bfloat16().abs().max()


def test_position_table_has_context_plus_three_rows():
    for name in CODES:
        assert MODELS[name]().position.shape == (CONTEXT + 3, WIDTH)
    table = sine_table(4, 5)
    assert table[3, 0] == pytest.approx(torch.tensor(3.0).sin().item())
    assert table[3, 1] == pytest.approx(torch.tensor(3.0).cos().item())
    assert table[3, 2] == pytest.approx(torch.tensor(3 * 10000 ** (-2 / 5)).sin().item())


def test_rotations_leave_only_distances_however_late():
    q, k = torch.randn(2, 3, 5, 8)
    steps = torch.arange(5)
    near = rotate(q, steps + 7) @ rotate(k, steps).mT
    for begin in (100, 50_000):
        later = rotate(q, steps + begin + 7) @ rotate(k, steps + begin).mT
        torch.testing.assert_close(later, near)
    turned = rotate(torch.eye(4)[:1], torch.tensor([2]))[0]  # columns 0 and 2, by the position
    assert turned.tolist() == pytest.approx([math.cos(2), 0, math.sin(2), 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ({"n_head": 3}, "n_head must divide the width 8, got 3"),
        ({"n_head": 0}, "n_head must divide the width 8, got 0"),
        ({"n_head": 8, "position": "rope"}, "n_head must give heads of even width with .*; got 8"),
        ({"context_len": 0}, "context_len must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        ({"attention_dropout": -0.1}, r"attention_dropout must be in \[0, 1\)"),
        ({"window": 3}, "window must be null with position=sine, which ends with .*, got 3"),
        ({"scale": "log"}, "scale must be sqrt with position=sine, which ends with .*, got log"),
        ({"position": "none", "window": 0}, "window must be null or at least 1, got 0"),
        ({"position": "none", "sinks": -1}, "sinks must be at least 0, got -1"),
        ({"position": "none", "sinks": 2}, "sinks must be 0 without a window, got 2"),
        ({"gate": "lstm"}, "gate must be one of none, gru, got lstm"),
        ({"scale": "linear"}, "scale must be one of sqrt, log, got linear"),
        ({"position": "alibi"}, "position must be one of sine, learned, rope, none, got alibi"),
    ],
)
def test_refusals_name_the_argument(changes, message):
    settings = {"n_layer": 1, "n_head": 1, "position": "sine", "context_len": 5, **DROPOUT}
    with pytest.raises(ValueError, match="^" + message):
        GPT(8, **settings | changes)
