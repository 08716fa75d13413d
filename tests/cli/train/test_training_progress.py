import re

import pytest

from vae_jax.cli.train.training_progress import present_terms, shown_training
from vae_jax.vae.runs.training_metrics import Report

ROW = {
    "train_elbo": [-103.0, -105.0], "train_reconstruction": -80.0, "train_kl": 24.0, "validation_elbo": -104.5,
    "validation_elbo_se": 0.5, "active_units": [41, 43], "images_per_second": 402_144.0,
}  # fmt: skip


def report(*, share=0.5, images_per_second=0.0, row=None):
    return Report(2, 10, share, -104.123, -80.123, 24.0, images_per_second, row)


def told(capsys):
    """Standard error, without the terminal's control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)


def test_what_is_not_known_is_not_shown():
    terms = "ELBO -104.12  reconstruction -80.12  KL 24.00"
    assert present_terms(report(), None) == terms
    assert present_terms(report(images_per_second=1234.4), 42.0) == f"{terms}  42 active  1,234 images/s"


def test_large_terms_fit_80_columns():
    large = Report(3280, 3280, 1.0, -98_765.4, -98_765.4, 999.99, 9_402_144.0, None)
    assert len(present_terms(large, 200.0)) <= 80
    assert "ELBO -98,765  " in present_terms(large, 200.0)


@pytest.fixture
def terminal(monkeypatch):
    """One of 80 columns, which is what rich reads."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_the_terms_over_a_bar(capsys):
    with shown_training(10, done=1) as show:
        show(report())
        show(report(share=1.0, images_per_second=402_144.0, row=ROW))
    shown = told(capsys)
    assert "compiling" in shown
    assert "epoch 2 of 10" in shown
    assert "KL 24.00  42 active  402,144 images/s" in shown
    assert " 0 images/s" not in shown
    assert max(len(line) for line in re.split(r"[\r\n]", shown)) <= 80


def test_without_a_terminal_there_are_plain_lines(capsys):
    with shown_training(10, done=1) as show:
        show(report())
        show(report(row=ROW))
        show(report(row=ROW | {"images_per_second": 0.0}))
    assert told(capsys).splitlines() == [
        " epoch     train ELBO  reconstruction      KL  validation ELBO  active  images/s",
        "     2        -104.00          -80.00   24.00   -104.50 ± 0.50      42   402,144",
        "     2        -104.00          -80.00   24.00   -104.50 ± 0.50      42         -",
    ]
