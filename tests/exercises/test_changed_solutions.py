"""No wrong answer passes: every solution is changed at every place, and `check` must reject what is not equivalent.

The changes are those of mutation testing: another operator, another constant, a call, keyword, statement or bound left out,
arguments exchanged. A change that passes is either equivalent, and then it stands in `EQUIVALENT` with the reason, or its
exercise lacks a case.
"""

from __future__ import annotations

import ast
import copy
import difflib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from clteach.exercises import Exercise, check, exercises
from clteach.exercises.checking import _differs
from clteach.exercises.compare import difference, plain
from clteach.exercises.exercise import fresh
from clteach.exercises.limits import limited
from clteach.seeding import derive

SEEDS = (0, 1)  # those on which `clteach grade` tries an answer

OPERATORS: dict[type, list[type]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add, ast.Mult],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult, ast.FloorDiv, ast.Sub],
    ast.FloorDiv: [ast.Div, ast.Mod],
    ast.Mod: [ast.FloorDiv, ast.Mult],
    ast.Pow: [ast.Mult, ast.Add],  # nothing becomes a power: one of two large whole numbers takes for ever
    ast.MatMult: [ast.Mult, ast.Add],
    ast.RShift: [ast.LShift, ast.Sub],
    ast.BitAnd: [ast.BitOr, ast.BitXor],
    ast.BitOr: [ast.BitAnd, ast.BitXor],
}
COMPARISONS: list[type] = [ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq]
NAMES = {
    "mean": ["sum"],
    "sum": ["mean"],
    "max": ["min"],
    "min": ["max"],
    "argmax": ["argmin"],
    "argmin": ["argmax"],
    "any": ["all"],
    "all": ["any"],
    "square": ["abs"],
    "sqrt": ["square"],
    "std": ["var"],
    "exp": ["sigmoid", "square"],
    "log": ["sqrt"],
    "relu": ["softplus"],
    "softmax": ["log_softmax"],
    "log_softmax": ["softmax"],
    "logsumexp": ["amax", "sum"],
    "clamp_min": ["clamp_max"],
    "new_zeros": ["new_ones"],
    "zeros": ["ones"],
    "ones": ["zeros"],
    "hypot": ["dist"],
    "startswith": ["endswith"],
    "train": ["eval"],
    "eval": ["train"],
    "deepcopy": ["copy"],
}


EQUIVALENT: dict[str, dict[str, list[str]]] = {
    "a number may be given as a tensor": {
        "00.average_accuracy": ["return R[-1].mean()"],
        "00.forgetting": ["return (best - R[-1, :-1]).mean()"],
        "00.split": ["n_tasks = (labels.max() + 1) // per_task"],
        "07.value": ["return (p_data * D + p_g * F.relu(m - D)).sum()"],
        "08.choose": ["return accuracy.masked_fill(~allowed, -torch.inf).argmax()"],
        "08.gap": [
            "return x.std() / math.sqrt(len(x))",
            "return (a.mean() - b.mean(), max(0.5, 2.5 * math.hypot(sem(a), sem(b))))",
        ],
        "08.average_accuracy": ["return (correct / total).mean()"],
        "08.report": ["return test[chosen].mean()"],
    },
    "the last dimension of a matrix is its second, and the default of that function": {
        "01.distillation": [
            "p_old = F.softmax(old_logits / T)",
            "p_old = F.softmax(old_logits / T, -1)",
            "log_p = F.log_softmax(logits / T)",
            "log_p = F.log_softmax(logits / T, -1)",
            "return -T ** 2 * (p_old * log_p).sum(-1).mean()",
        ],
        "01.memorable": [
            "p = F.softmax(logits)",
            "p = F.softmax(logits, -1)",
            "score = (p * (1 - p)).sum(-1)",
            "of_class = torch.arange(logits.shape[-1])[:, None] == y",
        ],
        "02.kl": ["return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)"],
        "02.posterior": ["return (log_p + counts.log()).softmax(-1)"],
        "02.loss": [
            "error = (reconstruction - x).square().sum(-1)",
            "price = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(-1)",
        ],
        "02.kl_is_right": [
            "truth = torch.distributions.kl_divergence(cloud, torch.distributions.Normal(0.0, 1.0)).sum(-1)"
        ],
        "03.place": ["k = z_new.shape[-1]"],
        "03.targets": [
            "similarity = F.normalize(replayed_z) @ F.normalize(current_z, dim=1).T",
            "similarity = F.normalize(replayed_z, dim=-1) @ F.normalize(current_z, dim=1).T",
            "similarity = F.normalize(replayed_z, dim=1) @ F.normalize(current_z).T",
            "similarity = F.normalize(replayed_z, dim=1) @ F.normalize(current_z, dim=-1).T",
            "best, closest = similarity.max(-1)",
        ],
        "04.soft_targets": [
            "return F.softmax(old_logits.masked_fill(~known, -torch.inf) / T)",
            "return F.softmax(old_logits.masked_fill(~known, -torch.inf) / T, -1)",
        ],
        "04.over_heads": [
            "p_old = F.softmax(old_logits[:, head])",
            "p_old = F.softmax(old_logits[:, head], -1)",
            "losses.append(-(p_old * F.log_softmax(logits[:, head])).sum(1).mean())",
            "losses.append(-(p_old * F.log_softmax(logits[:, head], -1)).sum(1).mean())",
            "losses.append(-(p_old * F.log_softmax(logits[:, head], 1)).sum(-1).mean())",
        ],
        "05.mixture_prior": ["return torch.logsumexp(p.log() + each, -1)"],
        "05.kl_sample": [
            "log_q = -0.5 * (logvar + (z - mean).square() / logvar.exp()).sum(-1)",
            "log_p = -0.5 * (prior_logvar + (z - prior_mean).square() / prior_logvar.exp()).sum(-1)",
        ],
        "07.energy": ["return (reconstruction - x).square().sum(-1).sqrt()"],
        "07.generator_loss": ["return (autoencoder(fake) - fake).square().sum(-1).sqrt().mean()"],
        "07.pull_away": ["direction = S / S.norm(dim=-1, keepdim=True).clamp_min(1e-08)"],
        "08.report": ["chosen = valid.mean(-1).argmax()"],
    },
    "a difference is squared": {
        "01.importance": ["moved = thetas[0] - thetas[-1]"],
        "01.functional_prior": ["change = (m_old - m).T"],
        "02.loss": ["error = (x - reconstruction).square().sum(1)"],
        "03.frechet": [
            "mean_gap = generated.mean(0) - real.mean(0)",
            "spread_gap = generated.std(0) - real.std(0)",
        ],
        "05.mixture_prior": ["difference = means - z[:, None]"],
        "05.kl_sample": [
            "log_q = -0.5 * (logvar + (mean - z).square() / logvar.exp()).sum(1)",
            "log_p = -0.5 * (prior_logvar + (prior_mean - z).square() / prior_logvar.exp()).sum(1)",
        ],
        "06.regulariser": [
            "drift = [hypernet(e, theta) - hypernet(e, theta_old.detach()) for e in embeddings[:T - 1]]"
        ],
        "07.energy": ["return (x - reconstruction).square().sum(1).sqrt()"],
        "07.generator_loss": ["return (fake - autoencoder(fake)).square().sum(1).sqrt().mean()"],
        "09.distil": ["return (student(x_t) - target).square().mean()"],
    },
    "every call gets a copy of the argument": {
        "09.steer": ["x = x.requires_grad_()"],
    },
    "both have the same length": {
        "01.fisher_linear": ["return delta.square().T @ a.square() / len(delta)"],
        "01.memorable": ["of_class = torch.arange(p.shape[1])[:, None] == y"],
        "01.functional_prior": ["kernel = jacobian * variance @ jacobian.mT + epsilon * torch.eye(len(m_old))"],
        "07.pull_away": ["n = len(direction)", "n = len(squares)"],
    },
    "only the lowest four bits are used, and modulo 16 takes nothing from them": {
        "03.task_code": ["number = 9 * task + 1", "number = 9 * task % 32 + 1", "number = 9 * task % -16 + 1"],
    },
    "the order of two arguments does not matter to that function": {
        "08.gap": [
            "return (float(a.mean() - b.mean()), max(2.5 * math.hypot(sem(a), sem(b)), 0.5))",
            "return (float(a.mean() - b.mean()), max(0.5, 2.5 * math.hypot(sem(b), sem(a))))",
        ],
    },
    "of the three scenarios, one is left when Domain-IL is done with, and 'class' comes before 'task'": {
        "01.active": ["return units // 2 == task if scenario >= 'task' else units < 2 * seen"],
    },
    "the answer draws its own numbers, and any will do": {
        "02.kl_is_right": [
            "rng = torch.Generator()",
            "rng = torch.manual_seed(0)",
            "rng = torch.Generator().manual_seed(1)",
            "rng = torch.Generator().manual_seed(-1)",
            "logvar, mean = (torch.randn(8, 3, generator=rng), torch.randn(8, 3, generator=rng))",
            "mean, logvar = (torch.randn(8, 3), torch.randn(8, 3, generator=rng))",
            "mean, logvar = (torch.randn(8, 3, generator=rng), torch.randn(8, 3))",
        ],
    },
    "another tolerance, which right and wrong candidates are far from": {
        "02.kl_is_right": [
            "return found.shape == truth.shape and torch.allclose(truth, found, rtol=0.001)",
            "return found.shape == truth.shape and torch.allclose(found, truth)",
            "return found.shape == truth.shape and torch.allclose(found, truth, rtol=0.002)",
        ],
        "07.pull_away": ["direction = S / S.norm(dim=1, keepdim=True).clamp_min(2e-08)"],
    },
    "every row has the same length, so that its sum does as well as its mean, and one mean over all as one of each": {
        "04.over_heads": ["losses.append(-(p_old * F.log_softmax(logits[:, head], 1)).sum(1))"],
        "06.choose_task": ["entropy = -(log_p.exp() * log_p).mean(2)"],
        "08.report": ["chosen = valid.sum(1).argmax()"],
    },
    "there are as many sizes as shapes": {
        "06.unflatten": [
            "return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes)]",
            "return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=False)]",
        ],
    },
    "there are as many numbers of one kind as of the other": {
        "02.log_likelihood": ["return torch.logsumexp(log_joint - log_q, 0) - math.log(len(log_joint))"],
    },
    "where both probabilities are equal, the loss is the same with D = m and with D = 0": {
        "07.value": ["D = m * (p_data <= p_g)"],
    },
    "D is 0 or m, so m - D is never negative": {
        "07.value": ["return float((p_data * D + p_g * (m - D)).sum())"],
    },
}
"""{reason: {exercise: [change]}}"""


def changes(node: ast.AST, arguments: list[str]) -> Iterator[ast.AST]:
    """What may stand in the place of a node: a wrong answer each, as a rule."""
    if isinstance(node, ast.BinOp):
        for op in OPERATORS[type(node.op)]:
            yield ast.BinOp(node.left, op(), node.right)
        yield node.left
        yield node.right
        if not isinstance(node.op, (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for i in range(len(node.values)):
            left = node.values[:i] + node.values[i + 1 :]
            yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
    elif isinstance(node, ast.Compare):
        for op in COMPARISONS:
            if not isinstance(node.ops[0], op):
                yield ast.Compare(node.left, [op(), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from constants(node.value)
    elif isinstance(node, ast.Name) and node.id in arguments:
        for name in arguments:
            if name != node.id:
                yield ast.Name(name, node.ctx)
    elif isinstance(node, ast.Attribute):
        yield node.value
        for name in NAMES.get(node.attr, []):
            yield ast.Attribute(node.value, name, node.ctx)
    elif isinstance(node, ast.Subscript):
        yield node.value
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield replaced(node, bound, None)
                yield replaced(node, bound, ast.BinOp(getattr(node, bound), ast.Add(), ast.Constant(1)))
    elif isinstance(node, (ast.Tuple, ast.List)):
        for i in range(len(node.elts) - 1):
            yield replaced(node, "elts", [*node.elts[:i], node.elts[i + 1], node.elts[i], *node.elts[i + 2 :]])
    elif isinstance(node, ast.comprehension):
        yield from (replaced(node, "ifs", node.ifs[:i] + node.ifs[i + 1 :]) for i in range(len(node.ifs)))
    elif isinstance(node, ast.Call):
        yield from calls(node)


def constants(value: Any) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, (int, float)):
        for other in (value + 1, value - 1, 2 * value, -value, 0):
            if other != value:
                yield ast.Constant(other)
    elif isinstance(value, str):
        yield ast.Constant("" if value else "x")
        yield ast.Constant(f"{value}x")


def calls(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Attribute):
        yield node.func.value  # x.f(...) -> x; a module in its place fails, which is as good
    elif isinstance(node.func, ast.Name) and node.func.id in NAMES:
        for name in NAMES[node.func.id]:
            yield replaced(node, "func", ast.Name(name, ast.Load()))
    for i, argument in enumerate(node.args):
        yield argument
        yield replaced(node, "args", node.args[:i] + node.args[i + 1 :])
        if i + 1 < len(node.args):
            yield replaced(node, "args", [*node.args[:i], node.args[i + 1], argument, *node.args[i + 2 :]])
    for i, keyword in enumerate(node.keywords):
        yield keyword.value
        yield replaced(node, "keywords", node.keywords[:i] + node.keywords[i + 1 :])


def replaced(node: Any, field: str, value: Any) -> Any:
    other = copy.copy(node)
    setattr(other, field, value)
    return other


def statements(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """What may stand in the place of a statement."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # the docstring
        yield [ast.Pass()]
    if isinstance(node, ast.If):
        yield node.body
        yield node.orelse or [ast.Pass()]
        yield [replaced(node, "test", ast.UnaryOp(ast.Not(), node.test))]
    if isinstance(node, (ast.With, ast.For)):
        yield node.body
    if isinstance(node, ast.AugAssign):
        yield [replaced(node, "op", op()) for op in OPERATORS[type(node.op)][:1]]
        yield [ast.Assign([node.target], node.value)]


def positions(tree: ast.AST) -> Iterator[tuple[Any, str, int | None]]:
    """Every place of a tree: the parent, the field, and the index where that is a list. Annotations are left out."""
    for field, value in ast.iter_fields(tree):
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and field not in ("annotation", "returns", "ctx"):
                yield tree, field, index
                yield from positions(child)


def changed(exercise: Exercise) -> dict[str, str]:
    """{the lines that are new, or "without" those that are gone: source of the changed solution}, every source once."""
    tree = ast.parse(exercise.solved)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(function):
        del function.body[0]
    stored = [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names = list(dict.fromkeys([*exercise.arguments, *stored]))
    right = ast.unparse(tree)
    sources, found = {right}, {}
    for parent, field, index in [*positions(function)]:
        before = getattr(parent, field)
        child = before if index is None else before[index]
        for other in statements(child) if isinstance(child, ast.stmt) else changes(child, names):
            new = [other] if not isinstance(other, list) else other
            setattr(parent, field, other if index is None else [*before[:index], *new, *before[index + 1 :]])
            source = ast.unparse(tree)
            setattr(parent, field, before)
            if source not in sources and compiles(source):
                sources.add(source)
                found[described(right, source, found)] = source
    return found


def compiles(source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's, about a number that is called
        try:
            compile(source, "changed", "exec")
        except SyntaxError:
            return False
    return True


def described(right: str, source: str, taken: dict[str, str]) -> str:
    lines = [(line[0], line[2:].strip()) for line in difflib.ndiff(right.splitlines(), source.splitlines())]
    new = [text for sign, text in lines if sign == "+" and text != "pass"]
    name = "; ".join(new or [f"without {text}" for sign, text in lines if sign == "-"])
    return name if name not in taken else f"{name} ({sum(each.startswith(name) for each in taken) + 1})"


def function(exercise: Exercise, source: str) -> Callable[..., Any]:
    space = dict(vars(sys.modules[exercise.solution.__module__]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile("from __future__ import annotations\n" + source, "changed", "exec"), space)
    return space[exercise.name]


class Judge:
    """What `check` decides about answers to one exercise, without a thread and a report for each."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.cases = []
        for seed in SEEDS:
            cases = exercise.cases(torch.Generator().manual_seed(derive(seed, exercise.id)))
            expected = exercise.outcomes(exercise.solution, cases)
            self.cases.append([*zip(expected, cases.values(), strict=True)])

    def passes(self, answer: Callable[..., Any]) -> list[int]:
        """The seeds on whose numbers it passes."""
        return [seed for seed, cases in zip(SEEDS, self.cases, strict=True) if self._passes(answer, cases)]

    def _passes(self, answer: Callable[..., Any], cases: list[tuple[Any, tuple[Any, ...]]]) -> bool:
        for expected, args in cases:
            given = tuple(fresh(arg) for arg in args)
            try:
                got = plain(self.exercise.observe(answer, *given))
            except Exception:
                return False
            if difference(expected, got, self.exercise.tolerance):
                return False
            if any(_differs(a, b) for a, b in zip(args, given, strict=True)):
                return False
        return True


def verdicts(exercise: Exercise, answers: Sequence[Callable[..., Any]], seconds: float = 60.0) -> list[list[int]]:
    """The seeds on which each answer passes; one that takes `seconds` passes on none."""
    judge = Judge(exercise)
    found: list[list[int]] = []

    def work() -> None:
        for answer in answers[len(found) :]:
            found.append(judge.passes(answer))

    while len(found) < len(answers):
        ended = limited(work, seconds)
        if ended.error is not None:
            raise ended.error
        if not ended.finished:
            found.append([])
    return found


def equivalent(id: str) -> dict[str, str]:
    """{change: reason} of an exercise."""
    return {name: reason for reason, listed in EQUIVALENT.items() for name in listed.get(id, [])}


@pytest.mark.parametrize("id", exercises())
def test_every_change_that_is_not_equivalent_is_rejected(id: str) -> None:
    exercise, listed = exercises()[id], equivalent(id)
    sources = changed(exercise)
    answers = [function(exercise, source) for source in sources.values()]
    right, *found = verdicts(exercise, [exercise.solution, *answers])
    assert right == [*SEEDS]
    assert listed.keys() <= sources.keys(), "these changes are listed as equivalent, and there are none like them"
    seeds = dict(zip(sources, found, strict=True))
    wrong = {name: passed for name, passed in seeds.items() if passed and name not in listed}
    assert wrong == {}, "these pass: a case is missing that tells them from the solution"
    gone = [name for name in listed if seeds[name] != [*SEEDS]]
    assert gone == [], "these are listed as equivalent, and are rejected"


def test_the_verdict_is_that_of_check() -> None:
    """With its thread, its report and its hints: every change that passes, and every fortieth of the others."""
    compared = Counter[bool]()
    for id, exercise in exercises().items():
        sources, listed = changed(exercise), equivalent(id)
        some = [*listed, *[name for name in sources if name not in listed][::40]]
        answers = [function(exercise, sources[name]) for name in some]
        for answer, passed in zip(answers, verdicts(exercise, answers), strict=True):
            reports = [check(id, answer, seed=seed) for seed in SEEDS]
            assert [seed for seed, report in zip(SEEDS, reports, strict=True) if report] == passed
            compared[bool(passed)] += 1
    assert compared[True] >= 50 and compared[False] >= 90


def test_there_are_changes_of_every_kind() -> None:
    counts = {id: len(changed(exercise)) for id, exercise in exercises().items()}
    assert sum(counts.values()) >= 2700
    assert all(count >= (3 if ".predict" in id else 10) for id, count in counts.items())
    of = {id: changed(exercises()[id]) for id in ("01.importance", "04.former_self", "06.regulariser", "08.choose")}
    for id, line in (
        ("01.importance", "omega = (task_gradients * thetas.diff(dim=0)).sum(0)"),  # a minus
        ("01.importance", "omega = -(task_gradients * thetas.diff(dim=0)).mean(0)"),  # mean for sum
        ("01.importance", "omega = -(task_gradients * thetas.diff()).sum(0)"),  # a keyword
        ("01.importance", "omega = -(penalty_gradients * thetas.diff(dim=0)).sum(0)"),  # another argument
        ("04.former_self", "return copy.deepcopy(model).requires_grad_(False)"),  # a call
        ("04.former_self", "return copy.deepcopy(model).requires_grad_(True).eval()"),  # a constant
        ("06.regulariser", "drift = [hypernet(e, theta_old) - hypernet(e, theta) for e in embeddings[:T - 1]]"),
        ("06.regulariser", "drift = [hypernet(e, theta_old.detach()) - hypernet(e, theta) for e in embeddings[:T]]"),
        ("08.choose", "allowed = extra < budget"),  # a comparison
        ("08.choose", "without allowed = allowed & ~keeps_data"),  # a statement
    ):
        assert line in of[id], line


def test_an_answer_without_end_is_limited() -> None:
    def forever(mean: Any, logvar: Any) -> Any:
        while True:
            mean = mean + 1

    kl = exercises()["02.kl"]
    assert verdicts(kl, [kl.solution, forever, kl.solution], seconds=0.5) == [[*SEEDS], [], [*SEEDS]]
