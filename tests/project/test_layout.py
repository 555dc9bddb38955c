"""Risk: rooms of the package grow into each other, until nothing can be changed by itself."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from bench import ROOT
from fskernel.command.work import WORK

PACKAGE = ROOT / "fskernel"
FACE = PACKAGE / "command"
# From the ground up: a room imports those of its own floor and below.
FLOORS = [
    {"_version", "_build", "clipping", "errors", "files", "progress", "text", "torch_rules"}
    | {"preprocessing", "image_files", "image_sizes", "tail", "activations"},
    {"codes", "onnx_files"},
    {"kernels", "graph", "graded"},
    {"spikes", "reference"},
    {"network", "tracing", "calibration"},
    {"rate", "conversion", "drop_in", "timeline"},
    {"analysis", "models"},
    {"k_search"},
    {"_paths", "__init__"},
    {"cli"},
    {"command"},
    {"__main__"},
]
# What imports by a name that is computed: the guards below do not see what that is.
COMPUTED = {
    "fskernel._paths",  # former paths
    "fskernel.cli.model",  # a user's package, torchvision and timm
    "fskernel.command.work",  # the work of a command, out of its list
}
OPTIONAL = {"PIL", "matplotlib", "onnx", "plotly", "rich", "safetensors", "timm", "torchvision"}
MOST_FILES = 15


def module_of(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES["fskernel._build"] = None


def imported(node, of):
    """The modules of an import statement, those of fskernel by their files."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        base = ".".join([*of.split(".")[: -node.level], *([base] if base else [])])
    return [name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names]


def imports(module, inside):
    """What a module imports while it is loaded, or (inside) when its functions run."""
    found = []

    def look(node, in_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue  # for readers of types: never runs
            if isinstance(child, (ast.Import, ast.ImportFrom)) and in_function == inside:
                found.extend(imported(child, module))
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            look(child, in_function or function)

    look(ast.parse(MODULES[module].read_text()), False)
    return found


def graph():
    own = (name for name, path in MODULES.items() if path)
    return {n: {m for m in imports(n, False) if m in MODULES and m != "fskernel"} for n in own}


def floor(module):
    room = module.split(".")[1] if "." in module else "__init__"
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def test_no_circle_of_imports():
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_nothing_imports_a_higher_floor():
    up = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if floor(other) > floor(module)
    ]
    assert not up, "\n".join(up)


def test_functions_import_optional_packages_alone():
    hidden = [
        f"{module}: {other}"
        for module, path in MODULES.items()
        if path
        for other in imports(module, True)
        if other.split(".")[0] not in OPTIONAL
    ]
    assert not hidden, "\n".join(hidden)


def sources_of(*folders):
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return {module_of(path): path.read_text() for path in paths}


def test_few_import_by_computed_names():
    found = {
        module
        for module, text in sources_of(PACKAGE).items()
        if re.search(r"import_module\(|__import__\(|exec\(|runpy", text)
    }
    assert found - {"fskernel.command.checkout"} == COMPUTED  # which reads _version.py


def test_the_face_of_the_command_imports_what_loads_at_once():
    """Nothing of fskernel but itself, as that loads torch; its functions import nothing at all."""
    for module, text in sources_of(FACE).items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert node.col_offset == 0, module
                if getattr(node, "level", 0):
                    assert node.level == 1 and not node.module, module
                    continue
                for name in imported(node, module):
                    assert name.split(".")[0] in sys.stdlib_module_names | {"typer"}, module


def test_the_work_of_every_command_is_in_a_file_of_its_name():
    for name in WORK:
        tree = ast.parse((PACKAGE / "cli" / f"{name}.py").read_text())
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_folders_stay_small():
    sizes = {
        folder.name: len(list(folder.glob("*.py")))
        for folder in PACKAGE.rglob("*")
        if folder.is_dir()
    }
    assert {name: n for name, n in sizes.items() if n > MOST_FILES} == {}


@pytest.mark.parametrize("planted", ["circle", "up", "inside"])
def test_planted_faults_are_seen(planted, tmp_path, monkeypatch):
    text = {
        "circle": "from fskernel.codes import neuron",
        "up": "from fskernel.network import steps",
        "inside": "def f():\n    from fskernel.codes import neuron",
    }[planted]
    at = "fskernel.torch_rules.compiling" if planted == "circle" else "fskernel.codes.geometry"
    fault = tmp_path / "fault.py"
    fault.write_text(text)
    monkeypatch.setitem(MODULES, at, fault)
    seen = {
        "circle": test_no_circle_of_imports,
        "up": test_nothing_imports_a_higher_floor,
        "inside": test_functions_import_optional_packages_alone,
    }
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        seen[planted]()
