"""Cells run as in Jupyter: neither IPython's syntax nor await nor a slip elsewhere takes points from a right answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from clteach.errors import ConfigError
from clteach.exercises import Exercise, check
from clteach.exercises.cells import furnish, run_cell
from clteach.exercises.exercise import BEGIN, END
from clteach.exercises.grading import Graded, grade

KL = "def kl(mean, logvar):\n    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)\n"

# Cells that Jupyter runs.
GOOD = {
    "a modulo that a formatter moved to a line of its own": f"odd = (7\n       % 2)\n{KL}assert odd == 1",
    "help": f"import torch\ntorch.exp?\n{KL}",
    "source of a function": f"{KL}kl??",
    "a command": f"!ls\n{KL}",
    "what a command printed": f"files = !ls\nassert [name for name in files] == [] == files.l\n{KL}",
    "both": f"!!ls\n{KL}",
    "top-level await": f"import asyncio\nanswer = await asyncio.sleep(0, 42)\nassert answer == 42\n{KL}",
    "top-level async with": f"import asyncio\nasync with asyncio.Lock():\n    pass\n{KL}",
    "the shell": f"get_ipython().run_line_magic('matplotlib', 'inline')\n{KL}",
    "the shell's other parts": "shell = get_ipython()\nshell.events.register('post_execute', print)\n"
    f"shell.ast_node_interactivity = 'all'\nassert 'google.colab' not in str(shell)\n{KL}",
    "a magic over two lines": f"%matplotlib \\\n inline\n{KL}",
    "a magic in a block": f"if True:\n    %matplotlib inline\n{KL}",
    "percent in a text": f'text = """\n%s\n!x\n?\n"""\nassert text.split() == ["%s", "!x", "?"]\n{KL}',
    "percent in a docstring": KL.replace(":\n", ':\n    """KL in\n    % of a nat\n    """\n', 1),
    "magics inside the function": "def kl(mean, logvar):\n    %time price = mean.square() + logvar.exp()\n    !ls\n"
    "    price = mean.square() + logvar.exp()\n    return 0.5 * (price - 1 - logvar).sum(1)\n",
    "a timed cell": f"%%time\n{KL}",
    "a timed cell with a command": f"%%time\n!ls\n{KL}",
    "a captured cell": f"%%capture out\n{KL}",
    "a cell of an unknown magic": f"%%wandb\n{KL}",
    "a timed line": f"%time seven = 3 + 4\nassert seven == 7\n{KL}",
    "a timed value": f"seven = %time 3 + 4\nassert seven == 7\n{KL}",
    "what a magic returns": f"result = %timeit -o 1 + 1\nresult.average\n{KL}",
    "everything indented": "".join(f"  {line}\n" for line in KL.splitlines()),
    "prompts": "".join(f"{'...' if line[0] == ' ' else '>>>'} {line}\n" for line in KL.splitlines()),
    "display": f"display(3)\n{KL}",
    "its own source": f"import inspect\n{KL}assert 'logvar.exp()' in inspect.getsource(kl)\n",
    "no import of what only annotations name": KL.replace("logvar)", "logvar: Tensor)", 1),
}

# Others, which need what only the process of a graded notebook has.
GRADED = {
    "the shell, imported": f"from IPython import get_ipython\nget_ipython().run_line_magic('autoreload', '2')\n{KL}",
    "a class that pickle has to find": f"import pickle\nclass Net:\n    pass\npickle.loads(pickle.dumps(Net()))\n{KL}",
    "a picture": f"import matplotlib.pyplot as plt\n%matplotlib inline\nplt.plot([1, 2])\nplt.show()\n{KL}",
    "widgets": f"from ipywidgets import Output, IntSlider\nwith Output():\n    display(IntSlider())\n{KL}",
}

# Cells that Jupyter refuses, with a right function in them all the same.
BROKEN = {
    "a bracket that is never closed": f"odd = (7\n{KL}",
    "a quote that is never closed": f"text = '''odd\n{KL}",
    "a sentence": f"here comes my answer\n{KL}",
    "a slip below": f"{KL}\nprint(kl(1)\n",
    "a slip above and magics": f"%matplotlib inline\nx = = 3\nfiles = !ls\n{KL}",
    "an else without its if": f"if 1 +:\n    pass\nelse:\n    kl = None\n{KL}",
    "a decorated function": f"x = = 3\nimport functools\n@functools.cache\ndef f():\n    return 1\nassert f() == 1\n{KL}",
    "a statement that needs the broken one": f"odd = (7\nprint(odd)\n{KL}",
    "another function's slip": f"def other(a:\n    return a\n\n{KL}",
    "a timed cell": f"%%time\nodd = (7\n{KL}",
}

# Cells of which nothing is run here.
FOREIGN = {
    "bash": "%%bash\nls -l | grep x\ntouch should_not_be_there",
    "script": "%%script false\nkl = 3",
    "markup": "%%html\n<b>kl</b>",
    "another language": "%%R\nkl <- function(mean) mean",
    "a shell's command": "!touch should_not_be_there",
    "installation": "%pip install nothing-like-that\n!pip install nothing-like-that",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_jupyter_runs_is_run(name: str) -> None:
    space = furnish({})
    run_cell(GOOD[name], "cell 1", space)
    assert check("02.kl", space["kl"]).passed


@pytest.mark.parametrize("name", BROKEN)
def test_a_slip_does_not_cost_the_functions_beside_it(name: str) -> None:
    space = furnish({})
    with pytest.raises(SyntaxError):
        run_cell(BROKEN[name], "cell 1", space)
    assert check("02.kl", space["kl"]).passed


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_python_does_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = furnish({})
    run_cell(FOREIGN[name], "cell 1", space)
    assert "kl" not in space and list(tmp_path.iterdir()) == []


def test_a_broken_answer_earns_nothing() -> None:
    for slip in (
        KL.replace("sum(1)", "sum(1"),
        KL.replace("logvar):", "logvar:"),
        KL.replace("    return", "  return ("),
    ):
        space = furnish({})
        with pytest.raises(SyntaxError):
            run_cell(slip, "cell 1", space)
        assert "kl" not in space


def test_an_if_keeps_its_else() -> None:
    space = furnish({})
    blocks = "if False:\n    a = 1\nelse:\n    a = 2\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    b = 2\n"
    with pytest.raises(SyntaxError):
        run_cell(f"x = = 3\n{blocks}", "cell 1", space)
    assert space["a"] == space["b"] == 2


def test_a_cell_has_a_value() -> None:
    space = furnish({})
    assert run_cell("x = 3\nx + 1", "cell 1", space) == 4
    assert run_cell("x = 3", "cell 1", space) is None and run_cell("", "cell 1", space) is None


def test_a_written_file_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    space = furnish({})
    run_cell(f"%%writefile own_module_of_a_test.py\n{KL}", "cell 1", space)
    run_cell("%%writefile -a own_module_of_a_test.py\nmore = 1", "cell 2", space)
    run_cell("from own_module_of_a_test import kl, more", "cell 3", space)
    assert check("02.kl", space["kl"]).passed and space["more"] == 1
    del sys.modules["own_module_of_a_test"]


# ------------------------------------------------------------------------------------------------ whole notebooks


def write(path: Path, *cells: str) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)


def by_name(results: list[Graded]) -> dict[str, Graded]:
    return {each.file.stem: each for each in results}


@pytest.mark.timeout(300)
def test_whole_notebooks_keep_their_points(tmp_path: Path) -> None:
    good = {**GOOD, **GRADED}
    cases = {**good, **{f"broken: {name}": cell for name, cell in BROKEN.items()}}
    for name, cell in cases.items():
        write(tmp_path / f"{name}.ipynb", "import torch", cell, "kl")
    write(tmp_path / "foreign.ipynb", *FOREIGN.values(), KL)
    write(tmp_path / "nothing.ipynb", "import torch", "def kl(mean:\n    return")
    results, points = grade(tmp_path, chapter="02")
    worth = points["02.kl"]
    assert {each.file.stem: each.points["02.kl"] for each in results} == {
        **dict.fromkeys([*cases, "foreign"], worth),
        "nothing": 0,
    }
    found = by_name(results)
    assert all("cell" not in found[name].remark for name in [*good, "foreign"])
    assert all("cell 2: SyntaxError" in found[f"broken: {name}"].remark for name in BROKEN)
    assert found["nothing"].remark.startswith("cell 2: SyntaxError: '(' was never closed")


def old(level: int, *cells: str) -> dict[str, Any]:
    code = [
        {"cell_type": "code", "language": "python", "input": cell, "outputs": [], "collapsed": False} for cell in cells
    ]
    sheets = [{"cells": [{"cell_type": "markdown", "source": "my answers"}, *code]}]
    return {"nbformat": level, "nbformat_minor": 0, "metadata": {"name": "old"}, "worksheets": sheets}


def test_notebooks_of_older_formats_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "three.ipynb").write_text(json.dumps(old(3, "import torch", KL)))
    (tmp_path / "two.ipynb").write_text(json.dumps(old(2, "import torch", KL)))
    (tmp_path / "no sheets.ipynb").write_text(json.dumps({"nbformat": 3, "metadata": {}}))
    (tmp_path / "sheets of what.ipynb").write_text(json.dumps({**old(3, KL), "worksheets": [{"cells": [7]}]}))
    (tmp_path / "a format of words.ipynb").write_text(json.dumps({**old(3, KL), "nbformat": "three"}))
    results, points = grade(tmp_path, chapter="02")
    found = by_name(results)
    for name in ("two", "three"):
        assert found[name].status == "graded" and found[name].points["02.kl"] == points["02.kl"]
    others = {name: each.status for name, each in found.items() if name not in ("two", "three")}
    assert set(others) == {"no sheets", "sheets of what", "a format of words"}
    assert found["a format of words"].status == found["sheets of what"].status == "not a notebook"
    monkeypatch.setitem(sys.modules, "nbformat", None)
    (found,) = (each for each in grade(tmp_path, chapter="02")[0] if each.file.stem == "three")
    assert found.status == "not a notebook" and "install nbformat" in found.remark


# ------------------------------------------------------------------------------------------------- solutions' markers


def exercise(monkeypatch: pytest.MonkeyPatch, source: str) -> Exercise:
    def answer() -> None: ...

    monkeypatch.setattr("inspect.getsource", lambda _: source)
    return Exercise("99.answer", "", 1, "", answer, lambda rng: {}, (), "")


def test_a_marker_in_a_text_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, end = f"    {BEGIN}\n", f"    {END}\n"
    text = f'    text = """\n{end}{begin}"""\n'
    twice = f"def answer():\n{begin}{text}    x = 1\n{end}    y = 2\n{begin}    return x\n{end.rstrip()}"
    dots = '    raise NotImplementedError("your code here")\n'
    found = exercise(monkeypatch, twice)
    assert found.solved == f"def answer():\n{text}    x = 1\n    y = 2\n    return x\n"
    assert found.template == f"def answer():\n{dots}    y = 2\n{dots}"
    outside = f"def answer():\n{text}{begin}    return 1\n{end}"
    assert exercise(monkeypatch, outside).template == f"def answer():\n{text}{dots}"


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("    return 1\n", "put the solution between"),
        (f"    {BEGIN}\n    return 1\n", f"no line '{END}'"),
        (f"    {BEGIN}\n    return 1\n    {BEGIN}\n", f"line 4 is '{BEGIN}': expected '{END}'"),
        (f"    {END}\n    return 1\n    {END}\n", f"line 2 is '{END}': expected '{BEGIN}'"),
        (f"    x = 1  {BEGIN}\n    return 1\n    {END}\n", "alone on its line"),
        (f'    """\n    {BEGIN}\n    """\n    return 1\n', "put the solution between"),
    ],
)
def test_a_solution_without_its_markers_is_not_given_away(
    inside: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = exercise(monkeypatch, f"def answer():\n{inside}").template
