"""Models that break a law are refused, each for the law it breaks; sound ones never are."""

import copy
import re

import pytest
import torch
from conftest import compose_quickly
from test_readme import MODEL, block
from test_seq_models import CONTEXT, MODELS, WIDTH
from torch import nn

import memrl
from memrl import __main__, experiment
from memrl.commands import check
from memrl.experiment import resolve
from memrl.run import measurements
from memrl.run.law import check_laws
from memrl.run.outcome import ConfigError

CPU = torch.device("cpu")


class Sound(nn.Module):
    """A GRU; its subclasses have a fault each. Signature and keys are those of ``Recurrent``."""

    flag = ""  # of nn.GRU

    def __init__(self, input_dim=WIDTH, cell="gru", hidden_dim=WIDTH, n_layer=1):
        super().__init__()
        self.output_dim = hidden_dim
        self.n_states = 2 if self.flag == "bidirectional" else 1
        flags = {self.flag: True} if self.flag else {}
        self.gru = nn.GRU(input_dim, hidden_dim // self.n_states, **flags)

    def initial_state(self, batch_size):
        return torch.zeros(self.n_states, batch_size, self.gru.hidden_size)

    def forward(self, x, state=None):
        return self.gru(x, state)


class Bidirectional(Sound):
    flag = "bidirectional"


class BatchFirst(Sound):
    flag = "batch_first"


class IgnoresState(Sound):
    def forward(self, x, state=None):
        return self.gru(x)[0], state


class StaleState(Sound):
    def forward(self, x, state=None):
        y, _ = self.gru(x, state)
        return y, self.gru(x[:-1], state)[1] if len(x) > 1 else state


class OtherInitialState(Sound):
    def initial_state(self, batch_size):
        return torch.ones(1, batch_size, self.gru.hidden_size)


class RemembersBetweenCalls(Sound):
    last = None

    def forward(self, x, state=None):
        if self.last is not None and self.last.shape[1] != x.shape[1]:
            self.last = None
        y, self.last = self.gru(x, self.last)
        return y, state


class HidesItsState(Sound):
    """It begins anew with ``initial_state``, so one rollout after another looks right."""

    def initial_state(self, batch_size):
        self.last = super().initial_state(batch_size)
        return ()

    def forward(self, x, state=None):
        if state is None:
            return self.gru(x)
        rows = x.shape[1]
        if self.last.shape[1] != rows:
            self.last = self.last[:, :1].expand(-1, rows, -1).contiguous()
        y, self.last = self.gru(x, self.last)
        return y, ()


class Noisy(Sound):
    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return nn.functional.dropout(y, 0.1), after


class BatchNorm(Sound):
    def __init__(self, **keys):
        super().__init__(**keys)
        self.norm = nn.BatchNorm1d(self.output_dim)

    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return self.norm(y.flatten(0, 1)).view_as(y), after


class NormalisesOverTime(Sound):
    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return y - y.mean(0), after


class WrongWidth(Sound):
    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return torch.cat([y, y], -1), after


class NoState(Sound):
    def forward(self, x, state=None):
        return self.gru(x, state)[0]


class NotFinite(Sound):
    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return y / 0, after


class OneRow(Sound):
    def initial_state(self, batch_size):
        return super().initial_state(1)


class Squeezes(Sound):
    def forward(self, x, state=None):
        y, after = self.gru(x, state)
        return y[:, 0] if x.shape[:2] == (1, 1) else y, after


class NoMask(nn.Module):
    """Attention without a causal mask, at GPT's initial weights: it hardly attends."""

    output_dim = WIDTH

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, dropout=0.0)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)

    def initial_state(self, batch_size):
        return ()

    def forward(self, x, state=None):
        return self.layer(x), state


ROWS = "independence of rows: {}a history's outputs change when other rows of the batch change, by"
LATER = "causality: outputs change when later inputs change, by up to 0."
FED = "whole = pieces = steps: fed "
DIFFER = ", its outputs differ from those of the whole history by up to "
TWICE = "repeatability: it {}, and so the outputs of the same history differ by up to"
BROKEN = {
    Bidirectional: LATER,
    NoMask: LATER + "0",
    NormalisesOverTime: LATER,
    BatchFirst: ROWS.format(""),
    BatchNorm: ROWS.format("in training mode "),
    IgnoresState: FED + "step by step" + DIFFER,
    StaleState: FED + "step by step" + DIFFER,
    OtherInitialState: FED + "step by step" + DIFFER,
    HidesItsState: FED + "in pieces with another history in between" + DIFFER,
    OneRow: FED + "step by step, it raised RuntimeError: Expected hidden size (1, 3, 12), got",
    Squeezes: FED + "a single history, its outputs must have the shape (T, B, output_dim) = (1, 1,",
    RemembersBetweenCalls: TWICE.format("remembers something between calls"),
    Noisy: TWICE.format("is random in evaluation mode"),
    WrongWidth: "outputs: fed a whole history, its outputs must have the shape (T, B, output_dim)",
    NoState: "outputs: fed a whole history, it must return (outputs, state), got Tensor",
    NotFinite: "outputs: fed a whole history, its outputs are not all finite",
}


class RingConvolution(nn.Module):
    """A causal convolution over the last 4 inputs, whose state is a ring that it overwrites."""

    output_dim, size = 5, 4

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(self.size, WIDTH, self.output_dim))

    def initial_state(self, batch_size):
        return torch.zeros(self.size, batch_size, WIDTH), 0

    def forward(self, x, state=None):
        ring, t = self.initial_state(x.shape[1]) if state is None else state
        outputs = []
        for step in x:
            ring[t % self.size] = step
            t += 1
            outputs.append(torch.einsum("kbi,kio->bo", ring.roll(-t, 0), self.weight))
        return torch.stack(outputs), (ring, t)


def ema():
    namespace = {}
    exec(block("python", "class Ema", MODEL), namespace)
    return namespace["Ema"](WIDTH, 0.8)


SOUND = MODELS | {
    "ema": ema,
    "ring": RingConvolution,
    "2 layers with dropout": lambda: nn_gru(num_layers=2, dropout=0.5),
}


def nn_gru(**options):
    model = Sound()
    model.n_states = options["num_layers"]
    model.gru = nn.GRU(WIDTH, WIDTH, **options)
    return model


@pytest.mark.parametrize("cls", BROKEN)
def test_a_broken_model_is_told_its_law(cls):
    torch.manual_seed(0)
    verdicts = check_laws(cls(), WIDTH, CPU)
    broken = next(verdict for verdict in verdicts if not verdict.ok)
    assert f"{broken.law}: {broken.text}".startswith(BROKEN[cls])


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_obey_with_room_to_spare(name):
    torch.manual_seed(0)
    model = SOUND[name]()
    model.law_tolerance = 1e-5  # a tenth of the usual one
    for length, precision in ((2, torch.float32), (CONTEXT + 1, torch.bfloat16)):
        verdicts = check_laws(model, WIDTH, CPU, precision, length)
        assert len(verdicts) == (6 if precision == torch.bfloat16 else 5)
        assert all(verdict.ok for verdict in verdicts), verdicts


def test_a_model_may_say_how_exact_it_is():
    model = NoMask()
    for tolerance, ok in ((1e-4, False), (0.1, True)):
        model.law_tolerance = tolerance
        verdicts = {verdict.law: verdict.ok for verdict in check_laws(model, WIDTH, CPU)}
        assert verdicts["causality"] is ok


@pytest.mark.parametrize("cls", [BatchNorm, RemembersBetweenCalls, Noisy])
@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_nothing_behind(cls, training):
    model = cls().train(training)
    before, attributes = copy.deepcopy(model.state_dict()), {*vars(model)}
    rng = torch.get_rng_state()
    torch.set_float32_matmul_precision("high")
    try:
        check_laws(model, WIDTH, CPU)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.training is training and {*vars(model)} == attributes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# --- runs, sweeps and the command ----------------------------------------------------------------


def of(cls):
    return f"seq_model._target_=test_check.{cls.__name__}"


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1", "algo.lr=0.1,0.2"]])
def test_a_broken_model_is_refused_before_the_first_step(words, launch, tmp_path):
    process = launch(*words, of(IgnoresState), "env.length=5", "budget=smoke", "device=cpu")
    assert process.wait() == 2
    (line,) = process.err.splitlines()
    start = 'error: seq_model=lstm breaks the law "whole = pieces = steps": fed step by step, its o'
    assert line.startswith(start)
    assert line.endswith("; `memrl check` with the same -cd and seq_model keys says more")
    assert process.out == "" and not any(tmp_path.iterdir())


def test_the_next_training_in_a_process_checks_anew(monkeypatch):
    config = resolve(compose_quickly([of(IgnoresState), "env.length=5", "budget=smoke"]))
    with pytest.raises(ConfigError, match="breaks the law"):
        experiment.check(config, here=True)
    monkeypatch.setattr(IgnoresState, "forward", Sound.forward)
    with pytest.raises(ConfigError, match="breaks the law"):  # as it was
        experiment.check(config, here=True)
    with pytest.raises(ConfigError, match="no such key"):
        memrl.train(["lr=3"])
    experiment.check(config, here=True)


@pytest.mark.parametrize("window", [2, 5])
def test_windows_may_be_short(window):
    overrides = ["seq_model=gpt", "env.length=5", f"context_len={window}", "budget=smoke"]
    experiment.check(resolve(compose_quickly(overrides)), here=True)


def test_what_only_a_gpu_can_do_is_left_to_the_gpu():
    def config(cls, device):
        overrides = [of(cls), "env.length=5", "budget=smoke", f"device={device}"]
        return resolve(compose_quickly(overrides))

    experiment.check(config(OneRow, "auto"), here=False)  # a job's node may have one
    for cls, device, here in (
        (OneRow, "cpu", False),
        (OneRow, "auto", True),
        (BatchFirst, "auto", False),
    ):
        with pytest.raises(ConfigError, match="seq_model=lstm breaks the law"):
            experiment.check(config(cls, device), here)


def test_a_model_says_how_wide_its_outputs_are_and_names_parameters_that_it_has():
    for cls, message in {
        Widthless: "Widthless: output_dim must be the width of its outputs, got None",
        Misspelt: "Misspelt: recurrence_parameters must be a tuple of names of parameters of Missp",
        Unpacked: "recurrence_parameters must be a tuple of names of parameters of Unpacked: gru.",
    }.items():
        config = resolve(compose_quickly([of(cls), "env.length=5"]))
        with pytest.raises(ConfigError, match=re.escape(message)):
            experiment.build(config)


class Widthless(Sound):
    def __init__(self, **keys):
        super().__init__(**keys)
        del self.output_dim


class Misspelt(Sound):
    recurrence_parameters = ("gru.weight_hh_l0", "gru.weight_hh")


class Unpacked(Sound):
    recurrence_parameters = "weight"


class ShortWindows(Sound):
    def __init__(self, input_dim, context_len, **keys):
        if context_len > 300:
            raise ValueError("context_len must be at most 300")
        super().__init__(input_dim, **keys)


def run_check(launch, *words):
    process = launch(first=lambda: __main__.main(["check", *words]))  # which ends the process
    return process.wait(), process.out, process.err


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The words that choose the model of a project; all measurements are short."""
    conf = tmp_path / "project" / "conf"
    (conf / "seq_model").mkdir(parents=True)
    yaml = "name: own\n_target_: own_package.Own\ncell: gru\nhidden_dim: 8\nn_layer: 1\n"
    (conf / "seq_model" / "own.yaml").write_text(yaml)
    (conf / "seq_model" / "other.yaml").write_text(yaml.replace("name: own", "name: else"))
    (tmp_path / "project" / "own_package.py").write_text("from test_check import Sound as Own\n")
    for name, value in (("LIMIT_S", 0), ("LENGTH", 8), ("ROWS", 2)):
        monkeypatch.setattr(measurements, name, value)
    task = "env.length=5", "budget=smoke", "budget.train_episodes=2", "batch_size=2"
    monkeypatch.setattr(check, "TASK", task)
    return "-cd", str(conf), "seq_model=own"


def test_the_command_says_what_it_measured(launch, own):
    code, out, err = run_check(launch, *own, "dropout=0", "precision=bf16")
    assert (code, err) == (0, ""), out
    assert out.startswith("seq_model=own: 1,392 parameters, inputs of width 48, outputs of width 8")
    assert len(re.findall("^  ok ", out, re.M)) == 7 and "on histories of 64 inputs" in out
    for text in (
        "1 step back  ",
        "1000 steps back  ",
        "bfloat16 windows",
        "an LSTM of width 8 with one layer, on cpu",
        "dropout=0 attention_dropout=0.1 precision=bf16 update=eager seed=0\n",
    ):
        assert text in out
    assert re.search(r"step of acting +[\d.]+ ms +[\d.]+ ms +[\d.]+ times", out)
    assert "not solved: return " in out

    code, out, err = run_check(launch, "seq_model=mlp", "--no-train")
    assert code == 0 and "this model has no memory" in out and "training" not in out

    code, out, err = run_check(launch, of(OneRow), "seq_model.hidden_dim=8")
    assert code == 1 and "training" not in out
    assert "FAILED  whole = pieces = steps  fed step by step, it raised RuntimeError" in out
    assert "in forward" in out  # the traceback

    code, out, err = run_check(launch, of(ShortWindows), "--no-train")
    assert (code, err) == (0, ""), out
    assert "laws, on histories of 12 inputs" in out  # the run's own window
    assert out.count("  not measured: context_len must be at most 300\n") == 2


def test_the_command_refuses_what_has_no_effect_in_it(launch, own):
    for words, message in (
        (["batch_size=3"], "batch_size=3: it has no effect in memrl check, which reads seq_model"),
        ([*own[:2], "seq_model=other"], "seq_model.name=else: must be other, as its file is"),
    ):
        code, out, err = run_check(launch, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {message}")
