"""The command line: ``clteach run | list | reproduce | sweep | pretrain | assign | grade``, also as ``python -m clteach``.

Here a command is called and its errors become messages and exit codes. What the commands accept stands in
`clteach.cli.options`, what they do in `clteach.cli.commands`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import tyro

from clteach.cli import commands, options
from clteach.errors import ClteachError, unknown
from clteach.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for an error of the user's to mend, 130 for Ctrl-C, 1 for anything else."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(args)
    except SystemExit as stop:  # tyro printed its help, or what is wrong with an option
        return stop.code if isinstance(stop.code, int) else 2
    except ClteachError as error:
        print(f"clteach: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        trains = args[:1] in (["run"], ["sweep"], ["reproduce"])
        same = "The same command, without --fresh," if "--fresh" in args else "The same command"
        after = f" {same} resumes from the checkpoints." * trains
        after += " The same command goes on with the notebooks that are left." * (args[:1] == ["grade"])
        print(f"clteach: stopped.{after}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("CLTEACH_DEBUG"):
            raise
        print(
            f"clteach: unexpected {type(error).__name__}: {error} (set CLTEACH_DEBUG=1 for the traceback)",
            file=sys.stderr,
        )
        return 1


def _main(args: list[str]) -> int:
    if args and args[0] == "--version":
        print(f"clteach {__version__}")
        return 0
    if not args or args[0].startswith("-"):
        about = "Continual learning with generative memory: train, compare and reproduce."
        tyro.extras.subcommand_cli_from_dict(
            dict(options.COMMANDS), args=args or ["--help"], prog="clteach", description=about
        )
        return 0
    command, rest = args[0], args[1:]
    if command == "run":
        return commands.run(*options.parse_run(rest))
    if command not in options.COMMANDS:
        raise unknown("command", command, options.COMMANDS)
    given = options.parse(options.COMMANDS[command], command, rest)
    if command == "list":
        return commands.show_lists()
    if command == "reproduce":
        return commands.reproduce(given)
    if command == "sweep":
        return commands.sweep(given)
    if command == "pretrain":
        return commands.pretrain(given)
    if command == "assign":
        return commands.assign(given)
    return commands.grade(given)
