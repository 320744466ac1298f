"""Commands that only read what the modules say (names, settings, texts) need not wait for torch: it is stood in for.

``clteach list``, ``clteach assign`` and every ``--help`` import the methods, papers and exercises for their summaries,
``Config`` classes and statements. None of these computes anything, but the modules that hold them begin by importing
torch, which takes longer than all the rest. So in a process that does nothing else, `torch` is a module whose names are
empty classes. What the commands print and write is the same to the byte (tests/cli/test_waiting.py compares them).

``clteach grade`` reads the exercises' points, too, and leaves the notebooks to other processes, which have torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

STOOD_IN = ("torch", "safetensors")


def only_reads(args: Sequence[str]) -> bool:
    """Is this a command that prints or writes texts alone, or leaves the computing to other processes?"""
    helps = any(word in ("-h", "--help") for word in args)
    return helps or args[:1] in (["list"], ["assign"], ["grade"])


def without_torch() -> None:
    """Let everything imported from now on do without torch; for a process that ends after its command."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Named(type):
    """The type of the stand-ins: each has whatever attribute is asked for."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or cls.__module__ not in STOOD_IN:  # a class of ours has what it has
            raise AttributeError(name)
        return _Named(name, (Anything,), {"__module__": cls.__module__})


class Anything(metaclass=_Named):
    """A class to derive from, and its instances decorators that change nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, function: Any) -> Any:
        return function


class _Module(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package: it has modules below

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (Anything,), {"__module__": self.__name__.partition(".")[0]})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in STOOD_IN else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
