"""Predictions beside what came of them: the right rows, the right quantity, and what is not known stays unknown."""

import numpy as np
import pytest

from metacpo.training.predictions import TAGS, beside_actual

WARMUP = {"Adapt/step0/EpRet": "1.5", "Adapt/step0/EpCost": "8", "Meta/NextReturnPredicted": "0.25"}
ROW = {
    "Adapt/step0/EpRet": np.asarray(np.float32(9)),
    "Adapt/step2/EpRet": np.asarray(np.float32(1.75)),
    "Adapt/step2/EpCost": np.asarray(np.float32(7)),
    "Adapt/step2/DiscountedCost": np.asarray(np.float32(3)),
}


def test_the_adapted_policies_of_two_rows_are_compared_whatever_their_number_of_updates():
    found = beside_actual(WARMUP | {"Meta/NextCostPredicted": "-2.5"}, 0, ROW, 2, "episode")
    assert set(found) == set(TAGS)
    assert found["Meta/ReturnPredicted"] == 0.25 and found["Meta/ReturnActual"] == 0.25
    assert found["Meta/CostPredicted"] == -2.5 and found["Meta/CostActual"] == -1.0


def test_the_cost_is_the_limited_one():
    before = {"Adapt/step1/EpCost": "100", "Adapt/step1/DiscountedCost": "3.5"}
    assert beside_actual(before, 1, ROW, 2, "discounted")["Meta/CostActual"] == -0.5


@pytest.mark.parametrize("before", [{}, {tag: "" for tag in WARMUP}])
def test_before_the_first_row_and_in_rows_of_earlier_versions_nothing_is_known(before):
    assert all(np.isnan(value) for value in beside_actual(before, 0, ROW, 2, "episode").values())
