"""The line that says how far a run is, and the one that says how it ended."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_trainer import Tape, trainer_of

from memrl.run.progress import Progress, clock
from memrl.trainer import Counters

TINY = ["device=cpu", "env.length=5", "batch_size=4", "seq_model.hidden_dim=8"]
TINY += ["algo.hidden_dims=[8]", "budget=smoke"]


def line_of(counters, seconds, fraction, loss=None, width=79):
    """The line of a run that has been at work for some seconds, and its fields."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memrl.run.progress.time", SimpleNamespace(perf_counter=lambda: 0.0))
        progress = Progress(SimpleNamespace(counters=Counters(), progress=0.0))
        progress.trainer = SimpleNamespace(
            counters=counters, progress=fraction, seconds=lambda: 0.0
        )
        progress.start -= seconds
        progress.loss = None if loss is None else (torch.tensor(loss), 1)
        return progress.line(width), progress.fields()


numbers = st.floats(-1e12, 1e12) | st.sampled_from([math.inf, -math.inf])


@given(
    st.builds(
        Counters,
        env_steps=st.integers(0, 10**9),
        episodes=st.integers(0, 10**9),
        updates=st.integers(0, 10**9),
        last_return=st.none() | numbers,
        last_success=st.just(math.nan) | st.floats(0, 1),
    ),
    st.floats(0.001, 99 * 3600),
    st.integers(0, 10**9).map(lambda n: n / 10**9),
    st.none() | numbers,
)
def test_a_line_fits_an_ordinary_terminal_and_has_the_remaining_time(
    counters, seconds, fraction, loss
):
    line, fields = line_of(counters, seconds, fraction, loss)
    assert len(line) <= 79
    eta = "-" if fields["eta_s"] is None else clock(fields["eta_s"])
    assert re.fullmatch(rf" *\d+% \| ETA {eta}( \| .*)?", line)
    assert line_of(counters, seconds, fraction, loss, 1000)[0].startswith(line)


@pytest.mark.parametrize(
    "warmup",
    [
        {"warmup_steps": 500, "num_envs": 1},
        {"warmup_steps": 500, "num_envs": 5},
        {"warmup_steps": 50, "num_envs": 5},  # one round
        {"warmup_steps": None, "warmup_episodes": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("already", [0, 150], ids=["new", "continued"])
def test_the_remaining_time_is_that_of_the_updates(warmup, already, monkeypatch):
    """An update takes a second, everything else a hundredth: what is left is known exactly."""
    now, log, tape = [0.0], [], Tape(length=9)
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("memrl.run.progress.time", clock)
    changes = {"train_episodes": 60, "updates_per_step": 0.5, "warmup_episodes": None} | warmup
    trainer = trainer_of(tape, **changes)
    progress = Progress(trainer)

    def boundary():
        if trainer.counters.updates == already > 0:
            progress.begin()  # a new process
        progress()
        if trainer.counters.updates >= already:
            log.append((now[0], trainer.counters.updates, progress.fields()["eta_s"]))
        now[0] += 0.01

    update = trainer.update
    trainer.update = lambda: (now.__setitem__(0, now[0] + 1), update())
    trainer.fit(boundary)
    total = trainer.counters.updates
    assert total > 280
    for _, updates, eta_s in log:
        if updates > already + 20:
            assert eta_s == pytest.approx(total - updates, rel=0.15, abs=6)
    assert log[0][2] is None


@pytest.mark.parametrize(
    ("counters", "loss", "line"),
    [
        (
            Counters(env_steps=60, episodes=10),
            None,
            " 25% | ETA 5:00 | episode 10 | 1 steps/s | 0.0 updates/s",
        ),
        (
            Counters(10**6, 10**5, 25 * 10**4, last_return=0.954, last_success=0.9),
            0.01234,
            " 25% | ETA 5:00 | return 0.95 | success 0.90 | episode 100,000 | loss 0.012",
        ),
        (
            Counters(10**5, 10**4, 25 * 10**3, last_return=1.0),
            0.01234,
            " 25% | ETA 5:00 | return 1.00 | episode 10,000 | loss 0.012 | 1,000 steps/s",
        ),
    ],
    ids=["no update and no evaluation yet", "an image task", "a T-Maze"],
)
def test_a_line_has_what_is_known_the_most_important_first(counters, loss, line):
    assert line_of(counters, 100, 0.25, loss)[0] == line


def test_a_run_that_stops_early_says_at_which_score(launch, tmp_path):
    """And so does the same command again, as long as its csv file can be read."""
    stop = "budget.stop_at_return=-1"
    first = launch(*TINY, stop, composed=True)
    assert first.wait() == 0, first.output
    (folder,) = (path.relative_to(tmp_path) for path in tmp_path.glob("outputs/runs/*"))
    score = r"return -?\d\.\d\d \(>= -1, budget\.stop_at_return\)"
    result = score + r" after 15 episodes, 90 env steps, 25 updates in 0:\d\d"
    assert re.search(rf"^solved: {result}; curve: ", first.out, re.MULTILINE), first.out
    content = (tmp_path / folder / "eval.csv").read_text()
    for text, said in ((content, f"{result}: "), (content + "torn\n", ""), ("", "")):
        (tmp_path / folder / "eval.csv").write_text(text)
        again = launch(*TINY, stop, composed=True)
        assert again.wait() == 0
        assert re.fullmatch(f"already done: {said}{re.escape(str(folder))}\n", again.out)
