"""Watching: what is drawn is what was played, and where attention looked is where it was."""

import contextlib
import io
import re
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import compose_quickly
from gymnasium.envs.classic_control import CartPoleEnv
from omegaconf import OmegaConf
from PIL import Image

from memrl.__main__ import main
from memrl.experiment import build, resolve, run
from memrl.results import agents, films
from memrl.run import checkpoint
from memrl.run.config import compose_config
from memrl.run.files import write_whole
from memrl.run.identity import read_config
from memrl.run.outcome import ConfigError
from memrl.run.schema import check_origin
from memrl.seq_models.gpt import GPT

TASKS = {
    "tmaze_passive": ["env.length=4"],
    "tmaze_active": ["env.length=30"],  # longer than a picture is wide
    "visual_match": ["env.frames=[3,4,5]", "env.length=4"],
    # A window that slides while the agent acts.
    "key_to_door": ["env.frames=[3,4,5]", "env.length=4", "context_len=4"],
}
HORIZON = {"tmaze_passive": 5, "tmaze_active": 33, "visual_match": 12, "key_to_door": 12}
TINY = ["budget=smoke", "budget.train_episodes=1", "budget.warmup_episodes=1", "batch_size=2"]
CASES = [(task, "gpt") for task in TASKS if task != "tmaze_active"]
CASES += [(task, "lstm") for task in TASKS if task != "key_to_door"]


def tiny(env, seq_model, *more):
    return compose_config([f"env={env}", *TASKS[env], f"seq_model={seq_model}", *TINY, *more])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of one short run of every case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield {case: run(tiny(*case)).absolute() for case in CASES}


def watch(arguments):
    """Give the command; raise SystemExit unless it succeeds."""
    with pytest.raises(SystemExit) as caught:
        main(["watch", *arguments])
    if caught.value.code:
        raise caught.value


def frames_of(data):
    image = Image.open(io.BytesIO(data))
    pictures, durations = [], []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        pictures.append(np.array(image.convert("RGB")))
        durations.append(image.info.get("duration"))
    return pictures, durations


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_step_of_every_episode_is_a_frame(case, runs, capsys):
    watch([str(runs[case]), "--episodes", "2", "--fps", "10"])
    pictures, durations = frames_of((runs[case] / "watch.gif").read_bytes())
    steps = HORIZON[case[0]] + 1
    assert len(pictures) == 2 * steps
    assert len({picture.shape for picture in pictures}) == 1
    assert durations == 2 * ([100] * (steps - 1) + [1500])
    first, *episodes, last = capsys.readouterr().out.splitlines()
    assert first.endswith(": agent.pt") and last.endswith("watch.gif")
    reports = "" if case[0].startswith("tmaze") else ", (no )?success"
    assert all(re.fullmatch(rf"episode \d: return -?\d+\.\d\d{reports}", e) for e in episodes)


@pytest.mark.parametrize("case", [("tmaze_passive", "gpt"), ("visual_match", "lstm")])
def test_the_same_command_draws_the_same_pictures(case, runs, tmp_path):
    outputs = [tmp_path / name for name in ("a.gif", "b.gif", "other.gif")]
    for output, seed in zip(outputs, ([], [], ["--seed", "7"]), strict=True):
        watch([str(runs[case]), "--output", str(output), *seed])
    assert outputs[0].read_bytes() == outputs[1].read_bytes() != outputs[2].read_bytes()


def test_a_video_has_the_same_frames(runs, tmp_path, monkeypatch, capfd):
    case, path = ("tmaze_passive", "gpt"), tmp_path / "a.mp4"
    words = [str(runs[case]), "--episodes", "2", "--fps", "10", "--output", str(path)]
    watch(words)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 2 * (HORIZON[case[0]] + 15)  # the last picture stays for 1.5 seconds
    assert seconds == pytest.approx(frames / 10, abs=0.05)
    film = path.read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(SystemExit) as caught:
        watch(words)
    assert caught.value.code == 2 and path.read_bytes() == film
    assert (
        "an .mp4 needs ffmpeg, which is not here; install ffmpeg, or pip" in capfd.readouterr().err
    )


def test_the_action_taken_is_the_one_with_the_highest_score(runs):
    for (env, _), folder in runs.items():
        config, agent, _ = agents.load_run(folder)
        (film,) = films.play(config, agent, 1, 0)
        assert {words[0] for words in film.words} == {"Q" if env.startswith("tmaze") else "p"}
        for words, chosen in zip(film.words, film.chosen, strict=True):
            scores = [float(word.split()[-1]) for word in words[1:]]
            assert scores[chosen - 1] == max(scores)
        assert {"agent"} <= film.legend.keys()


def test_the_episodes_are_those_of_the_evaluation(runs):
    """With the evaluation's seed and as many rows, they are the run's first evaluation's."""
    folder = runs["visual_match", "gpt"]
    config, agent, _ = agents.load_run(folder)
    played = films.play(config, agent, config["budget"]["eval_episodes"], config["seed"] + 42)
    trainer = build(config)
    trainer.agent.load_weights(agent.weights())
    rows = []
    trainer.logger = type("Rows", (), {"write": lambda self, table, row: rows.append(row)})()
    trainer._evaluate()
    assert np.mean([film.reward.sum() for film in played]) == pytest.approx(rows[0]["eval/return"])
    assert np.mean([film.success for film in played]) == pytest.approx(rows[0]["eval/success"])


def test_a_strip_shows_the_steps_asked_for(runs, tmp_path):
    output = tmp_path / "strip.png"
    shared = [str(runs["key_to_door", "gpt"]), "--episodes", "2", "--output", str(output)]
    watch([*shared, "--steps", "12,0,5"])
    (three,), _ = frames_of(output.read_bytes())
    watch(shared)
    (six,), _ = frames_of(output.read_bytes())
    watch([*shared, "--steps", "5"])
    (one,), _ = frames_of(output.read_bytes())
    height, width, _ = one.shape
    assert three.shape == (height, 3 * width, 3)
    assert six.shape == (height, 6 * width, 3)
    np.testing.assert_array_equal(three[:, width : 2 * width], one)


def test_a_run_that_was_stopped_is_watched_from_its_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = resolve(tiny("tmaze_passive", "gpt"))
    trainer = build(config)
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(SystemExit):
        watch([str(folder)])
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(SystemExit):
        watch([str(folder)])
    error = capsys.readouterr().err.splitlines()
    assert error == [
        f"error: {folder}: not a run's folder: it has no config.yaml",
        f"error: {folder}: no trained agent yet (no agent.pt, no checkpoint)",
    ]
    buffer = io.BytesIO()
    torch.save({"trainer": trainer.state_dict(), "csv_sizes": {}}, buffer)
    (folder / "checkpoint.pt").write_bytes(b"torn")
    write_whole(folder / "checkpoint.prev.pt", buffer.getvalue())
    before = sorted(path.name for path in folder.iterdir())
    watch([str(folder), "--episodes", "1", "--output", str(tmp_path / "x.gif")])
    assert "checkpoint.prev.pt, env step 0" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == before  # another process may train


# --- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "layers", "heads"), [(5, 1, 1), (7, 2, 2), (12, 3, 2)])
def test_attention_is_what_the_model_attends_with(length, layers, heads):
    """Attending over the identity gives the weights; windows of 7 inputs slide from then on."""
    torch.manual_seed(length)
    model = GPT(8, layers, heads, "sine", context_len=6, dropout=0.0, attention_dropout=0.0).eval()
    x = 3 * torch.randn(length, 2, 8)
    weights = model.attention(x)
    assert weights.shape == (2, length, length)
    for t in range(length):
        begin = max(0, t + 1 - 7)
        window = x[begin : t + 1]
        y, expected = window + model.position[: len(window), None], 0
        for block in model.blocks:
            q, k, _ = block.heads(y)
            identity = torch.eye(len(window)).expand(2, heads, -1, -1)
            attended = F.scaled_dot_product_attention(q, k, identity, is_causal=True)
            expected = expected + attended[:, :, -1].mean(1) / layers
            y = block(y)
        torch.testing.assert_close(weights[:, t, begin : t + 1], expected)
        assert (weights[:, t, :begin] == 0).all() and (weights[:, t, t + 1 :] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, length))


def test_only_models_that_attend_have_attention(runs):
    for (env, seq_model), folder in runs.items():
        config, agent, _ = agents.load_run(folder)
        (film,) = films.play(config, agent, 1, 0)
        assert (film.attention is not None) == (seq_model == "gpt")
        assert len(film.pictures) == len(film.reward) + 1 == HORIZON[env] + 1


def film_of(weights, size=(40, 40)):
    n = len(weights[-1])
    attention = np.zeros((n, n), np.float32)
    for t, row in enumerate(weights):
        attention[t, : t + 1] = row
    pictures = [np.full((*size, 3), 10 * t, np.uint8) for t in range(n + 1)]
    rewards = np.arange(n, dtype=float)
    words = [["action", "go"]] * n
    return films.Film(pictures, words, [1] * n, words[0], {}, rewards, attention, True)


@pytest.mark.parametrize("size", [(40, 40), (40, 200)], ids=["beside", "below"])
def test_the_earlier_step_that_is_attended_to_most_is_shown(size):
    film = film_of([[1], [0.1, 0.9], [0.2, 0.5, 0.3], [0.6, 0.1, 0.1, 0.2]], size)
    for t, best in ((1, 0), (2, 1), (3, 0), (4, 0)):  # the last picture has no step of its own
        image = np.array(films.frame(film, t, ""))
        wide = size[1] > 2 * size[0]
        top = films.MARGIN + (3 if wide else 4) * films.TEXT
        left = films.MARGIN if wide else 2 * films.MARGIN + size[1]
        below = top + size[0] + films.MARGIN + films.TEXT if wide else top
        other = image[below : below + size[0], left : left + size[1]]
        np.testing.assert_array_equal(other, film.pictures[best])
        strip = image[-films.MARGIN - 2]  # the feet of the bars
        step = (image.shape[1] - 2 * films.MARGIN) / 4
        marked = np.flatnonzero((strip == films.MARK).all(-1))
        assert {int((x - films.MARGIN) // step) for x in marked} == {best}


# --- what is refused -----------------------------------------------------------------------------

BAD = {
    "--episodes 0": "argument --episodes: must be 1 to 1000, got 0",
    "--episodes some": "argument --episodes: invalid int value: 'some'",
    "--fps 0": "argument --fps: must be 0.01 to 100, got 0",
    "--fps nan": "argument --fps: must be 0.01 to 100, got nan",
    "--seed -1": "argument --seed: must be 0 to",
    "--output x.avi": "argument --output: must end with .gif or .mp4 or .png, got x.avi",
    "--steps 1,2": "--steps needs an --output that ends with .png, got folder/watch.gif",
    "--steps 1,x --output x.png": "argument --steps: must be integers separated by commas",
}


@pytest.mark.parametrize("arguments", BAD)
def test_a_bad_argument_is_refused_by_name(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        watch(["folder", *arguments.split()])
    assert caught.value.code == 2
    assert f"error: {BAD[arguments]}" in capsys.readouterr().err


def test_steps_past_the_end_are_refused(runs, tmp_path, capsys):
    output = tmp_path / "strip.png"
    folder = str(runs["tmaze_passive", "lstm"])
    with pytest.raises(SystemExit) as caught:
        watch([folder, "--output", str(output), "--steps", "2,99"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: --steps must be at most 5, got 99\n"


def test_torn_weights_are_named(runs, tmp_path, capsys):
    source = runs["tmaze_passive", "lstm"]
    (tmp_path / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    (tmp_path / "agent.pt").write_bytes((source / "agent.pt").read_bytes()[:500])
    with pytest.raises(SystemExit) as caught:
        watch([str(tmp_path)])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'agent.pt'}: ")


def test_an_edited_config_is_refused_by_its_key(runs, tmp_path, capsys):
    text = (runs["tmaze_passive", "lstm"] / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("penalty: null", "penalty: none"))
    with pytest.raises(SystemExit):
        watch([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: env.penalty=none: must be a finite number or null"


@pytest.mark.parametrize("text", ["", "a: [1", "- 1", "env: 3", "seed: 0\nenv: {name: x}"])
def test_what_is_no_config_is_refused_in_one_line(text, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        watch([str(tmp_path)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'config.yaml'}: ")


EVIL = """
from pathlib import Path
from memrl.seq_models.rnn import Recurrent as Base
Path({marker!r}).touch()
class Recurrent(Base): ...
Recurrent.__module__ = __name__
"""


@pytest.mark.parametrize("depth", ["", "      inner: [{_target_: evil.Recurrent}]\n"])
def test_a_config_of_somebody_else_runs_only_code_that_is_trusted(
    depth, runs, tmp_path, monkeypatch, capsys
):
    """Even importing it would run it."""
    source, folder = runs["tmaze_passive", "lstm"], tmp_path / "run"
    marker, code, home = tmp_path / "marker", tmp_path / "code", tmp_path / "home"
    for path in (folder, code, home):
        path.mkdir()
    (code / "evil.py").write_text(EVIL.format(marker=str(marker)))
    torch.save(checkpoint.load_weights(source, read_config(source)), folder / "agent.pt")
    text = (source / "config.yaml").read_text()
    target = "memrl.seq_models.rnn.Recurrent"
    evil = text.replace(target, "evil.Recurrent") if not depth else f"{text}note:\n  x:\n{depth}"
    (folder / "config.yaml").write_text(evil)
    monkeypatch.syspath_prepend(code)
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit) as caught:
        watch([str(folder)])
    assert caught.value.code == 2 and not marker.exists()
    (line,) = capsys.readouterr().err.splitlines()
    advice = 'if you trust it, add --trust evil (in Python, trusted=["evil"])'
    assert line.endswith(f"=evil.Recurrent: not a class of memrl; {advice}")
    if depth:
        return
    wrapper = {"_target_": "gymnasium.wrappers.TimeAwareObservation"}
    for path, env in {
        "env.module=evil.envs": {"module": "evil.envs", "id": "A-v0"},
        "env.id=evil": {"module": None, "id": "evil:A-v0"},
        "env.wrappers.1._target_=evil.A": {"wrappers": [wrapper, {"_target_": "evil.A"}]},
        "env.wrappers.1._target_=gymnasium.make": {
            "wrappers": [wrapper, {"_target_": "gymnasium.make"}]
        },
        "env.wrappers.0._target_=gymnasium.wrappers.common.deepcopy": {
            "wrappers": [{"_target_": "gymnasium.wrappers.common.deepcopy"}]
        },
    }.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(path)}: not "):
            check_origin({"env": env}, (), home)
    check_origin({"env": {"id": "A-v0", "wrappers": [wrapper]}}, (), home)
    assert not marker.exists()
    watch([str(folder), "--episodes", "1", "--trust", "other,evil"])
    assert marker.exists()
    monkeypatch.chdir(code)
    watch([str(folder), "--episodes", "1"])


@pytest.mark.parametrize(
    ("section", "target", "reason"),
    [
        ("env", "subprocess.run", "not a class of memrl; if you trust it, add --trust subprocess"),
        (
            "seq_model",
            "memrl.sweep.snapshot.subprocess.run",
            "no module memrl.sweep.snapshot.subpr",
        ),
        ("algo", "memrl.run.lock.Path", "not defined in memrl, but in pathlib"),
        ("encoder", "memrl.run.files.write_whole", "must be a torch.nn.Module with forward"),
    ],
)
def test_a_config_of_somebody_else_names_classes_of_the_right_kind(
    section, target, reason, runs, tmp_path, capsys
):
    config = OmegaConf.load(runs["tmaze_passive", "lstm"] / "config.yaml")
    config[section]._target_ = target
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(SystemExit) as caught:
        watch([str(tmp_path)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {section}._target_={target}: {reason}")


def test_weights_of_another_run_are_refused_in_one_line(runs, tmp_path, capsys):
    for name, case in (("config.yaml", "tmaze_passive"), ("agent.pt", "visual_match")):
        (tmp_path / name).write_bytes((runs[case, "gpt"] / name).read_bytes())
    with pytest.raises(SystemExit):
        watch([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'agent.pt'} is of another run (there -> here): ")
    assert line.endswith("algo._target_: memrl.algos.sacd.SACD -> memrl.algos.dqn.DQN")

    older = torch.load(tmp_path / "agent.pt", weights_only=True)
    torch.save(older, tmp_path / "agent.pt")  # says nothing of its run
    with pytest.raises(SystemExit):
        watch([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'agent.pt'}: it does not hold what this version")


def test_an_output_that_cannot_be_written_is_named(runs, tmp_path, capsys):
    output = tmp_path / "missing" / "x.gif"
    with pytest.raises(SystemExit) as caught:
        watch([str(runs["tmaze_passive", "lstm"]), "--output", str(output)])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(output) in line


def test_a_task_that_draws_nothing_is_named(runs):
    config, agent, _ = agents.load_run(runs["tmaze_passive", "lstm"])
    config = config | {"env": {"name": "blind", "_target_": "test_watch.Blind"}}
    with pytest.raises(
        ConfigError,
        match=r"^env=blind cannot be watched: it does not support render_mode=rgb_array",
    ):
        films.play(config, agent, 1, 0)


def test_environments_of_gymnasium_are_watched_if_they_can_draw(monkeypatch):
    cartpole = ["env=gym", "env.id=CartPole-v1", "env.horizon=5", "device=cpu"]
    config = resolve(compose_quickly(cartpole))
    with contextlib.closing(build(config)) as trainer:
        monkeypatch.setattr(CartPoleEnv, "action_names", ("left", "right"), raising=False)
        monkeypatch.setattr(CartPoleEnv, "legend", {"cart": (0, 0, 0)}, raising=False)
        (film,) = films.play(config, trainer.agent, 1, 0)
        assert film.legend == {"cart": (0, 0, 0)}
        assert [word.split()[0] for word in film.words[0]] == ["Q", "left", "right"]
        assert len(film.pictures) == 6 and film.reward.tolist() == [1] * 5
        assert film.pictures[0].shape[2] == 3 and (film.pictures[0] != film.pictures[5]).any()
        monkeypatch.setitem(sys.modules, "pygame", None)  # as if it were not installed
        with pytest.raises(ConfigError, match=r"^env=gym cannot be watched: pygame"):
            films.play(config, trainer.agent, 1, 0)


def Blind(num_envs):
    from memrl.envs.tmaze import TMazePassiveVec

    return TMazePassiveVec(num_envs=num_envs, length=4)
