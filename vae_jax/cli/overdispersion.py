"""When counts vary too much for a Poisson."""

OVERDISPERSED = 1.5
"""The variance of counts over their mean above which a Poisson is too narrow to be left unremarked."""
