#!/usr/bin/env bash
# Software: torch 2.15.0 on a CPU.
#
# One gradient of 2e19, a number that float32 holds well, and then 2000 gradients of 1: what torch's optimisers make of it has
# little to do with their names. The square of that gradient is more than float32 holds, but Adam multiplies by 1 - beta2 before
# it squares, stays finite and goes on. NAdam skips the large step and goes on. RMSprop and Adagrad never move that weight again,
# without a word: their mean or sum of squares is infinite for good. RAdam, which begins without dividing, jumps by 2e18.
# Adafactor makes NaN of the weight. None of them says anything.
#
# It matters where a penalty grows by itself, as the importance of synaptic intelligence does for a large strength: whether such
# a run freezes, jumps, ends in NaN or looks healthy depends on the optimiser, and on where in its formula a factor stands.
# Guessed before running: all that divide by a root of squares stand still from then on.
#
# Output seen:
#   Adam: moves on
#   NAdam: moves on
#   RMSprop: stands still
#   Adagrad: stands still
#   RAdam: jumped
#   Adafactor: nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "torch==2.15.0" "numpy==2.4.6"
"$folder/env/bin/python" -W ignore - > "$folder/found.txt" <<'PY'
import math

import torch

for name in ("Adam", "NAdam", "RMSprop", "Adagrad", "RAdam", "Adafactor"):
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    optimiser = getattr(torch.optim, name)([weight], lr=0.1)
    weight.grad = torch.full_like(weight, 2e19)
    optimiser.step()
    after = float(weight.detach()[0, 0])
    for _ in range(2000):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    end = float(weight.detach()[0, 0])
    if math.isnan(end):
        print(f"{name}: nan")
    elif abs(after) > 1e6:
        print(f"{name}: jumped")
    else:
        print(f"{name}: {'stands still' if end == after else 'moves on'}")
PY
cat "$folder/found.txt"
diff <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/found.txt"
