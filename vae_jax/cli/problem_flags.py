"""The problem that a command measures estimators on, from its flags."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vae_jax.cli.csv_numbers import is_number, read_counts
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import flag_of, optional

if TYPE_CHECKING:
    from vae_jax.problems import Problem

POISSON_GAMMA = "poisson-gamma"
GAMMA = "gamma"

POISSON_GAMMA_FIELDS = ("family", "data", "prior_u", "prior_v", "loc", "scale")


PROBLEM_HELP = (
    "poisson-gamma, square, cosine, exponential, gamma, linear-gaussian, shifted-posterior, bernoulli, "
    "bernoulli-vector or categorical."
)
PARAMS_HELP = "Parameters of q, as in loc=0.5 or logits=0,1,-1. By default the problem's own."
COST_HELP = (
    "Parameter of a cost: the target of square, bernoulli and bernoulli-vector, the frequency of cosine, the rate of "
    "exponential."
)
FUNCTION_HELP = "Function whose mean is taken under gamma."
DATA_HELP = "Counts of poisson-gamma, or one CSV file with a count a line. By default the published ten."
LOC_HELP = "loc of poisson-gamma's q(u) and q(v). By default 5 and 1, or what gives the log-normals those means."
SCALE_HELP = (
    "scale of poisson-gamma's q(u) and q(v). By default 0.5 and 0.2, or what gives the log-normals those standard "
    "deviations."
)


@dataclass(frozen=True)
class Target:
    """A problem with exact answers, and where its gradient is taken."""

    problem: Annotated[str, tyro.conf.arg(help=PROBLEM_HELP)] = POISSON_GAMMA
    params: Annotated[tuple[str, ...], optional("[NAME=VALUE ...]", PARAMS_HELP)] = ()
    cost: Annotated[float | None, optional("FLOAT", COST_HELP)] = None
    function: Annotated[Literal["identity", "log", "square"], tyro.conf.arg(help=FUNCTION_HELP)] = "square"
    family: Literal["normal", "log_normal"] = "normal"
    """Family of poisson-gamma's q. The normal is truncated at zero."""
    data: Annotated[tuple[str, ...] | None, optional("[COUNT ...]|FILE.csv", DATA_HELP)] = None
    prior_u: tuple[float, float] = (5.0, 1.0)
    """Concentration and rate of poisson-gamma's Gamma prior of u."""
    prior_v: tuple[float, float] = (4.0, 4.0)
    """Concentration and rate of poisson-gamma's Gamma prior of v."""
    loc: Annotated[tuple[float, float] | None, optional("FLOAT FLOAT", LOC_HELP)] = None
    scale: Annotated[tuple[float, float] | None, optional("FLOAT FLOAT", SCALE_HELP)] = None

    def counts(self) -> tuple[float, ...] | None:
        """The data written out, which needs no JAX.

        Raises:
            Misuse: the data are not counts, or a flag of poisson-gamma goes with another problem.
        """
        if self.problem != POISSON_GAMMA:
            for name in POISSON_GAMMA_FIELDS:
                if getattr(self, name) != getattr(Target, name):
                    raise Misuse(
                        f"{flag_of(name)} applies to {POISSON_GAMMA}, got --problem {self.problem}: use --params"
                    )
        return None if self.data is None else read_counts(self.data)

    def build(self, counts: tuple[float, ...] | None) -> "tuple[Problem, dict[str, Any]]":
        """The problem and the parameters of its q.

        Raises:
            Misuse: an unknown problem or parameter, or a flag of another problem.
            ValueError: the problem refuses its arguments.
        """
        from vae_jax.problems import COSTS, PROBLEMS, GammaPrior, PoissonGamma

        if self.problem not in PROBLEMS:
            raise Misuse(f"--problem must be one of {', '.join(PROBLEMS)}, got {self.problem}: use one of these")
        if self.cost is not None and self.problem not in COSTS:
            raise Misuse(f"--cost applies to {', '.join(COSTS)}, got --problem {self.problem}: use --params")
        if self.function != Target.function and self.problem != GAMMA:
            raise Misuse(f"--function applies to {GAMMA}, got --problem {self.problem}: leave it out")
        if self.problem == POISSON_GAMMA:
            data = {} if counts is None else {"counts": counts}
            problem: Any = PoissonGamma(
                **data, prior_u=GammaPrior(*self.prior_u), prior_v=GammaPrior(*self.prior_v), family=self.family
            )
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
