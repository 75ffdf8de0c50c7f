"""`archdsl cache`: which latencies have been taken, and carrying them from one machine to another."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_rows, say
from archdsl.cli.parameters import Age, Words
from archdsl.errors import ArchError
from archdsl.language.text.quantities import count_text
from archdsl.latency.cache.quarantine import Quarantine, Quarantined
from archdsl.latency.cache.timings import SCHEMA, CacheWarning, Entry, Filter, TimingCache
from archdsl.runtimes.registry import RUNTIMES

F = TypeVar("F", bound=Callable[..., Any])


@click.group(epilog="Example: archdsl cache ls --on onnxruntime --older-than 30d")
def cache() -> None:
    """Latencies that were taken before: list, remove, carry to another machine.

    One file in the user's cache directory; ARCHDSL_CACHE_DIR names another directory.
    """


def filter_options(command: F) -> F:
    """`--on`, `--older-than` and `--contended`, which mean the same for listing and removing."""
    contended = click.option("--contended", is_flag=True, help="Only those taken while others used the same cores.")
    age = click.option("--older-than", "age", type=Age(), help="Only those taken longer ago, e.g. 12h, 30d or 8w.")
    on = click.option("--on", "runtimes", type=Words(tuple(RUNTIMES)), help="Only of these runtimes, comma-separated.")
    return on(age(contended(command)))


@cache.command(epilog="Examples: archdsl cache ls · archdsl cache ls --on openvino --older-than 30d --json")
@filter_options
@options.as_json
def ls(runtimes: list[str] | None, age: float | None, contended: bool, as_json: bool) -> int:
    """Show the timings that are kept: of which network, on which target, and when they were taken.

    And the networks in quarantine, which have crashed the worker three times on a target and are not tried again there.
    """
    chosen = Filter(tuple(runtimes or ()), age, contended)
    timings = TimingCache()
    with _warnings_on_stderr():
        entries = timings.entries()
        quarantined = Quarantine().networks(chosen.runtimes)
    shown = [entry for entry in entries if chosen.takes(entry)]
    damaged = sum(entry.timing is None for entry in entries)
    if as_json:
        facts = {"path": str(timings.path), "size_bytes": timings.size_bytes(), "schema": SCHEMA}
        counts = {"total": len(entries), "damaged": damaged}
        kept_back = [network.as_json() for network in quarantined]
        print_json({**facts, **counts, "timings": [_facts(entry) for entry in shown], "quarantined": kept_back})
        return 0
    _print(shown)
    of_all = f"{len(shown)} of {_counted(len(entries), 'timing')}" if chosen else _counted(len(entries), "timing")
    say(f"{of_all}, {count_text(timings.size_bytes())}B in {timings.path}")
    if damaged:
        say(f"{_counted(damaged, 'timing')} cannot be used; `archdsl cache prune --damaged` removes them", err=True)
    if quarantined:
        _print_quarantined(quarantined)
        quarantine = f"{_counted(len(quarantined), 'network')} quarantined"
        say(f"{quarantine}; `archdsl cache prune --quarantined` lets them be tried again")
    return 0


@cache.command(epilog="Examples: archdsl cache prune --older-than 30d --dry-run · archdsl cache prune --other-machines")
@filter_options
@click.option("--other-machines", is_flag=True, help="Only those taken on devices that this machine does not have.")
@click.option("--damaged", is_flag=True, help="Only those that cannot be read.")
@click.option("--quarantined", is_flag=True, help="No timings: let networks that crashed the worker be tried again.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would go.")
@options.as_json
def prune(
    runtimes: list[str] | None,
    age: float | None,
    contended: bool,
    other_machines: bool,
    damaged: bool,
    quarantined: bool,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove the timings that all of the given options take, and give their room back to the disk."""
    chosen = Filter(tuple(runtimes or ()), age, contended, other_machines=other_machines, damaged=damaged)
    if quarantined:
        if age is not None or contended or other_machines or damaged or everything:
            message = "--quarantined is about networks, and the other options but --on are about timings"
            raise ArchError.at("archdsl cache prune", "--quarantined", "usage", message, "prune twice")
        return _lift(chosen.runtimes, dry_run, as_json)
    timings = TimingCache()
    before = timings.size_bytes()
    with _warnings_on_stderr():
        removed = timings.prune(chosen, everything=everything, dry_run=dry_run)
    freed = before - timings.size_bytes()
    if as_json:
        print_json({"removed": [_facts(entry) for entry in removed], "dry_run": dry_run, "freed_bytes": freed})
        return 0
    _print(removed)
    said = "would be removed" if dry_run else f"removed, {count_text(freed)}B given back"
    say(f"{_counted(len(removed), 'timing')} {said}")
    return 0


def _lift(runtimes: Sequence[str], dry_run: bool, as_json: bool) -> int:
    """Let what is quarantined on these runtimes, or on all, be tried again."""
    with _warnings_on_stderr():
        lifted = Quarantine().lift(runtimes, dry_run=dry_run)
    if as_json:
        print_json({"lifted": [network.as_json() for network in lifted], "dry_run": dry_run})
        return 0
    _print_quarantined(lifted)
    say(f"{_counted(len(lifted), 'network')} {'would' if dry_run else 'will'} be tried again")
    return 0


@cache.command(epilog="Examples: archdsl cache export timings.jsonl · archdsl cache export - | gzip > timings.jsonl.gz")
@click.argument("file", metavar="FILE")
@options.as_json
def export(file: str, as_json: bool) -> int:
    """Write all timings to FILE, one JSON object a line; `-` is standard output."""
    if as_json and file == "-":
        message = "--json prints to standard output, where `-` writes the timings"
        raise ArchError.at("archdsl cache export", file, "usage", message, "leave one of them out")
    with _warnings_on_stderr():
        done = TimingCache().export(sys.stdout if file == "-" else Path(file))
    if as_json:
        print_json({"file": file, "exported": done.written, "left_out": done.left_out})
        return 0
    left_out = f"; {done.left_out} damaged left out" if done.left_out else ""
    say(f"{_counted(done.written, 'timing')} exported{left_out}", err=file == "-")
    return 0


@cache.command("import", epilog="Example: archdsl cache import timings.jsonl")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@options.as_json
def import_(files: tuple[str, ...], as_json: bool) -> int:
    """Take in the timings of files that `archdsl cache export` wrote; `-` is standard input.

    All or nothing: one wrong line, and nothing changes. A newer timing replaces an older one, but one taken while
    other processes used the cores never replaces an uncontended one.
    """
    with _warnings_on_stderr():
        merged = TimingCache().import_files(files)
    if as_json:
        print_json(merged.as_json())
    else:
        say(f"{_counted(merged.added, 'timing')} added, {merged.replaced} replaced, {merged.kept} kept as they were")
    return 0


def _facts(entry: Entry) -> dict[str, Any]:
    """A row as `--json` prints it; of a damaged one only what it belongs to."""
    names = ("key", "network", "graph_hash", "build", "fingerprint", "date")
    timing = entry.timing
    facts = {"shown": str(timing), "notes": list(timing.notes), **timing.as_json()} if timing else {}
    return {**{name: getattr(entry, name) for name in names}, "damaged": timing is None, **facts}


def _print(entries: Sequence[Entry]) -> None:
    if not entries:
        return
    columns = ("network", "runtime", "device", "precision", "batch", "threads", "form", "latency", "date")
    rows = []
    for entry in entries:
        name = f"{entry.network} {entry.graph_hash[:8]}".strip()
        timing = entry.timing
        if timing is None:
            rows.append((name, entry.runtime, "", "", "", "", entry.build, "damaged", entry.date))
        else:
            runtime, device = f"{timing.runtime} {timing.runtime_version}", f"{timing.device} {timing.device_name}"
            where = (name, runtime, device, timing.precision, str(timing.batch), str(timing.threads))
            rows.append((*where, entry.build, str(timing), timing.date))
    common = ("runtime", "device", "precision", "batch", "threads", "form")
    optional = ("threads", "date", "form", "device")
    print_rows(columns, rows, right=("batch", "threads", "latency"), common=common, optional=optional)


def _print_quarantined(networks: Sequence[Quarantined]) -> None:
    if not networks:
        return
    rows = [
        (f"{one.network} {one.graph_hash[:8]}", one.fingerprint, one.build, str(one.crashes), one.message, one.date)
        for one in networks
    ]
    columns = ("quarantined", "target", "form", "crashes", "the last one", "date")
    print_rows(columns, rows, right=("crashes",), prose=("target", "the last one"), optional=("date", "form"))


def _counted(num: int, what: str) -> str:
    return f"{num} {what}{'' if num == 1 else 's'}"


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print what the cache warns of to stderr, without the place in our code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CacheWarning)
        try:
            yield
        finally:
            for warning in caught:
                say(f"warning: {warning.message}", err=True)
