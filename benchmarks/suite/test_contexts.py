"""One exact hypergradient of a mixture: C contexts, of which nothing but the leader's target differs."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.reference import hypergradient
from bilevelrl.reference.contexts import Mixture
from bilevelrl.tasks import four_rooms


@pytest.mark.benchmark(group="contexts")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_contexts(benchmark: Any, count: int) -> None:
    targets = [(8, 4), (9, 2), (3, 5), (10, 6)][:count]
    contexts = [four_rooms(temperature=0.003, target=target) for target in targets]
    mixture, theta = Mixture(contexts=contexts, weights=np.full(count, 1.0 / count)), np.zeros(105)
    benchmark.pedantic(hypergradient, (mixture, theta), {"bound": False}, rounds=20, warmup_rounds=2)
