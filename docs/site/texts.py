"""Docstrings as Markdown: equations and tables keep their lines, examples are code.

griffe, which reads the sources, calls `Texts.on_instance` for every name.
"""

import re
from typing import Any

import griffe

# How a paragraph begins that is no prose: an equation, or columns that are set by spaces.
_EQUATION = re.compile(r"[\w^.]+(\([^)]*\))?( \[[^]]*\])? +(=|<-|->) |[^.]*\S {2,}\S")
_SECTION = re.compile(r"[A-Z]\w+:$")
_MORE = "Attributes: "  # "Attributes: those of every layer, and" before a list of further ones


class Texts(griffe.Extension):
    """Changes docstrings before they are parsed."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The text of a docstring, which its source holds for reading as it is."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)


def _paragraph(text: str) -> str:
    """A paragraph: an example, an equation or prose."""
    if ">>> " in text:
        return re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
    lines = text.split("\n")
    if lines[0].startswith("Reference:"):
        source = " ".join(line.strip() for line in lines).removeprefix("Reference:")
        return f"**Reference:** {_escaped(source.strip())}"
    if text.startswith(_MORE):
        first = next(i for i, line in enumerate([*lines, " "]) if line.startswith(" "))
        said = " ".join(lines[:first]).removeprefix(_MORE)
        return "\n".join([f"Attributes are {said}:", "", "Attributes:", *lines[first:]])
    if text.startswith(" ") or _SECTION.match(lines[0]):
        return _escaped(text)
    if _EQUATION.match(lines[0]):
        return "\n".join(f"    {line}" for line in lines)
    return _escaped(text)


def _escaped(text: str) -> str:
    """Shapes as [*batch, H] in prose, whose star begins no emphasis."""
    return re.sub(r"\[\*(?=\w)", r"[\\*", text)
