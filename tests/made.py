"""Folders of runs with chosen numbers, written as memrl writes them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from conftest import compose_quickly

from memrl.experiment import folder_of, resolve
from memrl.run.identity import Config

TOTAL = 6710  # environment steps of a run that is done


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return resolve(compose_quickly(overrides))


def make_config(*overrides: str) -> Config:
    """A resolved config, ``budget=quick`` unless told otherwise."""
    given = dict(override.split("=", 1) for override in overrides)
    apart = {key: given.pop(key) for key in ("seed", "sweep") if key in given}  # costs no composing
    config = _composed(("budget=quick", *(f"{key}={value}" for key, value in given.items())))
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
    return config | apart | {"seed": int(apart.get("seed", 0))}


def make_run(
    cwd: Path,
    returns: Sequence[float],
    *overrides: str,
    success: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    status: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run with these evaluations, done unless ``status`` says otherwise."""
    config = make_config(*overrides)
    folder = cwd / folder_of(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    n = len(returns)
    at = np.linspace(TOTAL / max(n, 1), TOTAL, n).astype(int) if steps is None else steps
    wins = map(float, success or [float("nan")] * n)
    head = "env_steps,episodes,updates,eval/return,eval/success,eval/length,time/seconds"
    lines = [
        f"{s},{s // 11},{s // 4},{r!r},{w!r},11.0,{s / 100!r}"
        for s, r, w in zip(map(int, at), map(float, returns), wins, strict=True)
    ]
    (folder / "eval.csv").write_text("\n".join([head, *lines]) + "\n")
    content = {
        "state": "done",
        "cause": None,
        "progress": 1.0,
        "env_steps": int(at[-1]) if n else 0,
        "updated": 1.8e9,
        "host": "node1",
        "job_id": None,
        "versions": {"memrl": "0.1.0", "torch": "2.13.0", "device": "cpu", "changed": []},
    }
    (folder / "status.json").write_text(json.dumps(content | dict(status or {})))
    return folder


def make_sweep(cwd: Path, lengths: Sequence[int] = (5, 10), seeds: int = 4) -> Path:
    """Write a sweep of lengths, two models and seeds; scores fall with the length."""
    rng = np.random.default_rng(0)
    for length in lengths:
        for model, level in (("lstm", 1.0), ("gpt", 0.9)):
            for seed in range(seeds):
                rise = np.linspace(0, level - 0.02 * length, 30)
                returns = rise + rng.normal(0, 0.05, 30)
                choice = f"env.length={length}", f"seq_model={model}", f"seed={seed}"
                make_run(cwd, returns.round(3).tolist(), *choice, "sweep=made")
    return cwd / "outputs" / "made"
