"""What an exercise is: data. A statement, a solution that is also the source of its starting code, cases, mistakes.

The cases are what an answer is tried on; the mistakes are typical wrong answers, each a function with the hint that helps.
"""

from __future__ import annotations

import ast
import copy
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clteach.errors import ConfigError
from clteach.exercises.compare import LARGEST, Learnable, plain

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
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


def gradients_by(solution: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """Looks at the value, a tensor or a list of them, and at its gradients: a loss that nobody can learn from is no loss.

    Args:
        solution: the reference, whose arguments have the names.
        *names: the arguments that learn. Left out are data, labels and former models: an answer may cut them off or not.
    """
    places = [[*inspect.signature(solution).parameters].index(name) for name in names]

    def observe(answer: Callable[..., Any], *args: Any) -> Any:
        learned = [args[place].requires_grad_() for place in places]
        value = answer(*args)
        parts = [part for part in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(part, Tensor)]
        if any(part.numel() > LARGEST for part in parts):
            return value
        sums = [part.sum() for part in parts if part.requires_grad]
        found = torch.autograd.grad(sums, learned, allow_unused=True) if sums else [None] * len(learned)
        return Learnable(
            value,
            {
                f"by {name}": torch.zeros_like(arg) if gradient is None else gradient
                for name, arg, gradient in zip(names, learned, found, strict=True)
            },
        )

    return observe


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
        return _cut(self.source)[0]

    @property
    def template(self) -> str:
        """The starting code."""
        return _cut(self.source)[1]

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
                found.append(plain(self.observe(answer, *(fresh(arg) for arg in args))))
            except Exception as error:
                found.append(f"raised {type(error).__name__}")
        return found


def _cut(source: str) -> tuple[str, str]:
    """A solution's source without its markers, and the starting code, in which what stands between them is left out.

    Raises:
        ConfigError: the markers do not stand in pairs, and the starting code would hold the solution.
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    solved, template = [], []
    expected, pairs = BEGIN, 0
    for number, line in enumerate(io.StringIO(source), start=1):
        found = comments.get(number, "").rstrip()
        if found not in (BEGIN, END):
            solved.append(line)
            if expected == BEGIN:
                template.append(line)
        elif found != expected or line.strip() != found:
            raise ConfigError(f"line {number} is {line.strip()!r}: expected {expected!r}, alone on its line.")
        elif found == BEGIN:
            template.append(f'{line[: line.index("#")]}raise NotImplementedError("your code here")\n')
            expected = END
        else:
            expected, pairs = BEGIN, pairs + 1
    if expected == END or not pairs:
        raise ConfigError(
            f"no line {expected!r} in {source.splitlines()[0]!r}: put the solution between {BEGIN} and {END}."
        )
    return "".join(solved), "".join(template)


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


def fresh(arg: Any) -> Any:
    """A copy for one call, so that no function can spoil the arguments of the next."""
    if isinstance(arg, Tensor):
        return arg.detach().clone().requires_grad_(arg.requires_grad)
    if isinstance(arg, torch.Generator):
        return torch.Generator().set_state(arg.get_state())
    return copy.deepcopy(arg) if isinstance(arg, (list, dict, nn.Module)) else arg
