"""Cards of the methods that are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clteach.methods import METHODS
from clteach.results.cards import CHAPTERS, cards

ROOT = Path(__file__).parents[2]


def test_cards() -> None:
    table = cards().set_index("name")
    assert [*table.index] == [*METHODS]
    assert set(table.index[table["needs the task"] == "yes"]) == {"xdg", "si-xdg", "hypernetwork", "separate-networks"}
    growth = table["per task (kB)"]
    assert growth["finetune"] == growth["ewc"] == growth["lwf"] == growth["generative-replay"] == 0
    assert growth["er"] == pytest.approx(2 * 100 * (64 + 16) / 1000)
    assert growth["xdg"] == pytest.approx(4 * 200 / 1000)
    assert growth["hypernetwork"] > 0
    assert growth["separate-networks"] == pytest.approx((4 * (64 * 35 + 35 + 35 * 35 + 35 + 35 * 2 + 2) + 2 * 8) / 1000)
    for stem, api in zip(table["chapter"], table["API"], strict=True):
        chapter = re.search(r'href="([\w.]+)"', stem)
        assert chapter is not None and (ROOT / "notebooks" / chapter[1]).is_file()
        assert re.search(r'href="\.\./book/api/methods\.\w+\.md#clteach\.methods\.\w+\.\w+"', api)


def test_a_method_s_chapter_speaks_of_it() -> None:
    for module, stem in CHAPTERS.items():
        text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8")
        names = [cls.__name__ for cls in METHODS.values() if cls.__module__.endswith(f".{module}")]
        assert module in text or any(name in text for name in names)
