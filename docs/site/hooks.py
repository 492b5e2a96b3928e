"""What makes the documentation of what there is: pages from the project's own texts and docstrings.

mkdocs calls the functions `on_…`. Formulas, `$…$` in the pages, become MathML, which browsers show
without a script.
"""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rfjax"

# Pages that are texts beside the documentation.
TEXTS = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}

# Pages of the API, with their titles and what they show beside the packages of their names.
PAGES = {
    "primitives": "Primitives",
    "nn": "Layers",
    "models": "Networks",
    "data": "Data",
    "tasks": "Tasks",
    "training": "Training",
    "receptive_field": "Receptive fields",
    "clockwork": "Clockwork",
    "search": "Search",
    "visualize": "Figures",
    "studies": "Studies",
    "programs": "Programs",
}
PROGRAMS = ("train", "evaluate", "predict", "guide", "video", "export")
BLUR = "rfjax.filtering.Blur"  # the one name that a public module has from a private one


def modules() -> list[str]:
    """The public modules and packages of rfjax, by their dotted names."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if len(parts) > 1 and not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return names


def page_of(module: str) -> str:
    """The page of the API that shows a module."""
    room = module.split(".")[1]
    if room in PAGES:
        return room
    return "programs" if room in PROGRAMS else "primitives"


def api_page(page: str) -> str:
    """The Markdown of a page of the API."""
    shown = [module for module in modules() if page_of(module) == page]
    blocks = [f"# {PAGES[page]}"]
    for module in shown:
        blocks += _blocks(module)
    return "\n\n".join(blocks)


def _blocks(module: str) -> Iterator[str]:
    """What shows a module; of a package its text, and names that stand in no public module."""
    file = ROOT / module.replace(".", "/") / "__init__.py"
    level = "heading_level: 3\n      show_root_full_path: false"
    if not file.exists():
        yield f"::: {module}"
        if BLUR.startswith(f"{module}."):
            yield f"::: {BLUR}\n    options:\n      {level}"
        return
    yield f"::: {module}\n    options:\n      members: false"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and "._" in str(node.module):
            for alias in node.names:
                if not alias.name.isupper():
                    yield f"::: {module}.{alias.name}\n    options:\n      {level}"


def api_index() -> str:
    """The Markdown of the page that lists all modules with their first sentences."""
    lines = ["# API", "Every public module, from its docstrings.", ""]
    for page, title in PAGES.items():
        lines += [f"## [{title}]({page}.md)", "", "| module | |", "|---|---|"]
        shown = [module for module in modules() if page_of(module) == page]
        lines += [f"| [`{name}`]({page}.md#{name}) | {first_line(name)} |" for name in shown]
        lines.append("")
    return "\n".join(lines)


def first_line(module: str) -> str:
    """The first line of a module's docstring."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    line = file.read_text(encoding="utf-8").split("\n", 1)[0].strip('"')
    return line.replace("|", "\\|")


def on_config(config):
    """Puts pages that `mkdocs.yml` does not name under More, so that none is lost."""
    docs = Path(config.docs_dir)
    named = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = (path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md")))
    if more := [page for page in pages if f" {page}\n" not in named]:
        config.nav.append({"More": more})
    return config


def on_files(files: Files, config) -> Files:
    """Adds the pages that are no files of `docs/`."""
    pages = {page: (ROOT / text).read_text(encoding="utf-8") for page, text in TEXTS.items()}
    pages |= {f"api/{page}.md": api_page(page) for page in PAGES}
    pages["api/index.md"] = api_index()
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Links between the texts of the project, as they are within the documentation."""
    if page.file.src_uri in TEXTS:
        markdown = markdown.replace("](docs/", "](")
    for uri, text in TEXTS.items():
        markdown = re.sub(rf"\]\((\.\./)?{text}(#[^)]*)?\)", rf"]({uri}\2)", markdown)
    return markdown


def on_page_content(content: str, **_) -> str:
    """Formulas as MathML, and tables that scroll where they are wider than the window."""
    inline = r'<span class="arithmatex">\\\((.*?)\\\)</span>'
    block = r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>'
    content = re.sub(inline, lambda m: _formula(m[1], "inline"), content, flags=re.DOTALL)
    content = re.sub(block, lambda m: _formula(m[1], "block"), content, flags=re.DOTALL)
    return content.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _formula(latex: str, display: str) -> str:
    """The MathML of a formula. Round brackets of matrices are borders, which need no font."""
    formula = convert(html.unescape(latex).strip(), display=display)
    matrix = r"<mo>&#x00028;</mo><mtable>(.*?)</mtable><mo>&#x00029;</mo>"
    formula = re.sub(matrix, r'<mtable class="round">\1</mtable>', formula, flags=re.DOTALL)
    return f'<div class="formula">{formula}</div>' if display == "block" else formula
