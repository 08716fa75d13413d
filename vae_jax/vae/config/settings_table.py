"""Settings as documentation shows them. Plain data: nothing here imports JAX."""

from typing import Any, Literal, get_origin

from vae_jax.markdown_tables import markdown_table
from vae_jax.settings import AppliesWith, Declaration, Range, declarations, described_type, values_of

COLUMNS = ("Setting", "Default", "Range", "Applies with", "Help")


def settings_table(settings: type) -> str:
    """Makes a table in Markdown of all settings of a dataclass, nested ones included.

    Args:
        settings: a dataclass that can be made without arguments, such as `Experiment`.

    Returns:
        The table, with a row for each setting.

    Example:
        >>> from vae_jax.vae import TrainingConfig, settings_table
        >>> for line in settings_table(TrainingConfig).splitlines()[:3]:
        ...     print(line)
        | Setting | Default | Range | Applies with | Help |
        | --- | --- | --- | --- | --- |
        | `num_epochs` | `100` | at least 1 |  | Passes over the training images. |
    """
    defaults = values_of(settings())
    rows = [_row(name, defaults[name], declared) for name, declared in declarations(settings).items()]
    return markdown_table(COLUMNS, rows)


def _row(name: str, default: Any, declared: Declaration) -> tuple[str, ...]:
    choices = [described_type(declared.type)] if get_origin(declared.type) is Literal else []
    ranges = [str(rule) for rule in declared.rules if isinstance(rule, Range)]
    conditions = [str(rule) for rule in declared.rules if isinstance(rule, AppliesWith)]
    words = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"`{name}`", f"`{words}`", ", ".join(ranges + choices), ", ".join(conditions), declared.help
