"""The pages of the documentation: their examples run, their pictures are there, the site builds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import rfjax

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Pages whose examples other tests run, and look at.
ELSEWHERE = {"networks.md", "other_libraries.md", "tasks.md"}
RUNNING = [
    name
    for name, path in PAGES.items()
    if EXAMPLE.search(path.read_text()) and name not in ELSEWHERE
]
LARGEST = 150_000  # bytes of a picture


@pytest.mark.parametrize("name", RUNNING)
def test_examples_run(name):
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        for example in EXAMPLE.findall(PAGES[name].read_text()):
            exec(example, names)


@pytest.mark.parametrize("name", PAGES)
def test_pages_and_pictures_are_there(name):
    """Links within the documentation, and to the texts beside it."""
    for target in re.findall(r"\]\((?!https:)([^)#\s]+)", PAGES[name].read_text()):
        path = (PAGES[name].parent / target).resolve()
        made = path.is_relative_to(DOCS / "api") or path == DOCS / "index.md"  # from docstrings
        assert path.exists() or made, target


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "pictures").glob("*.png")}
    assert sizes and {name: size for name, size in sizes.items() if size > LARGEST} == {}


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="the site is built where the extra docs is installed: pip install -e '.[docs]'",
)
def test_the_site_builds_and_needs_no_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.html")}
    made = {name.replace(".md", ".html") for name in PAGES}
    assert made <= set(pages)
    home = pages["index.html"].read_text()  # whose navigation leads to all of them
    assert [name for name in made if f'href="{name}"' not in home] == []
    primitives = pages["api/primitives.html"].read_text()
    for name in rfjax.__all__:
        assert re.search(rf'id="rfjax\.\w+\.{name}"', primitives), name
    for name, path in pages.items():
        text = path.read_text()
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(https?://[^"]*)"', text
        )
        assert loaded == [], name
        assert "arithmatex" not in text, name  # every formula is MathML
    assert "<math" in pages["systems/composition.html"].read_text()
