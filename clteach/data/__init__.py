"""Data: a data set, by name or one's own, cut into the stream of tasks that a continual learner sees.

`dataset` what a data set is, `own_data` anyone's arrays (`inputs`, `labels` and `items`: what becomes of each), `folders`
of pictures, `catalogue` data sets by name, `extractors` frozen features;
`tasks` what a learner sees (specification, batches), `streams` how it is cut, `ready_made` what others cut; `plane` toy data
in the plane.
"""

from __future__ import annotations

from clteach.data.catalogue import NAMES, data_folder, load, outline
from clteach.data.dataset import Dataset, as_floats, join
from clteach.data.extractors import EXTRACTORS, encode, make_extractor, register_extractor
from clteach.data.folders import from_folder
from clteach.data.own_data import from_arrays
from clteach.data.plane import lattice, make_cloud
from clteach.data.ready_made import from_avalanche, from_continuum, from_tasks
from clteach.data.streams import MAKERS, dirichlet, faded, make_stream, permuted, split
from clteach.data.tasks import SCENARIOS, Batch, Data, Fade, Shuffle, Spec, Stream, Task

__all__ = [
    "EXTRACTORS",
    "MAKERS",
    "NAMES",
    "SCENARIOS",
    "Batch",
    "Data",
    "Dataset",
    "Fade",
    "Shuffle",
    "Spec",
    "Stream",
    "Task",
    "as_floats",
    "data_folder",
    "dirichlet",
    "encode",
    "faded",
    "from_arrays",
    "from_avalanche",
    "from_continuum",
    "from_folder",
    "from_tasks",
    "join",
    "lattice",
    "load",
    "make_cloud",
    "make_extractor",
    "make_stream",
    "outline",
    "permuted",
    "register_extractor",
    "split",
]
