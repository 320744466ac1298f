"""How an answer is checked, and the report that a learner reads.

A wrong answer is recognised by doing on every case what one of the exercise's typical mistakes does; then its hint is shown.
Otherwise the difference itself speaks, and the exercise's own hint.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clteach.exercises.chapters import get
from clteach.exercises.compare import Difference, difference, plain, show
from clteach.exercises.exercise import (
    Cases,
    Exercise,
    Mistake,
    fresh,
)
from clteach.exercises.limits import Ended, limited
from clteach.seeding import derive


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
        mark, words = {"passed": ("✓", "right"), "todo": ("·", "not done yet")}.get(self.status, ("✗", "not yet right"))
        head = f"{mark} {words}" if _printable(mark) == mark else words
        lines = [f"{head}: {self.id} ({self.title})"]
        for name in ("tried", "expected", "got", "hint", "printed"):
            if text := getattr(self, name):
                label = {"hint": "note" if self.passed else "hint"}.get(name, name)
                lines.append(textwrap.indent(_wrapped(text), " " * 12).replace(" " * 12, f"  {label:<10}", 1))
        return _printable("\n".join(lines))

    def require(self) -> None:
        """Print the report; raise an `AssertionError` with it unless the answer is right. For graded cells."""
        print(self)
        if not self.passed:
            raise AssertionError(str(self))


def _printable(text: str) -> str:
    """The text with a "?" for what the standard output cannot show: a file or a pipe on Windows knows few letters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 68, break_on_hyphens=False) for line in text.split("\n"))


# ------------------------------------------------------------------------------------------------------------ check


SECONDS = 10.0
"""All cases of an exercise together may take so long."""


def check(id: str, answer: Any, *, seed: int = 0, seconds: float = SECONDS) -> Report:
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
            given = tuple(fresh(arg) for arg in args)
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
                    hint=WRITTEN,
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


WRITTEN = (
    "The function writes into a tensor that it was given (x += 1, x[i] = 0, x.add_()). "
    "The caller still needs it: work on a new one, as in x = x + 1 or x = x.clone()."
)
# What common errors mean.
ERRORS = {
    "leaf Variable that requires grad": WRITTEN,
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
