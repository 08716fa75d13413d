"""The problem that a command measures estimators on, from its flags."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vae_jax.cli.csv_counts import read_counts
from vae_jax.cli.misuse import Misuse

if TYPE_CHECKING:
    from vae_jax.problems import Problem

POISSON_GAMMA = "poisson-gamma"
GAMMA = "gamma"


@dataclass(frozen=True)
class Target:
    """A problem with exact answers, and where its gradient is taken."""

    problem: str = POISSON_GAMMA
    """poisson-gamma, square, cosine, exponential, gamma, linear-gaussian, shifted-posterior, bernoulli,
    bernoulli-vector or categorical."""
    params: tuple[str, ...] = ()
    """Parameters of q as NAME=VALUE, as in loc=0.5 or logits=0,1,-1. By default the problem's own."""
    cost: float | None = None
    """What a cost depends on: the target of square, bernoulli and bernoulli-vector, the frequency of cosine, the rate
    of exponential."""
    function: str | None = None
    """Of a gamma latent, whose mean is taken: identity, log or square (square)."""
    family: str = "normal"
    """Of poisson-gamma's q: normal (truncated at zero) or log_normal."""
    data: tuple[str, ...] | None = None
    """Counts of poisson-gamma, or one CSV file with a count a line. By default the published ten."""
    prior_u: tuple[float, float] = (5.0, 1.0)
    """Concentration and rate of poisson-gamma's Gamma prior of u."""
    prior_v: tuple[float, float] = (4.0, 4.0)
    """Concentration and rate of its Gamma prior of v."""
    loc: tuple[float, float] | None = None
    """loc of its q(u) and q(v). By default 5 and 1, or what gives the log-normals those means."""
    scale: tuple[float, float] | None = None
    """scale of its q(u) and q(v). By default 0.5 and 0.2, or what gives the log-normals those standard deviations."""

    def counts(self) -> tuple[float, ...] | None:
        """The data written out, which needs no JAX.

        Raises:
            Misuse: they are no counts, or the problem takes none.
        """
        if self.problem != POISSON_GAMMA:
            defaults = asdict(Target())
            given = [name for name, value in asdict(self).items() if value != defaults[name]]
            for name in sorted(set(given) - {"problem", "params", "cost", "function"}):
                flag = name.replace("_", "-")
                raise Misuse(
                    f"--{flag} must be left out of {self.problem}, got it: it is of poisson-gamma; use --params"
                )
        elif self.cost is not None:
            raise Misuse("--cost must be left out of poisson-gamma, got it: it is of the costs; use --params")
        return None if self.data is None else read_counts(self.data)

    def build(self, counts: tuple[float, ...] | None) -> "tuple[Problem, dict[str, Any]]":
        """The problem and the parameters of its q.

        Raises:
            Misuse: an unknown problem or parameter.
            ValueError: what the problem itself refuses.
        """
        from vae_jax.problems import COSTS, PROBLEMS, GammaPrior, PoissonGamma

        if self.problem not in PROBLEMS:
            raise Misuse(f"--problem must be one of {', '.join(PROBLEMS)}, got {self.problem}: choose of these")
        if self.problem == POISSON_GAMMA:
            data = {} if counts is None else {"counts": counts}
            problem: Any = PoissonGamma(
                **data, prior_u=GammaPrior(*self.prior_u), prior_v=GammaPrior(*self.prior_v), family=self.family
            )
        elif self.function is not None:
            if self.problem != GAMMA:
                raise Misuse(f"--function must be left out of {self.problem}, got {self.function}: it is of {GAMMA}")
            problem = PROBLEMS[GAMMA](self.function)
        elif self.cost is None:
            problem = PROBLEMS[self.problem]()
        elif self.problem in COSTS:
            problem = PROBLEMS[self.problem](**{COSTS[self.problem]: self.cost})
        else:
            raise Misuse(f"--cost must be left out of {self.problem}, got {self.cost}: use --params")
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
                raise Misuse(f"--params must give one number here, got {text!r}: leave out all but one")
            params[name] = tuple(numbers) if isinstance(params[name], tuple) else numbers[0]
        return params


def _numbers(text: str, values: str) -> list[float]:
    try:
        return [float(value) for value in values.split(",")]
    except ValueError:
        raise Misuse(f"--params must be NAME=VALUE with numbers, got {text!r}: write them as in loc=0.5") from None


def as_settings(target: Target, problem: "Problem", params: dict[str, Any]) -> dict[str, Any]:
    """The flags that give the same problem again, the data and the parameters written out."""
    settings = asdict(target)
    if target.problem == POISSON_GAMMA:
        settings["data"] = [str(count) for count in getattr(problem, "counts", ())]
    settings["loc"] = settings["scale"] = None
    settings["params"] = [
        f"{name}={','.join(f'{number!r}' for number in (value if isinstance(value, tuple) else (value,)))}"
        for name, value in params.items()
    ]
    defaults = asdict(Target())
    keep = ("problem", "params", "data", "prior_u", "prior_v", "family") if target.problem == POISSON_GAMMA else ()
    return {name: value for name, value in settings.items() if name in keep or value != defaults[name]}
