"""What an installation brings: commands, and configs that go by their names."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from rfjax import _console, _faults, _flags, _programs

ROOT = Path(__file__).parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_runs_the_main_of_its_module(name):
    module, _, attribute = SCRIPTS[name].partition(":")
    assert module == "rfjax._programs" and name == f"rfjax-{attribute.replace('_', '-')}"
    (target,) = getattr(_programs, attribute).args
    # Not imported: two programs with a config define the same flags.
    tree = ast.parse(Path(importlib.util.find_spec(target).origin).read_text())
    assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_command_tells_the_extra_that_it_needs(tmp_path, monkeypatch, capsys):
    (tmp_path / "needy.py").write_text("import cubist.cubes\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/bin/rfjax-needy"])
    assert _programs.run("needy") == 1
    wanted = "rfjax-needy: error: needy needs cubist: pip install 'rfjax[train]'\n"
    assert capsys.readouterr().err == wanted


def test_a_program_goes_by_the_name_that_it_was_called(monkeypatch, capsys):
    parser = _console.Parser(prog="python -m rfjax.predict")
    assert parser.prog == "python -m rfjax.predict"
    monkeypatch.setattr(sys, "argv", ["/bin/rfjax-predict"])
    parser = _console.Parser(prog="python -m rfjax.predict")
    inner = parser.add_subparsers().add_parser("inner")
    assert (parser.prog, inner.prog) == ("rfjax-predict", "rfjax-predict inner")

    def fail():
        raise _faults.Fault("no")

    assert _console.guarded("rfjax.predict", fail) == 1
    assert capsys.readouterr().err == "rfjax-predict: error: no\n"


@pytest.mark.parametrize("given", [["--config=voc:fcn_8s"], ["--config", "voc:fcn_8s"]])
def test_a_config_goes_by_its_name(given):
    assert sorted(_flags.configs()) == CONFIGS
    words = " ".join(_flags.located(["train.py", *given, "--workdir=voc"]))
    assert words.endswith(f"{ROOT}/configs/voc.py:fcn_8s --workdir=voc")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").write_text("")
    given = ["--config=voc", "--config=some/voc.py:a", "--config.data.name=voc"]
    assert _flags.located(given) == given


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of commands of an environment with the wheel, and what the tests have beside."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("rfjax", "configs"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, source)
    shutil.copy(ROOT / "LICENSE", source)
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", source / "dist", source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    into = [*pip, "--python", place / "bin" / "python", "install", "--no-deps"]
    subprocess.run([*into, *(source / "dist").glob("*.whl")], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


@pytest.mark.slow
def test_a_wheel_brings_the_commands_and_the_configs(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*command):
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    assert {path.name for path in installed.glob("rfjax-*")} == set(SCRIPTS)
    brought = "import rfjax; from rfjax import _flags; print(rfjax.__file__, *_flags.configs())"
    home, *configs = call(installed / "python", "-c", brought).stdout.split()
    assert Path(home).is_relative_to(installed.parent) and configs == CONFIGS
    for name in SCRIPTS:
        said = call(installed / name, "--no_such_option").stderr
        assert said.startswith(f"{name}: error: ") and said.count("\n") == 1
    said = call(installed / "rfjax-train", "--config=nose", "--workdir=run")
    assert f"none of rfjax's configs {', '.join(CONFIGS)}" in said.stderr
    trained = call(
        installed / "rfjax-train", "--config=quickstart:score", "--workdir=run",
        "--config.steps=2", "--config.data.options.train_scenes=32",
        "--config.data.options.val_scenes=16", f"--config.data.dir={tmp_path}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "result.json").exists()
