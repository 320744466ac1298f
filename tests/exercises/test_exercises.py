"""The checks are checked: every reference passes, every typical mistake gets its own hint, and nothing breaks a check."""

from __future__ import annotations

import itertools
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.nn import functional as F

import clteach
from clteach import exercises as package
from clteach import results
from clteach.errors import ConfigError
from clteach.exercises import Exercise, Mistake, check
from clteach.exercises.chapters import chapters
from clteach.exercises.exercise import BEGIN, END, call
from clteach.learners.replay import imitation_loss
from clteach.methods.hypernetwork import Hypernetwork
from clteach.methods.multiband_vae import controlled_forgetting
from clteach.metrics.generation import frechet_distance
from clteach.models.frozen import frozen_copy

ALL = package.exercises()
SEEDS = (0, 1, 2)

# The seeds' own mistakes and the common ones in published code (exercise, mistake).
MUST_HAVE = {
    ("01.fisher", "batch-mean gradient"),
    ("01.importance", "gradient with the penalty"),
    ("02.kl", "from the wild"),
    ("02.loss", "unchanged"),
    ("02.loss", "the KL term cut off"),
    ("03.place", "the old band"),
    ("04.former_self", "another name"),
    ("04.replay_loss", "the replayed term cut off"),
    ("05.gates", "activated"),
    ("06.regulariser", "all tasks"),
    ("07.pull_away", "no square"),
    ("07.pull_away", "NaN at zero"),
    ("07.generator_loss", "target detached"),
    ("07.hinge", "hinge on the batch mean"),
    ("08.average_accuracy", "all images pooled"),
    ("08.report", "chosen on the test set"),
    ("08.report", "best seed"),
}


def test_list_shows_them_all() -> None:
    table = package.list()
    assert [*table.index] == [*ALL] and len(ALL) >= 40
    assert [*package.list("02").index] == [id for id in ALL if id.startswith("02.")]
    assert set(table["level"]) == {1, 2, 3}
    known = {(id, mistake.name) for id, each in ALL.items() for mistake in each.mistakes}
    assert known >= MUST_HAVE


@pytest.mark.parametrize("chapter", chapters())
def test_a_chapter_has_four_to_eight_and_a_prediction(chapter: str) -> None:
    own = [each for each in ALL.values() if each.chapter == chapter]
    assert 4 <= len(own) <= 8
    assert any(each.name.startswith("predict") for each in own)


@pytest.mark.parametrize("id", ALL)
def test_reference_passes_and_its_source_alone_too(id: str) -> None:
    """Also from its source in an empty namespace, as on Colab, with only the imports that the starting code brings."""
    exercise = ALL[id]
    assert exercise.solution.__name__ == exercise.name
    namespace: dict[str, Any] = {}
    exec("\n".join(["from __future__ import annotations", *exercise.imports, exercise.solved]), namespace)
    for seed in SEEDS:
        assert check(id, exercise.solution, seed=seed).passed
        assert check(id, namespace[exercise.name], seed=seed).passed
    assert BEGIN not in exercise.solved + exercise.template and END not in exercise.solved + exercise.template


@pytest.mark.parametrize("id", ALL)
def test_starting_code_is_not_done_yet(id: str) -> None:
    exercise = ALL[id]
    namespace: dict[str, Any] = {}
    exec("\n".join(["from __future__ import annotations", *exercise.imports, exercise.template]), namespace)
    report = check(id, namespace[exercise.name])
    assert report.status == "todo" and not report


MISTAKES = [(id, mistake) for id, each in ALL.items() for mistake in each.mistakes]


@pytest.mark.parametrize(("id", "mistake"), MISTAKES, ids=[f"{id}: {mistake.name}" for id, mistake in MISTAKES])
def test_typical_mistake_gets_its_own_hint(id: str, mistake: Mistake) -> None:
    for seed in SEEDS:
        report = check(id, mistake.answer, seed=seed)
        assert not report.passed
        assert report.mistake == mistake.name
        assert report.hint == mistake.hint
        assert report.tried and report.got


@pytest.mark.parametrize("id", ALL)
def test_there_are_enough_mistakes_and_they_do_not_give_the_solution_away(id: str) -> None:
    exercise = ALL[id]
    assert len(exercise.mistakes) >= 4
    assert len({mistake.hint for mistake in exercise.mistakes}) == len(exercise.mistakes)
    inside = exercise.solved.partition('"""')[2].partition('"""')[2]
    lines = [line.strip() for line in inside.splitlines() if len(line.strip()) > 12]
    for mistake in exercise.mistakes:
        text = repr(check(id, mistake.answer))
        assert not any(line in text for line in lines)


def test_predictions_are_true_of_the_records() -> None:
    means = results.table("split-digits").set_index(["row", "scenario"])["mean"]
    assert (
        means["finetune", "class"] < 25 and 75 < means["finetune", "task"] < means["joint", "task"] - 1
    )  # 00.predict: c
    assert means["ewc", "class"] < 25  # 01.predict: d
    modes = {cell["row"]: cell["measures"] for cell in results.load("ebgan_modes")["cells"]}
    for measure, better in (("modes", "EBGAN-PT"), ("quality", "GAN")):  # 07.predict: c
        assert modes[better][measure]["mean"] == max(modes[name][measure]["mean"] for name in ("GAN", "EBGAN-PT"))
    assert 8 < modes["GAN"]["modes"]["mean"] < 20
    others = [means[row, "class"] for row in ("ewc", "online-ewc", "si", "lwf")]
    assert means["generative-replay", "class"] > max(others) + 30 and means["er", "class"] > max(
        others
    )  # 08.predict: c


def test_predictions_are_true_of_the_methods() -> None:
    rng = torch.Generator().manual_seed(0)
    # 03.predict: with γ = -1 every target is a real image of the current task
    latents, candidate_latents = torch.randn(6, 4, generator=rng), torch.randn(3, 4, generator=rng)
    old, new = torch.zeros(6, 2), torch.ones(3, 2)
    assert torch.equal(controlled_forgetting(latents, old, candidate_latents, new, -1.0)[0], torch.ones(6, 2))
    # 04.predict: T² times the loss at a high temperature has the gradient of least squares on centred logits
    z, v = (torch.randn(1, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    z.requires_grad_(True)
    known = torch.ones(1, 5, dtype=torch.bool)
    for squared, wanted in ((True, (z - z.mean() - v + v.mean()) / 5), (False, torch.zeros_like(z))):
        loss = imitation_loss(z, v, known, known, temperature=1e4, squared=squared)
        assert torch.allclose(torch.autograd.grad(loss, z)[0], wanted, atol=1e-3)
    # 05.predict: what is larger for more tasks is the output layer, bookkeeping, and one Gaussian and one mask per class
    digits = clteach.load("digits")
    streams = [clteach.split(digits, "class", classes=[[2 * t, 2 * t + 1] for t in range(n)]) for n in (2, 5)]
    few, many = (clteach.build("brain-inspired-replay", stream.spec).state_dict() for stream in streams)
    grown = {key for key in many if key not in few or many[key].shape != few[key].shape}
    bookkeeping = {"active_now", "log_active_now", "active_past", "task_units", "order"}
    per_class = {key for key in grown - bookkeeping if "net.5." not in key}
    assert {key.split(".")[-1] for key in per_class} == {"prior_mean", "prior_logvar", "gates_0", "gates_1"}
    assert all(many[key].shape[0] == 10 and few[key].shape[0] == 4 for key in per_class)
    # 06.predict: a step on task 1 without the regulariser moves what the frozen embedding of task 0 is turned into
    learner = clteach.build("hypernetwork", clteach.split(digits, "task", tasks=2).spec, Hypernetwork.Config(beta=0.0))
    hypernet = learner.hypernet
    embedding, weights = hypernet.embeddings[0].detach().clone(), hypernet.weights(0).detach()
    hypernet.learn(1)
    hypernet.weights(1).square().sum().backward()
    with torch.no_grad():
        for p in (p for p in hypernet.parameters() if p.grad is not None):
            p.sub_(p.grad, alpha=1e-3)
    assert torch.equal(hypernet.embeddings[0], embedding)
    assert (hypernet.weights(0) - weights).abs().max() > 1e-4


def test_references_agree_with_the_package() -> None:
    """Where the package has the same function, both give the same."""
    from clteach import metrics
    from clteach.data.tasks import Spec
    from clteach.experiments import agreement
    from clteach.methods import build
    from clteach.models import vae
    from clteach.models.multiband import task_codes
    from clteach.results.footprint import footprint

    rng = torch.Generator().manual_seed(0)
    R = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ALL["00.average_accuracy"].solution(R) == pytest.approx(metrics.average_accuracy(R))
    assert ALL["00.forgetting"].solution(R) == pytest.approx(metrics.forgetting(R))
    mean, logvar, eps = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ALL["02.kl"].solution(mean, logvar), vae.kl_standard_normal(mean, logvar))
    assert torch.allclose(ALL["02.reparameterise"].solution(mean, logvar, eps), vae.reparameterise(mean, logvar, eps))
    units = {"domain": ((0, 1),) * 3, "task": ((0, 1), (2, 3), (4, 5)), "class": ((0, 1), (2, 3), (4, 5))}
    for scenario, own in units.items():
        spec = Spec((1,), 3, 2 if scenario == "domain" else 6, scenario, own)
        for task, seen in ((0, 1), (0, 2), (1, 3), (2, 3)):
            active = spec.active(torch.tensor([task]), seen)[0]
            assert torch.equal(ALL["01.active"].solution(scenario, task, seen, 3), active)
    real, generated = torch.randn(9, 1, generator=rng), 2 + 3 * torch.randn(7, 1, generator=rng)
    assert ALL["03.frechet"].solution(real, generated).item() == pytest.approx(
        frechet_distance(real, generated), rel=1e-4
    )
    model = torch.nn.Linear(2, 2)
    for old in (ALL["04.former_self"].solution(model), frozen_copy(model)):
        assert not old.training and not any(p.requires_grad for p in old.parameters()) and old is not model
    a, b = torch.rand(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (mean, sem), (published, published_sem) = metrics.mean_sem(a), metrics.mean_sem(b)
    verdict = agreement.compare({"mean": mean, "sem": sem}, {"mean": 100 * published, "sem": 100 * published_sem})
    assert ALL["08.gap"].solution(100 * a, 100 * b) == pytest.approx((verdict["difference"], verdict["tolerance"]))
    learner = build("ewc", Spec((1,), 3, 6, "class", units["class"]), hidden=(4,))
    state, plain = (dict(each.state_dict()) for each in (learner, build("finetune", learner.spec, hidden=(4,))))
    del state["_extra_state"], plain["_extra_state"]
    assert ALL["08.extra_bytes"].solution(state, plain) == footprint(learner, 0).kept
    assert torch.equal(torch.stack([ALL["03.task_code"].solution(t) for t in range(16)]), task_codes(16))


# ------------------------------------------------------------------------------------------- what answers can do


def right(mean: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def fails(error: BaseException) -> Callable[..., Any]:
    def answer(mean: Any, logvar: Any) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        (None, "type", "is there a `return`"),
        ("about three", "type", "a text"),
        (object(), "type", "an object of type object"),
        ({"kl": 1}, "type", "a dict"),
        (right, "type", "brackets missing"),
        ((n for n in ()), "type", "instead of `yield`"),
        (3.0, "shape", "One number for everything"),
        (torch.zeros(1, dtype=torch.bool), "type", "a bool tensor"),
        (torch.zeros(1, dtype=torch.complex64), "type", "tensor of shape (1,)"),
        (torch.zeros(0), "shape", "(0,)"),
        (torch.full((1,), torch.nan), "nan", "0/0"),
        (torch.full((1,), torch.inf), "nan", "infinity"),
        (torch.zeros(1).expand(10**9), "shape", "(1000000000,)"),
        (np.zeros((2, 2)), "shape", "(2, 2)"),
        (["a"], "type", "1 items in a list"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,  # no addresses: workers compare the ids
)
def test_any_value_is_answered(value: Any, status: str, words: str) -> None:
    report = check("02.kl", lambda mean, logvar: value)
    assert report.status in (status, "type") and words in str(report)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (..., "todo", "in place of the dots"),
        (3.0, "type", "Give the function itself"),
        (torch.ones(3), "type", "Give the function itself"),
        (lambda mean: mean, "type", "kl(mean, logvar)"),
        (lambda mean, logvar, beta: mean, "type", "(mean, logvar, beta)"),
        (lambda mean, logvar: unknown_name, "error", "A name is used that does not exist"),  # type: ignore[name-defined]  # noqa: F821
        (lambda mean, logvar: mean + torch.ones(7, 5), "error", "print their shapes"),
        (lambda mean, logvar: right(mean, logvar).item() * torch.ones(9), "error", "RuntimeError"),
        (lambda mean, logvar: sys.exit(), "error", "use `return`"),
        (lambda mean, logvar: input("?"), "error", "input() cannot be used"),
        (fails(ValueError("so\nmany " * 200)), "error", "..."),
        (fails(MemoryError()), "error", "more memory"),
        (fails(KeyboardInterrupt()), "error", "KeyboardInterrupt"),
        (fails(AssertionError()), "error", "raise error"),
        (int, "error", "TypeError"),
    ],
)
def test_any_answer_is_answered(answer: Any, status: str, words: str) -> None:
    report = check("02.kl", answer)
    assert report.status == status and words in str(report)


def test_an_error_names_the_learner_s_own_line() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        return mean @ logvar.T.repeat(3, 1)

    assert "of answer: return mean @ logvar.T.repeat(3, 1)" in check("02.kl", answer).got


def test_an_exception_whose_text_fails() -> None:
    class Sly(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert check("02.kl", fails(Sly())).status == "error"


def test_recursion_without_end() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        return answer(mean, logvar)

    assert "calls itself without end" in check("02.kl", answer).hint


def forever(mean: Tensor, logvar: Tensor) -> Tensor:
    while True:
        mean = mean + 1


def stubborn(mean: Tensor, logvar: Tensor) -> Tensor:
    while True:
        try:  # noqa: SIM105
            mean = mean + 1
        except:  # noqa: E722
            pass


def endless_list(mean: Tensor, logvar: Tensor) -> Any:
    return [n for n in itertools.count() if n < 0]


def asleep(mean: Tensor, logvar: Tensor) -> Any:
    time.sleep(2)


def left_over() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "clteach-exercise"]


@pytest.mark.parametrize("answer", [forever, stubborn, endless_list, asleep])
def test_a_loop_without_end_comes_back_soon(answer: Callable[..., Any]) -> None:
    start = time.monotonic()
    report = check("02.kl", answer, seconds=0.2)
    assert report.status == "time" and "within 0.2 s" in report.expected
    assert time.monotonic() - start < 10  # seconds on a busy machine, not minutes
    assert ("restart the kernel" in str(report)) == (answer is asleep)
    if answer is asleep:
        time.sleep(2)  # so that it does not disturb the tests that follow
    assert not left_over()


def test_a_loop_in_a_later_case_names_that_case() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        while len(mean) > 1:
            pass
        return right(mean, logvar)

    assert check("02.kl", answer, seconds=0.3).tried.startswith("16 clouds")


def test_a_flood_of_prints_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        for _ in range(1000):
            print("here" * 100)
            print("there", file=sys.stderr)
        return right(mean, logvar)

    report = check("02.kl", answer)
    assert report.passed and len(str(report)) < 700 and "characters more" in report.printed
    assert check("02.kl", lambda mean, logvar: print("shape", *mean.shape)).printed.startswith("shape 1 2")
    assert capsys.readouterr() == ("", "")

    def endless(mean: Tensor, logvar: Tensor) -> Tensor:
        while True:
            print("again")

    assert check("02.kl", endless, seconds=0.2).status == "time"
    assert capsys.readouterr() == ("", "")


def test_stop_button_stops_the_function() -> None:
    import _thread

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    try:
        stop = threading.Timer(0.2, _thread.interrupt_main)
        stop.start()
        with pytest.raises(KeyboardInterrupt):
            check("02.kl", forever, seconds=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not left_over()
    assert sys.stdout is not None and check("02.kl", right).passed


def test_nothing_is_left_behind() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        torch.manual_seed(7)
        torch.rand(3)
        torch.set_default_dtype(torch.float64)
        return right(mean, logvar)

    torch.manual_seed(1)
    before, output = torch.get_rng_state(), sys.stdout
    assert check("02.kl", answer).passed
    assert torch.equal(before, torch.get_rng_state()) and torch.get_default_dtype() == torch.float32
    assert sys.stdout is output


def test_a_function_that_spoils_its_arguments() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        price = right(mean, logvar)
        logvar.zero_()
        return price

    report = check("02.kl", answer)
    assert not report.passed and "writes into a tensor" in report.hint


# The arguments that learn, of each exercise whose gradients are checked; all other tensors may be cut off.
LEARNED = {
    "01.distillation": {"logits"},
    "01.functional_prior": {"m"},
    "02.reparameterise": {"mean", "logvar"},
    "02.kl": {"mean", "logvar"},
    "02.loss": {"reconstruction", "mean", "logvar"},
    "03.place": {"z_new"},
    "04.replay_loss": {"current", "replay"},
    "04.over_heads": {"logits"},
    "05.gating": {"h"},
    "05.mixture_prior": {"z", "means", "logvars"},
    "05.kl_sample": {"z", "mean", "logvar", "prior_mean", "prior_logvar"},
    "06.unflatten": {"flat"},
    "06.regulariser": {"theta"},
    "07.energy": {"x", "reconstruction"},
    "07.hinge": {"fake", "real"},
    "07.generator_loss": {"fake"},
    "07.pull_away": {"S"},
}


@pytest.mark.parametrize(("id", "name"), [(id, name) for id in LEARNED for name in ALL[id].arguments])
def test_what_learns_must_not_be_cut_off_and_all_else_may_be(id: str, name: str) -> None:
    solution, place = ALL[id].solution, ALL[id].arguments.index(name)

    def answer(*args: Any) -> Any:
        cut = args[place].detach() if isinstance(args[place], Tensor) else args[place]
        return solution(*args[:place], cut, *args[place + 1 :])

    report = check(id, answer)
    assert report.passed == (name not in LEARNED[id])
    assert report.passed or report.got.partition(f"gradient: by {name}: ")[1]


def test_every_other_check_looks_at_values_alone_or_at_two_networks() -> None:
    own = {id for id, each in ALL.items() if each.observe is not call}
    assert own == {*LEARNED, "04.former_self", "09.distil"}


@pytest.mark.parametrize(
    ("id", "answer"),
    [
        ("04.replay_loss", lambda current, replay, n: current / n + (1 - 1 / n) * replay.item()),
        ("04.replay_loss", lambda current, replay, n: current.item() / n + (1 - 1 / n) * replay.item()),
        ("04.replay_loss", lambda current, replay, n: np.float32(current.item() / n + (1 - 1 / n) * replay.item())),
        ("02.loss", lambda r, x, m, v: (r - x).square().sum(1).mean() + right(m, v).mean().item()),
        ("02.loss", lambda r, x, m, v: (r - x).square().sum(1).mean().item() + right(m, v).mean()),
        ("02.reparameterise", lambda m, v, eps: m + torch.exp(0.5 * v.detach()) * eps),
        (
            "06.unflatten",
            lambda flat, shapes: [torch.tensor(p.tolist()) for p in ALL["06.unflatten"].solution(flat, shapes)],
        ),
    ],
)
def test_a_term_without_its_gradient_is_found_out(id: str, answer: Callable[..., Any]) -> None:
    report = check(id, answer)
    assert report.status == "wrong" and "gradient: by " in report.got


def norm_first(S: Tensor, normalised: Tensor) -> Tensor:
    return (normalised @ normalised.T).square().fill_diagonal_(0).sum() / (len(S) * (len(S) - 1))


@pytest.mark.parametrize(
    ("id", "answer"),
    [
        ("01.distillation", lambda new, old, T: T**2 * F.cross_entropy(new / T, (old / T).softmax(1).detach())),
        ("02.reparameterise", lambda m, v, eps: m.double() + v.exp().sqrt() * eps),
        ("02.reparameterise", lambda m, v, eps: torch.addcmul(m, (v / 2).exp(), eps)),
        ("02.kl", lambda m, v: kl_divergence(Normal(m, (v / 2).exp()), Normal(0.0, 1.0)).sum(1)),
        ("02.loss", lambda r, x, m, v: (F.mse_loss(r, x.detach(), reduction="sum") + right(m, v).sum()) / len(x)),
        ("03.place", lambda z, task, n: F.pad(z, (task * z.shape[1], (n - 1 - task) * z.shape[1]))),
        ("04.replay_loss", lambda current, replay, n: current if n == 1 else torch.lerp(replay, current, 1 / n)),
        ("05.gating", lambda h, p, masks: torch.einsum("bh,bc,ch->bh", h, p.detach(), masks)),
        (
            "05.mixture_prior",
            lambda z, means, logvars, p: MixtureSameFamily(
                Categorical(p), Independent(Normal(means.expand(len(z), -1, -1), (logvars / 2).exp()), 1)
            ).log_prob(z),
        ),
        ("05.kl_sample", lambda z, m, v, pm, pv: (
            Normal(m, (v / 2).exp()).log_prob(z) - Normal(pm, pv.exp().sqrt()).log_prob(z)
        ).sum(1)),
        ("06.unflatten", lambda flat, shapes: [p.reshape(s) for p, s in zip(
            flat.split([int(np.prod(s)) for s in shapes]), shapes, strict=True
        )]),
        ("07.energy", lambda x, reconstruction: torch.linalg.vector_norm(x - reconstruction, dim=1)),
        ("07.hinge", lambda fake, real, m: real.mean() + (m - fake).clamp(min=0).mean()),
        ("07.pull_away", lambda S: norm_first(S, F.normalize(S, dim=1))),
        ("07.pull_away", lambda S: norm_first(S, S / (S.square().sum(1, keepdim=True).sqrt() + 1e-9))),
        ("07.pull_away", lambda S: norm_first(S, torch.where(S.any(1)[:, None], S / S.norm(dim=1, keepdim=True), 0))),
    ],
)  # fmt: skip
def test_other_ways_to_the_same_gradient_are_accepted(id: str, answer: Callable[..., Any]) -> None:
    for seed in SEEDS:
        report = check(id, answer, seed=seed)
        assert report.passed, report


def test_no_gradient_is_found_out() -> None:
    def answer(mean: Tensor, logvar: Tensor) -> Tensor:
        return torch.tensor(right(mean, logvar).tolist())

    report = check("02.kl", answer)
    assert not report.passed and report.got.startswith("gradient:")


def test_values_in_other_clothes_are_accepted() -> None:
    R = ALL["00.average_accuracy"]
    assert check(R.id, lambda R: R[-1].mean()).passed  # a tensor
    assert check(R.id, lambda R: R[-1].numpy().mean()).passed  # numpy
    assert check("00.split", lambda labels, per_task: [x.tolist() for x in ALL["00.split"].solution(labels, per_task)])
    assert check("02.kl", lambda m, v: right(m.double(), v.double())).passed
    assert check("02.kl", ALL["02.kl"].solution, seed=99).passed
    for answer in ("c", " C. ", lambda: "c"):
        assert check("00.predict", answer).passed
    with torch.no_grad():
        assert check("02.kl", right).passed


def test_an_unrecognised_mistake_still_gets_a_hint() -> None:
    report = check("02.kl", lambda mean, logvar: 3 * right(mean, logvar))
    assert report.mistake == "" and "3 times" in report.hint and ALL["02.kl"].hint in report.hint
    text = str(report)
    assert re.search(r"tried .*\n *expected .*\n *got .*\n *hint", text)
    assert "expected  another answer" in str(check("00.predict", "z"))


def test_unknown_exercise() -> None:
    with pytest.raises(ConfigError, match=r"unknown exercise '02.kI'. Did you mean '02.kl'"):
        check("02.kI", right)


def test_require_raises_with_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    check("02.kl", right).require()
    assert "✓ right: 02.kl" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=r"not yet right: 02\.kl"):
        check("02.kl", lambda mean, logvar: mean).require()


def test_show() -> None:
    shown = package.show("02.kl").data
    assert "The price of a cloud" in shown and 'check("02.kl", kl)' in shown and "NotImplementedError" in shown
    assert "mean.square()" not in shown


def test_an_exercise_is_data() -> None:
    """A new one needs no code beside its own: here with a mistake that raises."""

    def double(x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return 2 * x
        ### END SOLUTION

    new = Exercise("99.double", "", 1, "", double, lambda rng: {"one": (torch.ones(2),)}, (), "")
    assert new.template.strip().endswith('raise NotImplementedError("your code here")') and new.chapter == "99"
    assert new.outcomes(lambda x: 1 / 0, {"one": (torch.ones(2),)}) == ["raised ZeroDivisionError"]


@pytest.mark.timeout(300)
def test_in_a_notebook_s_kernel() -> None:
    """In a kernel: an endless loop comes back, a flood is cut, input() does not wait, and the next cell prints as ever."""
    import nbformat
    from nbclient import NotebookClient

    sources = [
        "from clteach.exercises import check\n"
        "def kl(mean, logvar):\n    while True:\n        print('again')\n"
        "check('02.kl', kl, seconds=0.5)",
        "check('02.kl', lambda mean, logvar: input('?'))",
        "import torch\ndef kl(mean: torch.Tensor, logvar: torch.Tensor):\n    return mean @ logvar\ncheck('02.kl', kl)",
        "print('still here')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    said = [
        "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
    ]
    assert "within 0.5 s" in said[0] and "characters more" in said[0] and len(said[0]) < 2500
    assert "input() cannot be used" in said[1]
    assert "from line 3 of kl: return mean @ logvar" in said[2]
    assert said[3] == "still here\n"
