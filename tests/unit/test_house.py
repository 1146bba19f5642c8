"""The house stays in order: imports run one way, four sets agree, files and functions stay small."""

import ast
import dataclasses
import re
import statistics
from pathlib import Path

import pytest

from effrec_cli import registry
from effrec_cli.paths import conf_dir

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "effrec_cli", ROOT / "kernels" / "effrec_kernels"]
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))

LAZY = {
    "transformers",
    "peft",
    "pandas",
    "sklearn",
    "scipy",
    "pyarrow",
    "PIL",
    "pynvml",
    "implicit",
    "triton",
}
TORCH_FREE = ["app", "compose", "errors", "paths", "registry", "schema"]


def module_name(path):
    base = ROOT / "kernels" if "kernels" in path.relative_to(ROOT).parts[:1] else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def imported(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = _top_level(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield "." * node.level + node.module


def _top_level(tree):
    """Yields the nodes that run on import, leaving out functions and `if TYPE_CHECKING` blocks."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def part_of(module):
    """Returns the part of effrec a module belongs to, such as `methods` or `run`."""
    pieces = module.split(".")
    if pieces[0] == "effrec_kernels":
        return "effrec_kernels"
    return pieces[1] if len(pieces) > 1 else ""


# What each part may import of ours; a part not listed may import anything but app and commands.
MAY_IMPORT = {
    "effrec_kernels": set(),
    "errors": set(),
    "paths": set(),
    "registry": {"errors"},
    "schema": {"errors", "registry", "schema"},
    "models": {"models", "errors", "effrec_kernels"},
    "data": {"data", "durable", "errors", "lock", "paths", "registry", "schema", "evaluation"},
    "evaluation": {"evaluation", "data", "errors", "schema", "distributed"},
    "methods": {
        "backbone",
        "methods",
        "models",
        "engine",
        "evaluation",
        "effrec_kernels",
        "data",
        "distributed",
        "errors",
        "precision",
        "schema",
        "optim",
        "seeds",
    },
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = part_of(module_name(path))
    ours = {
        part_of(name)
        for name in imported(path)
        if name.split(".")[0] in {"effrec_cli", "effrec_kernels"} and name != "effrec_cli"
    }
    if part not in {"app", "commands", "__main__"}:
        assert not ours & {"app", "commands"}, "nothing below the verbs may import them"
    if part in MAY_IMPORT:
        assert ours <= MAY_IMPORT[part] | {""}, f"{part} must not import {ours - MAY_IMPORT[part]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_lazily(path):
    found = {name.split(".")[0] for name in imported(path, top_level_only=True)}
    of_triton = "triton_kernels" in path.parts
    assert not found & (LAZY - ({"triton"} if of_triton else set()))
    # Those modules need Triton, so what needs them imports them when it needs them.
    assert of_triton or not any("triton_kernels" in name for name in imported(path, top_level_only=True))
    if part_of(module_name(path)) in TORCH_FREE:
        assert "torch" not in found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small_and_annotated(path):
    text = path.read_text()
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            assert node.end_lineno - node.lineno + 1 <= (120 if kernel else 80), node.name
            assert node.returns is not None, f"{node.name} has no return annotation"


def test_sizes_keep_the_shape_of_a_well_kept_library():
    lines, functions = [], []
    for path in SOURCES:
        text = path.read_text()
        lines.append(text.count("\n"))
        functions += [
            node.end_lineno - node.body[0].lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef)
        ]
    assert statistics.median(lines) <= 120
    assert statistics.median(functions) <= 12
    assert statistics.quantiles(functions, n=10)[-1] <= 35


def test_no_top_level_package_is_called_kernels():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_configs_hold_data_only():
    for path in conf_dir().rglob("*.yaml"):
        assert "_target_" not in path.read_text(), f"{path} names Python code"


KINDS = [("methods", "method", "method_"), ("models", "model", "model_")]


@pytest.mark.parametrize(("kind", "group", "prefix"), KINDS)
def test_registry_files_schemas_and_yaml_agree(kind, group, prefix):
    names = set(registry._BUILT_IN[kind])
    yamls = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    schemas = {path.stem.removeprefix(prefix) for path in (ROOT / "effrec_cli/schema").glob(f"{prefix}*.py")}
    targets = {row.target.split(":")[0].rsplit(".", 1)[1] for row in registry._BUILT_IN[kind].values()}
    files = {path.stem for path in (ROOT / "effrec_cli" / kind).glob("*.py")}
    assert names == yamls == schemas
    assert targets <= files
    if kind == "methods":
        assert files - {"__init__", "base"} == targets, "a file in methods/ is a method"


def test_dataset_families_have_schema_and_yaml():
    families = set(registry._BUILT_IN["datasets"])
    schemas = {
        path.stem.removeprefix("dataset_") for path in (ROOT / "effrec_cli/schema").glob("dataset_*.py")
    }
    named = {
        match.group(1)
        for path in (conf_dir() / "dataset").glob("*.yaml")
        if (match := re.search(r"^family: (\w+)$", path.read_text(), re.M))
    }
    assert schemas - {"base"} == families
    assert named == families


@pytest.mark.parametrize("kind", ["methods", "models", "datasets"])
def test_every_row_names_something_that_exists(kind):
    for name in registry.rows(kind):
        assert dataclasses.is_dataclass(registry.schema(kind, name))
        assert callable(registry.implementation(kind, name))
