"""The page on one's own data: its code runs as a reader would paste it."""

from __future__ import annotations

import importlib.util
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


PAGE = blocks("book/own_data.md")
SEQUENCES = [block for block in PAGE if "tasks = [" in block or "first_two" in block or "faded" in block]
RESULTS = [block for block in PAGE if "run.frame()" in block or "tensorboard" in block]
OTHERS = "medmnist|load_dataset|from_folder|avalanche|continuum"
LIBRARIES = [block for block in PAGE if re.search(OTHERS, block)]
ALONE = [block for block in PAGE[1:] if block not in SEQUENCES + RESULTS + LIBRARIES]


def lines(block: str) -> list[str]:
    """Without the imports and what only makes data for the example."""
    return [line for line in block.splitlines() if line and not re.match(r"(from|import|x, y =) ?", line)]


def test_each_kind_takes_at_most_five_lines() -> None:
    assert len(SEQUENCES) == 3 and len(RESULTS) == 2 and len(ALONE) == 3 and len(LIBRARIES) == 5
    assert all(len(lines(block)) <= 5 for block in SEQUENCES + RESULTS)
    assert all(len(block.split("\n")) <= 5 + 1 for block in LIBRARIES)


def test_what_other_libraries_hand_over_is_read_as_the_page_writes_it(tmp_path: Path) -> None:
    """Stand-ins of the libraries' shape; tests/peers reads the libraries themselves."""
    stand_ins = """
import sys
from pathlib import Path
from types import SimpleNamespace as Module
import numpy as np, clteach
from PIL import Image
from torch.utils.data import TensorDataset
x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4
for i in range(40):
    Path(f"pets/{y[i]}").mkdir(parents=True, exist_ok=True)
    Image.fromarray(x[i]).save(f"pets/{y[i]}/{i}.png")
rows = [{"img": Image.fromarray(x[i]), "fine_label": int(y[i]), "coarse_label": 0} for i in range(40)]
tasks = [[(x[i], int(y[i]), t) for i in range(40) if y[i] // 2 == t] for t in range(2)]
stream = [Module(dataset=part) for part in tasks]
sys.modules |= {
    "medmnist": Module(BreastMNIST=lambda split: [(x[i], y[i : i + 1]) for i in range(40)]),
    "datasets": Module(load_dataset=lambda name: {"train": rows, "test": rows}),
    "avalanche": Module(),
    "avalanche.benchmarks": Module(SplitCIFAR10=lambda n_experiences: Module(train_stream=stream, test_stream=stream)),
    "continuum": Module(ClassIncremental=lambda data, increment: tasks),
    "continuum.datasets": Module(MNIST=lambda folder, train: None),
}
"""
    code = stand_ins + "".join(f"{block}\nprint(*data.classes)\n" for block in LIBRARIES[:3])
    code += "".join(f"{block}\nprint(stream.spec.units)\n" for block in LIBRARIES[3:])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:3] == ["0 1 2 3"] * 3, done.stderr
    assert done.stdout.split("\n")[3:5] == ["((0, 1), (2, 3))"] * 2, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("installed", [True, False])
def test_tasks_that_are_cut_already_and_what_comes_out(tmp_path: Path, installed: bool) -> None:
    """The blocks one after the other, as a reader would paste them; a stand-in for TensorBoard, or none."""
    stand_in = """
import sys
from types import SimpleNamespace as Module
class SummaryWriter:
    def __init__(self, folder): self.rows = 0
    def add_scalar(self, name, value, step): self.rows += 1
    def close(self): print(self.rows > 10)
sys.modules["torch.utils.tensorboard"] = Module(SummaryWriter=SummaryWriter) if installed else None
""".replace("installed", str(installed))
    check = "print(len(run.accuracy), free.accuracy.shape[0], scores['after'].max())\n"
    code = stand_in + "\n".join(SEQUENCES) + RESULTS[0] + check + RESULTS[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "3 5 3" and (tmp_path / "run.png").stat().st_size > 5000
    if installed:
        assert done.returncode == 0 and done.stdout.split() == ["3", "5", "3", "True"], done.stderr
    else:
        assert "pip install tensorboard" in done.stderr


@pytest.mark.timeout(600)
def test_the_command_lines_run(tmp_path: Path) -> None:
    page = (ROOT / "book/own_data.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)).splitlines()
    assert len(commands) == 3
    for command in commands:
        short = ["--iters", "20", "--device", "cpu"] if command.startswith("clteach run") else []
        words = [sys.executable, "-m", *command.split(), *short]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        if "tensorboard" in command and importlib.util.find_spec("tensorboard") is None:
            assert "pip install tensorboard" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
    tables = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.csv")]
    assert len(tables) == 1 and "\ner," in tables[0]
    assert {file.name for file in tmp_path.glob("*my_method*")} == {"my_method.py", "test_my_method.py"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(ALONE)))
def test_the_other_examples_of_the_page_run(number: int, tmp_path: Path) -> None:
    """Answers in one's own names, a network of one's own, a method of one's own that passes the suite."""
    code = ALONE[number]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if number == 0:
        assert done.stdout.startswith("['setosa' 'setosa' 'setosa']") and "'virginica'" in done.stdout
