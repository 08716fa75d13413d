"""The speed, memory and targets of gradient estimators on the Poisson-Gamma problem, compared with peers."""
