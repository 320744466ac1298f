"""The order of the house."""

from __future__ import annotations

from pathlib import Path


def test_no_pickle_is_ever_loaded() -> None:
    """No module of the package calls torch.load or pickle (safetensors and JSON hold everything)."""
    import clteach

    for path in Path(clteach.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "torch.load(" not in text and "import pickle" not in text and "allow_pickle=True" not in text, path
