#!/usr/bin/env bash
# Software: github.com/GMvandeVen/continual-learning at e6d795a, with torch 2.15.0 on a CPU.
#
# Its herding keeps random images. `construct_memory_set` collects the features of a class through a loader that shuffles,
# chooses positions among these features, and then takes the images at the same positions of the data set, which is not
# shuffled. So what it keeps are other images than those that it chose: two seeds keep different exemplars of the same data
# and the same network, and their mean is as far from the class's mean as that of random ones. With a loader that does not
# shuffle, both seeds keep the same, and their mean is nearer, here a third as far.
#
# It matters in the other direction than one would think. On split MNIST (2000 steps per task, 100 images of each class,
# seeds 0 to 2) iCaRL with random exemplars reaches 92.5, 92.3, 92.7 here, the number of the table made with that code, and
# with herded ones 91.9, 91.4, 91.3: what herding picks lies near the mean, and as training data that is less than a sample.
# Found while asking why ours lay one point lower.
# Guessed before running: the same exemplars from every seed.
#
# Output seen:
#   shuffled: the same exemplars from two seeds False, distance to the class's mean 0.18 and 0.18 (random: 0.20)
#   in order: the same exemplars from two seeds True, distance to the class's mean 0.07 and 0.07 (random: 0.20)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "torch==2.15.0" "torchvision==0.29.2" "numpy==2.4.6" "tqdm==4.70.1"
git clone --quiet https://github.com/GMvandeVen/continual-learning "$folder/code"
git -C "$folder/code" checkout --quiet e6d795aa81b9cef742b8de76cb71222d4d1ce00b
cd "$folder/code"
"$folder/env/bin/python" -W ignore - > "$folder/found.txt" <<'PY'
import numpy as np
import torch
from models.cl import memory_buffer
from torch.utils.data import DataLoader, TensorDataset


class Network(memory_buffer.MemoryBuffer):
    """Features are the inputs themselves."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sample_selection = "herding"

    def feature_extractor(self, images):
        return images


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


x = unit(torch.rand(500, 20, generator=torch.Generator().manual_seed(0)))
mean = unit(x.mean(0))
data = TensorDataset(x, torch.zeros(500))


def miss(rows):
    return float((unit(rows).mean(0) - mean).norm())


def kept(seed):
    torch.manual_seed(seed)
    network = Network()
    network.construct_memory_set(data, n=10, label_set=None)
    return torch.from_numpy(np.array(network.memory_sets[0]))


chance = float(np.mean([miss(x[torch.randperm(500, generator=torch.Generator().manual_seed(s))[:10]]) for s in range(50)]))


def report(name):
    a, b = kept(1), kept(2)
    same = torch.equal(a, b)
    print(
        f"{name}: the same exemplars from two seeds {same}, distance to the class's mean {miss(a):.2f} and {miss(b):.2f} "
        f"(random: {chance:.2f})"
    )
    return same, miss(a), miss(b)


same, *misses = report("shuffled")
assert not same and min(misses) > chance / 2, misses
memory_buffer.get_data_loader = lambda dataset, batch_size, cuda: DataLoader(dataset, batch_size=batch_size)
same, *misses = report("in order")
assert same and max(misses) < chance / 2, misses
PY
cat "$folder/found.txt"
