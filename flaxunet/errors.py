"""Exceptions enter; what began them, and a line about them, leave."""

from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, and so on to the first.

    One that is raised again while its own consequence is handled closes a circle, which is gone round once.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def first_line(error: BaseException) -> str:
    """The first line of its message, at most 200 characters; its kind, if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
