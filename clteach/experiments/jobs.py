"""Many runs at once: one job is one training run, in a process of its own, with one thread unless it asks for more.

On a CPU two processes with one thread each beat one process with two; two threads beat one where there is a single run.
Every job has a folder of its own, so an interrupted command can be repeated: finished jobs are read back, a job that was
stopped goes on from its checkpoint. Where and beside what a job runs does not change its numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch

from clteach.data.catalogue import load
from clteach.data.dataset import Dataset
from clteach.data.extractors import EXTRACTORS
from clteach.data.streams import make_stream, stream_settings
from clteach.data.tasks import Stream
from clteach.errors import CheckpointError, ClteachError, ConfigError, DivergedError, unknown
from clteach.experiments.provenance import canonical, checkout, machine
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Learner
from clteach.methods import build, configure, method, register
from clteach.metrics.accuracy import average_score, forgetting
from clteach.progress import Watched, board, tensorboard, to_file
from clteach.settings import SEED, convert_fields
from clteach.storage import load_sealed, sealed, write_json
from clteach.training.code import code
from clteach.training.loop import train
from clteach.training.run import Run
from clteach.training.seeds import pays_off, train_seeds
from clteach.training.start import check_borders, resolve_device

Result = dict[str, Any]
"""What a job gives: plain JSON values, see `run_job`."""

BACKENDS = ("loky", "dask", "ray")
SELDOM = 2500
"""Steps between checkpoints on a GPU, which goes through 500 steps about as fast as a large network is saved."""


@dataclass(frozen=True)
class Job:
    """One training run.

    Args:
        method: a registered method.
        stream: a name for `clteach.data.streams.make_stream`.
        scenario: "task", "domain" or "class".
        seed: seed of the stream, the initial weights and the training.
        steps: steps per task.
        batch: samples per step.
        settings: fields of the method's Config; what is not named has its default.
        stream_settings: arguments of the stream.
        device: "auto", "cpu" or "cuda".
        evaluate_on: "test", or "valid" where `stream_settings` holds data out.
        threads: of its process. With another number of them sums round differently, so it is another run.
    """

    method: str
    stream: str = "split-digits"
    scenario: str = "class"
    seed: int = 0
    steps: int = 2000
    batch: int = 128
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream_settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    evaluate_on: str = "test"
    threads: int = 1

    def __post_init__(self) -> None:
        convert_fields(self, {"seed": SEED})

    def make_stream(self, seed: int, dataset: Dataset | None = None) -> Stream:
        """The job's stream, drawn with this seed; `dataset` where the data are loaded already."""
        return make_stream(self.stream, self.scenario, dataset, seed=seed, **self.stream_settings)


class _Plan(NamedTuple):
    job: Job
    folder: Path
    steps: int  # of all tasks and phases
    cost: int  # grows with the time the job will take
    code: str | None  # fingerprint of what it executes
    group: str | None = None  # of jobs that are trained at once: the same for all that differ in their seed alone


def run_jobs(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    n_jobs: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    keep: bool = False,
    fresh: bool = False,
    together: bool = False,
    show: bool | None = None,
    log: str | None = None,
) -> list[Result]:
    """Train all jobs, as many at a time as there are cores, the longest first.

    Args:
        jobs: what to train.
        out: folder for checkpoints and results; every job has its own under ``out/runs``.
        n_jobs: processes; None: as many as the cores have room for, but at most 4 on a GPU. 1 with the backend "loky":
            this process.
        backend: "loky" (processes of this machine), or "dask" or "ray" (a cluster; its machines should share `out`).
        address: address of the cluster's scheduler; None: a cluster on this machine.
        keep: also keep the trained models, for `clteach.training.run.Run.load`. A finished run whose model was not kept is
            trained again.
        fresh: start every run anew, instead of reading back what is finished and resuming what is not.
        together: train jobs that differ in their seed alone at once where that is faster (`clteach.train_seeds`). Their
            numbers are then those of single runs within rounding, which grows with the steps.
        show: show the progress; None: where stderr is a terminal.
        log: "tensorboard" also writes curves for TensorBoard into ``out/tensorboard``, of the runs that are trained now.

    Returns:
        One result per job, in the order of `jobs` (see `run_job`), with ``read_back``: was it finished before?

    Raises:
        ClteachError: settings, data or a folder that cannot be used, or a worker that was killed.
    """
    if log not in (None, "tensorboard"):
        raise unknown("log", str(log), ["tensorboard"])
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    threads = max((job.threads for job in jobs), default=1)
    if threads > 1 and backend != "loky":
        raise ConfigError(
            f"threads={threads} with the backend {backend!r}: a cluster's workers have one thread each. Leave it out."
        )
    out = Path(out).absolute()  # workers may start in another folder
    check_place(out, n_jobs)
    if log is not None:
        with tempfile.TemporaryDirectory(dir=out) as folder, tensorboard(folder):
            pass  # is it installed? before anything is trained
    # seeds that are trained at once have no curve of their own
    plans = _plan(jobs, out, together and log is None)
    if fresh:
        for plan in plans:
            shutil.rmtree(plan.folder, ignore_errors=True)
    results = {plan.folder: _read_back(plan.folder, keep) for plan in plans}
    waiting = {plan.folder: plan for plan in plans if results[plan.folder] is None}
    todo = sorted(waiting.values(), key=lambda plan: -plan.cost)
    for plan in todo:
        plan.folder.mkdir(parents=True, exist_ok=True)
        (plan.folder / "progress").unlink(missing_ok=True)  # of an interrupted attempt
    if n_jobs is None:
        room = max(1, joblib.cpu_count() // threads)
        n_jobs = room if plans and plans[0].job.device == "cpu" else min(4, room)

    groups = _groups(todo, n_jobs)
    watched = [Watched(_title(group), group[0].folder / "progress", group[0].steps) for group in groups]
    with board(watched, show):
        done = _dispatch(
            [
                (
                    [p.job for p in group],
                    method(group[0].job.method),
                    [p.folder for p in group],
                    keep,
                    group[0].code,
                    log and out / log / group[0].folder.name,
                )
                for group in groups
            ],
            n_jobs,
            threads,
            backend,
            address,
        )
    for plan, result in zip(itertools.chain(*groups), itertools.chain(*done), strict=True):
        results[plan.folder] = result
        (plan.folder / "progress").unlink(missing_ok=True)
        if not (plan.folder / "result.json").exists():  # a cluster that does not share the folder
            write_json(plan.folder / "result.json", sealed(result))
    return [{**(results[plan.folder] or {}), "read_back": plan.folder not in waiting} for plan in plans]


def run_job(
    job: Job,
    cls: type[Learner],
    folder: Path,
    keep: bool = False,
    source: str | None = None,
    curves: Path | None = None,
) -> Result:
    """Train one job in this process, and write ``result.json`` into its folder.

    Args:
        job: what to train.
        cls: the method's class: another process has not registered a method of the user's own.
        folder: the job's folder; a checkpoint in it is resumed.
        keep: also write the trained model there.
        source: fingerprint of the code, see `clteach.training.code`: another process may not find the source.
        curves: folder for TensorBoard's curves; None: none.

    Returns:
        ``job``, the ``device`` and the ``commit`` that it ran on, ``accuracy`` (T, T) and ``initial`` (T,) in [0, 1],
        ``average_accuracy``, ``forgetting`` (None for one task), ``seconds`` spent in training steps,
        ``iterations_per_second``, the numbers ``samples`` (T,) that each task is evaluated on, and the stream's
        ``fingerprint``. A method with another measure than accuracy has its
        name instead (``fid``, ``average_fid``) and says so in ``measure``; a pure generator also has all its measures,
        ``quality``: {measure: (T, T)}. ``notes`` say where a score cannot be wrong (`Stream.notes`). Of a training that
        diverged there are no scores: they are None, and ``diverged`` says what happened.
    """
    register(cls)
    checkpoint = folder / "checkpoint.safetensors"
    commit = checkout()  # of the code that runs, not of what is committed meanwhile
    run, diverged = None, None
    stream = job.make_stream(job.seed)
    try:
        with _threads(job.threads), contextlib.nullcontext() if curves is None else tensorboard(curves) as log:
            learner = build(job.method, stream.spec, configure(cls, dict(job.settings)), job.seed)
            run = train(
                learner,
                stream,
                seed=job.seed,
                checkpoint=checkpoint,
                source=source,
                progress=to_file(folder / "progress"),
                log=log,
                **_options(job, cls),
            )
    except DivergedError as error:  # one setting of many that was too bold must not end the others
        diverged = str(error)
    result = _finished(job, cls, stream, run, diverged, folder, keep, commit, source)
    checkpoint.unlink(missing_ok=True)
    return result


def run_together(
    jobs: Sequence[Job],
    cls: type[Learner],
    folders: Sequence[Path],
    keep: bool = False,
    source: str | None = None,
    curves: Path | None = None,
) -> list[Result]:
    """Train jobs that differ in their seed alone at once, as `run_job` trains one; each gets its ``result.json``.

    Args:
        jobs: what to train; a single one is left to `run_job`.
        cls, keep, source: as in `run_job`.
        curves: as in `run_job`, of a single job.
        folders: the jobs' folders; the checkpoint of them all is in the first one.

    Returns:
        The results, as of `run_job`, with ``together``: how many seeds were trained at once.
    """
    if len(jobs) == 1:
        return [run_job(jobs[0], cls, folders[0], keep, source, curves)]
    register(cls)
    first, commit = jobs[0], checkout()
    seeds = {job.seed: job for job in jobs}
    # Whoever asks for other seeds the next time must not find the checkpoint of these.
    checkpoint = folders[0] / f"seeds-{'-'.join(map(str, seeds))}.safetensors"
    extractor = first.stream_settings.get("extractor")
    dataset = None if extractor is not None else load(first.stream.partition("-")[2])
    streams = {seed: job.make_stream(seed, dataset) for seed, job in seeds.items()}
    try:
        with _threads(first.threads):
            runs = train_seeds(
                first.method,
                streams.__getitem__,
                list(seeds),
                checkpoint=checkpoint,
                source=source,
                progress=to_file(folders[0] / "progress"),
                **_options(first, cls),
                **first.settings,
            )
    except DivergedError:  # which ones do, each shows by itself
        results = [run_job(job, cls, folder, keep, source) for job, folder in zip(jobs, folders, strict=True)]
    else:
        results = [
            _finished(job, cls, streams[job.seed], run, None, folder, keep, commit, source, len(jobs))
            for job, run, folder in zip(jobs, runs, folders, strict=True)
        ]
    checkpoint.unlink(missing_ok=True)
    return results


def _options(job: Job, cls: type[Learner]) -> dict[str, Any]:
    seldom = {} if resolve_device(job.device).type == "cpu" else {"checkpoint_every": SELDOM}
    return {
        **seldom,
        "steps": job.steps,
        "batch_size": job.batch,
        "device": job.device,
        "evaluate_on": job.evaluate_on,
        "quality": issubclass(cls, PureGenerator),
    }


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finished(
    job: Job,
    cls: type[Learner],
    stream: Stream,
    run: Run | None,
    diverged: str | None,
    folder: Path,
    keep: bool,
    commit: str | None,
    source: str | None,
    together: int = 1,
) -> Result:
    """Write ``result.json`` (and the model) of a run that has ended into the job's folder, and return the result."""
    if keep and run is not None:
        run.save(folder)
    result = {
        "job": json.loads(canonical(asdict(job))),  # lists for tuples, as when it is read back
        "device": machine(resolve_device(job.device).type, job.threads),
        "commit": commit,
        **({"together": together} if together > 1 else {}),
        **({} if cls.measure == "accuracy" else {"measure": cls.measure}),
        **(_scores(run, cls.measure) if run is not None else _no_scores(str(diverged), cls.measure)),
        "samples": [len(task.valid if job.evaluate_on == "valid" and task.valid else task.test) for task in stream],
        "fingerprint": stream.fingerprint,
        **({"notes": notes} if (notes := [*stream.notes, *_unread(cls, source)]) else {}),
    }
    write_json(folder / "result.json", sealed(result))
    return result


def _unread(cls: type[Learner], source: str | None) -> list[str]:
    if source is not None:
        return []
    return [
        f"the source of {cls.__name__} cannot be found, so nobody can tell whether a finished run is of the same code: "
        "it was trained anew. Define the class in a file or in a notebook to have runs read back and resumed."
    ]


def _scores(run: Run, measure: str) -> Result:
    numbers = run.numbers()
    return {
        f"average_{measure}": average_score(run.accuracy, measure),
        "forgetting": forgetting(run.accuracy, measure) if len(run.accuracy) > 1 else None,
        **({"quality": numbers["quality"]} if run.quality else {}),
        measure: numbers["accuracy"],
        "initial": numbers["initial"],
        "seconds": sum(run.seconds),
        "iterations_per_second": run.iterations_per_second,
    }


def _no_scores(diverged: str, measure: str) -> Result:
    nothing = dict.fromkeys(
        (f"average_{measure}", "forgetting", measure, "initial", "seconds", "iterations_per_second")
    )
    return {**nothing, "diverged": diverged}


def _plan(jobs: Sequence[Job], out: Path, together: bool = False) -> list[_Plan]:
    """Check every job before anything starts, and give it a folder whose name stands for all that its numbers depend on."""
    streams: dict[str, Stream] = {}
    sizes: dict[str, tuple[int, int, str | None, bool]] = {}
    jobs = [_checked(job) for job in jobs]
    groups = [canonical(asdict(replace(job, seed=0))) for job in jobs]
    alike = Counter(groups)
    plans = []
    for job, group in zip(jobs, groups, strict=True):
        cls = method(job.method)
        key = canonical([job.stream, job.scenario, job.stream_settings])
        if key not in streams:
            streams[key] = job.make_stream(seed=0)
        stream = streams[key]
        key = canonical([key, job.method, job.settings, job.steps])
        if key not in sizes:
            learner = build(job.method, stream.spec, configure(cls, dict(job.settings)))
            check_borders(learner, stream)
            steps = sum(phase.steps for t in range(len(stream)) for phase in learner.phases(t, job.steps))
            size = sum(tensor.numel() for tensor in learner.state_dict().values())
            faster = together and pays_off(learner, job.batch, job.device)
            sizes[key] = steps, size, learner.describe().get("extractor"), faster
        # a file of weights may change under its name: the extractor's fingerprint is what is in it
        steps, size, extractor, faster = sizes[key]
        source = _code(cls, job.settings.get("extractor"))
        # Without its source nobody can tell whether a class is the one that made a finished run: a folder of its own.
        anew = {} if source is not None else {"anew": uuid.uuid4().hex}
        at_once = faster and alike[group] > 1
        if at_once:
            anew["together"] = str(code("clteach.training.seeds"))
        # what there was not always: with one thread a run is the one that it was before jobs had threads
        described = {key: value for key, value in asdict(job).items() if (key, value) != ("threads", 1)}
        identity = canonical([described, stream.fingerprint, extractor, source, anew])
        identity = hashlib.sha256(identity.encode()).hexdigest()[:10]
        name = f"{job.method}-{job.stream}-{job.scenario}-seed{job.seed}-{identity}"
        plans.append(_Plan(job, out / "runs" / name, steps, steps * size, source, group if at_once else None))
    return plans


def _checked(job: Job) -> Job:
    """The job with all settings, those that are not given too, in one way of writing."""
    if job.steps < 1 or job.batch < 1 or job.seed < 0 or job.threads < 1:
        raise ConfigError(
            f"{job.steps} iterations per task, batches of {job.batch}, seed {job.seed}, {job.threads} threads: expected at "
            "least one iteration, one sample and one thread, and a seed of 0 or more."
        )
    return replace(
        job,
        settings=asdict(configure(method(job.method), dict(job.settings))),
        stream_settings=stream_settings(job.stream, job.stream_settings),
        device=resolve_device(job.device).type,
    )


def _groups(plans: Sequence[_Plan], n_jobs: int) -> list[list[_Plan]]:
    """What is trained at once: the seeds of one setting, in as many parts as keep all processes busy, and single jobs."""
    found: dict[str, list[_Plan]] = {}
    for plan in plans:
        found.setdefault(plan.group or str(plan.folder), []).append(plan)
    parts = math.ceil(n_jobs / max(len(found), 1))
    groups = []
    for alike in found.values():
        size = max(math.ceil(len(alike) / parts), 2)
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def _title(group: Sequence[_Plan]) -> str:
    job, seeds = group[0].job, [str(plan.job.seed) for plan in group]
    return f"{job.method} {job.scenario} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"


def _code(cls: type[Learner], extractor: str | None = None) -> str | None:
    return code(cls, *([] if extractor is None else [EXTRACTORS[extractor]]))


def _dispatch(
    tasks: list[tuple[Any, ...]], n_jobs: int, threads: int, backend: str, address: str | None
) -> list[list[Result]]:
    if not tasks:
        return []
    if backend == "loky" and n_jobs == 1:
        return [run_together(*task) for task in tasks]
    try:
        with _workers(backend, min(n_jobs, len(tasks)), threads, address):
            parallel = joblib.Parallel(batch_size=1, pre_dispatch="all")
            return list(parallel(joblib.delayed(_run_in_worker)(os.getpid(), *task) for task in tasks))
    except joblib.externals.loky.process_executor.TerminatedWorkerError as error:
        raise ClteachError(
            "a worker process was killed, most often because memory ran out. "
            "Use fewer processes (--jobs 1); the same command resumes where it stopped."
        ) from error


def _run_in_worker(parent: int, *task: Any) -> list[Result]:
    if os.getpid() != parent:
        with contextlib.suppress(ValueError):  # only a main thread may; a cluster's workers run jobs in another one
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    return run_together(*task)


@contextmanager
def _workers(backend: str, n_jobs: int, threads: int, address: str | None) -> Iterator[None]:
    """joblib's processes on this machine, with so many threads each, or on a cluster, with one."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if backend == "loky":
            options = {"n_jobs": n_jobs, "inner_max_num_threads": threads}
        elif backend == "dask":
            try:
                from distributed import Client, LocalCluster
            except ImportError:
                raise ConfigError("the backend dask needs distributed: pip install 'clteach[cluster]'.") from None
            cluster: Any = address
            if address is None:
                local = LocalCluster(n_workers=n_jobs, threads_per_worker=1, dashboard_address=None)
                cluster = stack.enter_context(local)
            client = stack.enter_context(Client(cluster))
            if any(threads != 1 for threads in client.nthreads().values()):
                raise ConfigError(f"the dask workers at {address} have several threads: start them with --nthreads 1.")
            options = {"n_jobs": -1, "client": client}
        else:
            try:
                import ray
                from ray.util.joblib import register_ray
            except ImportError:
                raise ConfigError("the backend ray needs ray: pip install ray.") from None
            ray.init(address=address, num_cpus=None if address else n_jobs, ignore_reinit_error=True)
            stack.callback(ray.shutdown)
            register_ray()
            options = {"n_jobs": -1}
        with joblib.parallel_config(backend, **options):
            yield


def read_back(file: Path) -> Result | None:
    """What a finished run wrote, or None: a damaged file is as good as none."""
    try:
        return load_sealed(file)
    except CheckpointError:
        return None


def _read_back(folder: Path, keep: bool) -> Result | None:
    """What a finished run left in its folder, or None: also where its model is wanted and was not kept."""
    result = read_back(folder / "result.json")
    wanted = keep and result is not None and "diverged" not in result
    return None if wanted and not (folder / "run.json").exists() else result


def check_place(out: Path, n_jobs: int | None) -> None:
    """ClteachError unless there is a process and files can be written into this folder, which is made if need be."""
    if n_jobs is not None and n_jobs < 1:
        raise ConfigError(f"{n_jobs} processes: expected at least one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ClteachError(
            f"cannot write into {out}: {error.strerror or error}. Expected a folder with write permission and free space; "
            "choose another one with --out."
        ) from error
