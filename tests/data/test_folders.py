"""Folders of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clteach
from clteach.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def draw(path: Path, *shape: int, n: int = 5, low: int = 0) -> np.ndarray:
    """n pictures in a new folder, and what they show."""
    path.mkdir(parents=True)
    images = RNG.integers(low, 256, (n, *(shape or (6, 4))), dtype=np.uint8)
    images[:, 0] = 255
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    return images


def test_class_folders_alone(tmp_path: Path) -> None:
    dogs, cats = draw(tmp_path / "dog"), draw(tmp_path / "cat", n=10)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    data = clteach.from_folder(tmp_path, name="pets")
    assert data.classes == ("cat", "dog") and data.shape == (1, 6, 4) and data.name == "pets"
    assert (len(data.x_train), len(data.x_test)) == (12, 3)
    got = sorted(image.numpy().tobytes() for image in (*data.x_train, *data.x_test))
    assert got == sorted(image.tobytes() for image in (*cats, *dogs))
    assert clteach.from_folder(str(tmp_path), test_share=0.4, seed=1).x_test.shape[0] == 6
    assert len(clteach.split(data, tasks=2)) == 2


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val"), ("train", "test", "val")])
def test_parts(names: tuple[str, ...], tmp_path: Path) -> None:
    shown = {name: [draw(tmp_path / name / label) for label in ("cat", "dog")] for name in names}
    data = clteach.from_folder(tmp_path)
    train = [shown[names[0]]] + [shown["val"] for _ in names[2:]]
    expected = np.concatenate([part[label] for label in (0, 1) for part in train])
    assert np.array_equal(data.x_train[:, 0].numpy(), expected)
    assert np.array_equal(data.x_test[:, 0].numpy(), np.concatenate(shown[names[1]]))
    assert data.y_test.tolist() == [0] * 5 + [1] * 5 and data.name == tmp_path.name


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    draw(tmp_path / "train"), draw(tmp_path / "bus")
    assert clteach.from_folder(tmp_path).classes == ("bus", "train")


def test_one_size_for_all(tmp_path: Path) -> None:
    draw(tmp_path / "a", 6, 4), draw(tmp_path / "b", 8, 8)
    with pytest.raises(DataError, match=r"b/0\.png has 8 x 8 pixels but the first picture 6 x 4.*size=32"):
        clteach.from_folder(tmp_path)
    assert clteach.from_folder(tmp_path, 5).shape == (1, 5, 5)
    data = clteach.from_folder(tmp_path, size=(6, 4))
    assert data.shape == (1, 6, 4) and set(data.y_train.tolist()) == {0, 1}
    for size in (0, (3,), (3, 2.5), "wide"):
        with pytest.raises(ConfigError, match=r"size=.*: expected a number of pixels"):
            clteach.from_folder(tmp_path, size)


def test_colours(tmp_path: Path) -> None:
    grey, colour = draw(tmp_path / "train" / "a"), draw(tmp_path / "train" / "b", 6, 4, 3)
    draw(tmp_path / "test" / "a"), draw(tmp_path / "test" / "b")
    data = clteach.from_folder(tmp_path)
    assert data.shape == (3, 6, 4) and data.x_test.shape[1] == 3
    assert np.array_equal(data.x_train[:5].numpy(), np.stack([grey] * 3, 1))
    assert np.array_equal(data.x_train[5:].numpy(), np.moveaxis(colour, 3, 1))


def test_modes(tmp_path: Path) -> None:
    shown = draw(tmp_path / "a", 6, 4, 3)
    (tmp_path / "b").mkdir()
    for index, mode in enumerate(("1", "L", "LA", "P", "RGBA", "RGB")):
        Image.fromarray(shown[0]).convert(mode).save(tmp_path / "b" / f"{index}.png")
    data = clteach.from_folder(tmp_path, test_share=0.2)
    assert data.shape == (3, 6, 4) and data.x_train.dtype == torch.uint8


def test_masks_and_16_bits_say_what_is_white(tmp_path: Path) -> None:
    for name, top, kind in (("masks", 1, np.uint8), ("deep", 65535, np.uint16)):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(5):
                image = RNG.integers(0, top + 1, (6, 4)).astype(kind)
                image[0] = top
                Image.fromarray(image).save(tmp_path / name / label / f"{index}.png")
        with pytest.raises(DataError, match="largest="):
            clteach.from_folder(tmp_path / name)
        data = clteach.from_folder(tmp_path / name, largest=top)
        assert bool((data.x_train[:, 0, 0] == (255 if data.x_train.dtype == torch.uint8 else 1)).all())


def test_hidden_files_and_empty_classes(tmp_path: Path) -> None:
    draw(tmp_path / "a"), draw(tmp_path / "b"), draw(tmp_path / ".ipynb_checkpoints"), draw(tmp_path / "a" / ".cache")
    (tmp_path / "a" / "._0.png").write_bytes(b"what macOS leaves in archives")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="no training sample of 'empty'"):
        data = clteach.from_folder(tmp_path)
    assert data.classes == ("a", "b") and len(data.x_train) + len(data.x_test) == 10


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        clteach.from_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="holds 0 class folders: expected two or more"):
        clteach.from_folder(tmp_path)
    draw(tmp_path / "pets" / "a"), draw(tmp_path / "pets" / "b")
    with pytest.raises(DataError, match=r"holds 1 class folders \(pets\).*pass the folder that holds them"):
        clteach.from_folder(tmp_path)
    assert clteach.from_folder(tmp_path / "pets").n_classes == 2
    (tmp_path / "pets" / "b" / "0.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match=r"b/0\.png cannot be read .*repair or delete it"):
        clteach.from_folder(tmp_path / "pets")


def test_a_test_class_without_training_pictures_is_named(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "test/a", "test/c"):
        draw(tmp_path / folder)
    with pytest.raises(
        DataError, match=r"test folder 'c' has pictures, .*expected folders among a, b; rename or drop it"
    ):
        clteach.from_folder(tmp_path)
