"""Data sets by name and from arrays: what is read is what was given, and bad input gets one clear error."""

from __future__ import annotations

import io
import pickle
import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_digits

from clteach.data.catalogue import _CIFAR100, _SOURCES, NAMES, data_folder, load
from clteach.data.dataset import Dataset, as_floats, join
from clteach.data.own_data import from_arrays
from clteach.data.streams import make_stream, split
from clteach.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
LABELS = np.arange(20) % 2
GREY = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
TEN = np.arange(20) % 10
ARRAYS: dict[str, Any] = {"x_train": GREY, "y_train": TEN, "x_test": GREY[:4], "y_test": TEN[:4]}


@pytest.fixture(autouse=True)
def random_states_are_kept() -> Iterator[None]:
    """Every test in this file also checks that the global random states are as they were."""
    before = random_states()
    yield
    assert random_states() == before


def random_states() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))


def message(error: type[Exception], call: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the one error raised: a single line, with no error of a library shown behind it."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    assert type(caught.value) is error
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and "expected" in text
    return text


# ---------------------------------------------------------------------------------------------- data sets by name


def test_digits_are_the_bundled_ones_split_by_class() -> None:
    raw = load_digits()
    data = load("digits")
    assert data.shape == (1, 8, 8) and data.n_classes == 10 and data.classes == tuple("0123456789")
    assert data.x_train.dtype == data.x_test.dtype == torch.uint8 and data.y_train.dtype == torch.int64
    assert len(data.x_train) + len(data.x_test) == len(raw.images) == 1797
    assert len(data.x_test) == pytest.approx(0.2 * 1797, abs=1)
    per_class = torch.bincount(data.y_train) / (torch.bincount(data.y_train) + torch.bincount(data.y_test))
    assert torch.all((per_class - 0.8).abs() < 0.01)
    got = sorted((x.tobytes(), int(y)) for x, y in zip(_all(data.x_train, data.x_test), _ys(data), strict=True))
    scaled = np.array([round(v * 255 / 16) for v in range(17)], dtype=np.uint8)[raw.images.astype(int)]
    assert got == sorted((x.tobytes(), int(y)) for x, y in zip(scaled, raw.target, strict=True))
    assert load("digits").fingerprint == data.fingerprint


def _all(train: torch.Tensor, test: torch.Tensor) -> list[np.ndarray]:
    return [x.numpy() for x in (*train, *test)]


def _ys(data: Dataset) -> list[int]:
    return [*data.y_train.tolist(), *data.y_test.tolist()]


def test_loading_in_a_fresh_process_keeps_the_random_states() -> None:
    """Here the libraries are not imported yet, and importing some of them draws random numbers."""
    code = """
        import random, sys
        import numpy as np, torch
        from clteach.data import load
        assert not {"sklearn", "torchvision"} & set(sys.modules), "import clteach.data is to stay light"
        before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
        load("digits")
        assert before == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


def test_digits_touch_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path / "cache"))
    load("digits", download=False)
    assert not list(tmp_path.iterdir())


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLTEACH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "clteach"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path.home() / ".cache" / "clteach"
    monkeypatch.setenv("CLTEACH_DATA", "~/sets")
    assert data_folder() == Path.home() / "sets"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "my-own"])
def test_npz_in_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = (COLOUR if "cifar" in name else GREY), TEN
    if name == "cifar100":
        images, labels = np.concatenate([images] * 5), np.arange(100)
    parts = {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4]}
    np.savez(tmp_path / f"{name}.npz", **parts)
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    data = load(name, download=False)
    expected = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
    assert np.array_equal(data.x_train.numpy(), expected) and np.array_equal(data.x_test.numpy(), expected[:4])
    assert data.x_train.is_contiguous() and data.y_train.tolist() == labels.tolist()
    assert data.n_classes == {"cifar100": 100}.get(name, 10)
    assert load(name, folder=str(tmp_path)).fingerprint == data.fingerprint


def test_npz_class_names_and_channels_first(tmp_path: Path) -> None:
    first = np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "own.npz", **{**ARRAYS, "x_train": first, "x_test": first[:4]}, classes=list("abcdefghij"))
    data = load("own", tmp_path)
    assert data.classes == tuple("abcdefghij") and np.array_equal(data.x_train.numpy(), first)


def test_class_names_are_those_of_torchvision() -> None:
    assert _SOURCES["fashion-mnist"].classes == tuple(torchvision.datasets.FashionMNIST.classes)
    assert len(set(_CIFAR100)) == 100 and sorted(_CIFAR100) == _CIFAR100


@pytest.mark.mnist
def test_mnist_itself() -> None:
    if not (data_folder() / "mnist.npz").is_file():
        pytest.skip("mnist.npz is not in the data folder; set CLTEACH_DATA to a folder that holds it")
    data = load("mnist", download=False)
    assert (len(data.x_train), len(data.x_test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert torch.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert float(data.x_train.float().mean()) / 255 == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize("name", ["nonsense", "", "../mnist", "MNIST"])
def test_unknown_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "mnist.npz", **ARRAYS)
    text = message(ConfigError, load, name, tmp_path / "folder")
    assert repr(name) in text and str(tmp_path / "folder") in text and all(known in text for known in NAMES)


def _write_idx(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, n in (("train", 20), ("t10k", 4)):
        images = struct.pack(">IIII", 2051, n, 28, 28) + GREY[:n].tobytes()
        labels = struct.pack(">II", 2049, n) + TEN[:n].astype(np.uint8).tobytes()
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(labels)


def test_torchvision_layout_already_there(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    data = load("mnist", tmp_path, download=False)
    assert np.array_equal(data.x_train[:, 0].numpy(), GREY) and data.y_test.tolist() == TEN[:4].tolist()
    assert sorted(tmp_path.rglob("*")) == before
    np.savez(tmp_path / "mnist.npz", **ARRAYS)
    assert load("mnist", tmp_path).fingerprint == data.fingerprint


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_torchvision_layout(damage: str, tmp_path: Path) -> None:
    _write_idx(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:5000])
    text = message(DataError, load, "mnist", tmp_path, download=False)
    assert str(tmp_path / "MNIST") in text and "delete" in text


# -------------------------------------------------------------------------------------------------------- download


class FakeMNIST:
    """Stands in for torchvision.datasets.MNIST: writes a file and holds data, without a network."""

    fails_at: str | None = None
    calls: int = 0

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        assert download
        type(self).calls += 1
        part = Path(root) / "MNIST" / ("train" if train else "test")
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"half of the archive")
        print("Downloading")
        if self.fails_at == part.name:
            raise RuntimeError("Error downloading train:\nTried https://a.example, got:\n<urlopen error no route>\n")
        n = 20 if train else 4
        self.data, self.targets = torch.from_numpy(GREY[:n]), torch.from_numpy(TEN[:n])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeMNIST]:
    monkeypatch.setattr(FakeMNIST, "fails_at", None)
    monkeypatch.setattr(FakeMNIST, "calls", 0)
    monkeypatch.setattr(torchvision.datasets, "MNIST", FakeMNIST)
    return FakeMNIST


def test_download_once_then_from_the_cache(
    fake: type[FakeMNIST], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "cache"
    data = load("mnist", folder)
    assert np.array_equal(data.x_train[:, 0].numpy(), GREY) and data.classes == tuple("0123456789")
    assert [path.name for path in folder.iterdir()] == ["mnist.npz"]
    assert fake.calls == 2
    assert load("mnist", folder).fingerprint == data.fingerprint and fake.calls == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("part", ["train", "test"])
def test_failed_download_leaves_nothing(part: str, fake: type[FakeMNIST], tmp_path: Path) -> None:
    fake.fails_at = part
    text = message(DataError, load, "mnist", tmp_path)
    for word in ("mnist", str(tmp_path / "mnist.npz"), "network", "CLTEACH_DATA", "no route"):
        assert word in text
    assert not list(tmp_path.iterdir())
    fake.fails_at = None
    assert len(load("mnist", tmp_path).x_train) == 20


def test_downloads_off(fake: type[FakeMNIST], tmp_path: Path) -> None:
    text = message(DataError, load, "mnist", tmp_path / "nowhere", download=False)
    assert "mnist" in text and str(tmp_path / "nowhere") in text and fake.calls == 0
    assert not (tmp_path / "nowhere").exists()


def test_full_disk_leaves_nothing(fake: type[FakeMNIST], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for target in ("os.replace", "numpy.savez"):
        with monkeypatch.context() as patch:
            patch.setattr(target, full)
            text = message(DataError, load, "mnist", tmp_path)
        assert "No space left" in text and str(tmp_path / "mnist.npz") in text and "CLTEACH_DATA" in text
        assert not list(tmp_path.iterdir())
    assert len(load("mnist", tmp_path).x_train) == 20


def test_folder_that_cannot_be_used(fake: type[FakeMNIST], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert str(file) in message(DataError, load, "mnist", file)
    text = message(DataError, load, "mnist", file / "below")
    assert "cannot be written" in text and str(file / "below") in text and fake.calls == 0


def test_killed_download_is_not_half_there(fake: type[FakeMNIST], tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        import numpy as np, torchvision.datasets
        from clteach.data import load

        def die(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)

        def half(stream, **arrays):
            stream.write(b"PK" + bytes(10_000))
            stream.flush()
            die()

        class Fake:
            def __init__(self, root, train, download):
                open(os.path.join(root, "part"), "w").close()
                if moment == "download":
                    die()
                self.data, self.targets = np.full((10, 28, 28), 200, np.uint8), np.arange(10)

        torchvision.datasets.MNIST = Fake
        for moment in ("download", "write", "rename"):
            child = os.fork()
            if child == 0:
                if moment == "write":
                    np.savez = half
                elif moment == "rename":
                    os.replace = die
                load("mnist", os.path.join(sys.argv[1], moment))
                os._exit(0)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=120)
    for moment in ("download", "write", "rename"):
        folder = tmp_path / moment
        assert list(folder.iterdir()), "the process should have died in the middle"
        assert not (folder / "mnist.npz").exists()
        assert np.array_equal(load("mnist", folder).x_train[:, 0].numpy(), GREY)


# --------------------------------------------------------------------------------------------------- damaged files


def _bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


GOOD = _bytes(**ARRAYS)
HTML = b"\n <!DOCTYPE html><html><body>Please log in</body></html>"
BAD_FILES = {
    "empty": (b"", "is empty"),
    "html": (HTML, "HTML page"),
    "truncated": (GOOD[: len(GOOD) // 2], "truncated"),
    "text": (b"5,0,0,1\n", "not an npz"),
    "flipped": (GOOD[:3000] + bytes([GOOD[3000] ^ 255]) + GOOD[3001:], "is damaged"),
    "missing": (_bytes(x_train=GREY, y_train=TEN), "lacks x_test, y_test"),
    "objects": (_bytes(**{**ARRAYS, "x_train": np.array([{1}], dtype=object)}), "Python objects"),
    "label": (_bytes(**{**ARRAYS, "y_train": np.where(np.arange(20) == 7, 12, TEN)}), "label 12 at position 7"),
    "lengths": (_bytes(**{**ARRAYS, "y_test": TEN[:3]}), "4 test inputs but 3 labels"),
    "no images": (_bytes(**{**ARRAYS, "x_train": GREY[:0], "y_train": TEN[:0]}), "empty"),
    "other images": (_bytes(**{**ARRAYS, "x_train": GREY[:, :8, :8], "x_test": GREY[:4, :8, :8]}), "(1, 28, 28)"),
    "classes": (_bytes(**{**ARRAYS, "y_train": LABELS, "y_test": LABELS[:4]}, classes=["a", "b"]), "10"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_gets_one_error_that_names_it(kind: str, fake: type[FakeMNIST], tmp_path: Path) -> None:
    content, words = BAD_FILES[kind]
    file = tmp_path / "mnist.npz"
    file.write_bytes(content)
    text = message(DataError, load, "mnist", tmp_path)
    assert str(file) in text and words in text
    assert file.read_bytes() == content and fake.calls == 0


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "x_train": GREY[:4, :4],
        "y_train": LABELS[:4],
        "x_test": GREY[:2, :4],
        "y_test": LABELS[:2],
    }
    np.savez(tmp_path / "own.npz", **small)
    whole = (tmp_path / "own.npz").read_bytes()
    fingerprint = load("own", tmp_path).fingerprint
    noticed = 0
    for at in range(0, len(whole), 3):
        (tmp_path / "own.npz").write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            assert load("own", tmp_path).fingerprint == fingerprint
        except DataError as error:
            noticed += 1
            assert "own.npz" in str(error)
    assert noticed > 0.8 * len(whole) / 3 - 100


# --------------------------------------------------------------------------------------------------------- arrays


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_uint8_images_and_labels_come_back(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    x = data.draw(hnp.arrays(np.uint8, (n, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))))
    names = data.draw(st.permutations(range(k)))
    y = [names[i % k] for i in range(n)]
    got = from_arrays(x, y, x, y, largest=255)
    known = sorted(set(y))
    assert np.array_equal(got.x_train[:, 0].numpy(), x) and np.array_equal(got.x_test[:, 0].numpy(), x)
    assert [known[label] for label in got.y_train] == y and got.classes == tuple(str(label) for label in known)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, (7, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_features_scale_like_the_definition(x: np.ndarray) -> None:
    train, test = x[:4], x[4:]
    got = from_arrays(train, [0, 1, 0, 1], test, [0, 1, 0])
    for part, result in ((train, got.x_train), (test, got.x_test)):
        assert result.dtype == torch.float32 and bool(((result >= 0) & (result <= 1)).all())
        for i, row in enumerate(part):
            for j, value in enumerate(row):
                low, high = Fraction(train[:, j].min()), Fraction(train[:, j].max())
                exact: Any = 0 if high == low else min(max((Fraction(value) - low) / (high - low), 0), 1)
                assert float(result[i, j]) == pytest.approx(float(exact), abs=1e-6)


def test_features_by_hand() -> None:
    got = from_arrays([[0, 5], [10, 5], [5, 5]], [0, 1, 0], [[20, 9], [-3, 5]], [1, 0])
    assert got.x_train.tolist() == [[0, 0], [1, 0], [0.5, 0]] and got.x_test.tolist() == [[1, 0], [0, 0]]
    assert got.shape == (2,)


CHANNELS = {
    "(N, H, W)": (GREY, GREY[:, None]),
    "(N, H, W, 1)": (GREY[..., None], GREY[:, None]),
    "(N, H, W, 3)": (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
    "(N, 3, H, W)": (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
    "(N, 4, H, W)": (GREY.reshape(20, 4, 14, 14), GREY.reshape(20, 4, 14, 14)),
}


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "float", "bfloat16", "strided", "big-endian"])
@pytest.mark.parametrize("layout", CHANNELS)
def test_layouts_and_containers(layout: str, kind: str) -> None:
    x, expected = CHANNELS[layout]
    source: Any = {
        "array": lambda: x,
        "tensor": lambda: torch.from_numpy(x.copy()),
        "list": lambda: list(x),
        "float": lambda: x / 255,
        "bfloat16": lambda: torch.from_numpy(x.copy()).bfloat16() / 256,
        "strided": lambda: x[::-1][::-1],
        "big-endian": lambda: x.astype(">i4"),
    }[kind]()
    got = from_arrays(source, LABELS, source[:4], LABELS[:4])
    scale, tolerance = {"float": (255, 1e-4), "bfloat16": (256, 1.0)}.get(kind, (1, 0))
    assert got.x_train.dtype == (torch.uint8 if scale == 1 else torch.float32)
    assert np.abs(got.x_train.double().numpy() * scale - expected).max() <= tolerance


def test_ambiguous_channels_can_be_named() -> None:
    x = RNG.integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    assert "channels='first'" in message(DataError, from_arrays, x, [0, 1, 0, 1])
    assert from_arrays(x, [0, 1, 0, 1], x, [0, 1, 0, 1], channels="first").shape == (3, 5, 3)
    got = from_arrays(x, [0, 1, 0, 1], x, [0, 1, 0, 1], channels="last")
    assert np.array_equal(got.x_train.numpy(), x.transpose(0, 3, 1, 2))
    assert "'middle'" in message(ConfigError, from_arrays, x, [0, 1, 0, 1], channels="middle")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["dog", "cat", "dog", "cat"], ("cat", "dog")),
        ([7, -3, 7, -3], ("-3", "7")),
        ([2.0, 1.0, 2.0, 1.0], ("1", "2")),
        (torch.tensor([5, 0, 5, 0]), ("0", "5")),
        (np.array(["b", "a", "b", "a"]), ("a", "b")),
        ([torch.tensor(1), np.int8(0), 1, 0], ("0", "1")),
        ([("x", 2), ("x", 1), ("x", 2), ("x", 1)], ("('x', 1)", "('x', 2)")),
    ],
)
def test_any_labels_become_sorted_classes(labels: Any, classes: tuple[str, ...]) -> None:
    got = from_arrays(GREY[:4], labels, GREY[:2], labels[:2])
    assert got.classes == classes and got.y_train.tolist() == [1, 0, 1, 0] and got.y_test.tolist() == [1, 0]


def test_hold_out_is_seeded_stratified_and_complete() -> None:
    x, y = RNG.integers(0, 256, (100, 4, 4), dtype=np.uint8), np.repeat([0, 1, 2], [50, 30, 20])
    one, same, other = (from_arrays(x, y, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.bincount(one.y_test).tolist() == [10, 6, 4]
    pairs = zip(_all(one.x_train, one.x_test), _ys(one), strict=True)
    assert sorted((a.tobytes(), b) for a, b in pairs) == sorted((a.tobytes(), b) for a, b in zip(x, y, strict=True))
    assert len(from_arrays(x, y, test_share=0.5).x_test) == 50


class Pairs:
    """A data set as torchvision makes them; reading draws random numbers, as augmentations do."""

    def __init__(self, images: list[Any], labels: list[Any]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        random.random(), np.random.rand(), torch.rand(1)
        return self.images[index], self.labels[index]


@pytest.mark.parametrize("kind", ["grey", "colour", "palette", "bits", "array", "tensor", "dataset", "pairs"])
def test_torchvision_style_data_sets(kind: str) -> None:
    grey, colour = [Image.fromarray(x) for x in GREY[:4]], [Image.fromarray(x) for x in COLOUR[:4]]
    images: dict[str, tuple[list[Any], np.ndarray]] = {
        "grey": (grey, GREY[:4, None]),
        "colour": (colour, COLOUR[:4].transpose(0, 3, 1, 2)),
        "palette": ([x.convert("P") for x in grey], GREY[:4, None].repeat(3, axis=1)),
        "bits": ([x.point(lambda v: 255 * (v > 127), mode="1") for x in grey], (GREY[:4, None] > 127) * 255),
        "array": (list(COLOUR[:4]), COLOUR[:4].transpose(0, 3, 1, 2)),
        "tensor": (list(torch.from_numpy(GREY[:4, None].copy())), GREY[:4, None]),
        "dataset": (list(torch.from_numpy(GREY[:4, None].copy())), GREY[:4, None]),
        "pairs": (grey, GREY[:4, None]),
    }
    items, expected = images[kind]
    labels = [1, 0, 1, 0]
    data: Any = Pairs(items, labels)
    if kind == "dataset":
        data = torch.utils.data.TensorDataset(torch.stack(items), torch.tensor(labels))
    elif kind == "pairs":
        data = list(zip(items, labels, strict=True))
    got = from_arrays(data, None, data)
    assert np.array_equal(got.x_train.numpy(), expected) and np.array_equal(got.x_test.numpy(), expected)
    assert got.y_train.tolist() == labels and got.classes == ("0", "1")


def test_a_data_set_brings_its_class_names() -> None:
    data: Any = Pairs(list(GREY), LABELS.tolist())
    data.classes = ["cat", "dog"]
    assert from_arrays(data, None).classes == ("cat", "dog")
    assert from_arrays(data, None, classes=["a", "b"]).classes == ("a", "b")


def test_arrays_are_copied_and_not_changed() -> None:
    for x in (GREY[:, None].copy(), GREY[:, None] / np.float32(255), GREY.reshape(20, -1).astype(float)):
        for wrap in (np.asarray, torch.from_numpy):
            mine, labels = x.copy(), LABELS.copy()
            got = from_arrays(wrap(mine), wrap(labels), wrap(mine), wrap(labels))
            assert np.array_equal(mine, x) and np.array_equal(labels, LABELS)
            before = got.fingerprint, got.x_train.clone(), got.x_test.clone()
            mine[:], labels[:] = 0, 0
            assert torch.equal(got.x_train, before[1]) and torch.equal(got.x_test, before[2])
            got.x_train[0] = 1
            assert torch.equal(got.x_test, before[2]) and not mine.any() and got.y_train.tolist() == LABELS.tolist()


def _with(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


UNIT = (GREY / 255).astype(np.float32)
VECTORS = RNG.normal(size=(20, 5))
BAD_ARRAYS: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]] = {
    "NaN pixel": ((_with(UNIT, (3, 2, 1), np.nan), LABELS), {}, ("nan", "(3, 2, 1)")),
    "inf pixel": ((_with(UNIT, (3, 2, 1), np.inf), LABELS), {}, ("inf", "(3, 2, 1)")),
    "NaN feature": ((_with(VECTORS, (4, 2), np.nan), LABELS), {}, ("nan", "(4, 2)")),
    "inf test feature": ((VECTORS, LABELS, _with(VECTORS, (0, 1), -np.inf), LABELS), {}, ("test", "-inf", "(0, 1)")),
    "float 0..255": ((GREY.astype(float), LABELS), {}, ("255", "divide")),
    "negative float": ((_with(UNIT, (1, 0, 0), -0.5), LABELS), {}, ("-0.5", "(1, 0, 0)", "rescale")),
    "wide integers": ((_with(GREY.astype(int), (2, 3, 4), 256), LABELS), {}, ("256", "(2, 3, 4)", "0..255")),
    "negative integers": ((_with(GREY.astype(int), (2, 3, 4), -1), LABELS), {}, ("-1", "(2, 3, 4)")),
    "complex": ((GREY * 1j, LABELS), {}, ("complex",)),
    "strings": ((GREY.astype(str), LABELS), {}, ("<U",)),
    "objects": ((np.full((20, 3), object()), LABELS), {}, ("object", "(0, 0)")),
    "ragged": (([[1, 2], [1, 2, 3]], [0, 1]), {}, ("input 1", "(3,)", "(2,)")),
    "one dimension": ((np.arange(20), LABELS), {}, ("(20,)", "(N, D)")),
    "five dimensions": ((GREY[:, None, None], LABELS), {}, ("(20, 1, 1, 28, 28)",)),
    "two channels": ((GREY.reshape(20, 2, 14, 28), LABELS), {}, ("(20, 2, 14, 28)", "1, 3 or 4")),
    "no images": ((GREY[:0], LABELS[:0]), {}, ("empty", "(0, 28, 28)")),
    "empty list": (([], []), {}, ("empty",)),
    "zero size": ((GREY[:, :0], LABELS), {}, ("empty", "(20, 0, 28)")),
    "lengths": ((GREY, LABELS[:19]), {}, ("20 training inputs but 19 labels",)),
    "no labels": ((GREY, None), {}, ("without labels",)),
    "label 2.5": ((GREY, _with(LABELS.astype(float), 6, 2.5)), {}, ("2.5", "position 6")),
    "label NaN": ((GREY, _with(LABELS.astype(float), 6, np.nan)), {}, ("nan", "position 6")),
    "label True": ((GREY, LABELS == 1), {}, ("False", "position 0", "bool")),
    "label None": ((GREY, [None] * 20), {}, ("None", "position 0")),
    "label complex": ((GREY, LABELS * 1j), {}, ("0j", "complex")),
    "label lists": ((GREY, [[1], [1, 2]] * 10), {}, ("[1]", "list")),
    "one-hot labels": ((GREY, np.eye(2)[LABELS]), {}, ("(20, 2)",)),
    "mixed labels": ((GREY, ["a", 1] * 10), {}, ("sorted", "one type")),
    "label too large": ((GREY, _with(LABELS, 5, 3)), {"classes": ("a", "b")}, ("3", "position 5", "0..1")),
    "label negative": ((GREY, _with(LABELS, 5, -1)), {"classes": ("a", "b")}, ("-1", "position 5", "0..1")),
    "unseen test label": ((GREY, LABELS, GREY[:4], [0, 1, 5, 0]), {}, ("5", "position 2", "no training sample")),
    "unseen given class": ((GREY, LABELS, GREY[:2], [0, 2]), {"classes": list("abc")}, ("2", "position 1")),
    "single sample": ((GREY, _with(LABELS, 5, 9)), {}, ("class 9", "single sample")),
    "too few to hold out": ((GREY[:6], [0, 0, 1, 1, 2, 2]), {}, ("20%", "test_share")),
    "test labels alone": ((GREY, LABELS, None, LABELS), {}, ("x_test",)),
    "test inputs alone": ((GREY, LABELS, GREY), {}, ("test inputs without labels",)),
    "test of another shape": ((GREY, LABELS, GREY[:, :5], LABELS), {}, ("(1, 28, 28)", "(1, 5, 28)")),
    "test of another width": ((VECTORS, LABELS, VECTORS[:, :2], LABELS), {}, ("(5,)", "(2,)")),
    "test of another type": ((GREY, LABELS, UNIT, LABELS), {}, ("uint8", "float32")),
    "not data": ((3, LABELS), {}, ("int",)),
    "sparse tensor": ((torch.eye(20).to_sparse(), LABELS), {}, ("array",)),
    "broken data set": ((Pairs(list(GREY), [0, 1]), None), {}, ("item 2", "IndexError")),
    "not pairs": (([1, 2, 3], None), {}, ("item 0", "(image, label)")),
    "images of two sizes": ((Pairs([GREY[0], GREY[1, :9]], [0, 1]), None), {}, ("input 1", "(9, 28)")),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_get_one_error_that_names_them(kind: str) -> None:
    args, settings_, words = BAD_ARRAYS[kind]
    text = message(DataError, from_arrays, *args, **settings_)
    for word in words:
        assert word in text


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, float("nan")])
def test_share_out_of_range(share: float) -> None:
    assert "test_share" in message(ConfigError, from_arrays, GREY, LABELS, test_share=share)


# --------------------------------------------------------------------------------------------------------- Dataset


def _dataset(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "name": "own",
        "x_train": torch.zeros(4, 1, 2, 2),
        "y_train": torch.tensor([0, 1, 0, 1]),
        "x_test": torch.zeros(2, 1, 2, 2),
        "y_test": torch.tensor([0, 1]),
        "classes": ("a", "b"),
    }
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"x_train": torch.zeros(4, 1, 2, 2).double()},
        {"x_train": torch.zeros(4, 2, 2), "x_test": torch.zeros(2, 2, 2)},
        {"x_train": torch.zeros(4, 3).byte(), "x_test": torch.zeros(2, 3).byte()},
        {"x_train": torch.zeros(3, 1, 2, 2)},
        {"x_train": torch.full((4, 1, 2, 2), 1.5)},
        {"x_test": torch.full((2, 1, 2, 2), float("nan"))},
        {"x_test": torch.zeros(0, 1, 2, 2), "y_test": torch.zeros(0).long()},
        {"y_train": torch.tensor([0, 1, 0, 1]).int()},
        {"y_train": torch.tensor([[0], [1], [0], [1]])},
        {"y_test": torch.tensor([0, 2])},
        {"y_test": torch.tensor([0, -1])},
        {"classes": ()},
    ],
)
def test_a_dataset_checks_itself(changes: dict[str, Any]) -> None:
    message(DataError, _dataset, **changes)


def test_joined_data_sets_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load("digits")
    other = replace(digits, name="negatives", x_train=255 - digits.x_train, classes=tuple("abcdefghi9"))
    both = join(digits, other)
    n = len(digits.x_train)
    assert both.name == "digits+negatives" and both.n_classes == 20
    assert both.classes == (*"012345678", "digits 9", *"abcdefghi", "negatives 9")
    assert torch.equal(both.x_train[n:], 255 - both.x_train[:n])
    assert torch.equal(both.y_train[n:], 10 + both.y_train[:n])
    assert torch.equal(both.y_test[len(digits.y_test) :], 10 + digits.y_test)
    stream = split(both, "class", tasks=10)
    assert stream[0].classes == ("0", "1") and stream[5].classes == ("a", "b") and stream.spec.n_out == 20
    # By name, from the folder; a part that does not exist is named.
    arrays = {key: getattr(other, key).numpy() for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "negatives.npz", **arrays, classes=np.array(other.classes))
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    assert load("digits+negatives").fingerprint == both.fingerprint
    assert make_stream("split-digits+negatives", "class", tasks=4)[3].classes == both.classes[15:]
    with pytest.raises(ConfigError, match="unknown data set 'nothing'"):
        load("digits+nothing")


def test_data_sets_that_cannot_be_joined() -> None:
    digits = load("digits")
    floats = replace(digits, name="floats", x_train=as_floats(digits.x_train), x_test=as_floats(digits.x_test))
    for parts in ((), (digits,), (digits, digits), (digits, floats)):
        with pytest.raises(DataError, match=r"cannot join .*: expected two or more data sets with different names"):
            join(*parts)


def test_fingerprint_depends_on_everything_but_the_name() -> None:
    base = _dataset()
    assert len(base.fingerprint) == 16 and int(base.fingerprint, 16) >= 0
    assert _dataset(name="other").fingerprint == base.fingerprint == base.to("cpu").fingerprint
    others = [
        _dataset(x_train=torch.zeros(4, 1, 2, 2).index_fill(0, torch.tensor([1]), 0.5)),
        _dataset(x_test=torch.ones(2, 1, 2, 2)),
        _dataset(y_train=torch.tensor([0, 1, 1, 1])),
        _dataset(y_test=torch.tensor([1, 1])),
        _dataset(classes=("a", "c")),
        _dataset(x_train=torch.zeros(4, 1, 1, 4), x_test=torch.zeros(2, 1, 1, 4)),
        _dataset(x_train=torch.zeros(4, 1, 2, 2).byte(), x_test=torch.zeros(2, 1, 2, 2).byte()),
    ]
    assert len({data.fingerprint for data in [base, *others]}) == len(others) + 1


def test_to_another_device() -> None:
    moved = _dataset().to(torch.device("cpu"))
    assert moved.x_train.device.type == "cpu" and moved.classes == ("a", "b") and "own" in repr(moved)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_to_the_gpu() -> None:
    data = load("digits")
    moved = data.to("cuda")
    assert moved.x_train.is_cuda and moved.y_test.is_cuda and moved.fingerprint == data.fingerprint
