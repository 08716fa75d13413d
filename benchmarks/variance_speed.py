"""How fast the statistics of gradient estimators are, over a floor and beside other libraries.

    python benchmarks/variance_speed.py --out benchmarks/results

Everything runs in one process, after a warm-up, the contenders interleaved: each round times every one of them once.
The floor is the fastest way found to draw and sum as many standard normals with the same generator. A peer that is not
installed is reported and left out; `pip install -e '.[peers]'` installs them. Memory is measured in a process a case.
"""

import argparse
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.table import Table

from peers_jax import numpyro_peers, tfp_peers
from peers_memory import memory_cases, print_peak
from peers_torch import torch_peers
from peers_work import AGREEMENT, MissingPeer, Peer, Work, fastest, interleaved, z_scores
