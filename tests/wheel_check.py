"""Build the wheel, install it into an empty environment and use it from another folder: ``make wheel-test``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command outside this environment; on failure show what it said and stop."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"wheel test: {' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def check_content(wheel: Path) -> None:
    """The wheel holds the whole package and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    package = {name for name in names if name.split("/")[0] == "clteach"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "clteach").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    foreign = {name for name in names - package if not name.split("/")[0].endswith(".dist-info")}
    if package != wanted or foreign:
        sys.exit(f"wheel test: missing {sorted(wanted - package)}, too much {sorted((package - wanted) | foreign)}")


def main() -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    with tempfile.TemporaryDirectory(prefix="clteach-wheel-") as folder:
        venv, elsewhere = Path(folder, "venv"), Path(folder, "elsewhere")
        elsewhere.mkdir()
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, *(["--installer", "uv"] if uv else []))
        (wheel,) = Path(folder).glob("*.whl")
        check_content(wheel)

        python = venv / "bin" / "python"
        if uv:
            run(uv, "venv", "--python", sys.executable, venv)
            run(uv, "pip", "install", "--python", python, wheel)
        else:
            run(sys.executable, "-m", "venv", venv)
            run(python, "-m", "pip", "install", wheel)

        out = elsewhere / "out"
        print(run(venv / "bin" / "clteach", "run", "--iters", "20", "--out", out, cwd=elsewhere))
        if not any(out.rglob("*.png")):
            sys.exit(f"wheel test: clteach run wrote no picture to --out, only {sorted(out.rglob('*'))}")
        run(venv / "bin" / "clteach", "list", cwd=elsewhere)
        if "usage" not in run(python, "-m", "clteach", "--help", cwd=elsewhere).lower():
            sys.exit("wheel test: python -m clteach --help shows no usage")
        where = run(python, "-c", "import clteach; print(clteach.__file__)", cwd=elsewhere)
        if not Path(where.strip()).is_relative_to(venv):
            sys.exit(f"wheel test: the package that ran is {where}, not the installed one")
    print("wheel test: passed")


if __name__ == "__main__":
    main()
