"""Tables are the records, and say which one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clteach import results
from clteach.errors import ConfigError
from clteach.experiments import papers
from clteach.experiments.recipe import Row
from clteach.experiments.recording import reproduce
from clteach.results import records


def test_the_record_of_a_recipe_is_the_one_at_full_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = results.load("multiband_vae_split_digits")
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    assert results.of_recipe("bir-reinit") is None
    assert results.reports("bir-reinit") == "Not recorded yet with this version: `clteach reproduce bir-reinit`.\n"
    for name, recipe, shortened in (
        ("bir_reinit_digits", "brain-inspired-replay-reinit-digits", False),  # begins alike, but is another recipe's
        ("bir_reinit_a_shortened", "brain-inspired-replay-reinit", True),
        ("bir_reinit_b", "brain-inspired-replay-reinit", False),
    ):
        record = {**example, "name": recipe, "shortened": shortened, "command": f"the command of {name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert results.of_recipe("bir-reinit") == "bir_reinit_b"
    text = results.reports("bir-reinit", "bir-ablation", "bir-reinit-digits")
    assert text.index("the command of bir_reinit_b") < text.index("the command of bir_reinit_digits")
    assert text.endswith("Not recorded yet with this version: `clteach reproduce bir-ablation`.\n")
    # The commands are folded; of more than two records, so are all but the first.
    assert text.count("<details>") == text.count("</details>") == 2
    for name in ("c", "d"):
        record = {**example, "name": f"brain-inspired-replay-{name}", "summary": f"the {name} of all"}
        (tmp_path / f"bir_{name}.json").write_text(json.dumps(record))
        monkeypatch.setitem(papers.RECIPES, record["name"], papers.RECIPES["brain-inspired-replay-reinit"])
    text = results.reports("bir-reinit", "bir-c", "bir-d")
    assert text.count("<details>") == text.count("</details>") == 5
    assert "<summary>The c of all</summary>\n\n" in text and "<summary>The d of all</summary>\n\n" in text
    (tmp_path / "bir_reinit_b.json").unlink()
    assert results.of_recipe("bir-reinit") == "bir_reinit_a_shortened"
    with pytest.raises(ConfigError, match="unknown recipe 'bir-re-init'"):
        results.of_recipe("bir-re-init")


def test_readme_table_is_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: Row(name, {"hidden": (8,)}) for name in ("finetune", "ewc")}
    recipe = replace(papers.RECIPES["split-digits"], rows=rows)
    monkeypatch.setitem(papers.RECIPES, "split-digits", recipe)
    path = reproduce("split-digits", tmp_path, iters=1, seeds=2, device="cpu", n_jobs=1)
    shutil.copy(path, tmp_path / "split_digits.json")
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    text = results.readme_table()
    lines = text.splitlines()
    assert lines[0] == "| method | task-incremental | domain-incremental | class-incremental |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| finetune", "| ewc"]
    cell = json.loads(path.read_text())["cells"][0]["average_accuracy"]
    assert f"| finetune | {100 * cell['mean']:.1f} ± {100 * cell['sem']:.1f} |" in lines[2]
    assert "2 seeds" in text and "clteach reproduce split-digits --seeds 2 --iters 1" in text


def test_what_the_paper_has_is_not_called_unpublished() -> None:
    table = results.table("split_mnist_2022").set_index(["row", "scenario"])["verdict"]
    assert table["SI", "class"] == "not known here"  # null in published.json
    assert table["SI + XdG", "task"] == "not published"
    assert table["A-GEM", "class"] in ("agrees", "differs")
