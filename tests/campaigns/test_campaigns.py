"""Ten trials of each campaign; they run in full as scripts."""

import pytest

from campaigns import bad_inputs, corruptions, interrupts, kills

pytestmark = pytest.mark.slow


def test_corruptions_are_noticed():
    for found in corruptions.campaign(10, seed=1):
        assert found.crash is None, found
        assert found.is_noticed, found
        assert not any("\n" in line for line in found.lines)


def test_interrupts_are_answered():
    answers = interrupts.campaign(10, seed=1)
    assert len(answers) == 10
    assert [answer for answer in answers if not answer.is_right] == []


def test_kills_change_nothing():
    assert kills.campaign(10, seed=1) == (10, [])


def test_bad_inputs_are_refused():
    assert [outcome for outcome in bad_inputs.campaign(10, seed=1) if not outcome.is_right] == []
