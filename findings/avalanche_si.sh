#!/usr/bin/env bash
# Software: avalanche-lib 0.6.0, with torch 2.15.0 on a CPU.
#
# Its Synaptic Intelligence does nothing on a CPU: every importance is 0 after training, so its penalty is 0 and it is
# fine-tuning. `extract_weights` keeps `param.detach().cpu().flatten()` as the weights before a step. On a CPU neither
# `cpu()` nor `flatten()` copies, so what is kept is the parameter itself: after the optimiser's step the weights "before"
# are those after, the difference of the two is 0, and so is the path integral. On a GPU `cpu()` copies, and the numbers
# are right. Found while comparing its importances with ours (tests/peers/test_conventions.py, where copying these weights
# makes the two agree).
# Guessed before running: importances above 0 wherever a weight moved.
#
# Output seen:
#   weights moved: True, largest path integral 0.0, largest importance 0.0
#   the same steps with the weights copied: path integrals above 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet uv
"$folder/env/bin/uv" pip install --quiet --python "$folder/env/bin/python" "avalanche-lib==0.6.0" "torch==2.15.0"
cd "$folder"
"$folder/env/bin/python" -W ignore - > log.txt 2>&1 <<'PY' || { cat log.txt; exit 1; }
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.plugins.synaptic_intelligence import SynapticIntelligencePlugin
from avalanche.training.supervised import SynapticIntelligence
from torch import nn


def largest(values):
    return max(float(value.data.abs().max()) for value in values.values())


def train():
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.rand(80, 6), torch.arange(80) % 4)
    data.targets = data.tensors[1].tolist()
    benchmark = nc_benchmark(data, data, n_experiences=2, task_labels=False, seed=0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    start = [p.detach().clone() for p in model.parameters()]
    strategy = SynapticIntelligence(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        si_lambda=1.0,
        train_mb_size=10,
        train_epochs=5,
        device="cpu",
    )
    strategy.train(benchmark.train_stream[0])
    plugin = next(p for p in strategy.plugins if isinstance(p, SynapticIntelligencePlugin))
    moved = any(not torch.equal(p, s) for p, s in zip(model.parameters(), start))
    return moved, largest(plugin.syn_data["trajectory"]), largest(plugin.ewc_data[1])


moved, path, importance = train()
found = [f"weights moved: {moved}, largest path integral {path}, largest importance {importance}"]

original = SynapticIntelligencePlugin.extract_weights


def copying(model, target, excluded):
    original(model, target, excluded)
    for value in target.values():
        value.data = value.data.clone()


SynapticIntelligencePlugin.extract_weights = staticmethod(copying)
_, path, _ = train()
found.append(f"the same steps with the weights copied: path integrals {'above 0' if path > 0 else path}")
with open("found.txt", "w") as file:
    print(*found, sep="\n", file=file)
PY
cat found.txt
diff found.txt - <<'EXPECTED'
weights moved: True, largest path integral 0.0, largest importance 0.0
the same steps with the weights copied: path integrals above 0
EXPECTED
echo "as seen"
