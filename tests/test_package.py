import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vae_jax

ROOT = Path(__file__).parents[1]


def test_importing_the_package_imports_no_jax():
    script = "import sys, vae_jax; assert 'jax' not in sys.modules; vae_jax.elbo; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", vae_jax.__all__)
def test_public_names_exist_and_are_documented(name):
    thing = getattr(vae_jax, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
        positional = [p for p in inspect.signature(thing).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        assert len(positional) <= 4


def readme_blocks():
    quickstart = (ROOT / "README.md").read_text().split("## Quickstart")[1]
    return re.findall(r"```\w*\n(.*?)```", quickstart, flags=re.DOTALL)


def test_the_quickstart_opens_with_two_command_lines():
    for block in readme_blocks()[:2]:
        assert len(block.strip().splitlines()) == 1
    assert "vae-jax variance" in readme_blocks()[0]
    assert "pytest" in readme_blocks()[1]


LAYERS = [
    "typing", "distributions", "divergences", "estimators", "bounds", "replicates", "statistics", "problems",
    "variance", "plotting", "cli",
]  # fmt: skip


def test_imports_point_down_the_layers():
    for file in (ROOT / "vae_jax").rglob("*.py"):
        layer = file.relative_to(ROOT / "vae_jax").parts[0].removesuffix(".py")
        if layer not in LAYERS:
            continue
        for imported in re.findall(r"^\s*from vae_jax(?:\.(\w+))?", file.read_text(), flags=re.MULTILINE):
            assert not imported or LAYERS.index(imported) <= LAYERS.index(layer), f"{file} imports {imported}"
