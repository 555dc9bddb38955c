"""Risk: bench/ grows circles of imports, commands that lean on each other, or folders nobody reads.

The order, lowest first, is ORDER: a folder imports what stands before it, and itself.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from bench import ROOT

ORDER = (
    "errors",  # what the user can put right
    "output",  # what is written and said; where, and until which signal
    "inputs",  # the configuration, networks, images
    "emulated",  # the CUDA kernels as a backend
    "measures",  # what is measured
    "gpu_model",  # what a GPU should do with it
    "paper",  # what stands beside the paper's figures
    "on_gpu",  # the session on a GPU
    "commands",
)
MOST_FILES = 15
# Imported where they are used: a bench without them does the rest, and torchvision takes seconds.
OPTIONAL = {
    "jinja2",
    "matplotlib",
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "plotly",
    "pynvml",
    "pybind11",
    "safetensors",
    "skimage",
    "sklearn",
    "spikingjelly",
    "tensorrt",
    "timm",
    "torch._inductor",
    "torch.utils.tensorboard",
    "torchvision",
    "wandb",
    "wandb_workspaces",
}
# Beside the commands, who imports what needs torch in a function, and why.
LATE = {
    "bench.output.by_hydra": "Hydra calls it before the command, for --help too",
    "bench.on_gpu.facts": "that fskernel cannot be imported is one of the facts",
}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted((ROOT / "bench").rglob("*.py"))}
COMMANDS = [
    m for m in MODULES if m.count(".") == 1 and MODULES[m].stem not in ("errors", "__init__")
]


def imports_of(node):
    """What an import statement names: modules of bench, or any others."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "bench imports by whole names"
    found = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else node.module for name in found]


def statements(module):
    """Every import of a module, and whether it stands in a function."""
    found = []

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                found.extend((name, inside) for name in imports_of(child))
            within = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            walk(child, within)

    walk(ast.parse(MODULES[module].read_text()), False)
    return found


IMPORTS = {module: statements(module) for module in MODULES}
INSIDE = {m: {name for name, _ in found if name in MODULES} for m, found in IMPORTS.items()}


def layer(module):
    """Its folder, or what it is at the top; None: the package, which imports nothing of bench."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return "commands" if module in COMMANDS else parts[1]


def needs_torch(name, seen=frozenset()):
    """Whether an import of that name imports torch."""
    if name.split(".")[0] in ("torch", "fskernel"):
        return True
    if name not in MODULES or name in seen:
        return False
    at_once = [other for other, late in IMPORTS[name] if not late]
    return any(needs_torch(other, seen | {name}) for other in at_once)


def test_there_is_what_this_file_speaks_of():
    assert len(COMMANDS) >= 10 and "bench.run" in COMMANDS
    assert {layer(m) for m in MODULES} - {None} == set(ORDER)
    assert set(LATE) < set(MODULES)
    assert needs_torch("bench.measures.harness") and not needs_torch("bench.inputs.config")


def test_no_module_imports_itself_by_a_detour():
    try:
        list(TopologicalSorter(INSIDE).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m)])
def test_imports_point_downwards(module):
    """Of a command, to no other command."""
    mine = layer(module)
    for other in INSIDE[module] - {"bench"}:
        assert other not in COMMANDS, f"{module} imports {other}, a command"
        assert ORDER.index(layer(other)) <= ORDER.index(mine), f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_functions_have_a_reason(module):
    for name, late in IMPORTS[module]:
        optional = any(name == o or name.startswith(f"{o}.") for o in OPTIONAL)
        if late and not optional:
            assert needs_torch(name), f"{module} can import {name} at its top"
            assert module in COMMANDS or module in LATE, f"{module} imports {name} in a function"


def test_no_folder_is_too_long_to_be_read():
    for folder in {path.parent for path in MODULES.values()}:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)}: {len(files)} files"
        assert (folder / "__init__.py").read_text().startswith('"""'), "says what the folder is"


HELP = """
import runpy, sys
from hydra.core.global_hydra import GlobalHydra
for path in PATHS:
    GlobalHydra.instance().clear()
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as done:
        assert not done.code, path
    assert "torch" not in sys.modules, f"{path} imports torch"
"""


def test_help_does_not_wait_for_torch():
    code = f"PATHS = {[str(MODULES[m]) for m in COMMANDS]}{HELP}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["reading the configuration"] * 3  # at once; by Hydra
    assert done.stdout.count("usage: ") == len(COMMANDS)
    assert "powered by Hydra" not in done.stdout
