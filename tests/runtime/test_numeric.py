"""What is one number, what is one truth, and what is neither."""

from fractions import Fraction

import numpy as np
import pytest

from metacpo.runtime.numeric import one_number, one_truth, real_array, shown


@pytest.mark.parametrize(
    "value", [3, 3.0, Fraction(3), np.int8(3), np.float16(3), np.array(3), np.array(3.0)], ids=repr
)
def test_every_kind_of_number_is_one(value):
    number = one_number(value)
    assert type(number) is float and number == 3
    assert one_truth(value) is None


@pytest.mark.parametrize("value", ["1", b"1", None, [3.0], np.array([3.0]), 3 + 0j, np.complex64(3), np.str_("3"), {}])
def test_what_is_neither_is_not_made_one(value):
    assert one_number(value) is None and one_truth(value) is None


@pytest.mark.parametrize("value", [True, np.True_, np.array(True)], ids=repr)
def test_a_truth_is_no_number(value):
    assert one_truth(value) is True and one_number(value) is None


def test_a_number_that_no_float_holds_is_an_error():
    with pytest.raises(OverflowError):
        one_number(10**400)


def test_arrays_of_real_numbers():
    for real in ([1, 2.5], (True, 3), np.ones((2, 2), np.float32)):
        np.testing.assert_array_equal(real_array(real), real)
    for other in (["1", "2"], [1 + 0j], [None, 1.0], None, [10**400]):
        assert real_array(other) is None


def test_what_is_shown_is_one_short_line():
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert shown("x" * 500) == "'" + "x" * 79 + " …"
    assert shown(10**5000) == "a int"
