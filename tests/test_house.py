"""The house: which folder may import which, and no cycles between folders or files."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import jacobian_lab

ROOT = Path(__file__).parents[1]
ARROWS = {
    "jacobian_lab": set(),
    "jacobian_lab.krylov": {"jacobian_lab"},
    "jacobian_lab.diffusion": {"jacobian_lab"},
    "jacobian_lab.diffusion.adapters": {"jacobian_lab", "jacobian_lab.diffusion"},
    "jacobian_lab.derivative": {"jacobian_lab", "jacobian_lab.diffusion"},
    "jacobian_lab.linops": {
        "jacobian_lab",
        "jacobian_lab.diffusion",
        "jacobian_lab.derivative",
        "jacobian_lab.krylov",
    },
    "jacobian_lab.constraints": {
        "jacobian_lab",
        "jacobian_lab.diffusion",
        "jacobian_lab.derivative",
    },
    "jacobian_lab.sampling": {
        "jacobian_lab",
        "jacobian_lab.diffusion",
        "jacobian_lab.derivative",
        "jacobian_lab.krylov",
        "jacobian_lab.linops",
        "jacobian_lab.constraints",
    },
    "studies.frame": set(),
    "studies.archive": {"studies", "studies.frame"},
    "studies.jacobian": {"studies.frame"},
    "studies.claims": {"studies.frame"},
    "studies.explore": {"studies.frame"},
    "studies.sampling": {"studies.frame"},
    "studies.latent": {"studies.frame", "studies.sampling"},
    "studies.contest": {"studies.frame", "studies.sampling", "studies.contest.methods"},
    "studies.contest.methods": set(),
    "studies.benchmarks": {"studies.frame", "studies.sampling", "studies.contest"},
}
"""Folder -> folders of its package that it may import, besides itself."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("jacobian_lab", "mnist", "studies")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "site" not in path.parts
}


def imported(module, everywhere=True):
    """Return the modules of the project that a module imports; only at its top level, if asked."""
    tree = ast.parse(MODULES[module].read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in MODULES
                else node.module
                for alias in node.names
            }
    return {name for name in found if name in MODULES and name != module}


def folder(module):
    return module if MODULES[module].name == "__init__.py" else module.rsplit(".", 1)[0]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if folder(m) in ARROWS and m != "jacobian_lab"]
)
def test_the_arrows_between_folders_point_one_way(module):
    package = module.split(".")[0]
    others = imported(module)
    inside = {folder(other) for other in others if other.split(".")[0] == package}
    assert inside <= ARROWS[folder(module)] | {folder(module)}
    beyond = {other.split(".")[0] for other in others} - {package}
    assert beyond <= ({"jacobian_lab", "mnist"} if package == "studies" else set())


def test_every_folder_has_its_arrows():
    folders = {folder(m) for m in MODULES if not m.startswith("mnist")}
    assert folders - {"studies"} == set(ARROWS)  # the command line imports what it is asked for


def test_no_modules_import_each_other_in_a_circle():
    packages = {
        m for m, path in MODULES.items() if path.name == "__init__.py"
    }  # which import what is below them
    graph = {m: imported(m) - packages for m in MODULES if m not in packages}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(
        graph
    )  # else CycleError, with the circle


def test_the_linear_algebra_knows_no_tensor():
    below = [m for m in MODULES if m.startswith("jacobian_lab.krylov")]
    below += [m for m in MODULES if m.startswith("jacobian_lab._")] + ["jacobian_lab.errors"]
    for module in below:
        for node in ast.parse(MODULES[module].read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), module


def test_mnist_does_not_import_the_studies():
    assert not any(
        other.startswith("studies")
        for m in MODULES
        if m.startswith("mnist")
        for other in imported(m)
    )


SAME = {"compute", "table", "plot", "findings", "load_latent"}
"""Names that every study has, and the loader that takes the latent model that ships."""


def definitions(module):
    """Return the public functions and classes that a module defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {
        node.name
        for node in ast.parse(MODULES[module].read_text()).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    }


def test_no_public_name_means_two_things():
    where = {}
    for module in MODULES:
        for name in definitions(module) - SAME:
            where.setdefault(name, []).append(module)
    assert not {name: modules for name, modules in where.items() if len(modules) > 1}


def test_no_module_has_the_name_of_a_function_that_is_exported():
    functions = {name for name in jacobian_lab.__all__ if callable(getattr(jacobian_lab, name))}
    assert not [module for module in MODULES if module.rsplit(".", 1)[-1] in functions]


def test_every_module_has_a_test_file_of_its_name():
    """A figure or table is tested with its study, the contest's peers together, and the parts of
    the explorer's page with the page.
    """
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    names = {
        m: m.rsplit(".", 1)[-1].lstrip("_")
        for m, path in MODULES.items()
        if path.name != "__init__.py"
    }
    parts = r"(_(plot|table|report)|(?<=^peers)_\w+|(?<=^explore_page)_\w+)$"
    assert not [m for m, name in names.items() if not {name, re.sub(parts, "", name)} & tests]


def test_functions_fit_on_a_screen():
    long = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[bool(ast.get_docstring(node)) :]
                if body and body[-1].end_lineno - body[0].lineno >= 40:
                    long.append(f"{module}.{node.name}")
    assert not long


def test_files_answer_one_question():
    lines = {module: path.read_text().count("\n") for module, path in MODULES.items()}
    assert not {module: count for module, count in lines.items() if count > 320}  # about 300


FACTORIES = {
    f"torch.{name}"
    for name in (
        *("zeros", "ones", "empty", "full", "tensor", "eye", "arange", "linspace", "logspace"),
        *("rand", "randn", "randint", "randperm", "normal", "scalar_tensor"),
    )
}


def test_every_new_tensor_of_the_library_names_its_device():
    """Under another default device it would be on that one."""
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if module.startswith("jacobian_lab") and name in FACTORIES:
                named = {keyword.arg for keyword in node.keywords} & {"device", None}
                found += [] if named else [f"{module}, line {node.lineno}: {ast.unparse(node)}"]
    assert not found
