"""The house style of the public names, checked by looking at them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rfjax

ROOT = Path(__file__).parent.parent
FUNCTIONS = [getattr(rfjax, name) for name in rfjax.__all__]


@pytest.mark.parametrize("function", FUNCTIONS, ids=rfjax.__all__)
def test_primitives_are_documented(function):
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Raises:", "Example:", "Reference:"):
        if section == "Returns:" and isinstance(function, type):
            continue
        assert section in text, f"{function.__name__} has no {section}"
    for name in inspect.signature(function).parameters:
        assert name in text, f"{function.__name__} does not document {name}"


@pytest.mark.parametrize("function", FUNCTIONS, ids=rfjax.__all__)
def test_defaults_are_keyword_only(function):
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty and (
            function is not rfjax.ring_points and parameter.name != "weights"
        ):
            assert parameter.kind is parameter.KEYWORD_ONLY, f"{function.__name__}({parameter})"


def test_type_checkers_see_every_primitive():
    """`import rfjax` is lazy, so that its names are told to them apart."""
    tree = ast.parse(Path(rfjax.__file__).read_text())
    told = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]
    assert {name for _, name in told} == set(rfjax.__all__)
    for module, name in told:
        assert getattr(sys.modules[module], name) is getattr(rfjax, name)


def test_primitives_import_neither_flax_nor_data_libraries():
    heavy = ["flax", "optax", "orbax", "tensorflow_datasets", "grain", "sklearn", "cv2", "torch"]
    code = f"import sys, rfjax; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_imports_run_one_way():
    """No module of a layer names a module of a layer above it."""
    layers = [
        ["_caches", "_extras", "_options", "_faults", "_lazy", "_markdown", "_names", "_registry"],
        ["_statistics", "places"],
        ["_console", "_files", "_flags", "_outputs", "_programs", "_rules", "_runs"],
        ["_lock", "_progress", "_store"],
        ["_checks"],
        ["_engine"],
        ["_sgd"],
        ["covariance", "fully_convolutional", "clockwork", "guidance"],
        ["gaussian", "grids"],
        ["filtering", "sampling"],
        ["adaptive", "dynamic", "inflation", "matching"],
        ["composition"],
        ["compound"],
        ["dilation"],
        ["nn"],
        ["models"],
        ["data", "visualize"],
        ["tasks"],
        ["training"],
        ["evaluate", "export", "native", "predict", "guide", "train", "video"],
        ["receptive_field"],
        ["search"],
        ["studies"],
    ]
    handed_on = {"search/config.py"}  # a name that users have for what lies in a layer above
    level = {name: i for i, names in enumerate(layers) for name in names}
    for path in sorted((ROOT / "rfjax").rglob("*.py")):
        own = path.relative_to(ROOT / "rfjax").parts[0].removesuffix(".py")
        if own == "__init__" or path.relative_to(ROOT / "rfjax").as_posix() in handed_on:
            continue
        for name in _imported(path.read_text()):
            assert level[name] <= level[own], f"{path.name} of {own} imports {name}"


def _imported(source: str) -> set[str]:
    """The modules and packages right under rfjax that a source imports."""
    found = set()
    for line in source.splitlines():
        words = line.strip().removesuffix("(").split()
        if words[:1] == ["from"] and words[1] == "rfjax":
            found |= {word.strip(",") for word in words[3:] if word not in ("as",)}
        elif words[:1] in (["from"], ["import"]) and words[1].startswith("rfjax."):
            found.add(words[1].split(".")[1])
    return found & {p.stem for p in (ROOT / "rfjax").iterdir()}
