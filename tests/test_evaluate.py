"""Trained agents in Python and in ``memrl evaluate``: what is played is what training evaluates."""

import csv
import re
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from conftest import compose_quickly
from hydra import compose, initialize_config_dir
from hydra.version import getbase
from omegaconf import OmegaConf

import memrl
from memrl.__main__ import main
from memrl.commands.evaluate import OVERRIDE
from memrl.experiment import build, check, folder_of, resolve, run, train
from memrl.results import agents, evaluation, stats
from memrl.results.evaluation import Evaluation
from memrl.run import checkpoint
from memrl.run.identity import differences, identity, read_config
from memrl.run.outcome import ConfigError, Failure
from memrl.run.schema import check_types
from memrl.trainer import Trainer

TINY = ["budget=smoke", "budget.train_episodes=2", "budget.warmup_episodes=1", "batch_size=2"]
BOX = ["budget.train_episodes=null", "budget.eval_episodes=2", "updates_per_step=0.1"]
RUNS = {
    "sine": ["env.length=4", "seq_model=gpt"],
    "seed": ["env.length=4", "seq_model=gpt", "seed=1"],
    "learned": ["env.length=4", "seq_model=gpt", "seq_model.position=learned"],
    "fixed": ["env.length=4", "seq_model=gpt", "seq_model.position=learned", "context_len=3"],
    "rope": ["env.length=[2,4]", "seq_model=gpt", "seq_model.position=rope", "seq_model.scale=log"],
    "box": ["env=mujoco_v", "context_len=5", "budget.train_steps=40", *BOX],
    "images": ["env=key_to_door", "env.frames=[3,4,5]", "env.length=4", "budget.eval_episodes=10"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of short runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield {name: run(compose_quickly([*TINY, *RUNS[name]])).absolute() for name in RUNS}


def evaluate(*arguments):
    """Give the command; return its exit status."""
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, arguments)])
    return caught.value.code


def rows_of(folder):
    with open(folder / "evaluation.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", RUNS)
def test_episodes_are_those_of_the_evaluation_in_training(name, runs, monkeypatch):
    """A run's only evaluation, at its end; in several batches as many episodes are played."""
    config, agent, weights = agents.load_run(runs[name])
    n, seed = config["budget"]["eval_episodes"], config["seed"] + 42
    returns, successes, steps = evaluation.play(config, agent, n, seed)
    (saved,) = memrl.results.load(runs[name])
    assert len(saved.eval["eval/return"]) == 1 and weights == "agent.pt"
    assert returns.mean() == pytest.approx(saved.eval["eval/return"][0])
    assert steps.mean() == saved.eval["eval/length"][0]
    assert (successes is None) == (name != "images")
    if successes is not None:
        assert successes.mean() == saved.eval["eval/success"][0]
    monkeypatch.setattr(evaluation, "BATCH_STEPS", 4 * int(steps.max()))
    monkeypatch.setattr(evaluation, "FEWEST_ROWS", 3)
    assert all(len(column) == n for column in evaluation.play(config, agent, n, 0)[::2])


def test_evaluate_writes_a_row_for_each_length_and_a_figure(runs, capsys):
    folder = runs["images"]
    command = folder, "env.length=4", "env.frames=[3,4,5],[3,4,9]", "--episodes", 7
    assert evaluate(*command) == 0
    row, longer = rows_of(folder)
    assert (row["overrides"], row["env.length"], row["length"]) == ("", "4", "12.0")
    assert (longer["overrides"], longer["length"]) == ("env.frames=[3,4,9]", "16.0")
    assert float(row["success_low"]) <= float(row["success"]) < float(row["success_high"])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{folder}: agent.pt" and out[-1] == str(folder / "evaluation.csv")
    assert out[2].startswith("key_to_door-4 env.frames=[3,4,9]: return ")
    assert out[2].endswith(" in 7 episodes of 16.0 steps")

    before = (folder / "evaluation.csv").read_bytes()
    assert evaluate(*command) == 0
    assert (folder / "evaluation.csv").read_bytes() == before
    assert evaluate(folder, "--seed", 1, "--episodes", 7) == 0
    assert [row["seed"] for row in rows_of(folder)] == ["0", "0", "1"]
    assert not (folder / "evaluation.png").exists()  # there is one length
    (folder / "evaluation.csv").write_text("mine\n1\n")
    assert evaluate(folder) == 1
    assert (folder / "evaluation.csv").read_text() == "mine\n1\n"


def test_models_act_at_other_lengths_if_their_weights_can(runs, capsys):
    for name, longest in (("sine", 9), ("fixed", 9), ("learned", 4)):
        saved, agent, _ = agents.load_run(runs[name])
        config = agents.change_env(saved, [f"env.length={longest}"])
        model = agents.fit_to_env(agent, saved, config).memory.seq_model
        longest_of = {"sine": 11, "fixed": 4, "learned": 6}  # horizon + 1, or 3 + 1
        assert model.longest == longest_of[name]
    assert evaluate(runs["learned"], "env.length=9") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: env.length=9: the model was trained on episodes of 5 steps")
    assert error.endswith("; env.length may be at most 4\n") and error.count("\n") == 1
    assert not (runs["learned"] / "evaluation.csv").exists()
    assert evaluate(runs["learned"], runs["images"], "env.frames=[3,4,5]") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {runs['learned']}: env.frames=[3,4,5]: no such key")


def test_actions_may_be_numbers_in_a_box(runs, capsys):
    assert evaluate(runs["box"], "--episodes", 3) == 0
    assert "mujoco_v hopper: return" in capsys.readouterr().out
    agent, env = memrl.load(runs["box"], num_envs=2)
    action, _ = agent.act(env.reset(seed=0)[0])
    assert action.shape == (2, 3) and action.dtype == np.float32 and abs(action).max() <= 1
    obs, reward = np.ones((2, 6)), np.zeros(2)
    obs[1, 3] = reward[0] = np.nan
    with pytest.raises(ValueError, match=r"^obs must be finite, got nan$"):
        agent.act(obs)
    with pytest.raises(ValueError, match=r"^prev_reward must be finite, got nan$"):
        agent.act(np.ones((2, 6)), reward)
    assert evaluate(runs["box"], "env.robot=walker2d") == 2
    line = (
        "env.robot=walker2d: the agent was trained on (6,) float32 and continuous actions of width"
    )
    assert f"{line} 3; this task has (9,)" in capsys.readouterr().err


def test_a_sweep_stands_for_its_runs_that_are_done(runs, tmp_path, capsys):
    """What an agent cannot play is left out; a run that is named need not be done."""
    names = ("sine", "seed", "learned", "fixed")
    sine, seed, learned, fixed = copies = [tmp_path / runs[name].name for name in names]
    for name, copy in zip(names, copies, strict=True):
        shutil.copytree(runs[name], copy, ignore=shutil.ignore_patterns("evaluation.*"))
    stopped = (fixed / "status.json").read_text().replace('"done"', '"stopped"')
    (fixed / "status.json").write_text(stopped)
    assert evaluate(tmp_path, "env.length=4,9", "--episodes", 2) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "3 runs; not done, so left out: 1 stopped"
    assert out[1].startswith(f"{learned}: env.length=9: the model was trained on episodes of 5 ")
    assert out[1].endswith("; env.length may be at most 4; left out: 1 of 2 evaluations")
    title = "tmaze_passive, longest length with a return of at least 0.95, by seed"
    assert out[-5] == title and out[-3].startswith("  gpt, position=sine: ")
    assert out[-2:] == ["evaluation.csv in the folders of 3 runs", f"{tmp_path}/evaluation.png"]
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert [len(rows_of(folder)) for folder in (sine, seed, learned)] == [2, 2, 1]
    assert not (fixed / "evaluation.csv").exists()
    for copy in (sine, seed, learned):
        (copy / "status.json").write_text(stopped)
    assert evaluate(tmp_path, fixed, "--episodes", 2) == 0
    assert len(rows_of(fixed)) == 1
    assert evaluate(tmp_path) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: no run that is done (4 stopped)\n"


def test_seeds_are_one_series(runs):
    """With the longest length that each one solved, at least where that is the longest of all."""
    sine, seed, learned = memrl.results.load(*(runs[name] for name in ("sine", "seed", "learned")))
    scores = [(sine, 4, 1), (seed, 4, 1), (sine, 9, 1), (seed, 9, 0), (learned, 4, 0.5)]
    evaluations = [
        (run, Evaluation({"env.length": length}, length, 0, "", np.r_[score, score], None, None))
        for run, length, score in scores
    ]
    cells = evaluation.group(evaluations)
    assert [(cell.label, cell.length, cell.estimate.value) for cell in cells] == [
        ("gpt, position=learned", 4, 0.5),
        ("gpt, position=sine", 4, 1),
        ("gpt, position=sine", 9, 0.5),
    ]
    assert cells[2].estimate[1:] == (0, 1, 2)  # the interval is over the two runs
    assert evaluation.longest_solved(cells)[1:] == [
        "  gpt, position=learned: -",
        "  gpt, position=sine: >= 9, 4",
    ]
    assert evaluation.figure(cells[:2]) is None


BAD = {
    "env.lenght=3": "env.lenght=3: no such key; did you mean env.length?",
    **{
        word: f"{word}: only keys of the task, such as env.length=20, may be changed"
        for word in ("seed=3", "env.name=x", "env._target_=x.Y", "env.solved_at=1", "~env.length=4")
    },
    "env.length=x": "env.length=x: must be an integer or a list",
    "env.length=0": "env.length must be at least 1, got 0",
    "nowhere": "nowhere: no such folder",
    "": "name at least one folder, outputs/<sweep>/<run> or outputs/<sweep>",
}


@pytest.mark.parametrize("word", BAD)
def test_bad_arguments_are_refused_in_one_line(word, runs, capsys):
    words = [runs["sine"], word] if OVERRIDE.match(word) else [word or "env.length=3"]
    assert evaluate(*words) == 2
    assert capsys.readouterr().err == f"error: {BAD[word]}\n"


def test_an_agent_is_not_shown_observations_that_mean_something_else():
    saved = resolve(compose_quickly(["env=gym", "env.id=FrozenLake-v1"]))
    config = agents.change_env(saved, ["env.id=FrozenLake8x8-v1"])  # of the same shape
    here = "this task has 1 of 64 categories"
    with pytest.raises(ConfigError, match=rf"^env.id=.* on 1 of 16 categories; {here}$"):
        agents.fit_to_env(None, saved, config)


def test_arguments_of_an_environment_are_merged():
    saved = resolve(compose_quickly(["env=gym", "env.id=FrozenLake-v1", "env.kwargs={desc: null}"]))
    for sign, keys in (("", "desc"), ("+", "map_name")):
        value = f"{{{keys}: 4x4}}"
        kwargs = agents.change_env(saved, [f"{sign}env.kwargs={value}"])["env"]["kwargs"]
        assert kwargs == {"desc": None} | {keys: "4x4"}
    line = "env.kwargs={map_name: 8x8}: its keys are merged into those of env.kwargs; a new one"
    with pytest.raises(ConfigError, match=f"^{line} needs a \\+ in front$"):
        agents.change_env(saved, ["env.kwargs={map_name: 8x8}"])


def test_a_share_has_wilsons_interval():
    low, high = stats.share(np.r_[np.ones(8), np.zeros(2)])[1:3]
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927
    assert stats.share(np.ones(10)).low == pytest.approx(0.7225, abs=1e-4)


# --- in Python -----------------------------------------------------------------------------------


def test_a_loaded_agent_plays_like_an_evaluation_and_leaves_torch_alone(runs):
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.get_num_threads()
    agent, env = memrl.load(runs["sine"], ["env.length=9"], num_envs=3)
    obs, _ = env.reset(seed=5)
    obs, _ = env.reset()
    total, reward, state = 0, None, None
    for _ in range(env.horizon):
        action, state = agent.act(obs, reward, state)
        obs, reward, _, _, _ = env.step(action)
        total += reward
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]
    saved, own, _ = agents.load_run(runs["sine"])
    config = agents.change_env(saved, ["env.length=9"])
    returns, _, _ = evaluation.play(config, agents.fit_to_env(own, saved, config), 3, 5)
    np.testing.assert_allclose(total, returns)


def test_a_run_of_a_gpu_is_loaded_on_a_cpu(runs, tmp_path):
    config = read_config(runs["sine"])
    torch.save(checkpoint.load_weights(runs["sine"], config), tmp_path / "agent.pt")
    config |= {"device": "cuda", "precision": "tf32", "update": "graphed"}
    OmegaConf.save(config, tmp_path / "config.yaml")
    agent, env = memrl.load(tmp_path)
    assert agent.act(env.reset(seed=0)[0])[0].shape == (1,)


@pytest.fixture
def interruptible():
    """Whoever started the tests in the background had SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_train_resumes_raises_and_leaves_hydra_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("seed: 7\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):  # within another program
        with monkeypatch.context() as patch:
            collect = Trainer.collect
            interrupt = partial(signal.raise_signal, signal.SIGINT)
            patch.setattr(Trainer, "collect", lambda self: interrupt() or collect(self))
            with pytest.raises(KeyboardInterrupt):
                memrl.train([*TINY, *RUNS["sine"]])
        (stopped,) = memrl.results.load("outputs")
        assert stopped.state == "stopped" and stopped.status["env_steps"] == 5
        trained = memrl.train([*TINY, *RUNS["sine"]])
        for overrides, message in (
            (["lr=3"], "did you mean algo.lr"),
            (["seed=0,1"], "several values are a sweep"),
            (["hydra.mode=MULTIRUN"], "memrl.train trains one run"),
        ):
            with pytest.raises(ConfigError, match=message):
                memrl.train(overrides)
        assert compose("other").seed == 7 and str(getbase()) == "1.2"
    assert trained.state == "done" and len(trained.eval["eval/return"]) == 1
    (trained.folder / "agent.pt").write_bytes(b"torn")
    with pytest.raises(Failure, match="is damaged"):
        memrl.train([*TINY, *RUNS["sine"]])


# --- init_from -----------------------------------------------------------------------------------


def test_init_from_begins_with_the_weights_of_a_run_and_nothing_else(
    runs, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    source = runs["sine"]
    longer = [*TINY, *RUNS["sine"], "env.length=6"]
    config = resolve(compose_quickly([*longer, f'init_from="{source}"']))
    agent = build(config).agent
    weights = checkpoint.load_weights(source, read_config(source))
    for network in (agent.online, agent.target):
        assert all(torch.equal(value, weights[k]) for k, value in network.state_dict().items())
    assert not agent.optimizer.state_dict()["state"] and agent.epsilon == 1
    assert ",init_from=" in folder_of(config | {"init_from": "outputs/runs/x"}).name
    assert not caplog.messages
    build(config | {"seq_model": config["seq_model"] | {"position": "none"}})
    assert caplog.messages == [
        "warning: init_from: the weights fit, but options differ: seq_model.position: sine -> none"
    ]

    images = runs["images"]
    for refused, reason in (
        (
            {"init_from": "gone"},
            "init_from=gone: not the folder of a run that is done: agent.pt is",
        ),
        (
            {"init_from": str(images)},
            f"init_from={images}: its algo is memrl.algos.sacd.SACD, here",
        ),
        (
            {"seq_model": config["seq_model"] | {"n_layer": 2, "n_head": 2}},
            "its weights do not fit: memory.seq_model.blocks.1.norm1.weight is missing there and",
        ),
    ):
        for build_or_check in (build, partial(check, here=True)):
            with pytest.raises(ConfigError, match=re.escape(reason)):
                build_or_check(config | refused)
    # A run that has begun continues without the one that it began from.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(Failure, match="no readable checkpoint"):
        train(config | {"init_from": "gone"}, tmp_path / "run")


def test_runs_of_versions_without_init_from_are_those_without_it():
    config = resolve(compose_quickly(TINY))
    older = {key: value for key, value in config.items() if key != "init_from"}
    assert config["init_from"] is None and check_types(older) == config
    assert identity(older) == identity(config) and differences(older, config) == []
    assert folder_of(older) == folder_of(config)
    assert differences(older, config | {"init_from": "x"}) == ["init_from: null -> x"]
