"""The outline of a data set is that of the data."""

from __future__ import annotations

import pytest

from clteach import data
from clteach.data.streams import make_stream
from clteach.errors import ConfigError


def test_outlines_are_those_of_the_data() -> None:
    stand_in, train = data.outline("digits")
    digits = data.load("digits")
    assert (stand_in.shape, stand_in.classes, train) == (digits.shape, digits.classes, len(digits.x_train))
    for scenario in ("task", "domain", "class"):
        ours = make_stream("split-digits", scenario, stand_in, tasks=5).spec
        assert ours == make_stream("split-digits", scenario, digits, tasks=5).spec
    with pytest.raises(ConfigError, match="unknown data set"):
        data.outline("nothing")


@pytest.mark.mnist
def test_the_outline_of_mnist() -> None:
    stand_in, train = data.outline("mnist")
    mnist = data.load("mnist", download=False)
    assert (stand_in.shape, stand_in.n_classes, train) == (mnist.shape, mnist.n_classes, len(mnist.x_train))
