"""Gradient estimators measured on a problem: their variance compared with the exact one, and with each other's."""

from vae_jax.studies.admitted_estimators import admitted
from vae_jax.studies.estimator_comparison import (
    Comparison,
    ComparisonRow,
    VarianceRatio,
    compare,
    comparison_of,
    plan_comparison,
    variance_ratio,
)
from vae_jax.studies.estimator_losses import work_of
from vae_jax.studies.study_plan import StudyPlan, parameter_names, plan_study
from vae_jax.studies.variance_rows import VarianceRow
from vae_jax.studies.variance_study import VarianceStudy, measure, study_variance

__all__ = [
    "Comparison",
    "ComparisonRow",
    "StudyPlan",
    "VarianceRatio",
    "VarianceRow",
    "VarianceStudy",
    "admitted",
    "compare",
    "comparison_of",
    "measure",
    "parameter_names",
    "plan_comparison",
    "plan_study",
    "study_variance",
    "variance_ratio",
    "work_of",
]
