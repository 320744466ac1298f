"""Methods: one paper, one file. `METHODS` maps every method's name to its class; `register` adds your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from clteach.data.tasks import Spec
from clteach.errors import ConfigError, unknown
from clteach.learners.learner import Learner, NetMaker
from clteach.methods.a_gem import AGEM
from clteach.methods.brain_inspired_replay import BrainInspiredReplay, BrainInspiredReplaySI
from clteach.methods.diffusion_replay import (
    DistilledDiffusion,
    FinetunedDiffusion,
    JointDiffusion,
    ReplayDiffusion,
)
from clteach.methods.dream_replay import DreamReplay
from clteach.methods.ebgan import EBGAN
from clteach.methods.er import ER
from clteach.methods.ewc import EWC
from clteach.methods.finetune import FineTune
from clteach.methods.fromp import FROMP
from clteach.methods.generative_classifier import GenerativeClassifier
from clteach.methods.generative_replay import GenerativeReplay
from clteach.methods.hypernetwork import Hypernetwork, HypernetworkEnt
from clteach.methods.hypernetwork_replay import HypernetworkR
from clteach.methods.hypernetwork_tir import HypernetworkTIR
from clteach.methods.hypernetwork_vae import HypernetworkVAE
from clteach.methods.icarl import ICaRL
from clteach.methods.joint import Joint
from clteach.methods.lwf import LwF
from clteach.methods.multiband_vae import MultibandVAE
from clteach.methods.online_ewc import OnlineEWC
from clteach.methods.separate_networks import SeparateNetworks
from clteach.methods.si import SI
from clteach.methods.vae_generators import FinetunedVAE, JointVAE, LatentPartition, ReplayVAE
from clteach.methods.xdg import SIXdG, XdG
from clteach.settings import in_memory

L = TypeVar("L", bound=type[Learner])

METHODS: dict[str, type[Learner]] = {}


def register(cls: L) -> L:
    """Class decorator: make a learner known by its `name` to `build`, the command line and saved runs."""
    METHODS[cls.name] = cls
    return cls


for _cls in (
    *(FineTune, Joint, EWC, OnlineEWC, SI, LwF, XdG, SIXdG, ER, AGEM),
    *(ICaRL, GenerativeClassifier),
    *(SeparateNetworks, FROMP),
    *(GenerativeReplay, BrainInspiredReplay, BrainInspiredReplaySI, DreamReplay),
    *(Hypernetwork, HypernetworkEnt, HypernetworkR, HypernetworkTIR),
    *(FinetunedVAE, JointVAE, ReplayVAE, LatentPartition, MultibandVAE, EBGAN, HypernetworkVAE),
    *(FinetunedDiffusion, JointDiffusion, ReplayDiffusion, DistilledDiffusion),
):
    register(_cls)


def method(name: str) -> type[Learner]:
    """The class of a method.

    Raises:
        ConfigError: no such method.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def build(
    name: str, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None, **settings: Any
) -> Learner:
    """A learner by name: ``build("ewc", stream.spec, lam=1e5)``.

    Args:
        name: the method's name, one of `METHODS`.
        spec: the stream's specification.
        cfg: the method's ``Config``; or give its fields as keywords.
        seed: seed of the initial weights.
        net: makes a network of one's own: (shape of one input, output units K) -> module, inputs (B, *shape) -> logits
            (B, K). For the hypernetworks it is the target.
        **settings: fields of the method's ``Config``.

    Raises:
        ConfigError: unknown method or setting, a scenario the method does not support, a network for one that takes none, or
            more than memory holds.
    """
    cls = method(name)
    if settings:
        if cfg is not None:
            raise ConfigError("give either cfg or its fields as keywords, not both.")
        cfg = configure(cls, settings)
    if net is not None and not cls.takes_net:
        taking = ", ".join(each for each, kind in METHODS.items() if kind.takes_net)
        raise ConfigError(f"{name} makes its networks itself. Leave net= out, or choose one of {taking}.")
    with in_memory(f"{name}: a learner with these settings", "fewer units or samples"):
        return cls.make(spec, cfg, seed, net)


def configure(cls: type[Learner], settings: dict[str, Any]) -> Any:
    """The method's ``Config`` with these fields; lists become tuples (JSON knows no tuples)."""
    fields = cls.Config.__dataclass_fields__
    unknown = [key for key in settings if key not in fields]
    if unknown:
        raise ConfigError(f"{cls.name} has no setting {unknown[0]!r}. Expected one of {', '.join(fields)}.")
    make: Any = cls.Config
    return make(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def fitting(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that the method has (a preset's common ones are for the methods that know them)."""
    return {k: v for k, v in settings.items() if k in method(name).Config.__dataclass_fields__}
