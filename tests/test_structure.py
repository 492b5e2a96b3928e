"""The floors of the package: imports run one way, and the engine stands on little."""

import re
import sys
import traceback
from graphlib import TopologicalSorter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import rfjax
from rfjax._engine import devices
from tests import structure

ENGINE = {name: path for name, path in structure.files().items() if name.startswith("_engine")}
FLOOR_BELOW = {"_caches", "_checks", "_options"}


def test_rooms_have_no_circle():
    TopologicalSorter(structure.rooms(structure.imports())).prepare()


@pytest.mark.parametrize(
    "package", sorted({name.split(".")[0] for name in structure.files() if "." in name})
)
def test_files_of_a_package_have_no_circle(package):
    TopologicalSorter(structure.within(structure.imports(late=False), package)).prepare()


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_imports_little_of_the_package(name):
    below = {room.split(".")[0] for room in structure.imports()[name]}
    assert below <= {"_engine"} | FLOOR_BELOW


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_needs_only_jax_numpy_and_scipy(name):
    roots = {imported.split(".")[0] for imported in structure.imported(ENGINE[name])}
    assert roots <= {"rfjax", "jax", "numpy", "scipy"} | sys.stdlib_module_names


def test_the_map_of_the_engine_names_every_file():
    text = ENGINE["_engine"].read_text()
    named = re.findall(r"^    ([a-z_]+)  ", text, re.MULTILINE)
    assert sorted(named) == sorted(name.removeprefix("_engine.") for name in ENGINE if "." in name)


def test_every_chosen_number_is_used():
    source = "".join(path.read_text() for name, path in ENGINE.items() if "tuning" not in name)
    chosen = re.findall(
        r"^([A-Z_]+)(?:, ([A-Z_]+))?.* = ", ENGINE["_engine.tuning"].read_text(), re.M
    )
    names = [name for names in chosen for name in names if name]
    assert len(names) > 30
    assert [name for name in names if f"tuning.{name}" not in source] == []


@pytest.mark.parametrize("params, most", [(2, 16), (3, 14)], ids=["diagonal", "full"])
def test_a_blur_is_a_few_frames_above_its_arithmetic(params, most, monkeypatch):
    """From the call to the reads of the map: while it is traced, then while it is lowered."""
    paths = {"traced": [], "lowered": []}

    def noting(function, name):
        def noted(*arguments, **options):
            stack = (Path(frame.filename) for frame in traceback.extract_stack())
            paths[name].append([p for p in stack if p.is_relative_to(structure.PACKAGE)])
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(devices._by_device, "bind", noting(devices._by_device.bind, "traced"))
    monkeypatch.setattr(jax.lax, "slice", noting(jax.lax.slice, "lowered"))
    jax.jit(rfjax.gaussian_blur).lower(jnp.ones((1, 21, 19, 3)), jnp.zeros(params))
    longest = max(paths["traced"], key=len) + max(paths["lowered"], key=len)
    assert len(longest) <= most and len(set(longest)) <= 6


def test_files_and_functions_are_short():
    for name, path in structure.files().items():
        assert len(path.read_text().splitlines()) < 500, name
        assert max(structure.lengths(path), default=0) <= 60, name


def test_a_circle_is_found_and_floors_are_counted(tmp_path):
    for name, source in {
        "__init__": "", "low": "import os\n", "high": "from rfjax import low\n",
        "room/__init__": "from rfjax.room.a import thing\n",
        "room/a": "def late():\n    from rfjax.room import b\n",
        "room/b": "from rfjax.high import name\nfrom rfjax.room import a\n",
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    graph = structure.imports(tmp_path)
    assert graph["room.b"] == {"high", "room.a"} and graph["room.a"] == {"room.b"}
    assert structure.floors(structure.rooms(graph)) == {"low": 1, "high": 2, "room": 3}
    early = structure.within(structure.imports(tmp_path, late=False), "room")
    assert structure.floors(early) == {"room.a": 1, "room.b": 2}
    assert any(line.startswith("floor  3: room") for line in structure.table(tmp_path))
