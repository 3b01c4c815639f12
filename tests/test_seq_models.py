"""One law for every sequence model: a history fed whole or in pieces gives the same outputs.

Every option of ``conf/seq_model`` is held to it, and a few more settings.
"""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from memrl.experiment import make
from memrl.run.config import CONF
from memrl.seq_models import scan as scans
from memrl.seq_models.deltanet import GatedDeltaNet
from memrl.seq_models.gpt import GPT
from memrl.seq_models.lru import LRU
from memrl.seq_models.mamba2 import Mamba2
from memrl.seq_models.min_gru import MinGRU
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent
from memrl.seq_models.scan import CHUNK, linear_attention, scan

WIDTH, CONTEXT = 12, 9
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.3}
GATED = {"gate": "gru", "scale": "log"}
GIVEN = {"input_dim": WIDTH, "context_len": CONTEXT, **DROPOUT}


def from_config(option):
    return make("seq_model", OmegaConf.load(CONF / "seq_model" / f"{option}.yaml"), **GIVEN)


MODELS = {
    path.stem: partial(from_config, path.stem) for path in (CONF / "seq_model").glob("*.yaml")
} | {
    "gru 2 layers": lambda: Recurrent(WIDTH, "gru", 7, 2),
    "lstm 2 layers": lambda: Recurrent(WIDTH, "lstm", 7, 2),
    "gpt 2x3": lambda: GPT(WIDTH, 2, 3, "sine", CONTEXT, **DROPOUT),
    "gpt learned": lambda: GPT(WIDTH, 2, 2, "learned", CONTEXT, **DROPOUT),
    "gpt rope": lambda: GPT(WIDTH, 2, 3, "rope", CONTEXT, **DROPOUT),
    "gpt none": lambda: GPT(WIDTH, 2, 2, "none", CONTEXT, **DROPOUT, scale="log"),
    "gpt window": lambda: GPT(WIDTH, 2, 2, "rope", CONTEXT, **DROPOUT, window=4, sinks=2),
    "gpt all": lambda: GPT(WIDTH, 2, 2, "none", CONTEXT, **DROPOUT, window=3, sinks=1, **GATED),
    "mlp 2 layers": lambda: MLP(WIDTH, 7, 2),
    "lru 2 layers": lambda: LRU(WIDTH, 6, 2, 1, 0.9, 0.999, 0.1),
    "min_gru 2 layers": lambda: MinGRU(WIDTH, 7, 2),
    "mamba2 2 layers": lambda: Mamba2(WIDTH, 6, 2, 2, 3, 5),
    "deltanet 2 layers": lambda: GatedDeltaNet(WIDTH, 8, 2, 2),
    "deltanet no decay": lambda: GatedDeltaNet(WIDTH, 8, 1, 2, decay=False),
}
LINEAR = [name for name in MODELS if name.split()[0] in ("lru", "min_gru", "mamba2", "deltanet")]
GPTS = [name for name in MODELS if name.startswith("gpt")]


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    if request.param in GPTS:  # at its initial weights it hardly attends
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def in_pieces(model, x, pieces):
    state = model.initial_state(x.shape[1])
    outputs = []
    for part in x.split(pieces):
        y, state = model(part, state)
        outputs.append(y)
    return torch.cat(outputs)


@torch.no_grad()
def test_whole_equals_pieces_equals_steps(model):
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 3))
    def check(pieces, batch):
        while sum(pieces) > CONTEXT + 1:
            pieces.pop()
        x = torch.randn(sum(pieces), batch, WIDTH)
        whole, state = model(x)
        assert state is None
        assert whole.shape == (len(x), batch, model.output_dim)
        for split in (pieces, [1] * len(x), [len(x)]):
            torch.testing.assert_close(in_pieces(model, x, split), whole, atol=1e-5, rtol=1e-5)

    check()


class Broken(torch.nn.Module):
    """An LSTM that breaks the law; it trains without an error, at least with ``num_envs=1``."""

    output_dim = 12

    def __init__(self, ignores_state=False, **options):
        super().__init__()
        bidirectional = options.get("bidirectional", False)
        self.rnn = torch.nn.LSTM(WIDTH, 6 if bidirectional else 12, **options)
        self.ignores_state = ignores_state

    def initial_state(self, batch_size):
        layers, width = (2, 6) if self.rnn.bidirectional else (1, 12)
        return (torch.zeros(layers, batch_size, width),) * 2

    def forward(self, x, state=None):
        y, after = self.rnn(x, None if self.ignores_state else state)
        return y, None if state is None else after


@pytest.mark.parametrize("fault", ["bidirectional", "ignores_state", "batch_first"])
def test_the_law_finds_a_model_that_breaks_it(fault):
    torch.manual_seed(0)
    with pytest.raises((AssertionError, RuntimeError, ExceptionGroup)):
        test_whole_equals_pieces_equals_steps(Broken(**{fault: True}).eval())


def test_causal_by_gradient(model):
    x = torch.randn(CONTEXT + 1, 2, WIDTH, requires_grad=True)
    for t in range(len(x)):
        (grad,) = torch.autograd.grad(model(x)[0][t].square().sum(), x)
        assert (grad[t + 1 :] == 0).all(), f"output {t} depends on a later input"
        assert (grad[t] != 0).any(), f"output {t} ignores its own input"
        if not isinstance(model, MLP) and t:
            assert (grad[0] != 0).any(), f"output {t} has forgotten the first input"


@torch.no_grad()
def test_batch_rows_are_independent(model):
    x = torch.randn(CONTEXT + 1, 4, WIDTH)
    whole = model(x)[0]
    for b in range(4):
        torch.testing.assert_close(model(x[:, b : b + 1])[0], whole[:, b : b + 1])
    other = x.clone()
    other[:, 1:] = torch.randn_like(other[:, 1:])
    torch.testing.assert_close(model(other)[0][:, 0], whole[:, 0])


@pytest.mark.parametrize("name", LINEAR)
@torch.no_grad()
def test_linear_models_are_the_same_in_pieces_across_chunks(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = torch.randn(2 * CHUNK + 9, 2, WIDTH)
    whole = model(x)[0]
    for pieces in (1, CHUNK, 50):
        torch.testing.assert_close(in_pieces(model, x, pieces), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GPTS + LINEAR)
@torch.no_grad()
def test_bfloat16_windows_are_close_to_float32(name, recwarn):
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(CONTEXT + 1, 2, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x.bfloat16())[0]
    assert rough.dtype == torch.bfloat16 and not recwarn
    torch.testing.assert_close(rough.float(), model(x)[0], atol=0.1, rtol=0.0)


# --- scans ---------------------------------------------------------------------------------------


def recurrence(decay, x, state):
    outputs = []
    for a, b in zip(decay.expand_as(x), x, strict=True):
        state = a * state + b
        outputs.append(state)
    return torch.stack(outputs)


@pytest.mark.parametrize("ways", ["loop", "doubling"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_scan_is_the_recurrence_and_its_gradient_is_exact(ways, dtype, monkeypatch):
    if ways == "doubling":
        monkeypatch.setattr(scans, "_recur", scans._recur_by_doubling)
    torch.manual_seed(0)
    for T in (1, 2, 7):
        for shape in ((T, 2, 3), (3,)):  # decays that change with the input, and constant ones
            decay = (0.5 * torch.randn(shape, dtype=dtype)).requires_grad_()
            x = torch.randn(T, 2, 3, dtype=dtype, requires_grad=True)
            state = torch.randn(2, 3, dtype=dtype, requires_grad=True)
            h, last = scan(decay, x, state)
            torch.testing.assert_close(h, recurrence(decay, x, state))
            assert torch.equal(last, h[-1])
            assert torch.autograd.gradcheck(scan, (decay, x, state), fast_mode=True)


def delta_rule(q, k, v, log_decay, state, beta):
    outputs = []
    for t in range(len(v)):
        state = state * log_decay[t].exp()[..., None, None]
        key = k[t].expand(*v.shape[1:3], -1)
        update = v[t] if beta is None else v[t] - torch.einsum("bhk,bhkv->bhv", key, state)
        update = update if beta is None else update * beta[t].unsqueeze(-1)
        state = state + key.unsqueeze(-1) * update.unsqueeze(-2)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[t].expand_as(key), state))
    return torch.stack(outputs), state


@pytest.mark.parametrize("T", [1, 5, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("rule", ["additive", "delta"])
def test_linear_attention_is_its_recurrence_and_its_gradient_is_exact(rule, T):
    torch.manual_seed(0)
    B, H, K, V = 2, 3, 4, 5
    heads = 1 if rule == "additive" else H  # one key for all heads, as in Mamba-2
    q, k = torch.randn(2, T, B, heads, K, dtype=torch.float64)
    k = torch.nn.functional.normalize(k, dim=-1)
    v = torch.randn(T, B, H, V, dtype=torch.float64)
    log_decay = -torch.rand(T, B, H, dtype=torch.float64)
    state = torch.randn(B, H, K, V, dtype=torch.float64)
    beta = None if rule == "additive" else torch.rand(T, B, H, dtype=torch.float64)
    expected = delta_rule(q, k, v, log_decay, state, beta)
    torch.testing.assert_close(linear_attention(q, k, v, log_decay, state, beta), expected)
    inputs = [x if x is None else x.requires_grad_() for x in (q, k, v, log_decay, state, beta)]
    assert torch.autograd.gradcheck(linear_attention, inputs, fast_mode=True)


@pytest.mark.parametrize("name", LINEAR)
def test_backward_passes_take_linear_time(name):
    """The gradient of a slice is padded to the size of the whole: no slice in a loop over time."""

    def slices(T):
        nodes, seen = [MODELS[name]()(torch.randn(T, 1, WIDTH))[0].grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None and node not in seen:
                seen.add(node)
                nodes += [function for function, _ in node.next_functions]
        return sum(node.name() in ("SelectBackward0", "SliceBackward0") for node in seen)

    assert slices(8 * CHUNK) == slices(3 * CHUNK)


@torch.no_grad()
def test_linear_attention_is_exact_after_strong_forgetting():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 20, 1, 1, 4)
    log_decay = -torch.rand(20, 1, 1)
    log_decay[5:7] = -1000
    y, _ = linear_attention(q, k, v, log_decay)
    expected, _ = linear_attention(*(x.double() for x in (q, k, v, log_decay)))
    torch.testing.assert_close(y, expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_decays_of_linear_models_begin_as_published():
    torch.manual_seed(0)
    (lru,) = LRU(WIDTH, 256, 1, 2, 0.9, 0.99, 0.5).mixers
    modulus, phase = (-lru.nu_log.exp()).exp(), lru.theta_log.exp()
    assert 0.9 <= modulus.min() < 0.91 and 0.98 < modulus.max() <= 0.99
    assert phase.min() < 0.02 and 0.48 < phase.max() <= 0.5
    assert (modulus**2).mean() == pytest.approx((0.9**2 + 0.99**2) / 2, abs=0.01)  # by area
    torch.testing.assert_close(lru.gamma_log.exp(), (1 - modulus**2).sqrt())
    for model in (Mamba2(WIDTH, 512, 1, 1, 512, 1), GatedDeltaNet(WIDTH, 512, 1, 512)):
        (mixer,) = model.mixers
        a, dt = mixer.a_log.exp(), torch.nn.functional.softplus(mixer.dt_bias)
        assert 1 <= a.min() < 1.5 and 15.5 < a.max() <= 16
        assert 0.001 <= dt.min() * 1.001 < 0.0015 and 0.09 < dt.max() * 0.999 <= 0.1
        assert dt.log().mean().exp() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Recurrent(8, "elman", 7, 1), "cell must be one of rnn, gru, lstm, got elman"),
        (lambda: Recurrent(8, "lstm", 0, 1), "hidden_dim must be at least 1, got 0"),
        (lambda: Recurrent(8, "lstm", 7, 0), "n_layer must be at least 1, got 0"),
        (lambda: MLP(8, 7, 0), "n_layer must be at least 1, got 0"),
        (lambda: MLP(8, 0, 1), "hidden_dim must be at least 1, got 0"),
        (lambda: MinGRU(8, 0, 1), "hidden_dim must be at least 1, got 0"),
        (lambda: LRU(8, 7, 1, 0, 0.8, 0.9, 1), "expand must be at least 1, got 0"),
        (lambda: LRU(8, 7, 1, 1, 1.0, 0.9, 1), r"r_min must be in \[0, 1\), got 1"),
        (lambda: LRU(8, 7, 1, 1, 0.8, 0.8, 1), "r_max must be above r_min=0.8 and below 1"),
        (lambda: LRU(8, 7, 1, 1, 0.8, 0.9, 7), r"max_phase must be in \(0, 2 pi\], got 7"),
        (lambda: Mamba2(8, 6, 1, 2, 5, 4), r"n_head must be a divisor of .* = 12, got 5"),
        (lambda: Mamba2(8, 6, 1, 2, 3, 0), "state_dim must be at least 1, got 0"),
        (lambda: GatedDeltaNet(8, 6, 1, 4), "n_head must be a divisor of hidden_dim=6, got 4"),
        (lambda: GatedDeltaNet(8, 6, 1001, 2), "n_layer must be at most 1000, got 1001"),
    ],
)
def test_refusals_name_the_argument(build, message):
    with pytest.raises(ValueError, match="^" + message):
        build()
