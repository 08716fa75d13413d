import jax
import numpy as np
import pytest

from benchmarks.variance.variance_speed_targets import variance_targets
from benchmarks.variance.variance_work import COMPARED, Peer, default_work, z_scores
from vae_jax import gradient_statistics

NOTHING = {"estimators": [], "peers": [], "numpyro_log_joint": [], "million": {"passes": []}, "memory": []}


def test_what_was_not_measured_is_not_met():
    assert {row["met"] for row in variance_targets(NOTHING)} == {None}


def test_the_worst_of_several_measurements_is_compared_with_the_limit():
    slow = NOTHING | {"estimators": [{"over_floor": 1.5}, {"over_floor": 2.5}]}
    target = variance_targets(slow)[0]
    assert (target["worst"], target["met"]) == (2.5, False)


def test_memory_grows_between_the_fewest_and_the_most_replicates():
    case = {"estimator": "pathwise", "num_samples": 5, "block_size": None, "peak_device_bytes": None}
    rows = [case | {"num_replicates": r, "peak_resident_bytes_above_imports": b} for r, b in ((100, 10), (10_000, 12))]
    assert variance_targets(NOTHING | {"memory": rows})[-1]["worst"] == pytest.approx(1.2)


def test_a_peer_s_mean_is_compared_in_standard_errors_of_the_difference():
    means = {"elbo": 0.0, "loc_u": 1.0, "scale_u": -2.0}

    def loss(params, key):
        noise = jax.random.normal(key, (3,))
        return noise[0] + sum(
            params[name] * (means[name] + noise[number]) for number, name in enumerate(("loc_u", "scale_u"), 1)
        )

    ours = gradient_statistics(loss, {"loc_u": 0.0, "scale_u": 0.0}, jax.random.key(0), 10_000)
    generator = np.random.default_rng(0)
    theirs = {name: generator.normal(means[name], 1, 40_000) for name in COMPARED}
    assert all(abs(score) < 5 for score in z_scores(theirs, ours).values())
    assert z_scores(theirs | {"loc_u": theirs["loc_u"] + 0.5}, ours)["loc_u"] > 20
    assert z_scores(theirs | {"elbo": np.append(theirs["elbo"], np.nan)}, ours)["elbo"] is None


def test_a_peer_that_does_a_part_of_the_work_says_which():
    work = default_work(num_samples=100, num_replicates=1_000)
    peer = Peer("theirs", "truncated/score_function", dict, 100, 10, {})
    assert peer.share(work) == 0.01
    assert peer.estimator == "score_function"
