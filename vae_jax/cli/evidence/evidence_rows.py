"""A row of the tables that the evidence commands save."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.inference.evidence import EvidenceEstimate


def evidence_row(name: str, estimate: "EvidenceEstimate") -> dict[str, Any]:
    """The fields of an estimate as numbers; None for an acceptance rate of what accepts nothing."""
    return {
        "estimator": name,
        "log_evidence": float(estimate.log_evidence),
        "log_evidence_se": float(estimate.log_evidence_se),
        "effective_sample_size": float(estimate.effective_sample_size),
        "pareto_k": float(estimate.pareto_k),
        "num_samples": int(estimate.num_samples),
        "acceptance_rate": None if estimate.acceptance_rate is None else float(estimate.acceptance_rate),
        "reliable": bool(estimate.reliable),
        "is_lower_bound": name == "importance_weighted_bound",
    }
