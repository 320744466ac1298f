#!/usr/bin/env bash
# Software: datasets 5.2.0 (Hugging Face), with pyarrow and pandas as it brings them.
#
# What code that takes "anything with len() and [i]" meets there, found while teaching `from_arrays` to read data sets by
# behaviour:
#   1. An IterableDataset answers [0]. It takes the 0 for the name of a column and returns a lazy IterableColumn, without an
#      error, for any key; only iterating over it fails. It has no len(). So "has __getitem__" does not mean "has items",
#      and trying item 0 does not tell either.
#   2. A column of a Dataset is lazy: data["label"] == 1 is one False, not an array of comparisons. No error, no warning.
#   3. In the pandas format item 0 is a DataFrame of one row, where the numpy format and the plain one give a dict.
# Guessed before running: 1 an AttributeError or TypeError, 2 an array, 3 a dict of scalars.
#
# Output seen:
#   iterable: __getitem__ True, __len__ False, [0] is IterableColumn, ['no such column'] is IterableColumn, iterating: KeyError
#   column == 1: False
#   item 0: pandas DataFrame (1, 2), numpy dict, plain dict
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "datasets==5.2.0"
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - > found.txt <<'PY'
from datasets import Dataset

data = Dataset.from_dict({"x": [1, 2, 3], "label": [0, 1, 1]})
stream = data.to_iterable_dataset()
try:
    list(stream["no such column"])
    outcome = "nothing"
except Exception as error:
    outcome = type(error).__name__
print(
    f"iterable: __getitem__ {hasattr(stream, '__getitem__')}, __len__ {hasattr(stream, '__len__')}, "
    f"[0] is {type(stream[0]).__name__}, ['no such column'] is {type(stream['no such column']).__name__}, "
    f"iterating: {outcome}"
)
print(f"column == 1: {data['label'] == 1}")
frame = data.with_format("pandas")[0]
print(
    f"item 0: pandas {type(frame).__name__} {frame.shape}, numpy {type(data.with_format('numpy')[0]).__name__}, "
    f"plain {type(data[0]).__name__}"
)
PY
cat found.txt
diff found.txt - <<'EXPECTED'
iterable: __getitem__ True, __len__ False, [0] is IterableColumn, ['no such column'] is IterableColumn, iterating: KeyError
column == 1: False
item 0: pandas DataFrame (1, 2), numpy dict, plain dict
EXPECTED
echo "as seen"
