import math

import pytest

from vae_jax.cli.number_formats import short_duration, with_error, with_std


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (-12.3, 4.5, "-12.3 ± 4.5"),
        (1234.5, 67.8, "1234 ± 68"),
        (0.5, 0.0, "0.500000 ± 0.000000"),
        (1e-12, 1e-13, "1e-12 ± 1e-13"),
        (2.0, math.nan, "2 ± ?"),
        (2.0, math.inf, "2 ± inf"),
        (math.nan, math.nan, "nan ± nan"),
    ],
)
def test_a_value_has_the_digits_that_its_error_leaves(value, error, shown):
    assert with_error(value, error) == shown


def test_a_mean_has_the_digits_that_its_std_leaves():
    assert with_std(3.38493, 0.00921) == "3.3849, 0.0092"


def test_short_times_are_in_their_unit():
    assert (short_duration(1.234e-5), short_duration(0.0123)) == ("12.3 us", "12.3 ms")
