"""Method cards: what every method needs and keeps, computed from its class."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clteach.data.catalogue import outline
from clteach.data.streams import make_stream
from clteach.data.tasks import SCENARIOS
from clteach.experiments import papers
from clteach.learners.learner import Learner
from clteach.methods import METHODS, configure
from clteach.plots import look
from clteach.results.footprint import (
    footprint,
    keeps_data,
    repeated,
)

# ------------------------------------------------------------------------------------------------------------ the cards

CHAPTERS = {
    "generative_classifier": "02_latent_space",
    "icarl": "04_generative_replay",
    "vae_generators": "03_multiband_vae",
    "multiband_vae": "03_multiband_vae",
    "generative_replay": "04_generative_replay",
    "brain_inspired_replay": "05_brain_inspired_replay",
    "hypernetwork": "06_hypernetwork",
    "hypernetwork_replay": "06_hypernetwork",
    "hypernetwork_tir": "06_hypernetwork",
    "hypernetwork_vae": "06_hypernetwork",
    "ebgan": "07_ebgan",
    "dream_replay": "07_ebgan",
    "diffusion_replay": "09_diffusion_replay",
    "domain_transfer": "07_ebgan",
}
"""The chapter that takes a module of `clteach.methods` apart; the baselines are those of 01_forgetting."""


def cards() -> pd.DataFrame:
    """One line per registered method: what it needs and keeps. All of it is computed from the classes.

    Returns:
        Columns: method, name; what (its summary); scenarios; needs the task (must it be told when it is used?); keeps data;
        extra memory (kB): that of `footprint` on split digits; per task (kB): what each further task adds to it, the network
        staying the same; chapter and API: links, as HTML.

    Methods that are not of this package (a reader's own) have no links.
    """
    return pd.DataFrame([_card(cls) for cls in METHODS.values()])


def _card(cls: type[Learner]) -> dict[str, Any]:
    column, (stand_in, samples) = papers.column("digits", "split-digits"), outline("digits")
    scenario = cls.scenarios[-1]
    fields = cls.Config.__dataclass_fields__
    cfg = configure(cls, {k: v for k, v in column.settings(cls.name, scenario).items() if k in fields})
    spec = make_stream("split-digits", scenario, stand_in, **column.stream).spec
    n = spec.n_tasks
    more = "domain" if "domain" in cls.scenarios else scenario
    # Twice the tasks, each as large as before.
    grown = [footprint(cls(repeated(more, k * n), cfg), k * samples).extra for k in (1, 2)]
    module = cls.__module__.rpartition(".")[2]
    own = cls.__module__.startswith("clteach.methods.")
    stem = CHAPTERS.get(module, "01_forgetting")
    page = f"../book/api/methods.{module}.md#{cls.__module__}.{cls.__qualname__}"
    return {
        "method": look.label(cls.name),
        "name": cls.name,
        "what": cls.summary,
        "scenarios": _scenarios(cls),
        "needs the task": "yes" if cls.scenarios == ("task",) else "no",
        "keeps data": "yes" if keeps_data(cls) else "no",
        "extra memory (kB)": footprint(cls(spec, cfg), samples).extra / 1000,
        "per task (kB)": (grown[1] - grown[0]) / n / 1000,
        "chapter": f'<a href="{stem}.ipynb">{int(stem[:2])}</a>' if own else "",
        "API": f'<a href="{page}">{cls.__name__}</a>' if own else "",
    }


def _scenarios(cls: type[Learner]) -> str:
    if cls.measure != "accuracy":
        return "generates only"
    return "all three" if len(cls.scenarios) == len(SCENARIOS) else ", ".join(cls.scenarios)
