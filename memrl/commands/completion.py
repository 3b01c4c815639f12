"""Tab completion, by Hydra's plugins: its function for a shell asks how a typed line may go on."""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Sequence

# Hydra has no public way to read its flags.
from hydra._internal.utils import get_args_parser

from memrl.run.command_line import open_command_line
from memrl.run.import_path import add_user_folders
from memrl.run.outcome import ConfigError

TAKES_PATH = ("-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name")


def complete(args: Namespace) -> None:
    """Print the function of a shell, or what may follow on the line that it asks about.

    Args:
        args: of ``-sc install=bash``, ``-sc uninstall=bash`` or ``-sc query=bash``.

    Raises:
        ConfigError: it is none of them.
    """
    if any(text.startswith("query=") for text in args.overrides):
        if "COMP_LINE" not in os.environ:
            raise ConfigError("-sc query: a shell calls this; to install it: -sc install=bash")
        # Whatever is wrong with an unfinished line, the shell's own completion is still there.
        with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stderr(None):
            _answer(args)
        return
    with open_command_line(args) as line:
        try:
            line.hydra.shell_completion(line.config_name, args.overrides)
        except ValueError as error:
            raise ConfigError(
                f"-sc {' '.join(args.overrides)}: {str(error).partition(', available')[0]}"
            ) from None


def _answer(args: Namespace) -> None:
    words = os.environ["COMP_LINE"].split()
    if words[-1] in TAKES_PATH:
        return
    typed, _ = get_args_parser().parse_known_args(words[1:])
    flags = {key: getattr(typed, key) for key in ("config_dir", "config_path", "config_name")}
    add_user_folders(typed)
    with open_command_line(Namespace(**vars(args) | flags)) as line:
        line.hydra.shell_completion(line.config_name, args.overrides)


def complete_command(commands: Sequence[str]) -> bool:
    """Answer for ``memrl COMMAND``; return whether the line is one of ``memrl train``.

    Such a line goes on as one of ``run.py``, whose completion knows no commands.
    """
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.lstrip().partition(" ")
    command, space, arguments = rest.lstrip().partition(" ")
    if command == "train" and space:
        os.environ["COMP_LINE"] = f"{program} {arguments}"
        return True
    if not space and line:
        print(*commands)
    return not line
