"""A PostgreSQL server of one's own: in a temporary folder, on a free port of this machine, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PASSWORD = "s3cret"


def program(name: str) -> str | None:
    """A program of the server; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[-3])
    return str(found[-1]) if found else shutil.which(name)


@cache
def why_not() -> str | None:
    """What is missing for a server here; None when nothing is."""
    for name in ("initdb", "postgres"):
        if program(name) is None:
            return f"PostgreSQL's `{name}` is not installed (apt-get install postgresql)"
    with contextlib.suppress(ImportError):
        import psycopg  # noqa: F401

        return None
    return "psycopg is not installed (pip install 'archdsl[dist]')"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server with one user, `me`, whose password is `PASSWORD`. Gives the URL of its database `studies`."""
    if why_not() is not None:
        pytest.skip(str(why_not()))
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="archdsl-postgres-"))
    data, secret = folder / "data", folder / "secret"
    secret.write_text(PASSWORD)
    if user is not None:
        for path in (folder, secret):
            shutil.chown(path, user)
    run = {"user": user} if user is not None else {}
    create = [program("initdb"), "-D", str(data), "-U", "me", f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync"]
    subprocess.run([str(word) for word in create], check=True, capture_output=True, cwd=folder, **run)  # type: ignore[call-overload]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listen = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [str(program("postgres")), "-D", str(data), *listen], stdout=log, stderr=log, cwd=folder, **run
        )
    try:
        _wait_for(process, port, folder / "log")
        yield f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/studies"
    finally:
        process.send_signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """Whom to run the server as: it refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("there is no user but root to run PostgreSQL")


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(
                host="127.0.0.1", port=port, user="me", password=PASSWORD, dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("CREATE DATABASE studies")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.1)
