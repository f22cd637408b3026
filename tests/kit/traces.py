"""Everything that a run leaves behind: tables, logs, files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def columns(url: str) -> Iterator[tuple[str, str, str]]:
    """Every value of every table as text, with its place."""
    from sqlalchemy import MetaData, create_engine

    engine = create_engine(url)
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        for table in metadata.tables.values():
            for row in connection.execute(table.select()).mappings():
                yield from (
                    (table.name, name, str(value)) for name, value in row.items()
                )
    engine.dispose()


def found(words: tuple[str, ...], *texts: str) -> set[str]:
    return {word for word in words for text in texts if word in text}


class Everything(logging.Handler):
    """All that any logger says, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter("%(name)s %(message)s").format(record))


@pytest.fixture
def log() -> Iterator[Everything]:
    """Every logger as loud as it can be."""
    import litellm  # noqa: F401 - so that its loggers are there

    handler, root = Everything(), logging.getLogger()
    loggers = [
        root,
        *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict)),
    ]
    before = [(logger, logger.level) for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    for logger, level in before:
        logger.setLevel(level)


def prefects_database() -> str:
    """All that Prefect's server of the tests has stored, once it has the log."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    path = Path(url.get_secret_value().partition("///")[2].partition("?")[0])
    for _ in range(100):
        stored = "".join(
            p.read_bytes().decode("latin-1") for p in path.parent.glob(f"{path.name}*")
        )
        if "deferred file-0.txt: " in stored:
            break
        time.sleep(0.1)
    return stored
