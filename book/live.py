"""Train the small networks that run in the pages of the book, and write them as scripts that a page can load.

``make book`` calls this before it builds. What it writes, book/_static/live/NN.js, is loaded by a script tag, so it works
without a server too, where a page may fetch nothing. The weights are rounded to half precision *in the networks*, before
anything is measured: what a page computes is what PyTorch computes with the same numbers (`answer`, tests/book_live.py).

Everything is trained on the bundled digits, with fixed seeds, on one thread; nothing was tuned. A chapter's networks are
trained again only when their code changes.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import clteach
from clteach import plots, storage
from clteach.data.dataset import Dataset
from clteach.experiments import papers
from clteach.learners.gan import GAN, cooled, fit
from clteach.learners.learner import Learner
from clteach.methods import build, method
from clteach.methods.brain_inspired_replay import BrainInspiredReplay
from clteach.methods.ebgan import EBGAN, make_gan
from clteach.methods.hypernetwork import Hypernetwork
from clteach.methods.multiband_vae import MultibandVAE
from clteach.models.nets import mlp, one_hot
from clteach.models.vae import VAE, bernoulli_nll, kl_standard_normal, reparameterise
from clteach.seeding import generator, seeded
from clteach.training.code import code

BOOK = Path(__file__).parent
PAGES = BOOK / "_static" / "live"
CACHE = BOOK / "_build" / "live"

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Shown:
    """What a page needs beside the weights.

    Attributes:
        facts: plain JSON values for the script.
        still: the picture that stands there where scripts are off, and in print.
        alt: what is seen on it.
    """

    facts: dict[str, Any]
    still: Figure
    alt: str


@dataclass(frozen=True)
class Live:
    """A chapter's live model: networks with new weights, their training, and what the page asks of them."""

    build: Callable[[], Modules]
    train: Callable[[Modules], None]
    show: Callable[[Modules], Shown]
    answer: Callable[[Modules, Tensor], Tensor]
    """(B, inputs) -> (B, outputs), what `clteachLive.answer` of the page gives for one input"""
    inputs: Callable[[torch.Generator], Tensor]
    """(50, inputs) random ones, for the test"""
    uses: tuple[Any, ...] = ()
    """classes and functions whose code the weights depend on"""


# ---------------------------------------------------------------------------------------------------------------- data


@cache
def digits() -> Dataset:
    return clteach.load("digits")


@cache
def stream() -> clteach.Stream:
    return clteach.split(digits(), "class", tasks=5)


def pixels(x: Tensor) -> Tensor:
    """Images (N, 1, 8, 8) of bytes -> (N, 1, 8, 8) in [0, 1]."""
    return x.float() / 255


def as_text(x: Tensor) -> list[str]:
    """Images of bytes (N, 1, 8, 8) -> a string each, a letter per pixel: a to q for the 17 grey levels of the digits."""
    levels = (x.flatten(1).float() * 16 / 255).round().long()
    return ["".join(chr(97 + level) for level in row) for row in levels.tolist()]


def examples(per_class: int) -> dict[str, Any]:
    """The first test images of every class."""
    y = digits().y_test
    rows = torch.cat([(y == c).nonzero()[:per_class, 0] for c in range(10)])
    return {"images": as_text(digits().x_test[rows]), "classes": y[rows].tolist()}


# --------------------------------------------------------------------------------------------------- 00: draw a digit

METHODS = ("finetune", "generative-replay", "joint")
STEPS = {"finetune": 200, "generative-replay": 1000, "joint": 200}  # those of the chapter
HIDDEN = (100, 100)


def classifiers() -> Modules:
    """The classifier of every method after every task: "joint 3" after the third."""
    return {f"{name} {t + 1}": mlp((64,), HIDDEN, 10) for name in METHODS for t in range(5)}


def remembering(cls: type[Learner]) -> Any:
    """The method, taking down its network after every task."""

    class Remembering(cls):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.after: list[dict[str, Tensor]] = []

        def end_task(self, *args: Any) -> None:
            super().end_task(*args)
            self.after.append({name: value.clone() for name, value in self.net.state_dict().items()})

    return Remembering


def train_classifiers(nets: Modules) -> None:
    for name in METHODS:
        cls = remembering(method(name))
        lr = 2e-3 if name == "generative-replay" else 1e-3
        learner = cls(stream().spec, cls.Config(hidden=HIDDEN, lr=lr))
        clteach.train(learner, stream(), steps=STEPS[name], device="cpu")
        for t, weights in enumerate(learner.after):
            nets[f"{name} {t + 1}"].load_state_dict(weights)


@torch.no_grad()
def classify(nets: Modules, x: Tensor) -> Tensor:
    """Images (B, 64) -> (B, 150) probabilities of ten classes for each method, after each task; 0 for those to come."""
    found = []
    for name in METHODS:
        for t in range(5):
            logits = nets[f"{name} {t + 1}"](x)
            found.append(logits.masked_fill(torch.arange(10) > 2 * t + 1, -torch.inf).softmax(1))
    return torch.cat(found, 1)


def show_classifiers(nets: Modules) -> Shown:
    zero = int((digits().y_test == 0).nonzero()[0, 0])
    said = classify(nets, pixels(digits().x_test[zero : zero + 1]).flatten(1)).view(len(METHODS), 5, 10)
    with plots.theme():
        fig = plots.Picture(figsize=(8, 3.6), dpi=100, layout="constrained")
        for row, (name, axes) in enumerate(zip(METHODS, fig.subplots(3, 5, sharex=True, sharey=True), strict=True)):
            for t, ax in enumerate(axes):
                ax.bar(range(10), 100 * said[row, t], color=plots.color(name))
                ax.set(ylim=(0, 100), xticks=range(10))
                if row == 0:
                    ax.set_title(f"after task {t + 1}")
            axes[0].set_ylabel(f"{plots.label(name)}\n(%)", fontsize=8)
    answers = {plots.label(name): said[row].argmax(1).tolist() for row, name in enumerate(METHODS)}
    told = "; ".join(f"{name}: {', '.join(map(str, row))}" for name, row in answers.items())
    x, y = pixels(digits().x_test).flatten(1), digits().y_test
    right = (classify(nets, x).view(-1, len(METHODS), 5, 10).argmax(3) == y[:, None, None]).float().mean(0)
    facts = {
        "methods": [{"name": n, "label": plots.label(n), "color": plots.color(n)} for n in METHODS],
        "right": right.tolist(),
        "examples": examples(6),
    }
    alt = f"What three methods call one test image of a 0 after each of five tasks, as bars of probability. {told}."
    return Shown(facts, fig, alt)


# ----------------------------------------------------------------------------------------------- 02: the latent plane

BETA = 0.3  # the weight of the KL term, as in the chapter


def plane() -> Modules:
    with seeded(0, "weights"):
        return {"vae": VAE((1, 8, 8), (128, 128), 2)}


def train_plane(nets: Modules) -> None:
    vae, x, rng = nets["vae"], pixels(digits().x_train), generator(0, "batches and noise")
    assert isinstance(vae, VAE)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for _ in range(1000):
        batch = x[torch.randint(len(x), (64,), generator=rng)]
        mean, logvar = vae.encode(batch)
        logits = vae.decode(reparameterise(mean, logvar, torch.randn(64, 2, generator=rng)))
        # L = -log p(x|z) + β KL(q(z|x) ‖ p(z))
        loss = bernoulli_nll(logits, batch).mean() + BETA * kl_standard_normal(mean, logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def decode(nets: Modules, z: Tensor) -> Tensor:
    """Points of the plane (B, 2) -> pictures (B, 64)."""
    vae = nets["vae"]
    assert isinstance(vae, VAE)
    return vae.sample(z).flatten(1)


@torch.no_grad()
def show_plane(nets: Modules) -> Shown:
    vae, x, y = nets["vae"], pixels(digits().x_test), digits().y_test
    assert isinstance(vae, VAE)
    z = vae.encode(x)[0]
    limit = 3.0
    steps = torch.linspace(-limit, limit, 13)
    lattice = torch.stack([steps.repeat(13), steps.flip(0).repeat_interleave(13)], 1)
    # Rows and columns touch, so that the plane is seen as one picture.
    whole = decode(nets, lattice).view(13, 13, 8, 8).permute(0, 2, 1, 3).reshape(104, 104)
    with plots.theme():
        fig = plots.Picture(figsize=(8, 3.8), dpi=100, layout="constrained")
        left, right = fig.subplots(1, 2)
        plots.latent_scatter(z, y, title="where the test images lie", ax=left)
        right.imshow(whole, cmap="gray", vmin=0, vmax=1, extent=(-3.25, 3.25, -3.25, 3.25), interpolation="nearest")
        right.grid(False)
        right.set(title="what the decoder makes of each point", xlabel="latent dimension 1")
    facts = {
        "points": [[round(v, 3) for v in row] for row in z.tolist()],
        "classes": y.tolist(),
        "images": as_text(digits().x_test),
        "colors": list(plots.PALETTE),
    }
    alt = (
        f"Left: the {len(y)} test images as points of the latent plane, coloured by class. Right: the plane as a mosaic "
        "of decoded pictures, one digit turning into another from point to point."
    )
    return Shown(facts, fig, alt)


# ------------------------------------------------------------------------------------------- 03: the bands of tasks


def bands() -> Modules:
    settings = papers.column("digits", "split-digits").settings("multiband-vae", "class")
    learner = build("multiband-vae", stream().spec, **settings)
    assert isinstance(learner, MultibandVAE)
    return {"learner": learner}


def train_bands(nets: Modules) -> None:
    clteach.train(_learner(nets), stream(), steps=500, batch_size=64, device="cpu")


def _learner(nets: Modules) -> Any:
    return nets["learner"]


@torch.no_grad()
def decode_band(nets: Modules, x: Tensor) -> Tensor:
    """Rows [1: before alignment, task, 4 bits, 8 latents] (B, 14) -> pictures (B, 64)."""
    aligned, local = _learner(nets).decoder, _learner(nets).local_decoder
    given = x[:, 6:], x[:, 2:6], x[:, 1].long()
    return torch.where(x[:, :1] > 0, local(*given), aligned(*given)).sigmoid()


@torch.no_grad()
def show_bands(nets: Modules) -> Shown:
    learner, rng = _learner(nets), generator(0, "still")
    task = torch.arange(5).repeat_interleave(10)
    z, u = torch.randn(50, 8, generator=rng), torch.rand(50, 4, generator=rng)
    rows = torch.cat([task[:, None].float(), learner.bit_prior.sample(u, task), z], 1)
    before, after = (decode_band(nets, torch.cat([torch.full((50, 1), which), rows], 1)) for which in (1.0, 0.0))
    both = torch.cat([torch.cat([after[task == t], before[task == t]]) for t in range(5)]).view(100, 8, 8)
    fig = plots.samples(
        both, columns=20, row_labels=[f"task {t + 1}: {t * 2} and {t * 2 + 1}" for t in range(5)],
        title="aligned decoder (left ten), local decoder of task 5 before alignment (right ten)",
    )  # fmt: skip
    facts = {"frequency": [[round(v, 3) for v in row] for row in learner.bit_prior.frequency.tolist()]}
    alt = (
        "Samples of five tasks, a row each. The left half is drawn by the aligned decoder, which keeps all tasks apart; the "
        "right half by the local decoder of task 5 before alignment, which has forgotten the earlier ones."
    )
    return Shown(facts, fig, alt)


# ---------------------------------------------------------------------------------------- 05: brain-inspired replay

SHARES = (0.0, 0.3, 0.7)


def dreamers() -> Modules:
    return {str(share): _dreamer(share) for share in SHARES}


def _dreamer(share: float) -> BrainInspiredReplay:
    column = papers.column("digits", "split-digits")
    learner = build("brain-inspired-replay", stream().spec, **{**column.shared, "gating": share})
    assert isinstance(learner, BrainInspiredReplay)
    return learner


def train_dreamers(nets: Modules) -> None:
    for learner in nets.values():
        assert isinstance(learner, BrainInspiredReplay)
        clteach.train(learner, stream(), steps=160, batch_size=128, device="cpu")


@torch.no_grad()
def dream(nets: Modules, x: Tensor) -> Tensor:
    """Rows [number of the share, class of z, class of the gates, noise of 100] (B, 103) -> pictures (B, 64)."""
    made = []
    for row in x:
        learner: Any = nets[str(SHARES[int(row[0])])]
        z_class, gate_class = (one_hot(row[k : k + 1].long(), 10) for k in (1, 2))
        made.append(learner.vae.dream(row[None, 3:], z_class, gate_class).flatten(1))
    return torch.cat(made)


def show_dreamers(nets: Modules) -> Shown:
    eps = torch.randn(10, 100, generator=generator(0, "still"))
    digit = torch.arange(10.0)[:, None]
    grid = [dream(nets, torch.cat([torch.full((10, 1), k), digit, digit, eps], 1)) for k in range(len(SHARES))]
    fig = plots.samples(
        torch.cat(grid).view(-1, 8, 8), columns=10, row_labels=[f"share X = {share:g}" for share in SHARES]
    )  # fmt: skip
    told = ", ".join(map(str, SHARES))
    alt = f"Dreams of the digits 0 to 9, a column each, with the shares {told} of the decoder's units gated."
    return Shown({"shares": list(SHARES)}, fig, alt)


# ------------------------------------------------------------------------------------- 06: a walk between embeddings


def generated() -> Modules:
    known = clteach.make_stream("split-digits", "task", digits())
    learner = build(
        "hypernetwork", known.spec, **papers.column("digits", "split-digits").settings("hypernetwork", "task")
    )
    assert isinstance(learner, Hypernetwork)
    return {"learner": learner}


def train_generated(nets: Modules) -> None:
    known = clteach.make_stream("split-digits", "task", digits())
    clteach.train(_learner(nets), known, steps=160, batch_size=128, device="cpu")


@torch.no_grad()
def decide(nets: Modules, x: Tensor) -> Tensor:
    """Rows [embedding of 8, image of 64] (B, 72) -> logits (B, 10) of the network that this embedding makes."""
    learner = _learner(nets)
    return torch.cat([learner.target(learner.hypernet(row[None, :8])[0], row[None, 8:]) for row in x])


def show_generated(nets: Modules) -> Shown:
    e = _learner(nets).hypernet.first(5).detach()
    x, y = pixels(digits().x_test).flatten(1), digits().y_test
    along = torch.linspace(-0.5, 1.5, 21)
    with plots.theme():
        fig = plots.Picture(figsize=(7, 3.2), dpi=100, layout="constrained")
        ax = fig.subplots()
        for t, color, line in ((0, plots.BLUE, "-"), (4, plots.ORANGE, "--")):
            mine = torch.isin(y, torch.tensor([2 * t, 2 * t + 1])).nonzero()[:40, 0]
            right = []
            for s in along.tolist():
                given = torch.cat([torch.lerp(e[0], e[4], s).expand(len(mine), -1), x[mine]], 1)
                choice = decide(nets, given)[:, 2 * t : 2 * t + 2].argmax(1) + 2 * t
                right.append(100 * float((choice == y[mine]).float().mean()))
            ax.plot(along, right, line, color=color, label=f"on task {t + 1}")
        ax.set(xlabel="place on the line", ylabel="accuracy (%)", ylim=(-2, 104))
        ax.set_xticks([0, 1], ["embedding of task 1", "of task 5"])
        ax.legend()
    alt = (
        "Accuracy on the first and on the last task of the networks that embeddings on the line between the two make: each "
        "task is known at its own embedding."
    )
    return Shown({"examples": examples(10)}, fig, alt)


# ------------------------------------------------------------------------------------------- 07: energy of a drawing


def critic() -> Modules:
    return {"gan": make_gan((1, 8, 8), EBGAN.Config(z=16, hidden=(128, 128), critic_hidden=(128,), lr=2e-3))}


def train_critic(nets: Modules) -> None:
    gan = nets["gan"]
    assert isinstance(gan, GAN)
    fit(gan, pixels(digits().x_train), 1500, batch_size=64, lr_scale=cooled)


@torch.no_grad()
def reconstruct(nets: Modules, x: Tensor) -> Tensor:
    """Images (B, 64) -> (B, 65): the energy, and the reconstruction."""
    gan: Any = nets["gan"]
    return torch.cat([gan.energy(x)[:, None], gan.decode(gan.encode(x))], 1)


def show_critic(nets: Modules) -> Shown:
    gan: Any = nets["gan"]
    x = pixels(digits().x_test).flatten(1)
    with torch.no_grad():
        fakes = gan.sample(torch.randn(len(x), 16, generator=generator(0, "z"))).flatten(1)
    noise = torch.rand(len(x), 64, generator=generator(0, "noise"))
    kinds = {"test images": x, "generated": fakes, "noise": noise}
    pairs, labels, medians = [], [], {}
    for name, each in kinds.items():
        energy, again = reconstruct(nets, each).split([1, 64], 1)
        medians[name] = round(float(energy.median()), 2)
        pairs += [each[:10], again[:10].clamp(0, 1)]
        labels += [f"{name} ({medians[name]})", "reconstruction"]
    title = "In brackets: the median energy"
    fig = plots.samples(torch.cat(pairs).view(-1, 8, 8), columns=10, row_labels=labels, title=title)
    levels = torch.quantile(reconstruct(nets, x)[:, 0], torch.linspace(0, 1, 101))
    facts = {"levels": [round(v, 3) for v in levels.tolist()], "medians": medians, "examples": examples(6)}
    told = ", ".join(f"{name} {value}" for name, value in medians.items())
    alt = f"Test images, generated images and noise, each above its reconstruction. Median energies: {told}."
    return Shown(facts, fig, alt)


# ------------------------------------------------------------------------------------------------------- all of them


def uniform(rng: torch.Generator) -> Tensor:
    """Fifty images of noise, (50, 64)."""
    return torch.rand(50, 64, generator=rng)


def some_bands(rng: torch.Generator) -> Tensor:
    which = [torch.randint(n, (50, 1), generator=rng).float() for n in (2, 5)]
    bits = torch.randint(2, (50, 4), generator=rng) * 2.0 - 1
    return torch.cat([*which, bits, torch.randn(50, 8, generator=rng)], 1)


def some_dreams(rng: torch.Generator) -> Tensor:
    which = [torch.randint(n, (50, 1), generator=rng).float() for n in (len(SHARES), 10, 10)]
    return torch.cat([*which, torch.randn(50, 100, generator=rng)], 1)


LIVE: dict[str, Live] = {
    "00": Live(classifiers, train_classifiers, show_classifiers, classify, uniform, tuple(map(method, METHODS))),
    "02": Live(plane, train_plane, show_plane, decode, lambda rng: 2 * torch.randn(50, 2, generator=rng), (VAE,)),
    "03": Live(bands, train_bands, show_bands, decode_band, some_bands, (MultibandVAE,)),
    "05": Live(dreamers, train_dreamers, show_dreamers, dream, some_dreams, (BrainInspiredReplay,)),
    "06": Live(
        generated,
        train_generated,
        show_generated,
        decide,
        lambda rng: torch.cat([torch.randn(50, 8, generator=rng), torch.rand(50, 64, generator=rng)], 1),
        (Hypernetwork,),
    ),
    "07": Live(critic, train_critic, show_critic, reconstruct, uniform, (EBGAN, fit)),
}

# What a page needs of a network that is not dense layers, and which of its stacks of dense layers; all where none is named.
TENSORS = {
    "03": ("decoder.codes",),
    "05": ("vae.prior_mean", "vae.prior_logvar", "vae.gates_0", "vae.gates_1"),
    "06": ("hypernet.last", "hypernet.body.chunk_embeddings", *(f"hypernet.embeddings.{t}" for t in range(5))),
}
NEEDED = {
    "02": r"decoder",
    "03": r"(local_)?decoder\..+",
    "05": r"vae\.decoder",
    "06": r"hypernet\..+",
    "07": r"critic\..+",
}


# ---------------------------------------------------------------------------------------------------- weights as script


def rounded(nets: Modules) -> None:
    """Round all weights to half precision, in place."""
    for net in nets.values():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.LeakyReLU: "leaky", nn.ELU: "elu"}


def dense_layers(net: nn.Module, wanted: str) -> dict[str, list[dict[str, Any]]]:
    """{name: its layers} of the stacks of dense layers in a network whose names match; "" where it is one itself.

    Raises:
        TypeError: a layer that the page's script does not know.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in net.named_modules():
        if not isinstance(part, nn.Sequential) or not re.fullmatch(wanted, name):
            continue
        layers: list[dict[str, Any]] = []
        for layer in part:
            if isinstance(layer, nn.Linear):
                layers.append({"weight": layer.weight, "bias": layer.bias, "then": ""})
            elif type(layer) in ACTIVATIONS:
                layers[-1]["then"] = ACTIVATIONS[type(layer)]
            elif not isinstance(layer, nn.Flatten):
                raise TypeError(f"{name}: {type(layer).__name__} has no counterpart in book/_static/live.js.")
        found[name] = layers
    return found


def script(chapter: str, nets: Modules, facts: dict[str, Any]) -> str:
    """The script that hands a chapter's weights and facts to book/_static/live.js."""
    networks: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    numbers: list[Tensor] = []
    for key, net in nets.items():
        for name, layers in dense_layers(net, NEEDED.get(chapter, ".*")).items():
            stack = networks.setdefault(f"{key} {name}".strip(), [])
            for layer in layers:
                stack.append({"shape": [*layer["weight"].shape], "then": layer["then"]})
                numbers += [layer["weight"].detach().flatten(), layer["bias"].detach()]
    for key, net in nets.items():
        state = net.state_dict()
        for name in TENSORS.get(chapter, ()):
            if name in state:  # where nothing is gated there are no gates
                tensors[f"{key} {name}"] = [*state[name].shape]
                numbers.append(state[name].flatten())
    weights = base64.b64encode(torch.cat(numbers).half().numpy().astype("<f2").tobytes()).decode()
    given = json.dumps({"networks": networks, "tensors": tensors, "facts": facts}, separators=(",", ":"))
    return f'clteachLive.add("{chapter}", {given}, "{weights}");\n'


# ------------------------------------------------------------------------------------------------------ made and cached


def fingerprint(live: Live) -> str:
    """Of the code that a chapter's weights depend on."""
    return f"{code(live.build, live.train, *live.uses)} torch {torch.__version__}"


def load(chapter: str) -> Modules:
    """The rounded networks of a chapter, as the page has them.

    Raises:
        CheckpointError: they are not there: ``make book`` makes them.
    """
    return with_weights(LIVE[chapter], storage.load_tensors(weights_of(chapter))[0])


def weights_of(chapter: str) -> Path:
    return CACHE / f"{chapter}.safetensors"


def with_weights(live: Live, saved: dict[str, Tensor]) -> Modules:
    nets = live.build()
    for key, net in nets.items():
        net.load_state_dict({n.removeprefix(f"{key}/"): v for n, v in saved.items() if n.startswith(f"{key}/")})
        net.eval()
    return nets


def trained(chapter: str) -> Modules:
    """The rounded networks of a chapter, trained unless they lie there, made by the same code."""
    live, path = LIVE[chapter], weights_of(chapter)
    made_by = fingerprint(live)
    if path.is_file():
        saved, meta = storage.load_tensors(path)
        if meta.get("made_by") == made_by:
            return with_weights(live, saved)
    nets, start = live.build(), time.process_time()
    live.train(nets)
    rounded(nets)
    tensors = {f"{key}/{n}": v for key, net in nets.items() for n, v in net.state_dict().items()}
    storage.save_tensors(path, tensors, {"made_by": made_by})
    print(f"live model {chapter}: trained in {time.process_time() - start:.0f} s of processor time")
    return nets


def write(chapter: str) -> None:
    """Write the script, the still picture and what the book's extension says about it."""
    nets = trained(chapter)
    shown = LIVE[chapter].show(nets)
    text = script(chapter, nets, shown.facts)
    PAGES.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(PAGES / f"{chapter}.js", lambda file: file.write(text.encode()))
    plots.save(shown.still, PAGES / f"{chapter}.png")
    storage.write_json(CACHE / f"{chapter}.json", {"alt": shown.alt})
    print(f"live model {chapter}: {len(gzip.compress(text.encode())) / 1e6:.2f} MB, compressed")


if __name__ == "__main__":
    torch.set_num_threads(1)  # small networks are fastest on one core, and the sums come out the same everywhere
    for name in sys.argv[1:] or LIVE:
        write(name)
