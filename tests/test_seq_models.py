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
from memrl.seq_models.gpt import GPT
from memrl.seq_models.mlp import MLP
from memrl.seq_models.rnn import Recurrent

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
}
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
    @settings(max_examples=25, deadline=None, derandomize=True)
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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Recurrent(8, "elman", 7, 1), "cell must be one of rnn, gru, lstm, got elman"),
        (lambda: Recurrent(8, "lstm", 0, 1), "hidden_dim must be at least 1, got 0"),
        (lambda: Recurrent(8, "lstm", 7, 0), "n_layer must be at least 1, got 0"),
        (lambda: MLP(8, 7, 0), "n_layer must be at least 1, got 0"),
        (lambda: MLP(8, 0, 1), "hidden_dim must be at least 1, got 0"),
    ],
)
def test_refusals_name_the_argument(build, message):
    with pytest.raises(ValueError, match="^" + message):
        build()
