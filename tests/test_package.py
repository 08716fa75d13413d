import ast
import inspect
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vae_jax

ROOT = Path(__file__).parents[1]

TOPS = ("vae_jax", "benchmarks")

PAIRS = {"evidence.py", "fit.py", "gradient_noise.py", "image_evidence.py", "laplace.py", "regress.py"}
"""File names that stand in several folders because they show one thing: what it is, its command and its figure."""


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


def public_functions(module=vae_jax):
    """Functions that a user reaches from the package by names that it exports, each with its place."""
    found = {}
    for name in getattr(module, "__all__", vars(module)):
        thing = getattr(module, name)
        if inspect.ismodule(thing) and thing.__name__.startswith(module.__name__ + "."):
            found |= public_functions(thing)
        elif inspect.isroutine(inspect.unwrap(thing)) and name[0] != "_" and thing.__module__.startswith("vae_jax."):
            found[f"{thing.__module__}.{thing.__name__}"] = thing
    return found


def test_every_public_function_has_an_example():
    functions = public_functions()
    assert len(functions) > 150
    assert [place for place, function in functions.items() if ">>> " not in inspect.getdoc(function)] == []


def readme_blocks():
    quickstart = (ROOT / "README.md").read_text().split("## Quickstart")[1]
    return re.findall(r"```\w*\n(.*?)```", quickstart, flags=re.DOTALL)


def test_the_quickstart_opens_with_two_command_lines():
    for block in readme_blocks()[:2]:
        assert len(block.strip().splitlines()) == 1
    assert "vae-jax variance" in readme_blocks()[0]
    assert "pytest" in readme_blocks()[1]


@pytest.mark.parametrize("page", ["README.md", pytest.param("docs/inference.md", marks=pytest.mark.slow)])
def test_the_python_of_a_page_runs(page):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_other_page_has_python():
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if "```python" in page.read_text()]
    assert pages == ["inference.md"]


@cache
def files_of(top):
    """Every Python file of a folder but the packages' faces, relative to the root."""
    files = (file.relative_to(ROOT) for file in (ROOT / top).rglob("*.py"))
    return frozenset(file for file in files if not file.name.startswith("__"))


@cache
def mapped_files():
    """The files that docs/map.md lists, in its order."""
    block = (ROOT / "docs" / "map.md").read_text().split("```text\n")[1].split("```")[0]
    folders, files = [], []
    for line in filter(None, block.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = [*folders[:depth], name]
        if name.endswith(".py"):
            files.append(Path(*folders))
    return tuple(files)


def module_of(file):
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules():
    """The file of every module of the package and of the benchmarks, faces included."""
    files = (file.relative_to(ROOT) for top in TOPS for file in (ROOT / top).rglob("*.py"))
    return {module_of(file): file for file in files}


def imported(file):
    """The module and the name of everything that a file imports from the tree, wherever in it the import stands."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TOPS:
            assert node.level == 0
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in TOPS)


@cache
def source_files(module, name):
    """The files that hold a name which is imported from a module: behind a package's face, the file that it is from."""
    if f"{module}.{name}" in modules():
        return source_files(f"{module}.{name}", "")
    file = modules()[module]
    if file.name != "__init__.py":
        return frozenset({file})
    handed_on = [pair for pair in imported(file) if not name or pair[1] == name]
    return frozenset().union(*(source_files(*pair) for pair in handed_on)) if handed_on else frozenset({file})


@cache
def dependencies():
    """For each file the files whose names it imports, directly or through a package's face."""
    files = [*files_of("vae_jax"), *files_of("benchmarks"), Path("vae_jax/__main__.py")]
    return {file: set().union(*(source_files(*pair) for pair in imported(file))) - {file} for file in files}


def test_the_map_lists_every_file():
    listed = set(mapped_files())
    assert {file for file in listed if file.parts[0] == "vae_jax"} == files_of("vae_jax")
    assert {file for file in listed if file.parts[0] == "benchmarks"} == files_of("benchmarks")


def test_no_two_files_import_each_other():
    order = list(TopologicalSorter(dependencies()).static_order())
    assert len(order) > 150


def test_imports_point_up_the_map():
    place = {file: number for number, file in enumerate(mapped_files())}
    for file, sources in dependencies().items():
        for source in sources & place.keys():
            assert place[source] < place.get(file, len(place)), f"{file} imports {source}, which the map lists below it"


def test_a_package_is_not_imported_through_its_face_from_within():
    for file in files_of("vae_jax"):
        faces = {module_of(parent / "__init__.py") for parent in file.parents if parent.parts}
        for module, name in imported(file):
            is_module = f"{module}.{name}" in modules()
            assert module not in faces or is_module, f"{file} imports {name} from its own package {module}"


def test_a_file_name_stands_for_one_thing():
    folders = defaultdict(set)
    for file in files_of("vae_jax") | files_of("benchmarks"):
        folders[file.name].add(str(file.parent))
    assert {name: where for name, where in folders.items() if len(where) > 1 and name not in PAIRS} == {}


def test_a_class_name_stands_for_one_class():
    files = defaultdict(set)
    for file in files_of("vae_jax") | files_of("benchmarks"):
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.ClassDef):
                files[node.name.lstrip("_")].add(str(file))
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_the_tests_mirror_the_packages():
    folders = {file.parent.relative_to("tests") for file in files_of("tests")}
    packages = {file.parent.relative_to("vae_jax") for file in files_of("vae_jax")}
    packages |= {file.parent for file in files_of("benchmarks")}
    # Campaigns try whole commands.
    folders.remove(Path("campaigns"))
    assert folders <= packages
    # A package whose files are tested through those that build on them has its tests in the folders below.
    assert packages <= folders | {above for folder in folders for above in folder.parents}
