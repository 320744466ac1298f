"""CUDA's rules on a machine without a GPU.

::

    with emulated() as waits:
        learner.to("cuda").step(...)

Every tensor lives on the CPU and is computed there, but its memory may carry a mark: it *is on the device*. Two modes watch
what is done. `_Calls` sees Python's calls: it answers ``.device``, moves with ``.to``, and marks what a factory makes
with ``device="cuda"``. `_Operations` sees every operation that these become, also those of the backward pass and of the
optimisers, and holds them to the rules of eager CUDA:

* all tensors of an operation are on one device, but for single numbers in arithmetic; else `DeviceError`;
* a generator is on the device of the numbers that it draws; else `DeviceError`;
* what needs a value on the host (``.item()``, a mask as an index, ``nonzero``, a copy to or from the device) makes the host
  wait. It is noted in `waits`, and raises `WaitError` after ``torch.cuda.set_sync_debug_mode("error")``.

What it cannot see stands in CONTRIBUTING.md.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

READS = set(
    "_local_scalar_dense nonzero masked_select _unique unique_dim _unique2 unique_consecutive bincount equal histc".split()
)
"""Operations whose result, or its shape, the host must know."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
TAKES_A_NUMBER = set("where masked_fill masked_fill_ lerp lerp_ fill_ pow index_fill index_fill_".split())
"""Beside arithmetic, the operations that take a single number from the host as it is."""
FACTORIES = set(
    "empty zeros ones full arange linspace logspace rand randn randint randperm tensor as_tensor eye scalar_tensor "
    "empty_strided empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros "
    "new_ones new_full new_tensor from_numpy tril_indices Tensor".split()
)
FROM_HOST = {"tensor", "as_tensor", "new_tensor"}
CHECKS_ON_THE_CPU = {"one_hot"}
"""Python functions that look at values on a CPU alone."""


class DeviceError(RuntimeError):
    """Tensors or generators of different devices in one operation."""


class WaitError(RuntimeError):
    """The host would wait for the device, where it must not."""


class _Generator(torch.Generator):
    """A generator that says where it is, and draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        self = super().__new__(cls)
        self.where = CUDA if torch.device(device).type == "cuda" else CPU
        return self

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.where


class _Device:
    """Which memory is on the device, and what the host waited for."""

    def __init__(self) -> None:
        self.marked: dict[int, StorageWeakRef] = {}
        # Made inside an operation out of nothing (a scalar, say): on the device of whatever it meets first.
        self.nowhere: dict[int, StorageWeakRef] = {}
        self.waits: list[str] = []
        self.mode: str | int = "default"
        self.calls: list[str] = []  # Python functions that are being run

    @staticmethod
    def memory(x: Tensor) -> Any:
        while torch._C._functorch.is_functorch_wrapped_tensor(x):
            x = torch._C._functorch.get_unwrapped(x)
        return x.untyped_storage()

    def holds(self, x: Tensor) -> bool:
        return self.memory(x)._cdata in self.marked

    def mark(self, x: Tensor) -> None:
        memory = self.memory(x)
        # A weak reference keeps the address from being used again, so an old mark is never taken for a new one.
        self.marked[memory._cdata] = StorageWeakRef(memory)
        self.nowhere.pop(memory._cdata, None)
        if len(self.marked) % 20_000 == 0:
            self.marked = {key: ref for key, ref in self.marked.items() if not ref.expired()}

    def unmark(self, x: Tensor) -> None:
        self.marked.pop(self.memory(x)._cdata, None)

    def is_nowhere(self, x: Tensor) -> bool:
        return self.memory(x)._cdata in self.nowhere

    def leave_open(self, x: Tensor) -> None:
        memory = self.memory(x)
        self.nowhere[memory._cdata] = StorageWeakRef(memory)

    def wait(self, what: str) -> None:
        if CHECKS_ON_THE_CPU & set(self.calls):
            return
        self.waits.append(f"{what} at {_caller()}")
        if self.mode in ("error", 2):
            raise WaitError(f"the host waits for the device: {self.waits[-1]}")

    def move(self, x: Tensor, to: torch.device, non_blocking: bool = False) -> Tensor:
        if self.holds(x) == (to.type == "cuda"):
            return x
        if not non_blocking:
            self.wait(f"a copy of {tuple(x.shape)} to the {to.type}")
        moved = x.clone()
        (self.mark if to.type == "cuda" else self.unmark)(moved)
        return moved


def _caller() -> str:
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{frame.filename}:{frame.lineno}"
    return "?"


class _Operations(TorchDispatchMode):
    def __init__(self, device: _Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, device = kwargs or {}, self.device
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inside = any(map(device.holds, tensors))
        if inside:
            for x in tensors:
                if device.is_nowhere(x):
                    device.mark(x)
            self.check(func, name, args, tensors)
            if name in READS or (name == "repeat_interleave" and func._overloadname == "Tensor"):
                device.wait(name)
        target = device.holds(tensors[0]) if name == "copy_" or name in INDEXED else inside
        out = func(*args, **kwargs)
        if target:
            tree_map_only(Tensor, device.mark, out)
        elif (not tensors and not FACTORIES & set(device.calls[-1:])) or (
            tensors and all(map(device.is_nowhere, tensors))
        ):
            tree_map_only(Tensor, device.leave_open, out)
        return out

    def check(self, func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Are these tensors, at least one of them on the device, where the operation can use them?"""
        device, elsewhere = self.device, [x for x in tensors if not self.device.holds(x)]
        if name in INDEXED:
            self.check_index(name, *args[:3])
        elif name == "copy_":
            if elsewhere and not (len(args) > 2 and args[2]):
                device.wait(f"a copy of {tuple(args[0].shape)} between host and device")
        elif elsewhere:
            numbers = all(x.ndim == 0 for x in elsewhere)
            if not numbers or not (torch.Tag.pointwise in func.tags or name in TAKES_A_NUMBER):
                shapes = [f"{'cuda' if device.holds(x) else 'cpu'}{tuple(x.shape)}" for x in tensors]
                raise DeviceError(f"{func}: expected all tensors on one device, got {', '.join(shapes)} at {_caller()}")

    def check_index(self, name: str, x: Tensor, indices: Any, value: Any = None) -> None:
        device, inside = self.device, self.device.holds(x)
        used = [index for index in tree_leaves(indices) if isinstance(index, Tensor)]
        if not inside and any(map(device.holds, used)):
            raise DeviceError(f"{name}: indices on the device, of a tensor on the host, at {_caller()}")
        if isinstance(value, Tensor) and device.holds(value) != inside and not (inside and value.ndim == 0):
            raise DeviceError(f"{name}: a value on another device at {_caller()}")
        if inside and not all(map(device.holds, used)):
            device.wait(f"{name} with an index on the host")
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in used)
        if inside and masks and not (isinstance(value, Tensor) and value.numel() == 1):  # that becomes a masked_fill
            device.wait(f"{name} with a mask")


class _Calls(TorchFunctionMode):
    def __init__(self, device: _Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        self.device.calls.append(name)
        try:
            return self.call(func, name, args, dict(kwargs or {}))
        finally:
            self.device.calls.pop()

    def call(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        device = self.device
        if func == Tensor.device.__get__:
            return CUDA if device.holds(args[0]) else CPU
        if func == Tensor.is_cuda.__get__:
            return device.holds(args[0])
        if func == Tensor.is_cpu.__get__:
            return not device.holds(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and device.holds(args[0]):
            raise TypeError(f"a tensor on the device cannot become an array: use .cpu() first, at {_caller()}")
        if func is Tensor.tolist and device.holds(args[0]):
            device.wait("tolist")
        if func is Tensor.cuda:
            return device.move(args[0], CUDA, kwargs.get("non_blocking", False))
        if func is Tensor.cpu:
            return device.move(args[0], CPU)
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.to:
            return self.to(*args, **kwargs)
        if name == "new_tensor":
            kwargs.setdefault("device", CUDA if device.holds(args[0]) else CPU)
        if name in FACTORIES and kwargs.get("device") is not None:
            return self.make(func, name, args, kwargs)
        rng, first = kwargs.get("generator"), next(iter(args), None)
        inside = isinstance(first, Tensor) and device.holds(first)
        if isinstance(rng, _Generator) and (rng.where == CUDA) != inside:
            raise DeviceError(f"{name}: a generator on {rng.where}, numbers elsewhere, at {_caller()}")
        return func(*args, **kwargs)

    def to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``Tensor.to`` in its three forms: (device, dtype, ...), (dtype, ...), (other, ...)."""
        if args and isinstance(args[0], Tensor):
            args = (CUDA if self.device.holds(args[0]) else CPU, args[0].dtype, *args[1:])
        words, target, dtype = list(args), kwargs.get("device"), kwargs.get("dtype")
        if words and not isinstance(words[0], torch.dtype):
            target = words.pop(0)
        if words and (words[0] is None or isinstance(words[0], torch.dtype)):
            dtype = words.pop(0) or dtype
        non_blocking = kwargs.get("non_blocking", words[0] if words else False)
        copy = kwargs.get("copy", words[1] if len(words) > 1 else False)
        if copy or (dtype is not None and dtype != x.dtype):
            x = Tensor.to(x, dtype=dtype or x.dtype, copy=copy)
        return x if target is None else self.device.move(x, torch.device(target), non_blocking)

    def make(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """A new tensor, on the device that was asked for."""
        where = torch.device(kwargs["device"])
        rng = kwargs.get("generator")
        if isinstance(rng, _Generator) and rng.where.type != where.type:
            raise DeviceError(f"{name}: a generator on {rng.where}, and numbers on {where}, at {_caller()}")
        x = func(*args, **{**kwargs, "device": "cpu"})
        if where.type == "cpu":
            self.device.unmark(x)
            return x
        source = args[-1] if name == "new_tensor" else args[0] if args else None
        if name in FROM_HOST and not (isinstance(source, Tensor) and self.device.holds(source)):
            self.device.wait(f"{name} copies from the host")
        x = x.clone() if x is source else x
        self.device.mark(x)
        return x


@contextlib.contextmanager
def emulated() -> Iterator[list[str]]:
    """In here there is a device "cuda"; gives the list of what the host waited for."""
    device = _Device()

    def set_mode(mode: str | int) -> None:
        device.mode = mode

    replaced: list[tuple[Any, str, Any]] = [
        (torch, "Generator", _Generator),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "get_device_name", lambda *_: "emulated"),
        (torch.cuda, "synchronize", lambda *_: None),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "set_sync_debug_mode", set_mode),
    ]
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(Optimizer, name):  # it asks the driver
            replaced.append((Optimizer, name, lambda self: None))
    before = [(place, name, getattr(place, name)) for place, name, _ in replaced]
    for place, name, value in replaced:
        setattr(place, name, value)
    try:
        with _Calls(device), _Operations(device):
            yield device.waits
    finally:
        for place, name, value in before:
            setattr(place, name, value)
