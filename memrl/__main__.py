"""memrl's command line: ``memrl COMMAND``, or ``python -m memrl COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import memrl
from memrl.run.console import console
from memrl.run.import_path import add_user_folders
from memrl.run.outcome import exit_status, log_to_console

COMMANDS = {
    "train": "train one run, or a sweep with -m; the same as python run.py",
    "check": "check a sequence model: its laws, gradient, cost, and a short training",
    "lengths": "compute the memory and credit-assignment lengths of a task",
    "sweep": "manage a sweep: status, logs, retry, cancel",
    "plot": "draw the figures of a sweep, and print its scores",
    "report": "write a report on a sweep as one HTML file",
    "export": "write all rows of a sweep to one table",
    "evaluate": "play many episodes of a trained agent, also at other lengths",
    "watch": "animate episodes of a trained agent",
    "import-original": "turn logs of the paper's original program into runs",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its status."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    prog = "memrl" if Path(sys.argv[0]).name == "memrl" else "python -m memrl"
    with console():
        if name in ("-sc", "--shell-completion"):
            from memrl.commands.completion import complete_command

            if not complete_command([*COMMANDS]):
                return
            name, rest = "train", [name, *rest]
        if name not in COMMANDS:
            parser = argparse.ArgumentParser(
                prog=prog,
                description=memrl.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                epilog="commands:\n"
                + "\n".join(f"  {key:<17}{text}" for key, text in COMMANDS.items())
                + f"\n\n{prog} COMMAND --help shows the arguments of a command.",
            )
            parser.add_argument("--version", action="version", version=f"memrl {memrl.__version__}")
            parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
            parser.parse_args([name])  # which exits
        command = import_module(f"memrl.commands.{name.replace('-', '_')}")
        if name == "train":
            command.main(rest)
            return
        parser = argparse.ArgumentParser(prog=f"{prog} {name}", description=command.__doc__)
        command.add_arguments(parser)
        # Keys may stand on both sides of a flag, which argparse cannot do beside subcommands.
        parse = parser.parse_args if name == "sweep" else parser.parse_intermixed_args
        args = parse(rest)
        add_user_folders()
        log_to_console()
        sys.exit(exit_status(lambda: command.run(args)))


if __name__ == "__main__":
    main()
