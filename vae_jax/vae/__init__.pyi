from .config import Experiment as Experiment
from .presets import PRESETS as PRESETS
