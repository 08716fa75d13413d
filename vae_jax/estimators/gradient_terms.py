"""Terms that are zero in value and carry a gradient: how an estimator gives its value a gradient of its own.

They are right for first derivatives only. No derivative passes through such a term's coefficient, so the second
derivative of an estimate lacks what comes from there. DiCE's exp(s - stop_gradient(s)), with s = log q(z), would keep
it where the objective does not depend on q. The objectives of variational inference do, through log q(z), and the
estimators hold q fixed inside them: the part of the gradient that this drops has mean zero, but its derivative has not.

Reference: Foerster, Farquhar, Al-Shedivat, Rocktaeschel, Xing & Whiteson (2018), section 3, for DiCE.
"""

import chex
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def derivative_of(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zero in value, with the derivative of `x`."""
    return x - lax.stop_gradient(x)


def gradient_term(coefficient: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zero in value; its derivative is `coefficient` times that of `x`, element by element, at first order only.

    Args:
        coefficient: held fixed: no derivative passes through it.
        x: the differentiated array, such as a parameter or log q(z) at each sample, of the coefficient's shape.
    """
    # Broadcasting would multiply sums together that belong apart.
    chex.assert_equal_shape([coefficient, x])
    return lax.stop_gradient(coefficient) * derivative_of(x)


def parameter_term(coefficient: Float[Array, "..."], parameter: Float[Array, "..."]) -> Float[Array, "..."]:
    """`gradient_term` of a parameter that may be infinite, as the logit of an impossible outcome is.

    An infinite parameter stays where it is: it gets no gradient, and the term stays zero where infinity less infinity
    would be NaN. An infinite log q(z), of a sample that q cannot have drawn, must go on to surface as NaN.
    """
    return gradient_term(coefficient, jnp.where(jnp.isinf(parameter), 0, parameter))
