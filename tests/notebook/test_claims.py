"""Claims: what holds, what the table shows, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from clteach.errors import ConfigError
from clteach.notebook.claims import Claims


def claim(*arguments: Any, **settings: Any) -> Any:
    claims = Claims()
    claims.add("it is so", *arguments, **settings)
    return claims.all[0]


@pytest.mark.parametrize(
    ("arguments", "holds", "measured", "expected"),
    [
        ((0.71234, ">", 0.5), True, "0.712", "> 0.5"),
        ((0.5, ">", 0.5), False, "0.5", "> 0.5"),
        ((0.5, ">=", 0.5), True, "0.5", "≥ 0.5"),
        ((3, "==", 3), True, "3", "3"),
        ((12345.6, "<", 2e9), True, "12,346", "< 2e+09"),
        ((5.0, ">", 1, "<", 3), False, "5", "> 1 and < 3"),
        (([0.1, 0.9, 0.4], "<", 0.8), False, "0.1 to 0.9", "< 0.8"),
        (([0.1, 0.9, 0.4], ">", [0.0, 0.8, 0.3]), True, "0.1 to 0.9", "> 0 to 0.8"),
        ((torch.tensor([[1.0, 2.0], [3.0, 4.0]]), ">", torch.tensor(0.5)), True, "1 to 4", "> 0.5"),
        (([torch.tensor(1.0), 2.0], "<=", 2), True, "1 to 2", "≤ 2"),
        ((pd.Series([1.5, 2.5]), "<", np.float32(3)), True, "1.5 to 2.5", "< 3"),
        (({"a": 1.0, "b": 2.0}.values(), ">", 0), True, "1 to 2", "> 0"),
        ((pd.Series(["agrees", "agrees"]), "==", "agrees"), True, "agrees", "agrees"),
        ((float("nan"), "<", 1), False, "nan", "< 1"),
        ((True,), True, "yes", "yes"),
        ((torch.tensor(False),), False, "no", "yes"),
    ],
)
def test_a_claim(arguments: tuple[Any, ...], holds: bool, measured: str, expected: str) -> None:
    found = claim(*arguments)
    assert (found.holds, found.measured, found.expected) == (holds, measured, expected)


def test_what_is_shown_can_be_said() -> None:
    assert claim(True, shown="brain-inspired replay, 95 %").measured == "brain-inspired replay, 95 %"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, ">"), "no pairs"),
        ((1, "=>", 0), "unknown relation '=>'"),
        (([], ">", 0), "0 values"),
        (([True, True],), "2 values without bounds"),
        (([1, 2, 3], "<", [1, 2]), "3 values and 2 bounds"),
    ],
)
def test_what_cannot_be_claimed_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=f"'it is so'.*{message}" if "relation" not in message else message):
        claim(*arguments)


def test_the_reader_sees_numbers_the_tests_a_truth(capsys: pytest.CaptureFixture[str]) -> None:
    claims = Claims()
    claims.add("p(z|x) is large", 0.9, ">", 0.5)
    claims.add("  and grows:", 0.1, ">", 0.5)
    assert claims._repr_markdown_() == (
        "| claim | measured | expected | holds |\n| --- | --- | --- | --- |\n"
        "| p(z\\|x) is large | 0.9 | > 0.5 | yes |\n| and grows: | 0.1 | > 0.5 | **no** |"
    )
    assert "p(z|x) is large: 0.9 (expected: > 0.5)\n" in repr(claims) and "which does not hold" in repr(claims)
    claims.check()
    assert capsys.readouterr().out == "p(z|x) is large: True\nand grows:: False\n"
    with pytest.raises(ConfigError, match="No claims"):
        Claims().check()
