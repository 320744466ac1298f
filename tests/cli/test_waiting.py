"""What only prints or writes texts does not wait for torch, and prints and writes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from clteach.cli import main
from clteach.cli.options import COMMANDS
from clteach.cli.reading import only_reads
from clteach.exercises import exercises

PROGRAM = """
import sys
from clteach.cli import main
with_torch, *commands = sys.argv[1:]
if with_torch == "True":
    import torch
for command in commands:
    sys.argv = ["clteach", *command.split()]
    print("exit code", main())
    print("-" * 20)
print(with_torch, "torch._C" in sys.modules, file=sys.stderr)
"""
HELPS = ["--help", *(f"{command} --help" for command in COMMANDS)]
HELPS += ["run ewc generative-replay --stream split-mnist --help", "sweep si -h"]


def printed(with_torch: bool, *commands: str) -> list[str]:
    """What the commands print in a process of its own, in which torch is imported or, as it should be, is not."""
    words = [sys.executable, "-c", PROGRAM, str(with_torch), *commands]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")
    assert done.stderr.split() == [str(with_torch), str(with_torch)], done.stderr
    return done.stdout.split("-" * 20)


def test_lists_and_helps_are_the_same() -> None:
    """Also the values that a preset would give to the settings of the methods that are named."""
    commands = ["list", *HELPS]
    for command, without, as_it_was in zip(commands, printed(False, *commands), printed(True, *commands), strict=False):
        assert without == as_it_was, command
        assert "exit code 0" in without and ("generative-replay" if command == "list" else "usage: clteach") in without


def test_assignments_are_the_same(tmp_path: Path) -> None:
    numbers = ("02", "08")
    printed(False, *(f"assign {number} --to {tmp_path / 'without'} --seed 3" for number in numbers))
    for number in numbers:
        assert main(["assign", number, "--to", str(tmp_path / "with"), "--seed", "3"]) == 0
    with_torch = {p.relative_to(tmp_path / "with"): p.read_bytes() for p in (tmp_path / "with").rglob("*.*")}
    without = {p.relative_to(tmp_path / "without"): p.read_bytes() for p in (tmp_path / "without").rglob("*.*")}
    assert with_torch == without and len(without) == 5


def test_grades_are_the_same(tmp_path: Path) -> None:
    """The notebooks run in other processes, which have torch."""
    folder = tmp_path / "submitted"
    folder.mkdir()
    solved = next(each for each in exercises().values() if each.id == "02.kl")
    for name, answer in (("right", solved.solved), ("wrong", "def kl(mean, logvar):\n    return mean.sum(1)")):
        cell = f'import torch\nfrom torch import Tensor, nn\n{answer}\ncheck("02.kl", kl)'
        new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        nbformat.write(new, folder / f"{name}.ipynb")
    shown = printed(False, f"grade {folder} --csv {tmp_path / 'without.csv'}")
    assert f"right.ipynb: graded, {solved.level} points" in shown[0] and "wrong.ipynb: graded, 0 points" in shown[0]
    assert main(["grade", str(folder), "--csv", str(tmp_path / "with.csv")]) == 0
    assert (tmp_path / "without.csv").read_bytes() == (tmp_path / "with.csv").read_bytes()


def test_what_computes_is_no_such_command() -> None:
    assert only_reads(["list"]) and only_reads(["assign", "02"]) and only_reads(["grade", "folder"])
    assert not only_reads(["run", "ewc"]) and only_reads(["run", "-h"]) and not only_reads([])


def test_a_process_that_has_torch_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["clteach", "list"])
    before = list(sys.meta_path)
    assert main() == 0
    assert sys.meta_path == before


@pytest.mark.timeout(600)
def test_at_most_a_third_of_the_time_of_torch(tmp_path: Path) -> None:
    """Processor time, side by side, the least of three each: a busy machine has many reasons to be slower."""

    def seconds(*words: str) -> float:
        code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
        return float(subprocess.check_output([sys.executable, "-c", code, sys.executable, *words]))

    pytest.importorskip("resource", reason="processor times of children are a matter of Unix")
    commands = [
        ["list"],
        ["run", "--help"],
        ["grade", "--help"],
        ["assign", "02", "--overwrite", "--to", str(tmp_path)],
    ]
    times: dict[str, list[float]] = {}
    for _ in range(3):
        times.setdefault("torch", []).append(seconds("-c", "import torch"))
        for words in commands:
            times.setdefault(words[0], []).append(seconds("-m", "clteach", *words))
    least = {name: min(values) for name, values in times.items()}
    torch = least.pop("torch")
    assert max(least.values()) <= torch / 3, f"import torch: {torch:.2f} s; {least}"
