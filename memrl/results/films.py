"""Pictures of a trained agent: greedy episodes, and the earlier steps that its attention uses."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from memrl.envs.lockstep import Colour, name_actions
from memrl.experiment import closing, make_env
from memrl.run.identity import Config
from memrl.run.outcome import ConfigError, Failure

if TYPE_CHECKING:
    from memrl.interfaces import Agent, Episodes

Picture = NDArray[np.uint8]  # (height, width, 3)
MARGIN, TEXT, STRIP = 8, 18, 40  # pixels: margins, height of a line, height of the attention
NARROWEST = 340  # pixels, which hold the title
SQUARE = 10  # pixels of a colour in the legend
MOST_SCORES = 6  # more actions have no room
INK, FAINT, MARK = (30, 30, 30), (190, 200, 215), (214, 90, 20)
HOLD_S = 1.5  # how long an episode's last picture is shown


class Film(NamedTuple):
    """One greedy episode of n steps, with A actions."""

    pictures: list[Picture]  # n + 1; picture t shows the task before step t
    words: list[list[str]]  # n; about each step's action, which is one of them, or the second
    chosen: list[int]  # n; which of the words is the action taken
    widest: list[str]  # the widest of these words by column, in all films of a play
    legend: Mapping[str, Colour]  # what the colours of pictures mean
    reward: NDArray[np.float64]  # (n,)
    attention: NDArray[np.float32] | None  # (n, n): row t has the weights of step t
    success: bool | None


class Camera(VectorWrapper):
    """Records a picture of every state of a vector environment."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(**kwargs)
        self.pictures: list[Any] = [deepcopy(self.env.render())]  # it may reuse the array
        return result

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self.pictures.append(deepcopy(self.env.render()))
        return result


# --- play ----------------------------------------------------------------------------------------


def play(config: Config, agent: Agent, episodes: int, seed: int) -> list[Film]:
    """Play greedy episodes side by side; return a film of each.

    Raises:
        ConfigError: the task draws no pictures, or not without a package.
    """
    from memrl.rollout import rollout

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
    with closing(make_env(config, episodes, render_mode="rgb_array")) as env:
        refusal = f"env={config['env']['name']} cannot be watched:"
        if getattr(env, "render_mode", None) != "rgb_array":
            raise ConfigError(f"{refusal} it does not support render_mode=rgb_array")
        camera = Camera(env)
        try:
            camera.reset(seed=seed)
        except DependencyNotInstalled as error:  # needed for pictures only
            raise ConfigError(f"{refusal} {error}") from None
        device = next(agent.memory.parameters()).device
        played, success = rollout(camera, agent, False, device, env.horizon)
        task = env.envs[0].unwrapped if hasattr(env, "envs") else env
        legend = getattr(task, "legend", None)
        names = _action_names(task, env.single_action_space)
    attention = _attention(agent, played)
    words, chosen = _words(played.action.numpy(), names, _scores(agent, played))
    lengths = played.mask.sum(0).int().tolist()
    shown = [words[t][b] for b, n in enumerate(lengths) for t in range(n)]
    widest = [max(column, key=len) for column in zip(*shown, strict=True)]
    return [
        Film(
            [pictures[b] for pictures in camera.pictures[: n + 1]],
            [words[t][b] for t in range(n)],
            chosen[:n, b].tolist(),
            widest,
            dict(legend) if isinstance(legend, Mapping) else {},
            played.reward[:n, b].double().numpy(),
            None if attention is None else attention[b, :n, :n],
            None if success is None else bool(success[b]),
        )
        for b, n in enumerate(lengths)
    ]


def _action_names(task: Any, space: Any) -> Sequence[str]:
    """Return the names of discrete actions; numbers, if the task gives them none."""
    return name_actions(task, int(space.n)) if isinstance(space, Discrete) else ()


def _words(
    action: NDArray[Any], names: Sequence[str], scores: tuple[str, NDArray[np.float32]] | None
) -> tuple[list[list[list[str]]], NDArray[np.int64]]:
    """Return the words about each step of each row, and which of them is the action taken.

    Args:
        action: (T, B) if discrete, else (T, B, ...).
        names: of discrete actions.
        scores: what they are called, and (T + 1, B, A).
    """
    T, B = action.shape[:2]
    if scores is None or not 0 < len(names) <= MOST_SCORES:
        texts = [[_action_text(one, names) for one in row] for row in action]
        return [[["action", text] for text in row] for row in texts], np.ones((T, B), np.int64)
    name, values = scores
    words = [
        [[name, *map("{} {:.2f}".format, names, values[t, b])] for b in range(B)] for t in range(T)
    ]
    return words, action.astype(np.int64) + 1


def _action_text(action: Any, names: Sequence[str]) -> str:
    if names:
        return names[int(action)]
    return ", ".join(f"{x:+.2f}" for x in np.ravel(action))


def _scores(agent: Agent, played: Episodes) -> tuple[str, NDArray[np.float32]] | None:
    """Return what an agent's greedy actions have most of, (T + 1, B, A), if it tells."""
    if not hasattr(agent, "action_scores"):
        return None
    device = next(agent.memory.parameters()).device
    obs, action, reward, *others = played
    window = (part.to(device) for part in (obs, action, reward.float()))
    found = agent.action_scores(type(played)(*window, *others))
    return found and (found[0], np.asarray(found[1].cpu()))


def _attention(agent: Agent, played: Episodes) -> NDArray[np.float32] | None:
    """Return the attention weights of each step, (B, T + 1, T + 1); None if the model has none."""
    import torch

    memory = agent.memory.eval()
    if not hasattr(memory.seq_model, "attention"):
        return None
    device = next(memory.parameters()).device
    inputs = (part.to(device) for part in (played.obs, played.action, played.reward.float()))
    with torch.no_grad():
        weights = memory.seq_model.attention(memory.embed(*inputs))
    return np.asarray(weights.cpu())


# --- draw ----------------------------------------------------------------------------------------


def frame(film: Film, t: int, title: str) -> Image.Image:
    """Draw the task before step ``t``, the rewards until then, and the action that follows."""
    font = ImageFont.load_default(size=13)
    task = Image.fromarray(film.pictures[t])
    is_beside = film.attention is not None and task.width <= 2 * task.height
    lines = 3 + bool(film.legend) + is_beside
    n, top = len(film.reward), MARGIN + lines * TEXT
    columns = [round(font.getlength(f"{word}   ")) for word in film.widest]
    narrowest = max(NARROWEST, sum(columns), _legend_width(film, font))
    width, height = max(task.width, narrowest) + 2 * MARGIN, top + task.height + MARGIN
    # The earlier step is drawn beside a high picture, below a wide one, and has a line above it.
    spot = (2 * MARGIN + task.width, top)
    if film.attention is not None:
        if is_beside:
            width = max(2 * task.width + 3 * MARGIN, width)
        else:
            spot = (MARGIN, height + TEXT)
            height += TEXT + task.height + MARGIN
        height += TEXT + STRIP + MARGIN
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    reward = film.reward[t - 1] if t else 0.0
    line = f"step {t}/{n}   reward {reward:+.2f}   return {film.reward[:t].sum():.2f}"
    if t == n and film.success is not None:
        line += "   success" if film.success else "   no success"
    draw.text((MARGIN, MARGIN // 2), title, fill=INK, font=font)
    draw.text((MARGIN, MARGIN // 2 + TEXT), line, fill=INK, font=font)
    if t < n:
        left = MARGIN
        for i, (text, column) in enumerate(zip(film.words[t], columns, strict=True)):
            colour = MARK if i == film.chosen[t] else INK
            draw.text((left, MARGIN // 2 + 2 * TEXT), text, fill=colour, font=font)
            left += column
    left = MARGIN
    for text, colour in film.legend.items():
        base = MARGIN // 2 + 3 * TEXT
        draw.rectangle((left, base + 3, left + SQUARE, base + 3 + SQUARE), fill=colour)
        draw.text((left + SQUARE + 5, base), text, fill=INK, font=font)
        left += _entry_width(text, font)
    image.paste(task, (MARGIN, top))
    if film.attention is not None:
        _look_back(image, film, min(t, n - 1), spot, font)
    return image


def _entry_width(text: str, font: Any) -> int:
    return SQUARE + 17 + int(font.getlength(text))


def _legend_width(film: Film, font: Any) -> int:
    return sum(_entry_width(text, font) for text in film.legend)


def _look_back(image: Image.Image, film: Film, t: int, spot: tuple[int, int], font: Any) -> None:
    """Draw the earlier step that step ``t`` attends to most, and its weights on all steps."""
    assert film.attention is not None
    draw = ImageDraw.Draw(image)
    weights = film.attention[t, : t + 1]
    scale = (image.width - 2 * MARGIN) / len(film.reward)
    base = image.height - MARGIN
    best, caption = None, "attention of step 0"
    if t:
        best = int(weights[:-1].argmax())
        caption = (
            f"attention of step {t}: {weights[best]:.0%} on {best}, {weights[t]:.0%} on itself"
        )
        image.paste(Image.fromarray(film.pictures[best]), spot)
        draw.text((spot[0], spot[1] - TEXT), f"looks back to step {best}", fill=MARK, font=font)
    draw.text((MARGIN, base - STRIP - TEXT), caption, fill=INK, font=font)
    draw.line([(MARGIN, base), (image.width - MARGIN, base)], fill=FAINT)
    for s, weight in enumerate(weights / weights.max()):
        left = MARGIN + s * scale
        box = (left, base - STRIP * float(weight), left + max(scale - 1, 1), base)
        draw.rectangle(box, fill=MARK if s == best else INK if s == t else FAINT)


def _frames(films: Sequence[Film], title: str) -> Iterator[Image.Image]:
    """Draw the films' frames one by one: an episode of 1,500 steps would fill the memory."""
    for number, film in enumerate(films, start=1):
        for t in range(len(film.pictures)):
            yield frame(film, t, f"{title}, episode {number}")


def animation(films: Sequence[Film], title: str, fps: float) -> bytes:
    """Return the films, one after the other, as an animated GIF."""
    durations = []
    for film in films:
        durations += [1000 / fps] * len(film.reward) + [1000 * HOLD_S]
    frames = _frames(films, title)
    buffer = io.BytesIO()
    next(frames).save(
        buffer, "GIF", save_all=True, append_images=frames, duration=durations, loop=0
    )
    return buffer.getvalue()


def video(films: Sequence[Film], title: str, fps: float) -> bytes:
    """Return the films, one after the other, as an MP4 (H.264).

    Raises:
        ConfigError: there is no ffmpeg.
        Failure: ffmpeg cannot do it.
    """
    pause = max(round(fps * HOLD_S), 1)
    times = [n for film in films for n in [1] * len(film.reward) + [pause]]  # of each frame
    width, height = frame(films[0], 0, title).size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        command = [_ffmpeg(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
        # Players want even sizes and halved colours.
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p"]
        command += ["-fflags", "+bitexact", "-flags", "+bitexact", str(path)]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                for picture, n in zip(_frames(films, title), times, strict=True):
                    pipe.write(picture.tobytes() * n)
            if process.wait():
                said.seek(0)
                text = " ".join(said.read().decode(errors="replace").split())
                raise Failure(f"ffmpeg failed: {text or process.returncode}")
        return path.read_bytes()


def _ffmpeg() -> str:
    """Return the program, of the system or of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        advice = "install ffmpeg, or pip install imageio-ffmpeg, or write a .gif"
        raise ConfigError(f"an .mp4 needs ffmpeg, which is not here; {advice}") from None


def strip(films: Sequence[Film], title: str, steps: Sequence[int] | None) -> bytes:
    """Return a PNG with a row for each film: these steps of it, or six evenly spaced ones.

    Raises:
        ConfigError: a step is past the end of the longest episode.
    """
    longest = max(len(film.reward) for film in films)
    if steps and max(steps) > longest:
        raise ConfigError(f"--steps must be at most {longest}, got {max(steps)}")
    cells = {}
    for i, film in enumerate(films):
        n = len(film.reward)
        chosen = np.linspace(0, n, min(6, n + 1)).round().astype(int) if steps is None else steps
        for j, t in enumerate(t for t in chosen if t <= n):
            cells[i, j] = frame(film, int(t), f"{title}, episode {i + 1}")
    width, height = cells[min(cells)].size
    columns, rows = max(j for _, j in cells) + 1, len(films)
    image = Image.new("RGB", (width * columns, height * rows), "white")
    for (i, j), cell in cells.items():
        image.paste(cell, (j * width, i * height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
