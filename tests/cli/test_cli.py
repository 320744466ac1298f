"""The command line: what it prints where, what its options do, and one clear message for everything that can go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from clteach import cli
from clteach.cli import commands, options
from clteach.experiments import jobs
from clteach.experiments.papers import RECIPES, column
from clteach.learners.learner import Classifier
from clteach.methods import METHODS
from clteach.storage import load_tensors

TINY = ("--iters", "3", "--batch", "16", "--hidden", "8", "--jobs", "1", "--device", "cpu")


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Command(Protocol):
    def __call__(self, *argv: str) -> Said: ...


@pytest.fixture
def clteach(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call the program in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLTEACH_DEBUG", raising=False)

    def call(*argv: str) -> Said:
        code = cli.main(list(argv))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return call


def settings_of(said: Said, method: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(said.out)["results"][method]["settings"]
    return settings


# ------------------------------------------------------------------------------------------------------------- run


def test_run_compares_the_four_methods(clteach: Command, tmp_path: Path) -> None:
    said = clteach("run", *TINY)
    assert said.code == 0
    assert said.err == ""  # no progress bar where stderr is no terminal
    for word in ("finetune", "ewc", "generative-replay", "joint", "average accuracy (%)", "preset digits"):
        assert word in said.out
    picture = tmp_path / "out" / "split-digits-class.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "out/split-digits-class.png" in said.out
    assert json.loads((tmp_path / "out" / "split-digits-class.json").read_text())["seeds"] == [0]
    models = list((tmp_path / "out" / "runs").glob("*/learner.safetensors"))
    assert len(models) == 4

    again = clteach("run", *TINY)
    assert "4 of 4 runs were finished before" in again.out
    assert "finished before" not in clteach("run", *TINY, "--fresh").out


def test_json_is_all_that_stdout_holds(clteach: Command) -> None:
    said = clteach("run", "ewc", "finetune", *TINY, "--seeds", "2", "--json")
    document = json.loads(said.out)  # nothing before it, nothing after it
    assert said.code == 0
    assert "average accuracy" in said.err
    assert list(document["results"]) == ["ewc", "finetune"]
    for result in document["results"].values():
        score = result["average_accuracy"]
        assert len(score["seeds"]) == 2
        assert score["mean"] == pytest.approx(sum(score["seeds"]) / 2)
        assert score["sem"] == pytest.approx(abs(score["seeds"][0] - score["seeds"][1]) / 2)
        matrix = result["accuracy_matrix"]
        assert len(matrix) == 5 and all(len(row) == 5 for row in matrix)
        assert sum(matrix[-1]) / 5 == pytest.approx(score["mean"])
        assert result["seconds"] > 0 and result["iterations_per_second"] > 0
    one = json.loads(clteach("run", "finetune", *TINY, "--json").out)["results"]["finetune"]
    assert one["average_accuracy"]["sem"] is None


def test_options_go_before_the_preset_and_that_before_the_default(clteach: Command, monkeypatch: Any) -> None:
    seen: list[jobs.Job] = []

    def record(many: list[jobs.Job], *_: Any, **__: Any) -> None:
        seen[:] = many
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_jobs", record)

    def first(*argv: str) -> jobs.Job:
        assert clteach("run", *argv).code == 130
        return seen[0]

    mnist = ("--stream", "split-mnist", "--scenario", "domain")
    job = first("ewc", *mnist)
    assert (job.settings["lam"], job.settings["hidden"], job.steps) == (1e10, (400, 400), 2000)
    assert job.stream_settings["active_units"] == "all"
    job = first("ewc", *mnist, "--preset", "2019", "--ewc.lam", "7", "--lr", "0.5", "--tasks", "2")
    assert (job.settings["lam"], job.settings["lr"]) == (7.0, 0.5)
    assert (job.stream_settings["active_units"], job.stream_settings["tasks"]) == ("seen", 2)
    # a method's own option goes before the common one, also where it repeats the default
    job = first("ewc", "--hidden", "7", "--ewc.hidden", "100", "100")
    assert job.settings["hidden"] == (100, 100)
    job = first("generative-replay", "--generative-replay.targets", "hard", "--batch", "3", "--iters", "5")
    assert (job.settings["targets"], job.settings["hidden"], job.batch, job.steps) == ("hard", (100, 100), 3, 5)
    job = first("finetune", "--stream", "split-cifar10")
    assert (job.settings["hidden"], job.steps, job.batch) == ((400, 400), 2000, 128)


def test_help_shows_every_setting_and_the_value_it_would_have(clteach: Command) -> None:
    said = clteach("run", "--help")
    assert said.code == 0
    for word in (
        "--stream",
        "--scenario",
        "--preset",
        "--ewc.lam",
        "strength λ",
        "--generative-replay.targets {soft,hard}",
    ):
        assert word in said.out
    only = clteach("run", "ewc", "--help").out
    assert "--ewc.lam" in only and "generative-replay.targets" not in only
    assert "(default: 100000000.0)" in clteach("run", "--stream", "split-mnist", "--preset", "2019", "--help").out


class Newcomer(Classifier):
    """A method that is not one of the package's."""

    name = "new-comer"
    summary = "a method that only does tasks"
    scenarios = ("task",)
    needs = "it must know the task"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """The newcomer's settings."""

        courage: float = 0.25
        """how much of it"""


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "new-comer", Newcomer)


@pytest.mark.usefixtures("newcomer")
def test_a_registered_method_appears_by_itself(clteach: Command) -> None:
    listed = clteach("list").out
    assert "new-comer" in listed and "a method that only does tasks [task only]" in listed
    text = clteach("run", "new-comer", "--help").out
    assert "--new-comer.courage" in text and "how much of it" in text
    said = clteach("run", "new-comer", *TINY, "--scenario", "task", "--new-comer.courage", "2", "--json")
    assert settings_of(said, "new-comer")["courage"] == 2.0


@pytest.mark.usefixtures("newcomer")
def test_a_scenario_that_a_method_does_not_support(clteach: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    named = clteach("run", "new-comer", *TINY)
    assert named.code == 2
    assert "new-comer does not support the scenario 'class': it must know the task" in named.err
    monkeypatch.setattr("clteach.cli.options.DEFAULT_METHODS", ("finetune", "new-comer"))
    by_default = clteach("run", *TINY)
    assert by_default.code == 0
    assert "note: new-comer is left out: it does not support the scenario 'class'" in by_default.out


# --------------------------------------------------------------------------------------- list, reproduce and sweep


def test_list(clteach: Command) -> None:
    said = clteach("list")
    assert said.code == 0
    for name in (*METHODS, "split-NAME", "mnist", "2022", "digits", "split-mnist"):
        assert f"\n  {name} " in said.out
    assert clteach().out.startswith("usage: clteach")
    assert clteach("--version").out.startswith("clteach 0.")


def test_pretrain(clteach: Command, tmp_path: Path) -> None:
    options = ("--data", "digits", "--epochs", "1", "--batch-size", "400", "--lr", "0.01", "--device", "cpu")
    said = clteach("pretrain", *options, "--uniform-gains", "--seed", "3", "--out", "conv.safetensors")
    assert said.code == 0 and "1 epochs in batches of 400, Adam 0.01, gains from [0, 1);" in said.out
    about = load_tensors(tmp_path / "conv.safetensors")[1]
    assert (about["seed"], about["batch_size"], about["uniform_gains"]) == (3, 400, True)


def test_threads(clteach: Command) -> None:
    said = clteach(
        "reproduce", "split-digits", "--rows", "finetune", "--iters", "1", "--device", "cpu", "--threads", "2"
    )
    assert said.code == 0
    record = json.loads(Path("results/split_digits_shortened.json").read_text(encoding="utf-8"))
    assert record["command"] == "clteach reproduce split-digits --iters 1 --rows finetune --threads 2"
    assert record["device"]["threads_per_process"] == 2


def test_reproduce(clteach: Command, tmp_path: Path) -> None:
    said = clteach("reproduce", "split-digits", "--iters", "1", "--seeds", "1", "--jobs", "1", "--device", "cpu")
    assert said.code == 0
    assert "(shortened run)" in said.out and "class-incremental" in said.out
    assert f"deviation: 1 steps per task instead of {column('digits', 'split-digits').steps}" in said.out
    record = json.loads((tmp_path / "results" / "split_digits_shortened.json").read_text())
    rows = RECIPES["split-digits"].rows.values()
    assert len(record["cells"]) == sum(len(METHODS[row.method].scenarios) for row in rows if row.method in METHODS)


def test_sweep(clteach: Command, tmp_path: Path) -> None:
    grid = ("--set", "ewc.lam=0,1e3", "--set", "lr=1e-4,1e-2", "--set", "fresh-optimizer=true")
    said = clteach("sweep", "ewc", "finetune", *TINY, "--seeds", "2", *grid)
    assert said.code == 0
    assert "judged on held-out training data" in said.out
    assert "best for ewc on held-out training data: lam=" in said.out
    document = json.loads((tmp_path / "out" / "sweep" / "sweep.json").read_text())
    lines = document["candidates"]
    assert document["judged_on"] == "valid"
    assert len(lines) == 4 + 2  # EWC: 2 x 2, fine-tuning: learning rates alone
    assert {line["tried"]["lr"] for line in lines} == {1e-4, 1e-2}
    assert all(line["settings"]["fresh_optimizer"] is True for line in lines)
    means = [line["average_accuracy"]["mean"] for line in lines]
    assert means == sorted(means, reverse=True)
    table = (tmp_path / "out" / "sweep" / "sweep.csv").read_text().splitlines()
    assert len(table) == 7 and table[0] == "method,lam,lr,fresh_optimizer,mean,sem,seeds"

    on_test = clteach("sweep", "ewc", *TINY, "--on", "test", "--set", "ewc.lam=0", "--set", "ewc.hidden=8 8,4")
    assert "judged on the test set" in on_test.out and "hidden=(8, 8)" in on_test.out
    # without a penalty EWC is fine-tuning, and a sweep judged on the test set is a run
    run = json.loads(clteach("run", "finetune", *TINY, "--hidden", "4", "--json").out)["results"]["finetune"]
    document = json.loads((tmp_path / "out" / "sweep" / "sweep.json").read_text())
    (line,) = [line for line in document["candidates"] if line["tried"]["hidden"] == [4]]
    assert line["average_accuracy"] == run["average_accuracy"]


def test_grid_has_every_combination_once() -> None:
    assert commands.grid({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]
    assert commands.grid({}) == [{}]


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("rum", "unknown command 'rum'. Did you mean 'run'?"),
        ("run ewcc", "unknown method 'ewcc'. Did you mean 'ewc'?"),
        ("run --stream split-digit", "unknown stream 'split-digit'. Did you mean 'split-digits'?"),
        ("run --scenario clas", "('task', 'domain', 'class')"),
        ("run --preset 2O22", "unknown preset '2O22'. Did you mean '2022'?"),
        ("run --preset 2022", "the preset '2022' has no settings for the stream 'split-digits'"),
        ("run --iters 0", "0 iterations per task"),
        ("run --batch 0", "batches of 0"),
        ("run --seeds -1", "--seeds -1: expected at least one"),
        ("run --tasks 3", "do not divide into 3 tasks"),
        ("run --extractor cnv", "unknown feature extractor 'cnv'. Did you mean 'conv'?"),
        ("run --weights some", "weights='some' belong to an extractor"),
        ("run --jobs 0", "0 processes"),
        ("run --ewc.lam -4", "lam=-4.0, expected a strength ≥ 0"),
        ("run finetune --ewc.lam 4", "Unrecognized options: --ewc.lam"),
        ("run --lamb 4", "Unrecognized options: --lamb"),
        ("run --iters many", "['many']"),
        ("run --device gpu0", "device 'gpu0' cannot be used"),
        ("run --out file", "cannot write into"),
        ("reproduce", "name a recipe: split-digits"),
        ("reproduce split-mnst", "unknown recipe 'split-mnst'. Did you mean 'split-mnist'?"),
        ("reproduce split-digits --preset 2022", "unknown preset of split-digits '2022'"),
        ("sweep", "name the methods to try"),
        ("sweep ewc --set ewc.lamb=1", "unknown setting 'ewc.lamb'. Did you mean 'ewc.lam'?"),
        ("sweep ewc --set generative-replay.z=1", "unknown method 'generative-replay'"),
        ("sweep ewc --set ewc.lam=high", "'high' is no value of ewc.lam"),
        ("sweep ewc --set ewc.lam=-1", "lam=-1.0, expected a strength ≥ 0"),
        ("sweep ewc --set ewc.lam", "--set ewc.lam: expected"),
        ("sweep ewc --validation 1", "--validation 1.0: expected a share between 0 and 1"),
    ],
)
def test_one_clear_message(command: str, message: str, clteach: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = clteach(*command.split())
    assert said.code == 2
    assert message in " ".join(said.err.replace("│", " ").split())
    assert said.err.count("error:") <= 1


def test_missing_data(clteach: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist.npz").write_bytes(b"<html>not found</html>")
    said = clteach("run", "finetune", "--stream", "split-mnist", *TINY)
    assert said.code == 2
    assert "mnist.npz is an HTML page" in said.err


def test_ctrl_c_says_that_the_command_resumes(clteach: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "train", stop)
    said = clteach("run", "finetune", *TINY)
    assert said.code == 130
    assert said.err == "clteach: stopped. The same command resumes from the checkpoints.\n"
    # --fresh would begin again
    said = clteach("run", "finetune", *TINY, "--fresh")
    assert said.err == "clteach: stopped. The same command, without --fresh, resumes from the checkpoints.\n"
    monkeypatch.setattr(commands, "show_lists", stop)  # nothing to resume
    assert clteach("list") == Said(130, "", "clteach: stopped.\n")


def test_an_unexpected_error_is_one_line(clteach: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "train", lambda *_, **__: 1 / 0)
    said = clteach("run", "finetune", *TINY)
    assert said.code == 1
    assert said.err == (
        "clteach: unexpected ZeroDivisionError: division by zero (set CLTEACH_DEBUG=1 for the traceback)\n"
    )
    monkeypatch.setenv("CLTEACH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "finetune", *TINY])


def test_python_m_clteach(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "clteach", "run", "finetune", *TINY, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["finetune"]["average_accuracy"]["seeds"]
    wrong = [sys.executable, "-m", "clteach", "run", "finetoon"]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("clteach: error: unknown method 'finetoon'. Did you mean 'finetune'?")


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys; from clteach.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in options.COMMANDS)


def test_generators_and_classifiers_do_not_share_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "finetune", "vae-finetune", "--out", str(tmp_path)]) == 2
    assert "finetune (accuracy) and vae-finetune (fid) are measured differently" in capsys.readouterr().err


def test_run_generators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--iters", "2", "--jobs", "1", "--out", str(tmp_path), "--vae-finetune.features", "inputs"]
    assert cli.main(["run", "vae-finetune", *options]) == 0
    out = capsys.readouterr().out
    assert "average FID" in out and "average precision (%)" in out and "FID matrices: " in out
    result = json.loads((tmp_path / "split-digits-class.json").read_text())["results"]["vae-finetune"]
    assert result["measure"] == "fid" and len(result["fid_matrix"]) == len(result["recall_matrix"]) == 5
    assert (tmp_path / "split-digits-class.png").exists()


def test_sweep_of_a_generator_draws_its_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--iters", "2", "--jobs", "1", "--out", str(tmp_path), "--tasks", "1"]
    values = ["--set", "objective=gan,ebgan", "--set", "z=2,3", "--set", "features=inputs", "--set", "hidden=8"]
    assert cli.main(["sweep", "ebgan", *values, "--by", "objective", *quick]) == 0
    out = capsys.readouterr().out
    assert "average FID" in out and f"histogram: {tmp_path / 'sweep.png'}" in out
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    scores = [line["average_fid"]["mean"] for line in json.loads((tmp_path / "sweep.json").read_text())["candidates"]]
    assert len(scores) == 4 and scores == sorted(scores)  # the lowest FID is the best
    assert cli.main(["sweep", "ebgan", *values, "--by", "margin", *quick]) == 2
    assert "--by margin: expected a setting that is tried (features, hidden, objective, z)" in capsys.readouterr().err


def test_replay_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--replay-model` reaches the methods that have the choice, also in a sweep; without such a method it is an error."""
    quick = ["--iters", "2", "--jobs", "1", "--out", str(tmp_path)]
    assert cli.main(["run", "finetune", "generative-replay", "--replay-model", "ebgan", *quick, "--json"]) == 0
    settings = {k: v["settings"] for k, v in json.loads(capsys.readouterr().out)["results"].items()}
    assert settings["generative-replay"]["replay_model"] == "ebgan" and "replay_model" not in settings["finetune"]
    assert cli.main(["run", "ewc", "--replay-model", "ebgan", *quick]) == 2
    assert "--replay-model ebgan: none of ewc chooses what it replays from" in capsys.readouterr().err
    assert cli.main(["run", "generative-replay", "--replay-model", "ebgan", "--generative-replay.z", "7", *quick]) == 2
    assert "z=7 is a setting of its own VAE" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert cli.main(["sweep", "generative-replay", "--set", "replay_model=vae,hypernetwork", *quick]) == 0
    candidates = json.loads((tmp_path / "sweep.json").read_text())["candidates"]
    assert {line["tried"]["replay_model"] for line in candidates} == {"vae", "hypernetwork"}
