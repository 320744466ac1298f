"""Grading at scale: one process copies itself for every notebook, and no notebook harms another one or the table."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from clteach import cli
from clteach.errors import ClteachError
from clteach.exercises import grading, processes, worker
from clteach.exercises.grading import Graded, Limits, grade, to_csv
from clteach.exercises.processes import CAN_FORK, Forked

KL = "import torch\ndef kl(mean, logvar):\n    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)"
WRONG = KL.replace("0.5", "0.25")
WORTH = 2  # points of 02.kl

only_forked = pytest.mark.skipif(not CAN_FORK, reason="processes are not copied on this system")
pytestmark = pytest.mark.timeout(300)


def hand_in(folder: Path, name: str, *cells: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def graded(folder: Path, seconds: float = 60.0, memory: float = 4.0, **options: int | bool) -> dict[str, Graded]:
    results, points = grade(folder, "02", limits=Limits(seconds, memory), **options)  # type: ignore[arg-type]
    assert points["02.kl"] == WORTH
    return {each.file.stem: each for each in results}


def points(found: dict[str, Graded]) -> dict[str, int]:
    return {name: each.points.get("02.kl", 0) for name, each in found.items()}


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(process: int) -> bool:
    """A killed process may take a moment to end."""
    end = time.monotonic() + 10
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(process)


HARMFUL = {
    "patches torch": "import torch\ntorch.Tensor.sum = torch.Tensor.exp = torch.allclose = None\n"
    "torch.set_default_dtype(torch.float64)\ntorch.manual_seed(3)",
    "patches the check": "from clteach.exercises import checking, compare, exercises\n"
    "checking.difference = compare.difference = lambda *_: None\nexercises().clear()",
    "patches Python": "import builtins, json, os\nbuiltins.len = None\njson.dumps = None\nos.environ.clear()\nos.chdir('/')",
    "leaves": "import os\nos._exit(0)",
    "leaves with a code": "import os\nos._exit(7)",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "points nowhere": "import ctypes\nctypes.string_at(0)",
    "closes everything": "import os\nos.closerange(3, 1000)",
    "never ends": "import itertools\nsum(itertools.count())",
    "waits for ever": "import threading\nwhile True:\n    try:\n        threading.Event().wait()\n"
    "    except BaseException:\n        pass",
    "wants all memory": "hoard = []\nwhile True:\n    hoard.append(bytearray(10**8))",
    "leaves threads": "import threading\nthreading.Thread(target=threading.Event().wait).start()",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit needs Linux")
def test_no_notebook_harms_the_next(tmp_path: Path) -> None:
    for number, (name, cell) in enumerate(HARMFUL.items()):
        hand_in(tmp_path, f"{number:02} a {name}", cell, KL)
        hand_in(tmp_path, f"{number:02} b right", KL)
        hand_in(tmp_path, f"{number:02} c wrong", WRONG)
    found = graded(tmp_path, seconds=4, memory=1.0)
    after = {name: each for name, each in points(found).items() if " a " not in name}
    assert after == {name: WORTH if "right" in name else 0 for name in after}
    assert {name[5:]: (each.status, each.points["02.kl"]) for name, each in found.items() if " a " in name} == {
        "patches torch": ("graded", 0),  # the answer itself needs what it broke
        "patches the check": ("crashed", 0),
        "patches Python": ("crashed", 0),
        "leaves": ("graded", 0),
        "leaves with a code": ("crashed", 0),
        "kills itself": ("crashed", 0),
        "points nowhere": ("crashed", 0),
        "closes everything": ("crashed", 0),
        "never ends": ("timeout", 0),
        "waits for ever": ("timeout", 0),
        "wants all memory": ("graded", WORTH),
        "leaves threads": ("graded", WORTH),
    }
    remarks = {name[5:]: each.remark for name, each in found.items()}
    assert remarks["leaves with a code"] == "the process ended with exit code 7"
    assert remarks["kills itself"] == "the process ended with SIGKILL"
    assert remarks["points nowhere"] == "the process ended with SIGSEGV"
    assert remarks["never ends"] == "stopped after 4 s."
    assert remarks["wants all memory"].startswith("cell 1: MemoryError;")


def test_both_ways_give_the_same_table(tmp_path: Path) -> None:
    folder = tmp_path / "submitted"
    hand_in(folder, "right", "%pip install -q clteach", KL, "1 / 0")
    hand_in(folder, "wrong", WRONG)
    hand_in(folder, "crash", KL, "import os\nos._exit(3)")
    (folder / "text.ipynb").write_text("dear professor")
    tables = []
    for forks in {CAN_FORK, False}:
        results, worth = grade(folder, "02", jobs=2, forks=forks)
        tables.append(to_csv(results, worth, folder, tmp_path / "table.csv").read_text())
    assert len(set(tables)) == 1 and "ZeroDivisionError" in tables[0] and "exit code 3" in tables[0]


@only_forked
def test_a_notebook_that_ends_the_process_behind_all(tmp_path: Path) -> None:
    """The others are graded all the same, also what ran at the same time; the guilty one has crashed."""
    hand_in(tmp_path, "a", KL)
    hand_in(tmp_path, "b", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", KL)
    hand_in(tmp_path, "c", "import time\ntime.sleep(2)", KL)
    hand_in(tmp_path, "d", KL)
    found = graded(tmp_path, jobs=2)
    assert points(found) == {"a": WORTH, "b": 0, "c": WORTH, "d": WORTH}
    assert found["b"].status == "crashed" and "SIGKILL" in found["b"].remark


@only_forked
def test_where_nothing_can_be_copied_there_are_fresh_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    python = processes._python

    def broken(module: str, *arguments: str, **streams: int) -> subprocess.Popen[bytes]:
        started.append(module)
        return python("no_such_module" if module == "fork_server" else module, *arguments, **streams)

    monkeypatch.setattr(processes, "_python", broken)
    hand_in(tmp_path, "a", KL)
    assert points(graded(tmp_path)) == {"a": WORTH}
    assert started == ["fork_server", "worker"]


@only_forked
def test_copies_are_made_by_a_process_with_one_thread(tmp_path: Path) -> None:
    """A copy has only the thread that called fork; what the others had locked would stay locked in it."""
    hand_in(tmp_path, "a", KL)
    place, order = tmp_path / "place", tmp_path / "place" / "order.json"
    place.mkdir()
    order.write_text(f'{{"cells": [], "ids": [], "seed": 1, "memory": 4, "answer": "{place}/answer.jsonl"}}')
    forked = Forked()
    try:
        forked.start(processes.Order(7, order, 60))
        assert forked.wait() == (7, 0)
        assert forked.server is not None
        server = forked.server.pid
        assert len([*Path(f"/proc/{server}/task").iterdir()]) == 1
    finally:
        forked.close()
    assert gone(server)


@only_forked
@pytest.mark.parametrize("last", ["", "import threading\nthreading.Event().wait()"])
def test_what_a_notebook_has_started_ends_with_it(tmp_path: Path, last: str) -> None:
    note = tmp_path / "process"
    start = (
        f"import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nopen({str(note)!r}, 'w').write(str(child.pid))"
    )
    hand_in(tmp_path, "a", start, last)
    graded(tmp_path, seconds=5)
    assert gone(int(note.read_text()))


def test_what_a_notebook_writes_stays_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, here = tmp_path / "submitted", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    note = tmp_path / "places"
    look = "import os, tempfile\nassert os.listdir() == []"
    spoil = "for name in ('answer.jsonl', 'order.json', 'torch.py'):\n    open(name, 'w').write('nothing')\n"
    spoil += f"print(os.getcwd(), tempfile.mkdtemp(), sep='\\n', file=open({str(note)!r}, 'a'))"
    for name in "ab":
        hand_in(folder, name, look, spoil, KL)
    found = graded(folder)
    assert points(found) == {"a": WORTH, "b": WORTH}
    assert [each.remark for each in found.values() if "cell" in each.remark] == []
    assert [*here.iterdir()] == [] and len([*folder.iterdir()]) == 2
    places = [Path(line) for line in note.read_text().splitlines()]
    assert len({*places}) == 4 and not any(place.exists() for place in places)


@only_forked
def test_two_at_a_time(tmp_path: Path) -> None:
    """Each waits for the other one."""
    for own, other in ("ab", "ba"):
        meet = f"import os, time\nopen('{tmp_path}/{own}', 'w')\nwhile not os.path.exists('{tmp_path}/{other}'):\n"
        hand_in(tmp_path / "submitted", own, f"{meet}    time.sleep(0.01)", KL)
    assert points(graded(tmp_path / "submitted", jobs=2)) == {"a": WORTH, "b": WORTH}


def test_no_text_spoils_the_table(tmp_path: Path) -> None:
    """Half a surrogate pair cannot be written as UTF-8, in a message or, on some systems, in a file name."""
    folder = tmp_path / "submitted"
    hand_in(folder, "a", KL, "raise ValueError(chr(0xD800) + ' here')")
    results, worth = grade(folder, "02")
    if os.name == "posix":
        results.append(Graded(folder / os.fsdecode(b"\xff.ipynb"), "graded"))
    table = to_csv(results, worth, folder, tmp_path / "table.csv").read_text(encoding="utf-8")
    assert "ValueError: ? here" in table and len(table.splitlines()) == 1 + len(results)


# --------------------------------------------------------------------------------------------------- stop and go on


def table(path: Path) -> dict[str, int]:
    with open(path, newline="", encoding="utf-8") as lines:
        return {row["student"]: int(row["02.kl"]) for row in csv.DictReader(lines)}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to be sent")
def test_after_ctrl_c_the_same_command_goes_on(tmp_path: Path) -> None:
    """Of four notebooks the third waits for a file; each leaves a line in another one when it is run."""
    folder, log = tmp_path / "submitted", tmp_path / "runs"
    wait = f"import os, time\nwhile not os.path.exists('{tmp_path}/go'):\n    time.sleep(0.01)"
    for name in "abcd":
        hand_in(folder, name, f"print('{name}', file=open({str(log)!r}, 'a'))", wait if name == "c" else "pass", KL)
    out = tmp_path / "table.csv"
    command = [sys.executable, "-m", "clteach", "grade", str(folder), "--csv", str(out), "--chapter", "02"]
    # A shell's background jobs ignore Ctrl-C, and what they start ignores it, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    while (lines := log.read_text().splitlines() if log.exists() else []) != ["a", "b", "c"]:
        assert process.poll() is None and len(lines) < 4
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on with the notebooks that are left" in said
    assert [line.rpartition("/")[2] for line in printed.splitlines()] == [
        "a.ipynb: graded, 2 points",
        "b.ipynb: graded, 2 points",
    ]
    partial = tmp_path / "table.csv.partial"
    assert partial.exists() and not out.exists()

    (tmp_path / "go").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert table(out) == dict.fromkeys("abcd", WORTH) and "4 notebooks" in done.stdout
    assert sorted(log.read_text().splitlines()) == ["a", "b", "c", "c", "d"]
    assert not partial.exists()


def test_only_what_is_the_same_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = tmp_path / "submitted", tmp_path / "kept"
    for name in "abcd":
        hand_in(folder, name, f"'{name}'", KL)
    ran: list[str] = []

    def run(sources: dict[Path, list[str]], ids: list[str], *_: object) -> Iterator[Graded]:
        for file in sources:
            ran.append(file.stem)
            yield Graded(file, "graded", dict.fromkeys(ids, 1), f"remark on {sources[file][0]}", 0.5)

    def runs(chapter: str = "02", seed: int = 1, limits: Limits | None = None) -> str:
        ran.clear()
        results, worth = grade(folder, chapter, seed, limits, kept=kept)
        assert all(each.points == dict.fromkeys(worth, 1) and each.seconds == 0.5 for each in results)
        assert {each.remark for each in results} == {f"remark on '{name}'" for name in "abcd"}
        return "".join(ran)

    monkeypatch.setattr(grading, "_run", run)
    assert runs() == "abcd"
    assert runs() == ""
    with open(kept, "a") as file:
        file.write('\n{"key": "what a full disk lea')
    (folder / "b.ipynb").rename(folder / "z.ipynb")  # another file, the same notebook
    assert runs() == ""
    hand_in(folder, "d", "'d'", KL, "another = 1")
    assert runs() == "d"
    assert runs() == ""  # what was written after the line that was cut off
    assert runs(seed=2) == "acdz"
    assert runs(limits=Limits(seconds=100)) == "acdz"
    assert runs(limits=Limits(memory=3)) == "acdz"
    assert runs(chapter="01") == "acdz"
    with monkeypatch.context() as other:
        other.setattr("clteach.__version__", "0.0")
        assert runs() == "acdz"
    assert runs() == ""
    monkeypatch.setattr(grading, "_fingerprint", lambda: "another code")
    assert runs() == "acdz"


def test_results_that_cannot_be_kept_are_told_before_the_work(tmp_path: Path) -> None:
    hand_in(tmp_path / "submitted", "a", f"open('{tmp_path}/ran', 'w')", KL)
    (tmp_path / "no folder").touch()
    with pytest.raises(ClteachError, match=r"cannot write .*kept.*--csv"):
        grade(tmp_path / "submitted", "02", kept=tmp_path / "no folder" / "kept")
    assert not (tmp_path / "ran").exists()


def test_a_bar_is_shown_where_stderr_is_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.ipynb").write_text("no notebook")
    arguments = ["grade", str(tmp_path), "--chapter", "02", "--csv", str(tmp_path / "table.csv")]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "grading" in err and "2/2" in err
    assert [line.partition(":")[2] for line in out.splitlines()[:2]] == [" not a notebook, 0 points"] * 2


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            "canvas",
            [
                ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "clteach 02"],
                ["Points Possible", "", "", "", "", "3"],
                ["ada", "", "", "ada", "", "3"],
                ["bob", "", "", "bob", "", "0"],
            ],
        ),
        (
            "moodle",
            [["username", "clteach 02", "clteach 02 feedback"], ["ada", "3", ""], ["bob", "0", "'=1+1"]],
        ),
        ("blackboard", [["Username", "clteach 02 [Total Pts: 3 Score]"], ["ada", "3"], ["bob", "0"]]),
    ],
)
def test_columns_for_a_gradebook(table: str, expected: list[list[str]], tmp_path: Path) -> None:
    """One line per student, of several notebooks the best; nothing that a spreadsheet takes for a formula."""
    points = {"02.kl": 1, "02.elbo": 2}
    graded = [
        Graded(tmp_path / "ada" / "first.ipynb", "graded", {"02.kl": 1}, "02.elbo: wrong"),
        Graded(tmp_path / "ada" / "second.ipynb", "graded", {"02.kl": 1, "02.elbo": 2}),
        Graded(tmp_path / "bob.ipynb", "crashed", {}, "=1+1"),
    ]
    written = to_csv(graded, points, tmp_path, tmp_path / "grades.csv", table)
    with written.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == expected


def test_a_function_that_ran_out_of_time_does_not_get_the_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """But a new function of the same name does, and one that was given less time than the marks give."""
    monkeypatch.setattr(worker, "SECONDS", 0.3)
    checked, calls = worker._Checks(), []

    def kl(mean: Any, logvar: Any) -> Any:
        calls.append(mean)
        time.sleep(0.35)

    def other(mean: Any, logvar: Any) -> Any:
        return kl(mean, logvar)

    assert checked("02.kl", kl, seconds=0.1).status == "time" and len(calls) == 1  # less than the marks give
    assert checked("02.kl", kl, seconds=0.3).status == "time" and len(calls) == 2
    assert checked("02.kl", kl, seconds=0.3).status == "time" and len(calls) == 2
    assert checked("02.kl", other, seconds=0.3).status == "time" and len(calls) == 3
    assert checked("02.posterior", kl, seconds=0.3).status != "passed"
