"""The studies of EBGAN: quick, the same each time, and measuring what their recipes say."""

from __future__ import annotations

import math

import pytest
import torch

from clteach import results
from clteach.cli import options
from clteach.cli.commands import grid
from clteach.cli.options import Sweep
from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.experiments.papers import RECIPES, column, ebgan
from clteach.experiments.papers.ebgan import FINALISTS, WINNERS, trials
from clteach.experiments.recipe import Recipe, Study
from clteach.methods import METHODS, build, configure
from clteach.metrics.generation import frechet_distance
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train

TINY = {"hidden": (8,), "critic_hidden": (8,), "code": 4}
EBGAN_STUDIES = [
    name
    for name, recipe in RECIPES.items()
    if isinstance(recipe, Study) and recipe.run in (ebgan.plane_gan, ebgan.plane_trial)
]


@pytest.mark.parametrize("name", EBGAN_STUDIES)
def test_every_row_of_a_plane_study_gives_its_measures(name: str) -> None:
    study = RECIPES[name]
    assert isinstance(study, Study)
    for row in study.rows.values():
        assert set(study.measures) <= set(study.run(seed=0, steps=1, **{**row, **TINY, "batch": 8}))


def best(record: str, family: str) -> list[str]:
    """The rows of a method in a search's record, the best score first."""
    scores = results.measured(record)["modes × quality"]
    return sorted((row for row in scores if row.split(",")[0] == family), key=lambda row: -scores[row][0])


@pytest.mark.parametrize("family", ["GAN", "EBGAN", "EBGAN-PT"])
def test_finalists_and_winners_are_the_best_of_the_recorded_search(family: str) -> None:
    assert best("ebgan_modes_search", family)[:4] == [row for row in FINALISTS if row.split(",")[0] == family]
    assert best("ebgan_modes_finals", family)[0] in WINNERS
    winner, modes = best("ebgan_modes_finals", family)[0], RECIPES["ebgan-modes"]
    assert modes.rows[family] == RECIPES["ebgan-modes-finals"].rows[winner]


def test_the_search_is_equally_long_for_each_method_and_shares_the_networks() -> None:
    rows = trials(16)
    assert len(rows) == 48
    for i in range(1, 17):
        gan, plain, pull = (dict(rows[f"{family}, {i}"]) for family in ("GAN", "EBGAN", "EBGAN-PT"))
        assert pull.pop("pull_away") > 0 == plain.pop("pull_away") and pull == plain
        assert gan.items() <= {**plain, "objective": "gan"}.items()


def test_a_trial_uses_a_seed_that_is_not_reported() -> None:
    settings = {**TINY, "batch": 8}
    trial = ebgan.plane_trial(0, 5, **settings)
    assert trial == {**ebgan.plane_gan(100, 5, **settings), "score": trial["modes"] * trial["quality"]}


def test_margins_are_those_of_the_paper_in_the_units_of_the_plane() -> None:
    rows = RECIPES["ebgan-margin"].rows
    gan = ebgan.make_gan((2,), ebgan.EBGAN.Config(**rows["10"]), bounded=False)  # type: ignore[arg-type]
    default = ebgan.make_gan((2,), ebgan.EBGAN.Config(), bounded=False)
    assert gan.margin_at(0.5) == default.margin_at(0.5) == pytest.approx(10 * math.sqrt(2 / 784))
    moving = ebgan.make_gan((2,), ebgan.EBGAN.Config(**rows["1 → 10"]), bounded=False)  # type: ignore[arg-type]
    ends = [float(moving.margin_at(progress)) / math.sqrt(2 / 784) for progress in (0.0, 1.0)]
    assert ends == pytest.approx([1.0, 10.0])


def test_samples_are_judged_like_the_learner_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of samples is one task with all classes, and its FID that of the learner's own samples."""
    monkeypatch.setattr(ebgan, "load", lambda name: toy_data(n_classes=4, n=30))
    found = ebgan.samples(3, 5, "ebgan", "toy", batch=8, **TINY)
    assert set(RECIPES["ebgan-samples"].measures) <= set(found)  # type: ignore[union-attr]
    assert found == ebgan.samples(3, 5, "ebgan", "toy", batch=8, **TINY)
    stream = split(toy_data(n_classes=4, n=30), "class", tasks=1)
    run = train("ebgan", stream, steps=5, batch_size=8, seed=3, **TINY)
    learner, test = run.learner, stream[0].test
    assert isinstance(learner, ebgan.PureGenerator)
    real = torch.cat([batch.x for batch in test.batches()])
    fid = frechet_distance(learner.features(real), learner.features(learner.judged(0, test)))
    assert found["fid"] == pytest.approx(fid) == pytest.approx(float(run.accuracy[0, 0]))
    assert all(0 <= found[share] <= 100 for share in ("precision", "recall"))


# ---------------------------------------------------------------------------------------------------- the grid search


def test_the_grid_is_what_the_sweep_of_its_record_would_try() -> None:
    recipe = RECIPES["ebgan-grid"]
    assert isinstance(recipe, Recipe)
    tried: dict[str, dict[str, list[object]]] = {"ebgan": {}}
    for word in ("hidden=200,200 200,400,400 400", "critic_hidden=128,128 128,256,256 256"):
        options.add_values(word, tried)
    base = column("ebgan", recipe.stream)
    for family, of_family in {"GAN": {"objective": "gan"}, "EBGAN": {"pull_away": 0.0}, "EBGAN-PT": {}}.items():
        swept = {
            repr(configure(METHODS["ebgan"], {"lr": 1e-3, **of_family, **choice})) for choice in grid(tried["ebgan"])
        }
        rows = [row for name, row in recipe.rows.items() if name.split(",")[0] == family]
        in_recipe = {
            repr(configure(METHODS["ebgan"], {**base.settings("ebgan", "class"), **row.settings})) for row in rows
        }
        assert swept == in_recipe and len(rows) == 16
    assert base.stream["validation"] == Sweep().validation and recipe.evaluate_on == Sweep().on


def test_rows_of_the_replay_table_differ_in_the_generator_alone() -> None:
    recipe = RECIPES["dream-replay-split-mnist"]
    assert isinstance(recipe, Recipe)
    spec = split(toy_data(), "class", tasks=2).spec
    shared = set()
    for row in recipe.rows.values():
        settings = {**column("2022", recipe.stream).settings(row.method, "class"), **row.settings}
        cfg = configure(METHODS[row.method], settings)
        shared.add((cfg.hidden, cfg.lr, cfg.targets, cfg.temperature, cfg.replay_batch))
        assert (
            build(row.method, spec, configure(METHODS[row.method], {**settings, "hidden": (8,)})).measure == "accuracy"
        )
    assert len(shared) == 1
    with pytest.raises(ConfigError, match="unknown recipe"):
        from clteach.experiments.recording import reproduce

        reproduce("dream-replay-split-mnst")
