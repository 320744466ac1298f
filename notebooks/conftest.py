"""Make nbval execute cells as a notebook does: with history, so that a trailing ``;`` suppresses the output."""

from __future__ import annotations

from nbval.kernel import RunningKernel


def execute_cell_input(self: RunningKernel, cell_input: str, allow_stdin: bool | None = None) -> str:
    return str(
        self.kc.execute(
            cell_input, silent=False, store_history=True, allow_stdin=bool(allow_stdin), stop_on_error=False
        )
    )


RunningKernel.execute_cell_input = execute_cell_input
