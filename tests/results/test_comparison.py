"""The table of everything: records of one stream put together, and live runs beside them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from clteach import results
from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.experiments import agreement, papers
from clteach.methods import METHODS
from clteach.results import comparison, records
from clteach.results.comparison import as_good, choose, collected, live, side_by_side, sources
from clteach.training.learner_checks import quick, toy_data


def test_every_recorded_accuracy_is_in_the_table() -> None:
    seen = 0
    for stream in comparison.streams():
        table = collected(stream)
        assert not table.duplicated(["preset", "row", "scenario"]).any()
        for name in results.names():
            record = results.load(name)
            if record.get("stream", {}).get("name") != stream or record.get("axis"):
                continue
            column = papers.column(record["preset"], stream)
            if not record["shortened"] and record["steps"] != column.steps:
                continue
            for cell in record["cells"]:
                if cell.get("stream", {}).get("tasks") not in (None, column.stream["tasks"]):
                    continue
                line = table[(table["row"] == cell["row"]) & (table["scenario"] == cell["scenario"])]
                line = line[line["preset"] == record["preset"]]
                assert len(line) == ("average_accuracy" in cell)
                if (line["record"] == name).all() and len(line):
                    assert line["mean"].item() == pytest.approx(100 * cell["average_accuracy"]["mean"])
                    seen += 1
        assert side_by_side(table).count("\n") == 2 + len(table.groupby(["preset", "row"]))
    assert seen > 40


@pytest.fixture
def three_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortened run, a full one that has one of its rows, a third with another preset, and records to leave out."""

    def cell(row: str, method: str, mean: float, **more: Any) -> dict[str, Any]:
        score = {"mean": mean, "sem": 0.01, "seeds": [mean - 0.01, mean, mean + 0.01]}
        plain = {"published": None, "difference": None, "tolerance": None, "verdict": "not published"}
        about = {"row": row, "method": method, "scenario": "class", "average_accuracy": score, "forgetting": score}
        return {**about, "seconds": 2.0, "settings": {"hidden": [7]}, **plain, **more}

    def write(name: str, cells: list[dict[str, Any]], **more: Any) -> None:
        record = {
            **{"name": name, "command": f"clteach reproduce {name}", "version": "0", "steps": 2000, "axis": None},
            **{"seeds": [0, 1, 2], "shortened": False, "preset": "2022", "preset_source": "a paper"},
            **{
                "device": {"type": "cpu", "gpu": None, "cpu": "a CPU"},
                "stream": {"name": "split-mnist", "tasks": 5, "fingerprint": "f"},
            },
            **more,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps({**record, "cells": cells}))

    judged = {"published": {"mean": 80.0, "sem": None, "source": ""}, "difference": 1.0, "verdict": "agrees"}
    write("a_shortened", [cell("None", "finetune", 0.1), cell("EWC", "ewc", 0.2)], shortened=True)
    write("b_full", [cell("ER", "er", 0.81, **judged), cell("None", "finetune", 0.3)])
    write("c_other", [cell("None", "finetune", 0.4)], preset="2019")
    write("d_sweep", [cell("0.1", "ewc", 0.9)], axis="strength")
    digits = {"name": "split-digits", "tasks": 5}
    write("e_digits", [cell("None", "finetune", 0.4)], stream=digits, preset="digits", steps=1000)
    behind = {"classes": [[20, 21], [22, 23]], "extractor": "conv", "weights": "no such file", "fingerprint": "f"}
    photos = {"stream": {"name": "split-cifar100", "tasks": 10, "fingerprint": "g"}, "preset": "2020", "steps": 5000}
    write("g_behind", [cell("Joint", "joint", 0.4, stream=behind)], **photos)
    write("f_few_steps", [cell("VAE", "dream-replay", 0.9)], steps=500)
    write("h_many_tasks", [cell("LwF", "lwf", 0.9, stream={"tasks": 10, "fingerprint": "h"})], shortened=True)
    monkeypatch.setattr(records, "FOLDER", tmp_path)


def test_records_are_put_together(three_records: None) -> None:
    table = collected("split-mnist")
    assert table[["row", "preset", "mean"]].to_numpy().tolist() == [
        ["None", "2022", 30.0],  # the full run, not the shortened one
        ["None", "2019", 40.0],  # settings of different papers are never mixed
        ["EWC", "2022", 20.0],
        ["ER", "2022", 81.0],
    ]
    assert table["shortened"].tolist() == [False, False, True, False]
    assert table["data"].tolist() == [0, 0, 0, 1000 * (784 + 16) / 1000]
    text = side_by_side(table).replace("\N{NO-BREAK SPACE}", " ")
    assert "| EWC (shortened run) | 2022 | 20.0 ± 1.0 |" in text
    assert "81.0 ± 1.0 (80.0 ✓)" in text
    assert "a_shortened" in sources(table) and "A shortened run" in sources(table)
    assert comparison.streams() == ["split-cifar100", "split-digits", "split-mnist"]
    with pytest.raises(ConfigError, match="split-cifar10"):
        collected("split-cifar10")


def test_recalled_numbers_have_a_question_mark_and_no_verdict(three_records: None, tmp_path: Path) -> None:
    file = tmp_path / "b_full.json"
    record = json.loads(file.read_text())
    herded = {**record["cells"][1], "row": "iCaRL", "method": "icarl"}
    file.write_text(json.dumps({**record, "cells": [*record["cells"], herded]}))
    paper = agreement.published("split-mnist", "2022", "iCaRL", "class", recalled=True)
    assert paper is not None and agreement.published("split-mnist", "2022", "iCaRL", "class") is None
    page = comparison.beside_paper("split-mnist", "2022")
    assert f"| iCaRL | 30.0 ± 1.0 ({paper['mean']:.1f}?) |" in page
    assert "1 of 1 published cells agree. ?: recalled, not looked up" in page
    herded["stream"] = {"tasks": 5, "active_units": "seen", "fingerprint": "f"}
    file.write_text(json.dumps({**record, "cells": [*record["cells"], herded]}))
    page = comparison.beside_paper("split-mnist", "2022")
    assert "| iCaRL | 30.0 ± 1.0 |" in page and "recalled" not in page


def test_published_errors_stand_where_no_costs_do() -> None:
    table = collected("split-mnist")
    table = table[(table["preset"] == "2022") & (table["row"] == "EWC")]
    paper = agreement.published("split-mnist", "2022", "EWC", "domain")
    with_error, without = f"({paper['mean']:.1f} ± {paper['sem']:.1f} ✓)", f"({paper['mean']:.1f} ✓)"
    wide, beside_costs = (side_by_side(table, costs).replace("\N{NO-BREAK SPACE}", " ") for costs in (False, True))
    assert with_error in wide and without not in wide
    assert without in beside_costs and with_error not in beside_costs


def test_sizes_behind_an_extractor(three_records: None) -> None:
    table = collected("split-cifar100")
    assert table["network"].item() == pytest.approx(4 * (1024 * 7 + 7 + 7 * 4 + 4) / 1000, rel=0.01)  # on features
    assert table["data"].item() == 4 / 100 * 50_000 * (4 * 1024 + 16) / 1000  # of the classes in the stream


def test_beside_paper(three_records: None) -> None:
    text = comparison.beside_paper("split-mnist", "2022")
    assert "| ER | 81.0 ± 1.0 (80.0 ✓) |\n" in text and "seconds |" not in text
    assert "1 of 1 published cells agree" in text and "c_other" not in text
    page = results.stamp("a\n<!-- papers: split-mnist 2022 -->\nold\n<!-- end of table -->\nb")
    assert page == f"a\n<!-- papers: split-mnist 2022 -->\n{text}<!-- end of table -->\nb" == results.stamp(page)


def test_live_runs_join_the_table(three_records: None) -> None:
    import pandas as pd

    stream = split(toy_data(), "class", tasks=2)
    line = live([quick(METHODS["er"], stream), quick(METHODS["er"], stream)], stream, "mine")
    table = pd.concat([collected("split-digits"), line], ignore_index=True)
    assert set(line.columns) == set(collected("split-digits").columns)
    text = side_by_side(table).replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"\| mine \| live \| \d+\.\d ± 0\.0 \|", text)
    assert "* live: computed on this page" in sources(table)


def test_choose_and_as_good(three_records: None) -> None:
    table = collected("split-mnist")
    assert choose(table, "class")["row"].tolist() == ["ER", "None", "None", "EWC"]
    assert choose(table, "class", data=False)["row"].tolist() == ["None", "None", "EWC"]
    assert choose(table, "class", kilobytes=0)["row"].tolist() == ["None", "None"]
    assert choose(table, "task").empty and choose(table, "class", seconds=1).empty
    assert as_good(choose(table, "class"))["row"].tolist() == ["ER"]
    with pytest.raises(ConfigError, match="no method fits"):
        as_good(choose(table, "task"))
    with pytest.raises(ConfigError, match="unknown scenario"):
        choose(table, "all")


def test_joint_training_holds_the_images_of_every_permutation() -> None:
    record = results.load("hypernetwork-permuted-mnist-shortened")
    cell = record["cells"][0] | {"method": "joint", "settings": {"hidden": [10]}}
    line = comparison._line("", record, cell)
    assert line["data"] == 10 * 60_000 * (32 * 32 + 16) / 1000
    split_record = results.load("split-mnist-2022")
    joint = next(cell for cell in split_record["cells"] if cell["method"] == "joint")
    assert comparison._line("", split_record, joint)["data"] == 60_000 * (28 * 28 + 16) / 1000


def test_means_without_seeds_are_shown_without_an_interval() -> None:
    stream = split(toy_data(), "task", tasks=2)
    line = live([quick(METHODS["finetune"], stream)], stream)
    assert math.isnan(line["sem"].item()) and "±" not in side_by_side(line)
