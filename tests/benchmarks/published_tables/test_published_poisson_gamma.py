import jax
import numpy as np
import pytest

from benchmarks.published_tables import published_poisson_gamma as published

SIZES = (5, 10, 100, 1000, 10_000)


def test_every_published_figure_is_read_once():
    rows = published.read_published()
    expected = {(table, size) for table in published.AS_PUBLISHED for size in SIZES}
    # The published table of the bound ends at 1,000 samples.
    assert {(table, size) for table, size, _ in rows} == expected - {("elbo", 10_000)}
    for table, _, figures in rows:
        assert len(figures) == (2 if table == "elbo" else len(published.GRADIENT_COLUMNS))


@pytest.mark.slow
def test_a_row_agrees_with_the_formula_that_was_used_and_a_wrong_figure_does_not():
    ((table, size, figures),) = [row for row in published.read_published() if row[:2] == ("elbo", 5)]
    cells = list(published.compared(table, size, figures, num_tables=0))
    assert [cell.parameter for cell in cells] == ["elbo", "elbo"]
    assert all(cell.agrees for cell in cells)
    assert cells[0].right == pytest.approx(cells[0].exact, abs=0.05)
    wrong = [(heading, figure + 1) for heading, figure in figures]
    assert not any(cell.agrees for cell in published.compared(table, size, wrong, num_tables=0))


@pytest.mark.slow
def test_the_published_path_has_draws_of_its_own():
    """E[d log p/dz] E[noise] takes the place of E[d log p/dz noise], so that the mean is another."""
    keys = jax.random.split(jax.random.key(0), 2_000)
    used = jax.vmap(lambda key: published.pathwise_with_independent_draws(key, 10))(keys)
    right = jax.vmap(lambda key: published.right_repeat("pathwise")(key, 10))(keys)
    errors = np.hypot(*(np.asarray(each["scale_u"]).std() / np.sqrt(len(keys)) for each in (used, right)))
    assert abs(used["scale_u"].mean() - right["scale_u"].mean()) > 10 * errors


def test_few_recomputed_tables_are_compared_by_their_range():
    few, many = np.arange(100.0), np.arange(10_000.0)
    assert published.central_part(few) == (0.0, 99.0)
    low, high = published.central_part(many)
    assert 0 < low < 20
    assert 9_980 < high < 9_999
