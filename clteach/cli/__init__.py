"""The command line: ``clteach run | list | reproduce | sweep | pretrain | new | assign | grade``, also ``-m clteach``.

Here a command is called and its errors become messages and exit codes. What the commands accept stands in
`clteach.cli.options`, what they do in `clteach.cli.commands`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import tyro

from clteach.cli import commands, options, reading
from clteach.errors import ClteachError, unknown
from clteach.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for an error of the user's to mend, 130 for Ctrl-C, 1 for anything else."""
    args = list(sys.argv[1:] if argv is None else argv)
    _print_what_can_be()
    if argv is None and reading.only_reads(args):  # this process ends with the command
        reading.without_torch()
    try:
        code = _guarded(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # here a reader that has gone can still be told from other faults
        return code
    except BrokenPipeError as error:
        return 0 if _nobody_reads() else _unexpected(error)


def _guarded(args: list[str]) -> int:
    """Run a command; its errors become messages."""
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
    except BrokenPipeError:
        raise
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if os.environ.get("CLTEACH_DEBUG"):
        raise error
    print(
        f"clteach: unexpected {type(error).__name__}: {error} (set CLTEACH_DEBUG=1 for the traceback)",
        file=sys.stderr,
    )
    return 1


def _print_what_can_be() -> None:
    """An output that has no λ or ✓ (a file or pipe on Windows, a C locale) gets a "?" for it, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="replace")


def _nobody_reads() -> bool:
    """Has the reader of our output gone, as in ``clteach list | head -3``? Then nothing more goes there."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # Python flushes once more when it ends, and would complain: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


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
    if command == "new":
        return commands.new(given)
    if command == "assign":
        return commands.assign(given)
    return commands.grade(given)
