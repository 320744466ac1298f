"""The code that a run executes, as a fingerprint: numbers of other code are neither read back nor resumed.

A method of the package is its module and all modules of the package that this one imports, also inside functions. A class
of the user's own is more: its methods, wherever they were typed (a file, a notebook's cell), what these methods name
(functions, classes, constants, as they are now), and the user's own modules that are imported on the way.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from clteach.version import __version__

PACKAGE = "clteach"
REGISTRIES = (PACKAGE, f"{PACKAGE}.methods")
"""They would bring in all methods."""


class NoSource(Exception):
    """A function whose source is not to be found: typed into an interpreter, or given with -c."""


def code(*things: Any) -> str | None:
    """A fingerprint of classes, functions and modules with all that they execute; None: a source is not to be found.

    Args:
        things: classes, functions, or names of modules. The training loop and the version are added.

    Raises:
        OSError: the source of a module of this package is not there. What cannot be read must not count as unchanged.
    """
    try:
        found = sources("clteach.training.loop", *things)
    except NoSource:
        return None
    return hashlib.sha256(json.dumps([__version__, found], sort_keys=True).encode()).hexdigest()


def sources(*things: Any) -> dict[str, str]:
    """{what: its source, or its value} of all that these classes, functions and modules execute.

    Raises:
        OSError: as `code`.
        NoSource: a function without source.
    """
    found: dict[str, str] = {}
    waiting = list(things)
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, str):
            waiting += _of_module(thing, found)
        elif isinstance(thing, ModuleType):
            waiting.append(thing.__name__)
        elif isinstance(thing, type):
            waiting += _of_class(thing, found)
        elif isinstance(thing, FunctionType):
            waiting += _of_function(thing, found)
        elif callable(thing):  # a bound method, a functools.partial, an object that can be called
            inner = getattr(thing, "__func__", getattr(thing, "func", None))
            waiting.append(inner if inner is not None else type(thing))
            found[f"{type(thing).__qualname__} {len(found)}"] = _value(getattr(thing, "__dict__", {}))
    return found


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


def _of_class(cls: type, found: dict[str, str]) -> list[Any]:
    """A class of the package is its module; one of the user's own its parts, since in a notebook a class has no source."""
    key = f"{cls.__module__}.{cls.__qualname__}"
    if key in found:
        return []
    top = cls.__module__.split(".")[0]
    if top == PACKAGE:
        return [cls.__module__]
    if not _is_own(cls.__module__) and cls.__module__ != "__main__":
        return []  # torch's, say
    parts: dict[str, Any] = {}
    waiting: list[Any] = list(cls.__bases__)
    for name, value in vars(cls).items():
        inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        inner = inner.fget if isinstance(inner, property) else inner
        if isinstance(inner, FunctionType):
            if inner.__module__ == cls.__module__ and not _generated(inner):
                waiting.append(inner)
        elif isinstance(inner, type):
            waiting.append(inner)
        elif not name.startswith("__") or name == "__annotations__":
            parts[name] = _value(inner)
    found[key] = json.dumps(parts, sort_keys=True)
    return [*waiting, cls.__module__]


def _generated(function: FunctionType) -> bool:
    """Written by `dataclass`: its source is the class's annotations."""
    return inspect.unwrap(function).__code__.co_qualname.startswith("__create_fn__")


def _of_function(function: FunctionType, found: dict[str, str]) -> list[Any]:
    key = f"{function.__module__}.{function.__qualname__}"
    if key in found:
        return []
    module = function.__module__ or ""
    if module.split(".")[0] == PACKAGE:
        return [module]
    if not _is_own(module) and module != "__main__":
        return []
    try:
        found[key] = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise NoSource(key) from error
    waiting: list[Any] = [module]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    named = {
        name: function.__globals__[name] for name in sorted(_names(function.__code__)) if name in function.__globals__
    }
    values: dict[str, Any] = {}
    for name, value in {**named, **{f"closure {i}": v for i, v in enumerate((*closed, *defaults))}}.items():
        if isinstance(value, (type, FunctionType, ModuleType)):
            waiting.append(value)
        else:
            values[name] = _value(value)
    found[f"{key} names"] = json.dumps(values, sort_keys=True)
    return waiting


def _names(body: CodeType) -> Iterator[str]:
    yield from body.co_names
    for constant in body.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _value(value: Any) -> Any:
    """A constant as text; of things that are none, what they are."""
    if isinstance(value, (bool, int, float, str, bytes, type(None), complex)):
        return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_value(each) for each in value]
        return [type(value).__name__, *(sorted(map(str, items)) if isinstance(value, (set, frozenset)) else items)]
    if isinstance(value, Mapping):
        return {str(key): _value(each) for key, each in value.items()}
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return f"{array.shape} {array.dtype} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if isinstance(value, nn.Module):
        return {name: _value(each) for name, each in value.state_dict().items()}
    return f"{type(value).__module__}.{type(value).__qualname__}"
