"""The code that a run executes, as a fingerprint: numbers of other code are neither read back nor resumed.

A method of the package is its module and all modules of the package that this one imports, also inside functions. A class
of the user's own is more: its methods, wherever they were typed (a file, a notebook's cell), what these methods name
(functions, classes, constants, as they are now), and the user's own modules that are imported on the way.

A constant may be an object: one of a class of the user's own, a dataclass and a namespace count with all their attributes,
a `functools.partial` with its arguments, a bound method with what it is bound to. Of other objects (a logger, a lock, a
bar that shows progress) only the class counts, since what they hold changes from one session to the next.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from argparse import Namespace
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache, cached_property, partial, partialmethod
from pathlib import Path, PurePath
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType, NoneType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clteach.version import __version__

PACKAGE = "clteach"
REGISTRIES = (PACKAGE, f"{PACKAGE}.methods")
"""They would bring in all methods."""
PLAIN = (
    *(bool, int, float, complex, str, bytes, NoneType, range, slice, np.generic, np.dtype, torch.dtype, torch.device),
    *(PurePath, Decimal, Fraction, date, time, timedelta),
)
"""What its text says all about."""
WRAPPERS = (partial, partialmethod, cached_property, type(cache(len)))
"""Objects around a function, which they hold as ``func`` or ``__wrapped__``."""
READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""Instructions that read a global name: in a function, and in the body of a class."""


class NoSource(Exception):
    """What cannot be read: a function that was typed into an interpreter or given with -c, an object without a state."""


def code(*things: Any) -> str | None:
    """A fingerprint of classes, functions and modules with all that they execute; None: a source is not to be found.

    Args:
        things: classes, functions, or names of modules. The training loop and the version are added.

    Raises:
        OSError: the source of a module of this package is not there. What cannot be read must not count as unchanged.
    """
    try:
        found = sources("clteach.training.loop", *things)
    except (NoSource, RecursionError):  # the latter: objects in objects, deeper than Python can follow
        return None
    return hashlib.sha256(json.dumps([__version__, found], sort_keys=True).encode()).hexdigest()


def sources(*things: Any) -> dict[str, str]:
    """{what: its source, or its value} of all that these classes, functions and modules execute.

    Raises:
        OSError: as `code`.
        NoSource: a function without source, or an object that cannot be read.
    """
    walk = _Walk(list(things))
    while walk.waiting:
        thing = walk.waiting.pop()
        if isinstance(thing, str):
            walk.waiting += _of_module(thing, walk.found)
        elif isinstance(thing, ModuleType):
            walk.waiting.append(thing.__name__)
        elif isinstance(thing, type):
            walk.of_class(thing)
        elif isinstance(thing, FunctionType):
            walk.of_function(thing)
        elif callable(thing):  # a bound method, a functools.partial, an object that can be called
            walk.enter(f"{type(thing).__module__}.{type(thing).__qualname__}", walk.value(thing))
    return walk.found


def _of_module(name: str, found: dict[str, str]) -> list[Any]:
    if name in found or name in REGISTRIES:
        return []
    of_package = name.split(".")[0] == PACKAGE
    if not of_package and not _is_own(name):
        return []
    module = importlib.import_module(name)
    try:
        found[name] = inspect.getsource(module)
    except (OSError, TypeError) as error:
        if of_package:
            raise OSError(f"the source of {name} cannot be read ({error})") from error
        file = Path(str(getattr(module, "__file__", None)))
        if not file.is_file() or file.stat().st_size > 0:  # of an empty file there is no source to get
            raise NoSource(name) from error
        found[name] = ""
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    return [*_imports(found[name], package, of_package)]


@cache
def _imports(source: str, package: str, of_package: bool) -> tuple[str, ...]:
    """The modules that a source imports, and the names that it takes from them where these are modules.

    Of this package's own sources (`of_package`) only the modules of the package count: the rest is installed.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
                if node.level
                else ""
            )
            base = base or str(node.module)
            if of_package and base.split(".")[0] != PACKAGE:
                continue
            found.append(base)
            if _is_package(base):
                below = [f"{base}.{alias.name}" for alias in node.names]
                found += [each for each in below if _spec(each) is not None]
    return tuple(each for each in dict.fromkeys(found) if not of_package or each.split(".")[0] == PACKAGE)


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _is_package(name: str) -> bool:
    top = name.split(".")[0]
    if top != PACKAGE and not _is_own(name):
        return False
    spec = _spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _is_own(name: str) -> bool:
    """Is it a module of the user's: a file, neither of the standard library nor installed?"""
    if name == "__main__":  # a script has a file; a notebook or an interpreter has none
        origin = getattr(sys.modules["__main__"], "__file__", None)
    else:
        spec = _spec(name)
        origin = spec.origin if spec is not None and spec.has_location else None
    if origin is None:
        return False
    path = Path(origin).resolve()
    installed = {Path(place).resolve() for place in sysconfig.get_paths().values()}
    return "site-packages" not in path.parts and not any(place in path.parents for place in installed)


class _Walk:
    """From the things that wait to all that they name.

    Args:
        waiting: classes, functions, modules, names of modules, and objects that can be called.
    """

    def __init__(self, waiting: list[Any]) -> None:
        self.waiting = waiting
        self.found: dict[str, str] = {}
        self.seen: dict[
            int, tuple[Any, str]
        ] = {}  # the object as well: another one may get the number of one that is gone
        self.own: dict[str, bool] = {}

    def enter(self, key: str, value: Any) -> None:
        """Another thing of the same name, such as a second lambda, is another entry, whichever of them comes first."""
        text = value if isinstance(value, str) else _text(value)
        self.found[f"{key} {_digest(text.encode())}"] = text

    def is_own(self, module: str | None) -> bool:
        """Is it a module of the user's, or where they type?"""
        module = module or ""
        if module not in self.own:
            self.own[module] = module == "__main__" or (module.split(".")[0] != PACKAGE and _is_own(module))
        return self.own[module]

    def name(self, thing: Any) -> str:
        """What a class or function is called: one of the user's own without its module, which may be run or imported."""
        called = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", type(thing).__qualname__)
        module = getattr(thing, "__module__", None)
        return str(called) if module is None or self.is_own(module) else f"{module}.{called}"

    def of_class(self, cls: type) -> None:
        """One of the package is its module; one of the user's own its parts, since in a notebook a class has no source."""
        if cls.__module__.split(".")[0] == PACKAGE:
            self.waiting.append(cls.__module__)
        if not self.is_own(cls.__module__) or id(cls) in self.seen:
            return  # torch's, say
        self.seen[id(cls)] = cls, ""
        parts: dict[str, Any] = {}
        self.waiting += cls.__bases__
        for name, value in vars(cls).items():
            inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            inner = inner.fget if isinstance(inner, property) else inner
            if isinstance(inner, FunctionType):
                if inner.__module__ == cls.__module__ and not _generated(inner):
                    self.waiting.append(inner)
            elif isinstance(inner, type):
                self.waiting.append(inner)
                parts[name] = self.name(inner)
            elif not name.startswith("__") or name == "__annotations__":
                parts[name] = self.value(inner)
        self.enter(f"{cls.__module__}.{cls.__qualname__}", parts)
        self.waiting.append(cls.__module__)

    def of_function(self, function: FunctionType) -> None:
        """Its source, and what it names, closes over and has as defaults."""
        key = f"{function.__module__}.{function.__qualname__}"
        module = function.__module__ or ""
        if module.split(".")[0] == PACKAGE:
            self.waiting.append(module)
        if not self.is_own(module) or id(function) in self.seen:
            return
        self.seen[id(function)] = function, ""
        try:
            self.enter(key, inspect.getsource(function))
        except (OSError, TypeError) as error:
            raise NoSource(key) from error
        self.waiting.append(module)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        closed = [cell.cell_contents for cell in function.__closure__ or ()]
        names = sorted(_names(function.__code__) & function.__globals__.keys())
        named = {name: function.__globals__[name] for name in names}
        values = {**named, **{f"closure {i}": value for i, value in enumerate((*closed, *defaults))}}
        self.enter(f"{key} names", {name: self.value(value) for name, value in values.items()})

    def value(self, value: Any) -> Any:
        """A constant as plain JSON; the classes and functions in it wait to be walked."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (type, FunctionType, ModuleType)):
            self.waiting.append(value)
            return self.name(value)
        if isinstance(value, Enum):
            return [self.value(type(value)), value.name]
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return f"{value.shape} {value.dtype} {_digest(np.ascontiguousarray(value).tobytes())}"
        if isinstance(value, Tensor):
            return _of_tensor(value)
        if id(value) not in self.seen:
            self.seen[id(value)] = value, "itself"  # what it says where the object is found within itself
            self.seen[id(value)] = value, _digest(_text(self.opened(value)).encode())
        return self.seen[id(value)][1]

    def opened(self, value: Any) -> Any:
        """What a container or an object holds, as plain JSON."""
        kind = type(value).__name__
        if isinstance(value, np.ndarray):
            return [kind, *map(self.value, value.tolist())]  # of objects: their bytes are addresses
        if isinstance(value, (list, tuple)):
            return [kind, *map(self.value, value)]
        if isinstance(value, (set, frozenset)):
            return [kind, *sorted(_text(self.value(each)) for each in value)]
        if isinstance(value, Mapping):
            return {_text(self.value(key)): self.value(each) for key, each in value.items()}
        if isinstance(value, (MethodType, BuiltinMethodType)):
            self.waiting.append(getattr(value, "__func__", None))
            return [self.name(value), self.value(value.__self__)]
        if isinstance(value, WRAPPERS):
            inner = getattr(value, "func", None) or getattr(value, "__wrapped__", None)
            bound = getattr(value, "args", ()), getattr(value, "keywords", {})
            return [kind, self.value(inner), *map(self.value, bound)]
        if isinstance(value, nn.Module):
            return self.of_network(value)
        return [self.value(type(value)), self.state(value)]

    def of_network(self, network: nn.Module) -> Any:
        """Its weights, and of each of its parts the class and the settings, such as the share that is dropped."""
        parts = {
            name: [
                self.value(type(part)),
                {k: self.value(v) for k, v in vars(part).items() if not k.startswith("_") and k != "training"},
            ]
            for name, part in network.named_modules()
        }
        return [parts, {name: self.value(each) for name, each in network.state_dict().items()}]

    def state(self, value: Any) -> Any:
        """The attributes of an object, where these are the user's settings and not what a library keeps for itself."""
        if type(value).__module__.split(".")[0] == PACKAGE:
            if hasattr(value, "fingerprint"):  # of a data set or a stream, known already
                return value.fingerprint
            if hasattr(value, "learner"):  # of a run, which also holds the seconds that it took
                return self.value(value.learner)
        settings = dataclasses.is_dataclass(value) or isinstance(value, (Namespace, SimpleNamespace))
        if not settings and not self.is_own(type(value).__module__):
            # NumPy's and torch's functions are objects, too
            return self.name(value) if callable(value) and hasattr(value, "__name__") else None
        try:
            state = value.__getstate__()
        except Exception as error:  # it may be the user's code
            raise NoSource(self.name(type(value))) from error
        return self.value(state)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_tensor(value: Tensor) -> str:
    try:
        plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest = _digest(plain.flatten().view(torch.uint8).numpy().data)
    except (RuntimeError, TypeError, ValueError) as error:  # without data, as a layer's that will see its input first
        raise NoSource("a tensor") from error
    return f"{tuple(value.shape)} {value.dtype} {digest}"


def _generated(function: FunctionType) -> bool:
    """Written by `dataclass`: its source is the class's annotations."""
    return inspect.unwrap(function).__code__.co_qualname.startswith("__create_fn__")


def _names(body: CodeType) -> set[str]:
    """The global names that are read, those of attributes not: any global could be called like one."""
    read = {each.argval for each in dis.get_instructions(body) if each.opname in READS}
    return read.union(*(_names(constant) for constant in body.co_consts if isinstance(constant, CodeType)))
