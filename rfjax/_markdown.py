"""Tables in Markdown."""

from collections.abc import Collection, Iterable, Sequence


def table(
    heading: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()
) -> str:
    """The lines of a table, each with its newline.

    Args:
        heading: texts, one a column.
        rows: texts or numbers, one a column.
        right: the columns that are aligned to the right.

    Example:
        >>> print(table(["layer", "size"], [["conv1", 7]], right=[1]), end="")
        | layer | size |
        |---|--:|
        | conv1 | 7 |
    """
    rule = "".join("--:|" if column in right else "---|" for column in range(len(heading)))
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heading, *rows)]
    return "\n".join([lines[0], f"|{rule}", *lines[1:]]) + "\n"
