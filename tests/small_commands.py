"""Arguments of every command for a second's work, on a table data.csv and a trained model in the folder run."""

DRAWS = ("--num-samples", 40, "--num-bound-samples", 5, "--num-chains", 4, "--num-temperatures", 3)
FIT = ("--num-steps", 40, "--window", 20, "--num-restarts", 1, "--num-samples", 4)

ARGUMENTS = {
    "variance": ("--estimators", "pathwise", "--num-samples", 2, "--num-replicates", 20),
    "compare": ("pathwise", "score_function", "--num-samples", 2, "--num-replicates", 20),
    "laplace": ("--factorial", 5),
    "cavi": ("--simulate", 40, "--num-components", 2, "--num-restarts", 2),
    "evidence": ("--num-latents", 1, *DRAWS),
    "fit": FIT,
    "regress": ("data.csv", "--response", "count", "--predictors", "x", *FIT),
    "train": ("--data", "digits", "--hidden-sizes", 4, "--latent-size", 2, "--batch-size", 500, "--num-epochs", 1),
    "evaluate": ("run", "--num-importance-samples", 5),
    "sample": ("run", "--num-images", 2),
    "reconstruct": ("run", "--num-images", 2),
    "encode": ("run",),
    "plot": ("run",),
    "gradient-noise": ("run", "--num-replicates", 20),
    "image-evidence": ("run", "--num-images", 1, *DRAWS),
}
