"""Gradient estimators measured on a problem: their variance compared with the exact one, and with each other's."""

from vae_jax.studies.estimator_comparison import Comparison, ComparisonRow, VarianceRatio, compare, variance_ratio
from vae_jax.studies.variance_study import VarianceRow, VarianceStudy, admitted, check_study, study_variance

__all__ = [
    "Comparison",
    "ComparisonRow",
    "VarianceRatio",
    "VarianceRow",
    "VarianceStudy",
    "admitted",
    "check_study",
    "compare",
    "study_variance",
    "variance_ratio",
]
