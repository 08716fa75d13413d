import ast
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
    "xla_flags", "typing", "compilation", "files", "distributions", "divergences", "estimators", "bounds", "replicates",
    "statistics", "problems", "inference", "vae", "variance", "comparison", "plotting", "cli",
]  # fmt: skip


def imported_layers(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vae_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae_jax."):
            yield node.module.split(".")[1]


def test_imports_point_down_the_layers():
    package = ROOT / "vae_jax"
    files = [file for file in package.rglob("*.py") if file.parent != package or not file.name.startswith("__")]
    assert len(files) > 20
    for file in files:
        layer = LAYERS.index(file.relative_to(package).parts[0].removesuffix(".py"))
        for imported in imported_layers(file):
            assert LAYERS.index(imported) <= layer, f"{file} imports {imported}"


def test_the_readme_s_python_runs():
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", program], check=True)
