"""The page on one's own data: its code runs as a reader would paste it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_and_the_readme_show_the_same_ten_lines() -> None:
    assert blocks("book/own_data.md")[0] == blocks("README.md")[0]
    assert len(blocks("README.md")[0].strip().splitlines()) <= 10


@pytest.mark.timeout(600)
def test_ten_lines_from_arrays_to_the_picture_and_five_back(tmp_path: Path) -> None:
    there, back = blocks("README.md")[:2]
    done = subprocess.run(
        [sys.executable, "-c", there + back], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "wine.png").stat().st_size > 5000
    assert done.stdout.strip() == "['barolo' 'barolo' 'barolo']"


def test_images_and_a_dataset_work_the_same_way() -> None:
    """The page's other kinds of input: images as arrays, and a torchvision-style data set."""
    import numpy as np
    import torch

    import clteach

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    y = np.repeat(["a", "b", "c"], 20)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(x)[:, None], torch.from_numpy(np.repeat([0, 1, 2], 20)))
    for data in (clteach.from_arrays(x, y), clteach.from_arrays(pairs)):
        stream = clteach.split(data, "class", tasks=3)
        run = clteach.train("er", stream, steps=3, batch_size=8, hidden=(8,), per_class=4, device="cpu")
        assert run.accuracy.shape == (3, 3) and stream.spec.shape == (1, 6, 6)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_other_examples_of_the_page_run(number: int, tmp_path: Path) -> None:
    """Answers in one's own names, a network of one's own, a method of one's own that passes the suite."""
    code = blocks("book/own_data.md")[number]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if number == 1:
        assert done.stdout.startswith("['setosa' 'setosa' 'setosa']") and "'virginica'" in done.stdout
