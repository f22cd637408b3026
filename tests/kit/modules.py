"""The modules of projects: tests import the flows of several projects in one process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

PACKAGES = ("flows", "tasks")


@contextmanager
def modules_apart() -> Iterator[None]:
    """Let a project import its own `flows` and `tasks`; put back those imported before.

    Without the second half, a later test whose module has imported `flows` would change
    a package that Python no longer uses.
    """
    before = _take_modules()
    path = list(sys.path)
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(before)
        sys.path[:] = path


def _take_modules() -> dict[str, ModuleType]:
    """Forget the imported modules of all projects, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in names}
