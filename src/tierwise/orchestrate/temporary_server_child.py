"""The process of a temporary Prefect server; started by path, so it imports nothing of tierwise.

It serves Prefect's API on a socket that listens already, prints a line once it answers, and ends
when stdin ends: when the parent closes it, and also when the parent dies in whatever way.
"""

import gc

# Most of a start is imports, a quarter of which would be spent on collecting garbage that is none.
gc.disable()

import argparse  # noqa: E402 - see above
import asyncio  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import sqlite3  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import zlib  # noqa: E402
from contextlib import closing  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

# No run needs the pages.
_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
# For a database that `ensure_database` has brought up to date.
_PREPARED = {
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


def ensure_database(database: Path, templates: Path) -> None:
    """Create Prefect's database, or bring it up to date, unless this version has done so before.

    That takes seconds, so the first new one of each version is kept as a template for others.
    """
    from filelock import FileLock

    with FileLock(f"{database}.lock", mode=0o600):
        template = templates / f"prefect-{version('prefect')}.db"
        is_new = not database.exists()
        if is_new and _is_ready(template):
            _copy(template, database)
        if _is_ready(database):
            return
        asyncio.run(_migrate())
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"PRAGMA user_version = {_mark()}")
        if is_new:
            _save_template(database, template)


def _mark() -> int:
    """Return the number by which a database says that this version of Prefect prepared it."""
    return zlib.crc32(version("prefect").encode()) & 0x7FFFFFFF


def _is_ready(database: Path) -> bool:
    """Return True if this version of Prefect prepared the database."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(database)) as connection:
            mark: int = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError:
        return False
    return mark == _mark()


async def _migrate() -> None:
    """Create Prefect's tables, or migrate them, and register its block types."""
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration

    interface = provide_database_interface()
    await interface.create_db()
    async with await interface.session() as session:
        await run_block_auto_registration(session=session)


def _copy(source: Path, target: Path) -> None:
    """Copy a database that no process writes to; it appears at once, or not at all."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, part)
    part.replace(target)


def _save_template(database: Path, template: Path) -> None:
    """Keep a database without runs as a template; do without where the folder is not writable."""
    part = template.with_name(f"{template.name}.{os.getpid()}.part")
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(part)) as target,
        ):
            source.backup(target)
            target.execute(f"PRAGMA user_version = {_mark()}")
        part.replace(template)
    except (OSError, sqlite3.DatabaseError) as error:
        sys.stderr.write(f"no template at {template}: {error}\n")


def serve(listening: socket.socket) -> None:
    """Serve Prefect's API until stdin ends."""
    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if not self.started:
                return
            gc.freeze()
            gc.enable()
            sys.stdout.write("ready\n")
            sys.stdout.flush()

    config = uvicorn.Config(create_app(), log_level="error", lifespan="on")
    server = Server(config)

    def end_with_parent() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[listening])


def main() -> None:
    """Read the arguments, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--database", type=Path)
    parser.add_argument("--templates", type=Path)
    arguments = parser.parse_args()
    os.environ.update(_SETTINGS)
    # Its database and its log are for the owner of the project alone.
    os.umask(0o077)
    if arguments.database:
        os.environ.update(_PREPARED)
        ensure_database(arguments.database, arguments.templates)
    serve(socket.socket(fileno=arguments.fd))


if __name__ == "__main__":
    main()
