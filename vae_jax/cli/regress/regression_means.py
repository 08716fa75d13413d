"""The fitted means over single predictors, for the figure of `vae-jax regress`."""

import numpy as np
from matplotlib.figure import Figure

from vae_jax.cli.ascent_results import elbo_ascent
from vae_jax.cli.regress.regression_fit import RegressionFit
from vae_jax.plotting.regress import Coefficients, FittedMean, regression_fit

NUM_DRAWN = 2
"""Predictors over which the figure shows the fitted mean: those of the largest coefficients."""

NUM_POINTS = 201
"""Points of a predictor at which the fitted mean is drawn."""

NUM_MEANS = 2_000
"""Draws of the coefficients that the fitted mean's interval is computed from."""


def regression_figure(result: RegressionFit) -> Figure:
    """The ELBO by step, the coefficients, and the fitted mean over the strongest predictors."""
    strongest = np.argsort(-np.abs(result.moments.mean[1:]))[:NUM_DRAWN]
    coefficients = Coefficients(
        names=result.regression.coefficient_names,
        mean=result.moments.mean,
        std=result.moments.std,
        laplace_mean=result.reference.mean,
        laplace_std=result.reference.std,
    )
    ascent = elbo_ascent(result.fitted, bound=result.reference.log_evidence)
    fitted_means = [_fitted_mean(result, int(predictor)) for predictor in strongest]
    return regression_fit(ascent, coefficients, fitted_means, response=result.response)


def _fitted_mean(result: RegressionFit, predictor: int) -> FittedMean:
    """The mean over one predictor, the others at their means."""
    regression = result.regression
    column = regression.predictors[:, predictor]
    grid = np.linspace(column.min(), column.max(), NUM_POINTS)
    at = np.tile(regression.means, (NUM_POINTS, 1))
    at[:, predictor] = grid
    design = regression.design(at)
    return FittedMean(
        name=regression.names[predictor],
        grid=grid,
        mean=np.exp(design @ result.moments.mean),
        interval=np.quantile(np.exp(design @ result.draws[:NUM_MEANS].T), (0.025, 0.975), axis=1),
        laplace_mean=np.exp(design @ result.reference.mean),
        predictor=column,
        response=regression.response,
    )
