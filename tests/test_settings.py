"""Settings that are declared once: their checks, messages and help."""

import math
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import pytest

from vae_jax.settings import (
    AT_LEAST_1,
    DECAY,
    FINITE_AND_NOT_NEGATIVE,
    FINITE_AND_POSITIVE,
    GIVEN,
    LEFT_OUT,
    POSITIVE_SHARE,
    SEED,
    SHARE,
    AppliesWith,
    OtherThan,
    Range,
    check_settings,
    check_settings_are_used,
    declarations,
    defaults_of,
    documented,
    rules_of,
    values_of,
)


@dataclass(frozen=True)
@documented
class Steps:
    """A part of the settings."""

    num_steps: Annotated[int, AT_LEAST_1] = 100
    """Steps of the
    optimizer."""
    rate: Annotated[float | None, FINITE_AND_POSITIVE] = None
    momentum: Annotated[float, DECAY, AppliesWith(optimizer=("sgd", "nesterov"), num_chains=OtherThan(1))] = 0.0
    """Decay of the velocity."""


@dataclass(frozen=True)
@documented
class Chain:
    """Settings one of which must be given, and some that depend on whether others are."""

    name: str
    """Name of the chain."""
    steps: Steps = field(default_factory=Steps)
    """Steps of the chain."""
    weights: tuple[float, ...] | None = None
    """Given weights."""
    concentration: Annotated[float | None, AppliesWith(weights=LEFT_OUT)] = None
    """Concentration of the prior of the weights."""
    tempered: Annotated[bool, AppliesWith(weights=GIVEN)] = False
    """Raises the weights to a power."""


# Any, so that the tests' own checks of types do not stop wrong values first.
@dataclass(frozen=True)
@documented
class Ascent:
    """The whole."""

    steps: Steps = field(default_factory=Steps)
    optimizer: Annotated[Any, "a note of another kind"] = "adam"
    """Rule of the steps."""
    num_chains: Annotated[int, Range(1, 64)] = 1
    """Chains."""


@dataclass(frozen=True)
class Typed:
    whole: Any = 1
    pair: Any = (1, 2)
    choice: Any = "a"
    text: Any = None


Typed.__annotations__ |= {
    "whole": int, "pair": Annotated[tuple[float, ...], SHARE], "choice": Literal["a", "b"], "text": str | None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "words", "inside", "outside"),
    [
        (AT_LEAST_1, "at least 1", (1, 7), (0, math.nan)),
        (FINITE_AND_NOT_NEGATIVE, "finite and at least 0", (0, 0.5), (-1, math.inf, math.nan)),
        (FINITE_AND_POSITIVE, "finite and above 0", (1e-9,), (0, math.inf)),
        (SHARE, "in [0, 1]", (0, 0.5, 1), (-0.1, 1.1, math.nan)),
        (POSITIVE_SHARE, "in (0, 1]", (0.5, 1), (0, 1.1)),
        (DECAY, "in [0, 1)", (0, 0.9), (1, -0.1)),
        (SEED, "from 0 to 4,294,967,295", (0, 2**32 - 1), (-1, 2**32)),
        (Range(2, open_least=True), "above 2", (3, math.inf), (2,)),
    ],
)
def test_a_range_holds_its_numbers_and_says_which(allowed, words, inside, outside):
    assert str(allowed) == words
    assert all(number in allowed for number in inside)
    assert not any(number in allowed for number in outside)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Ascent(steps=replace(Steps(), num_steps=0)), "num_steps must be at least 1, got 0: choose another number"),
        (Ascent(steps=replace(Steps(), rate=0.0)), "rate must be finite and above 0, got 0.0: choose another number"),
        (Ascent(num_chains=65), "num_chains must be from 1 to 64, got 65: choose another number"),
        (Typed(whole=True), "whole must be int, got True: give a value of that type"),
        (Typed(whole=1.5), "whole must be int, got 1.5: give a value of that type"),
        (Typed(pair=[1.0]), "pair must be tuple[float, ...], got [1.0]: give a value of that type"),
        (Typed(pair=(0.5, "a")), "pair must be tuple[float, ...], got (0.5, 'a'): give a value of that type"),
        (Typed(pair=(0.5, 1.5)), "pair must be in [0, 1], got 1.5: choose another number"),
        (Typed(choice="c"), "choice must be a or b, got 'c': use one of these"),
        (Typed(text=3), "text must be str | None, got 3: give a value of that type"),
    ],
)
def test_a_value_that_is_not_as_declared_is_refused(settings, message):
    pair = {"pair": (0.5, 1)} if isinstance(settings, Typed) and settings.pair == (1, 2) else {}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_settings(replace(settings, **pair))


def test_what_is_as_declared_passes_and_messages_may_name_flags():
    check_settings(Ascent())
    check_settings(Typed(pair=(0.5, 1)))
    with pytest.raises(ValueError, match=r"^--num-chains must be"):
        check_settings(Ascent(num_chains=0), named=lambda name: f"--{name.replace('_', '-')}")


MOVING = Ascent(steps=Steps(momentum=0.9), optimizer="sgd", num_chains=2)


def test_a_setting_that_was_given_and_has_no_effect_is_refused():
    check_settings_are_used(MOVING)
    for name, value, advice in (
        ("optimizer", "adam", "optimizer sgd or nesterov"),
        ("num_chains", 1, "num_chains other than 1"),
    ):
        idle = replace(MOVING, **{name: value})
        message = f"momentum must be left out with {name} {value}, where it has no effect, got 0.9: leave it out, or "
        with pytest.raises(ValueError, match=f"^{message}choose {advice}$"):
            check_settings_are_used(idle)
        # It was there before, so it was not given.
        check_settings_are_used(idle, before=MOVING)
    with pytest.raises(ValueError, match=r"^--momentum must .* --optimizer adam, .*choose --optimizer sgd or nesterov"):
        check_settings_are_used(replace(MOVING, optimizer="adam"), named=lambda name: f"--{name}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": (0.5, 0.5), "concentration": 2.0},
         "concentration must be left out with weights 0.5 0.5, where it has no effect, got 2.0: leave it out, or "
         "leave out weights"),
        ({"tempered": True},
         "tempered must be left out without weights, where it has no effect, got True: leave it out, or add weights"),
    ],
)  # fmt: skip
def test_a_setting_may_need_that_another_is_given_or_left_out(given, message):
    check_settings_are_used(Chain("a", weights=(0.5, 0.5), tempered=True))
    check_settings_are_used(Chain("a", concentration=2.0))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_settings_are_used(Chain("a", **given))


def test_defaults_are_known_of_a_class_that_needs_arguments():
    assert defaults_of(Chain) == {
        "name": MISSING, "num_steps": 100, "rate": None, "momentum": 0.0,
        "weights": None, "concentration": None, "tempered": False,
    }  # fmt: skip
    helps = {each.name: each.metadata["help"] for each in fields(Chain)}
    assert helps["steps"] == "Steps of the chain."
    assert helps["concentration"] == "Concentration of the prior of the weights. Applies without --weights."
    assert helps["tempered"] == "Raises the weights to a power. Applies with --weights."
    assert Chain("a").steps == Steps()


def test_nested_settings_are_one_list_by_name():
    assert values_of(Ascent()) == {
        "num_steps": 100, "rate": None, "momentum": 0.0, "optimizer": "adam", "num_chains": 1,
    }  # fmt: skip
    assert list(declarations(Ascent)) == list(values_of(Ascent()))
    assert rules_of(Ascent, Range) == {
        "num_steps": [AT_LEAST_1], "rate": [FINITE_AND_POSITIVE], "momentum": [DECAY], "num_chains": [Range(1, 64)],
    }  # fmt: skip
    assert list(rules_of(Ascent, AppliesWith)) == ["momentum"]


def test_help_is_the_docstring_and_the_condition():
    metadata = {each.name: each.metadata for each in fields(Steps)}
    assert metadata["num_steps"]["help"] == "Steps of the optimizer."
    condition = "--optimizer sgd or nesterov, and --num-chains other than 1"
    assert metadata["momentum"]["help"] == f"Decay of the velocity. Applies with {condition}."
    assert "help" not in metadata["rate"]
    assert declarations(Ascent)["momentum"].help == "Decay of the velocity."
    assert declarations(Ascent)["rate"].help == ""


def test_the_rules_need_no_jax():
    script = (
        "import sys, vae_jax.settings, vae_jax.vae.config.presets, vae_jax.vae.config.settings_table\n"
        "import vae_jax.vae.config.setting_conflicts\n"
        "assert not {'jax', 'numpy', 'tyro'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
