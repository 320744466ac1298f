"""Recorded numbers are read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach import results
from clteach.errors import ConfigError, DataError


def test_matrices_of_a_record(tmp_path: Path) -> None:
    one, two = [[0.9, None], [0.3, 0.8]], [[0.7, None], [0.5, 0.6]]
    cell = {"row": "own", "scenario": "class", "accuracy_matrix": one, "average_accuracy": {"seeds": [0.55]}}
    path = tmp_path / "own.json"

    def written(**more: Any) -> str:
        path.write_text(json.dumps({"command": "clteach reproduce own", "cells": [{**cell, **more}]}))
        return str(path)

    (R,) = results.matrices(written())["own"]
    np.testing.assert_allclose(R, [[0.9, np.nan], [0.3, 0.8]])
    several = {"average_accuracy": {"seeds": [0.55, 0.55]}}
    found = results.matrices(written(**several, accuracy_matrices=[one, two]), "class")
    np.testing.assert_allclose(torch.stack(found["own"])[:, 1], [[0.3, 0.8], [0.5, 0.6]])
    with pytest.raises(DataError, match=r"holds no accuracy_matrices: .* To record it again: `clteach reproduce own`"):
        results.matrices(written(**several))
    (R,) = results.matrices(written(precision_matrix=two), measure="precision")["own"]
    np.testing.assert_allclose(R, [[0.7, np.nan], [0.5, 0.6]])
    with pytest.raises(DataError, match="holds no recall_matrix"):
        results.matrices(written(), measure="recall")
    with pytest.raises(ConfigError, match="unknown scenario 'task'"):
        results.matrices(written(), "task")


def test_records_of_the_package_can_be_read() -> None:
    assert "published" not in results.names()
    for name in results.names():
        record = results.load(name)
        assert len(results.table(name)) == len(record["cells"])
        assert record["shortened"] == name.endswith("_shortened"), f"{name}: a shortened run must be called so"
        assert "-dirty" not in (record["commit"] or "-dirty"), f"{name} was recorded from changed files"
        report = results.report(name)
        assert results.markdown(name) in report and record["command"] in report
        assert all(deviation in report for deviation in record["deviations"])
    with pytest.raises(ConfigError, match="unknown record"):
        results.load("no-such-record")


def test_what_a_study_measured() -> None:
    found = results.measured("ebgan-modes")
    table = results.table("ebgan-modes")
    assert list(found) == list(results.load("ebgan-modes")["measures"].values())
    (modes, *_) = found.values()
    assert [sum(seeds) / len(seeds) for seeds in modes.values()] == pytest.approx(table["modes"].tolist())
    assert list(modes) == table["row"].tolist()
    with pytest.raises(ConfigError, match="split-digits is no study"):
        results.measured("split-digits")


def test_damaged_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"cells": []')
    with pytest.raises(DataError, match=r"a\.json cannot be read as a record"):
        results.load(str(tmp_path / "a.json"))
