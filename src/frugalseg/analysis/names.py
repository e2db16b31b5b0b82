"""Names that others chose, as pages and terminals take them: nothing in a name is markup."""

from rich.markup import escape

from frugalseg.errors import printable


def shown(name: str) -> str:
    """A name in a table of the terminal: brackets are no markup there, and nothing moves the cursor.

    Args:
        name: of a run, a class, a file.
    """
    return escape(printable(" ".join(name.split("\n"))))


def in_page(name: str) -> str:
    """A name in a table of a markdown page: one cell, and no HTML.

    Args:
        name: of a run, a class, a file.
    """
    plain = printable(" ".join(name.splitlines()))
    return plain.replace("|", "\\|").replace("<", "&lt;")
