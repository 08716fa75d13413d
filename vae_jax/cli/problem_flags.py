"""The problem that a command measures estimators on, from its flags."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vae_jax.cli.csv_numbers import is_number
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import optional
from vae_jax.cli.poisson_gamma_flags import IS_CHOSEN, POISSON_GAMMA, PoissonGammaFlags
from vae_jax.settings import FINITE_AND_POSITIVE, AppliesWith, defaults_of, documented, values_of

if TYPE_CHECKING:
    from vae_jax.problems import Problem

GAMMA = "gamma"

WITH_COST = ("square", "cosine", "exponential", "bernoulli", "bernoulli-vector")
"""The keys of `vae_jax.problems.COSTS`, which imports JAX."""


@dataclass(frozen=True)
@documented
class ProblemFlags:
    """A problem with exact answers, and where its gradient is taken."""

    problem: str = POISSON_GAMMA
    """poisson-gamma, square, cosine, exponential, gamma, linear-gaussian, shifted-posterior, bernoulli,
    bernoulli-vector or categorical."""
    params: Annotated[tuple[str, ...], optional("[NAME=VALUE ...]")] = ()
    """Parameters of q, as in loc=0.5 or logits=0,1,-1. By default the problem's own."""
    cost: Annotated[float | None, AppliesWith(problem=WITH_COST), optional("FLOAT")] = None
    """Parameter of a cost: the target of square, bernoulli and bernoulli-vector, the frequency of cosine, the rate of
    exponential."""
    function: Annotated[Literal["identity", "log", "square"], AppliesWith(problem=(GAMMA,))] = "square"
    """The f of E[f(z)]."""
    poisson_gamma: PoissonGammaFlags = field(default_factory=PoissonGammaFlags)
    """Data and priors of poisson-gamma."""
    family: Annotated[Literal["normal", "log_normal", "location_scale_normal"], IS_CHOSEN] = "normal"
    """Family of q. The normals are truncated at zero; location_scale_normal has the biased path that ignores it."""
    loc: Annotated[tuple[float, float] | None, IS_CHOSEN, optional("FLOAT FLOAT")] = None
    """loc of q(u) and q(v). By default 5 and 1; for log_normal, the values with those means."""
    scale: Annotated[tuple[float, float] | None, FINITE_AND_POSITIVE, IS_CHOSEN, optional("FLOAT FLOAT")] = None
    """scale of q(u) and q(v). By default 0.5 and 0.2; for log_normal, the values with those standard deviations."""

    def build(self, counts: tuple[float, ...] | None) -> "tuple[Problem, dict[str, Any]]":
        """The problem and the parameters of its q.

        Raises:
            Misuse: an unknown problem or parameter.
            ValueError: the problem refuses its arguments.
        """
        from vae_jax.problems import COSTS, PROBLEMS

        if self.problem not in PROBLEMS:
            raise Misuse(f"--problem must be one of {', '.join(PROBLEMS)}, got {self.problem}: use one of these")
        if self.problem == POISSON_GAMMA:
            problem: Any = self.poisson_gamma.build(counts, family=self.family)
        elif self.problem == GAMMA:
            problem = PROBLEMS[GAMMA](self.function)
        elif self.cost is not None:
            problem = PROBLEMS[self.problem](**{COSTS[self.problem]: self.cost})
        else:
            problem = PROBLEMS[self.problem]()
        return problem, self._params(problem)

    def _params(self, problem: "Problem") -> dict[str, Any]:
        params = dict(problem.default_params)
        for kind, given in (("loc", self.loc), ("scale", self.scale)):
            if given is not None:
                params |= {f"{kind}_u": given[0], f"{kind}_v": given[1]}
        for text in self.params:
            name, _, values = text.partition("=")
            if name not in params:
                raise Misuse(f"--params must be of {', '.join(params)}, got {text!r}: write NAME=VALUE")
            numbers = _numbers(text, values)
            if not isinstance(params[name], tuple) and len(numbers) > 1:
                raise Misuse(f"--params must give one number here, got {text!r}: keep one")
            params[name] = tuple(numbers) if isinstance(params[name], tuple) else numbers[0]
        return params


def _numbers(text: str, values: str) -> list[float]:
    numbers = values.split(",")
    if not all(map(is_number, numbers)):
        raise Misuse(f"--params must be NAME=VALUE with numbers, got {text!r}: write them as in loc=0.5")
    return [float(number) for number in numbers]


def as_settings(flags: ProblemFlags, problem: "Problem", params: dict[str, Any]) -> dict[str, Any]:
    """The flags that give the same problem again, the data and the parameters written out."""
    settings = values_of(flags) | {"loc": None, "scale": None}
    if flags.problem == POISSON_GAMMA:
        settings["data"] = [str(count) for count in getattr(problem, "counts", ())]
    settings["params"] = [
        f"{name}={','.join(f'{number!r}' for number in (value if isinstance(value, tuple) else (value,)))}"
        for name, value in params.items()
    ]
    defaults = defaults_of(ProblemFlags)
    keep = ("problem", "params", "data", "prior_u", "prior_v", "family") if flags.problem == POISSON_GAMMA else ()
    return {name: value for name, value in settings.items() if name in keep or value != defaults[name]}
