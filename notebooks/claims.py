"""Which claims of the chapters depend on the seed? ``make claims``.

A chapter says what its text relies on in lines that end in "True" or "False", and nbval holds it to them. But a claim
that is true for one seed only is luck, and sooner or later false on another machine, whose rounding differs. Here every
chapter is executed again with other random numbers throughout, and each claim that came out differently is named. To
mend one, say less or measure more; another seed is no cure.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

OTHER_NUMBERS = """
import sys, clteach.seeding

def use_other_numbers(old, word):
    def derive(seed, *path):
        return old(seed, *path, word)

    for module in list(sys.modules.values()):
        if getattr(module, "derive", None) is old:
            module.derive = derive

use_other_numbers(clteach.seeding.derive, "round {}")
"""
"""Every random number in the package comes from an address; this adds a word to all of them."""


def claims(notebook: NotebookNode) -> dict[str, bool]:
    """{what is claimed: did it hold?}, from the printed lines that end in True or False, without the exercises."""
    cells = [cell for cell in notebook.cells if not cell.get("id", "").startswith("exercise-")]
    printed = [o.text for cell in cells for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    lines = re.findall(r"^(.*\S)\s+(True|False)$", "\n".join(printed), flags=re.MULTILINE)
    return {claim: value == "True" for claim, value in lines}


def with_other_numbers(path: Path, round_: int) -> dict[str, bool]:
    """The claims of a chapter, executed with the random numbers of this round; one that failed to be made is missing."""
    notebook = nbformat.read(path, as_version=4)
    first = next(i for i, cell in enumerate(notebook.cells) if "import clteach" in cell.source)
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(OTHER_NUMBERS.format(round_)))
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        allow_errors=True,
        resources=folder,
    ).execute()
    return claims(notebook)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all chapters")
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="how often, each time with other random numbers",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("CLTEACH_SIZE", "quick")
    differ = 0
    for path in arguments.notebooks or sorted(Path(__file__).parent.glob("*.ipynb")):
        committed = claims(nbformat.read(path, as_version=4))
        rounds = [with_other_numbers(path.resolve(), k) for k in range(1, arguments.rounds + 1)]
        kept = {claim: sum(each.get(claim) == value for each in rounds) for claim, value in committed.items()}
        print(f"{path.name}: {len(kept)} claims", flush=True)
        for claim, times in kept.items():
            if times < len(rounds):
                differ += 1
                print(
                    f"  {claim} {committed[claim]} only in {times} of {len(rounds)} rounds",
                    flush=True,
                )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
