"""What an exercise is, how an answer is checked, and the report that a learner reads.

An exercise is data: a statement, a solution that is also the source of its starting code, the cases it is tried on, and
the typical mistakes, each as a function with the hint that helps. A wrong answer is recognised by doing on every case
what one of the mistakes does; then its hint is shown. Otherwise the difference itself speaks, and the exercise's own hint.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clteach.errors import unknown
from clteach.exercises.compare import LARGEST, Difference, Learnable, difference, plain, show
from clteach.exercises.limits import Ended, limited
from clteach.seeding import derive

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOLUTION = re.compile(rf"^([ ]*){BEGIN}\n(.*?)^[ ]*{END}\n", re.MULTILINE | re.DOTALL)
# What starting code may use; an exercise imports what its solution uses.
IMPORTS = {
    "copy": "import copy",
    "math": "import math",
    "torch": "import torch",
    "Callable": "from collections.abc import Callable",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
}

Cases = Mapping[str, tuple[Any, ...]]


def call(answer: Callable[..., Any], *args: Any) -> Any:
    """What is looked at in most exercises: the value that the function returns."""
    return answer(*args)


def value_and_gradient(answer: Callable[..., Any], *args: Any) -> Any:
    """Looks at the value and at its gradient by the first argument: a loss that nobody can learn from is no loss."""
    first = args[0].detach().clone().requires_grad_(True)
    value = answer(first, *args[1:])
    if not isinstance(value, Tensor) or value.numel() > LARGEST:
        return value
    total = value.sum()
    gradient = torch.autograd.grad(total, first, allow_unused=True)[0] if total.requires_grad else None
    return Learnable(value, torch.zeros_like(first) if gradient is None else gradient)


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer: its name, the answer itself, and the hint for who gave it."""

    name: str
    answer: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        id: chapter and function name, as in "02.kl".
        title: a few words.
        level: 1 (warm-up), 2 (the paper's key step) or 3 (stretch); also its points.
        statement: what is asked, Markdown with TeX.
        solution: the reference. What stands between the solution markers is taken out of the starting code.
        cases: generator of random numbers -> {name of the case: arguments}.
        mistakes: typical wrong answers with their hints.
        hint: what to think of when no mistake was recognised.
        why: shown when the answer is right.
        observe: what is looked at: (answer, *arguments) -> value.
        tolerance: relative tolerance of numbers.
    """

    id: str
    title: str
    level: int
    statement: str
    solution: Callable[..., Any]
    cases: Callable[[torch.Generator], Cases]
    mistakes: tuple[Mistake, ...]
    hint: str
    why: str = ""
    observe: Callable[..., Any] = call
    tolerance: float = 1e-4

    @property
    def chapter(self) -> str:
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.id.partition(".")[2]

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.solution).parameters)

    @property
    def source(self) -> str:
        """The solution's source, with its markers."""
        return textwrap.dedent(inspect.getsource(self.solution))

    @property
    def solved(self) -> str:
        """The solution's source without markers."""
        return SOLUTION.sub(r"\2", self.source)

    @property
    def template(self) -> str:
        """The starting code."""
        return SOLUTION.sub(r'\1raise NotImplementedError("your code here")\n', self.source)

    @property
    def imports(self) -> list[str]:
        """The import lines that the solution needs."""
        names = {node.id for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Name)}
        return [line for name, line in IMPORTS.items() if name in names]

    def outcomes(self, answer: Callable[..., Any], cases: Cases) -> list[Any]:
        """What `answer` gives in every case, as plain data; an exception counts as an outcome."""
        found = []
        for args in cases.values():
            try:
                found.append(plain(self.observe(answer, *(_fresh(arg) for arg in args))))
            except Exception as error:
                found.append(f"raised {type(error).__name__}")
        return found


def choice(
    id: str,
    title: str,
    question: str,
    options: Mapping[str, tuple[str, str]],
    solution: Callable[[], str],
    why: str,
    think: str,
    level: int = 1,
) -> Exercise:
    """A "predict, then run" exercise: one of several statements is right.

    Args:
        id: as in `Exercise`, and so are `title`, `solution`, `why` and `level`.
        question: Markdown.
        options: {letter: (text, hint for who chose it)}; the right one needs no hint.
        think: what to think of before choosing.
    """
    listed = "\n".join(f"- **{letter}**: {text}" for letter, (text, _) in options.items())
    right = solution()
    mistakes = [
        Mistake(letter, lambda letter=letter: letter, hint) for letter, (_, hint) in options.items() if letter != right
    ]
    hint = f"{think} Answer with one letter: {', '.join(options)}."
    return Exercise(id, title, level, f"{question}\n\n{listed}", solution, no_cases, tuple(mistakes), hint, why)


def no_cases(rng: torch.Generator) -> Cases:
    """The one case of a function without arguments."""
    return {"your answer": ()}


@dataclass(frozen=True)
class Report:
    """The result of a check: `passed`, and what to read. `status`: passed, todo, wrong, shape, type, nan, error or time."""

    id: str
    title: str
    status: str
    tried: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    printed: str = ""
    mistake: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        mark = {"passed": "✓ right", "todo": "· not done yet"}.get(self.status, "✗ not yet right")
        lines = [f"{mark}: {self.id} ({self.title})"]
        for name in ("tried", "expected", "got", "hint", "printed"):
            if text := getattr(self, name):
                label = {"hint": "note" if self.passed else "hint"}.get(name, name)
                lines.append(textwrap.indent(_wrapped(text), " " * 12).replace(" " * 12, f"  {label:<10}", 1))
        return "\n".join(lines)

    def require(self) -> None:
        """Print the report; raise an `AssertionError` with it unless the answer is right. For graded cells."""
        print(self)
        if not self.passed:
            raise AssertionError(str(self))


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 68, break_on_hyphens=False) for line in text.split("\n"))


# --------------------------------------------------------------------------------------------------------- registry


@cache
def chapters() -> dict[str, str]:
    """{number: title} of the chapters that have exercises: one module ``clteach/exercises/chNN.py`` each."""
    numbers = sorted(path.stem[2:] for path in Path(__file__).parent.glob("ch[0-9][0-9].py"))
    return {number: import_module(f"clteach.exercises.ch{number}").TITLE for number in numbers}


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by id, chapter by chapter."""
    found = [each for number in chapters() for each in import_module(f"clteach.exercises.ch{number}").EXERCISES]
    return {each.id: each for each in found}


def get(id: str) -> Exercise:
    """The exercise of this id.

    Raises:
        ConfigError: there is none; the message names the closest.
    """
    known = exercises()
    if id not in known:
        raise unknown("exercise", str(id), known)
    return known[id]


# ------------------------------------------------------------------------------------------------------------ check


def check(id: str, answer: Any, *, seed: int = 0, seconds: float = 10.0) -> Report:
    """Check an answer and say what is wrong with it, if anything. Never raises because of what the answer does.

    Args:
        id: the exercise, e.g. "02.kl"; `clteach.exercises.list()` shows all.
        answer: the function (the function itself, not its result); the value where the function takes no arguments.
        seed: other seeds try the function on other numbers.
        seconds: time limit for all cases together.

    Returns:
        A report: print it, or make it the last value of a cell. ``report.passed`` says whether the answer is right.

    Raises:
        ConfigError: there is no such exercise.
    """
    exercise = get(id)

    def report(status: str, **words: str) -> Report:
        return Report(exercise.id, exercise.title, status, **words)

    if answer is Ellipsis or answer is NotImplemented:
        return report("todo", hint="Put your answer in place of the dots, then run again.")
    if not callable(answer):
        if exercise.arguments:
            how = f"Give the function itself, without brackets: check({exercise.id!r}, {exercise.name})."
            return report("type", expected="a function", got=show(plain(answer)), hint=how)
        value, answer = answer, lambda: value  # a prediction may be given as it is
    signature = f"{exercise.name}({', '.join(exercise.arguments)})"
    if not _accepts(answer, len(exercise.arguments)):
        return report(
            "type",
            expected=f"a function that can be called as {signature}",
            got=f"{getattr(answer, '__name__', 'a function')}{inspect.signature(answer)}",
            hint="Keep the arguments of the starting code, in their order.",
        )
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
        cases = exercise.cases(torch.Generator().manual_seed(derive(seed, exercise.id)))
        expected = exercise.outcomes(exercise.solution, cases)
    results: list[Any] = []  # filled case by case, so that it tells where a loop without end was
    changed: list[str] = []

    def work() -> None:
        for name, args in cases.items():
            given = tuple(_fresh(arg) for arg in args)
            results.append(plain(exercise.observe(answer, *given)))
            if any(_differs(a, b) for a, b in zip(args, given, strict=True)):
                changed.append(name)

    ended = limited(work, seconds)
    reached = list(cases)[min(len(results), len(cases) - 1)]
    if not ended.finished:
        return report(
            "time",
            tried=_tried(exercise, reached, cases),
            expected=f"an answer within {seconds:g} s",
            got="none" if not ended.alive else "none, and the function could not be stopped: restart the kernel",
            hint="Is there a loop that never ends, or one over every single number where one tensor operation would do?",
            printed=ended.printed,
        )
    if isinstance(ended.error, NotImplementedError):
        return report("todo", hint="Put your code in place of the NotImplementedError, then run again.")
    if ended.error is None:
        found = [difference(want, got, exercise.tolerance) for want, got in zip(expected, results, strict=True)]
        if not any(found):
            if changed:
                return report(
                    "wrong",
                    tried=_tried(exercise, changed[0], cases),
                    got="the right values, but an argument was changed on the way",
                    hint="The function writes into a tensor that it was given (x += 1, x[i] = 0, x.add_()). "
                    "The caller still needs it: work on a new one, as in x = x + 1 or x = x.clone().",
                    printed=ended.printed,
                )
            return report("passed", hint=exercise.why, printed=ended.printed)
    mistake = _recognised(exercise, cases, results, ended)
    if ended.error is not None:
        hint = mistake.hint if mistake else _error_hint(ended.error, exercise)
        words = {"expected": f"a value from {signature}", "got": _raised(ended.error)}
        status, tried = "error", reached
    else:
        name, first = next((name, each) for name, each in zip(cases, found, strict=True) if each)
        assert first is not None
        status, tried = first.kind, name
        words = {"expected": first.expected, "got": first.got}
        hint = mistake.hint if mistake else "\n".join(filter(None, (first.hint, _nan_hint(first), exercise.hint)))
        if not exercise.arguments:  # the expected value would be the answer
            words["expected"] = "another answer"
    return report(
        status,
        tried=_tried(exercise, tried, cases),
        **words,
        hint=hint,
        printed=ended.printed,
        mistake=mistake.name if mistake else "",
    )


def _accepts(answer: Callable[..., Any], n: int) -> bool:
    try:
        inspect.signature(answer).bind(*[None] * n)
    except TypeError:
        return False
    except Exception:  # no signature to be had, or one that lies: the call will tell
        return True
    return True


def _fresh(arg: Any) -> Any:
    """A copy for one call, so that no function can spoil the arguments of the next."""
    if isinstance(arg, Tensor):
        return arg.detach().clone().requires_grad_(arg.requires_grad)
    if isinstance(arg, torch.Generator):
        return torch.Generator().set_state(arg.get_state())
    return copy.deepcopy(arg) if isinstance(arg, (list, dict, nn.Module)) else arg


def _differs(before: Any, after: Any) -> bool:
    return isinstance(before, Tensor) and not torch.equal(before.nan_to_num(), after.nan_to_num())


def _tried(exercise: Exercise, case: str, cases: Cases) -> str:
    pairs = zip(exercise.arguments, cases[case], strict=True)
    given = ", ".join(f"{name} = {show(plain(arg) if isinstance(arg, Tensor) else arg)}" for name, arg in pairs)
    return f"{case}: {given}" if given else case


def _recognised(exercise: Exercise, cases: Cases, results: list[Any], ended: Ended) -> Mistake | None:
    """The typical mistake that has the same outcomes as the answer, in every case that was reached."""
    outcomes = [*results, *([] if ended.error is None else [f"raised {type(ended.error).__name__}"])]
    reached = dict(list(cases.items())[: len(outcomes)])
    for mistake in exercise.mistakes:
        wrong = limited(lambda mistake=mistake: exercise.outcomes(mistake.answer, reached), 10)  # type: ignore[misc]
        if wrong.value and not any(
            difference(want, got, exercise.tolerance) for want, got in zip(wrong.value, outcomes, strict=True)
        ):
            return mistake
    return None


def _nan_hint(found: Difference) -> str:
    if found.kind != "nan":
        return ""
    return "NaN or infinity: look for 0/0, the logarithm of 0 and the exponential of something large."


def _raised(error: BaseException) -> str:
    """The error and the learner's own line that it comes from."""
    here = str(Path(__file__).parent)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(here)]
    own = [frame for frame in own if "site-packages" not in frame.filename] or own
    where = f", from line {own[-1].lineno} of {own[-1].name}: {own[-1].line}" if own else ""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    message = message if len(message) < 300 else message[:297] + "..."
    return f"{type(error).__name__}: {message}{where}"


def _error_hint(error: BaseException, exercise: Exercise) -> str:
    text = f"{type(error).__name__} {error.args}"
    for pattern, hint in ERRORS.items():
        if re.search(pattern, text):
            return f"{hint}\n{exercise.hint}"
    return exercise.hint


# What common errors mean.
ERRORS = {
    "NameError": "A name is used that does not exist: is it spelled like the argument, and is everything imported?",
    "must match the size|not broadcastable|cannot be multiplied": "Two tensors do not fit together: print their "
    "shapes.",
    "does not require grad": "The way to the result is cut: .item(), .detach(), .numpy(), torch.tensor(...) and "
    "torch.no_grad() all stop the gradient.",
    "RecursionError": "The function calls itself without end.",
    "SystemExit": "exit() ends the program: use `return`.",
    "OutOfMemory|MemoryError|not enough memory|allocate": "It asked for more memory than there is: what shape does "
    "that tensor have?",
    "index .* out of (range|bounds)": "An index points past the end: Python counts from 0.",
}
