"""`starbase replication …`: the operations of HTTP on the command line; and `starbase demo`.

Must not know the service: a command speaks HTTP to the host that runs, or to one in its own process.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from starbase_data_replication.config import NAME
from starbase_host import CommandHost, ConfigError, InvalidRequest, StarbaseError, parse_json, printable

PATH = "/data-replication"
# How often the line of progress is updated; a status request takes a few milliseconds.
POLL_SECONDS = 0.2
OFFLINE = "no host is running; nothing is scheduled until `starbase serve` runs"
BUILT_IN = ("postgresql", "mysql")
# The kinds of run that a user knows by another name.
KINDS = {"scheduled": "sync", "manual": "sync"}


def commands(host: CommandHost) -> list[click.Command]:
    """The commands that the plugin adds to `starbase`."""
    group = click.Group("replication", help="Configure, run and watch replications.")
    for command in (
        _configure(host),
        _list(host),
        _sync(host),
        _logs(host),
        _verify(host),
        _reconcile(host),
        _reset(host),
        _new_dialect(host),
    ):
        group.add_command(command)
    for verb, method, path, text in (
        ("start", "POST", "start", "Put a replication on its schedule; it is due at once."),
        ("stop", "POST", "stop", "Take a replication off its schedule."),
        ("delete", "DELETE", "configure", "Delete a replication; its table stays."),
    ):
        group.add_command(_simple(host, verb, method, path, text))
    return [group, _demo(host)]


def _simple(host: CommandHost, verb: str, method: str, path: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("name")
    def command(name: str) -> None:
        with host.client() as client:
            result = client.request(method, f"{PATH}/{path}/{_encoded(name)}")
            offline = client.in_process and verb == "start"
        host.emit(result, result["message"])
        _warn_if_offline(offline)

    return command


def _new_dialect(host: CommandHost) -> click.Command:
    @click.command("new-dialect", help="Write a plugin with a new dialect, and its tests, into the directory NAME.")
    @click.argument("name")
    def new_dialect(name: str) -> None:
        # Imported here, because no other command needs the kit.
        from starbase_data_replication.dialect_kit import NEW_DIALECT

        if name in BUILT_IN:
            why = f"must not be {name}: that dialect is built in; take another name, such as my_{name}"
            raise ConfigError("NAME", why)
        host.write_plugin(name, NEW_DIALECT)

    return new_dialect


def _configure(host: CommandHost) -> click.Command:
    @click.command("configure", help="Create or change replications from a JSON file (- for standard input).")
    @click.argument("file", type=click.Path(allow_dash=True))
    def configure(file: str) -> None:
        try:
            text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(file, f"cannot be read: {error.strerror}") from error
        body = parse_json(text, "standard input" if file == "-" else file)
        if isinstance(body, list):
            results, offline = _configure_all(host, body)
            host.emit(results, results[-1]["message"] if results else "nothing")
        else:
            with host.client() as client:
                result = client.request("POST", f"{PATH}/configure", body=body)
                offline = client.in_process
            host.emit(result, result["message"])
        _warn_if_offline(offline)

    return configure


class NotAllApplied(StarbaseError):
    """One replication of a list was refused; `status` is that of its refusal."""

    code = "not_all_applied"


def _configure_all(host: CommandHost, bodies: list[Any]) -> tuple[list[Any], bool]:
    """Configure a list of replications in its order, up to the first that is refused.

    Returns the results, and whether no host is running. Raises NotAllApplied, which names those that were configured.
    """
    wrong = {f"[{index}]": "must be an object" for index, body in enumerate(bodies) if not isinstance(body, dict)}
    if wrong:
        raise InvalidRequest(f"{'; '.join(f'{at} {why}' for at, why in wrong.items())}; nothing was applied")
    labels = [f"[{index}] {body['name']}" if _is_name(body) else f"[{index}]" for index, body in enumerate(bodies)]
    results: list[Any] = []
    with host.client() as client:
        for label, body in zip(labels, bodies, strict=True):
            try:
                results.append(client.request("POST", f"{PATH}/configure", body=body))
            except StarbaseError as error:
                before = f"applied before it: {', '.join(labels[: len(results)])}"
                done = before if results else "nothing was applied before it"
                raise NotAllApplied(f"{label}: {error}; {done}", status=error.status) from error
        return results, client.in_process


def _is_name(body: dict[str, Any]) -> bool:
    """Whether an entry has a name that a message can show."""
    return isinstance(body.get("name"), str) and NAME.match(body["name"]) is not None


def _list(host: CommandHost) -> click.Command:
    @click.command("list", help="Show every replication with its state.")
    def list_replications() -> None:
        with host.client() as client:
            configs = client.request("GET", f"{PATH}/status")["configs"]
            offline = client.in_process
        columns = (
            "name", "state", "source_table", "target_table", "row_count", "last_sync_timestamp", "warnings",
            "last_error",
        )  # fmt: skip
        rows = [{**each, "warnings": len(each["warnings"]), "last_error": _current_error(each)} for each in configs]
        host.emit(configs, _table(columns, rows) or "no replications are configured")
        _warn_if_offline(offline)

    return list_replications


def _logs(host: CommandHost) -> click.Command:
    @click.command("logs", help="Show the latest runs, newest first.")
    @click.argument("name", required=False)
    @click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
    def logs(name: str | None, limit: int) -> None:
        params = {"limit": limit, **({"name": name} if name is not None else {})}
        with host.client() as client:
            found = client.request("GET", f"{PATH}/logs", params=params)["logs"]
        columns = (
            "created_at", "config_name", "kind", "status", "records_processed", "sync_duration_ms", "error_message",
        )  # fmt: skip
        found = (
            [{**run, "kind": KINDS.get(run["kind"], run["kind"])} for run in found] if not host.json_output else found
        )
        host.emit(found, _table(columns, found) or "no runs are recorded")

    return logs


def _sync(host: CommandHost) -> click.Command:
    @click.command("sync", help="Sync a replication now, and wait until it has ended.")
    @click.argument("name")
    def sync(name: str) -> None:
        with host.client() as client:
            if not sys.stderr.isatty() or host.json_output:
                result = client.request("POST", f"{PATH}/sync/{_encoded(name)}", patient=True)
            else:
                result = _watched(client, name)
        run = result["run"]
        _report(host, result, f"{name}: {_rows(run['records_processed'])} in {run['sync_duration_ms']} ms")

    return sync


def _verify(host: CommandHost) -> click.Command:
    @click.command("verify", help="Compare a replica with its source, row by row.")
    @click.argument("name")
    @click.option("--repair", is_flag=True, help="Write what is missing or different, and remove what is extra.")
    def verify(name: str, repair: bool) -> None:
        with host.client() as client:
            path = f"{PATH}/verify/{_encoded(name)}"
            found = client.request("POST", path, body={"repair": repair}, patient=True)
        counts = ", ".join(f"{found[kind]} {kind}" for kind in ("missing", "extra", "different"))
        compared = f"{_rows(found['rows_compared'])} compared"
        _report(host, found, f"{name}: {compared}, {counts}; {found['changed']} repaired")

    return verify


def _reconcile(host: CommandHost) -> click.Command:
    @click.command("reconcile", help="Remove, or mark, the rows that are gone from the source.")
    @click.argument("name")
    @click.option("--force", is_flag=True, help="Also if they are a large share of the replica.")
    def reconcile(name: str, force: bool) -> None:
        with host.client() as client:
            path = f"{PATH}/reconcile/{_encoded(name)}"
            found = client.request("POST", path, body={"force": force}, patient=True)
            configs = [] if host.json_output else client.request("GET", f"{PATH}/status")["configs"]
        deletes = next((each["deletes"] for each in configs if each["name"] == name), None)
        marks = isinstance(deletes, dict) and "mark" in deletes
        keys = f"{found['rows_compared']} key{'' if found['rows_compared'] == 1 else 's'} compared"
        _report(host, found, f"{name}: {keys}, {_rows(found['changed'])} {'marked as deleted' if marks else 'removed'}")

    return reconcile


def _reset(host: CommandHost) -> click.Command:
    @click.command("reset", help="Reload a replication into a new table, then swap it in.")
    @click.argument("name")
    @click.option("--force", is_flag=True, help="Also remove rows that the source may only hide from its user.")
    def reset(name: str, force: bool) -> None:
        with host.client() as client:
            result = client.request("POST", f"{PATH}/reset/{_encoded(name)}", body={"force": force}, patient=True)
        run = result["run"]
        _report(host, result, f"{name}: reset, {_rows(run['rows_read'])} loaded in {run['sync_duration_ms']} ms")

    return reset


def _watched(client: Any, name: str) -> dict[str, Any]:
    """Sync, and show a line of progress on the terminal until the answer comes."""
    with contextlib.ExitStack() as stack:
        answer = client.begin("POST", f"{PATH}/sync/{_encoded(name)}", patient=True)
        stack.callback(lambda: click.echo("\r\x1b[K", err=True, nl=False))
        while not answer.done():
            configs = client.request("GET", f"{PATH}/status")["configs"]
            progress = next((each["progress"] for each in configs if each["name"] == name), None)
            if progress is not None:
                of = f" of about {progress['estimated_rows']:,}" if progress["estimated_rows"] else ""
                click.echo(f"\r\x1b[K{printable(name)}: {progress['rows']:,} rows{of}", err=True, nl=False)
            time.sleep(POLL_SECONDS)
        return dict(answer.result())


def _demo(host: CommandHost) -> click.Command:
    @click.command("demo", help="Replicate a small shop from an embedded PostgreSQL: see it work in a minute.")
    @click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
    def demo(port: int) -> None:
        from starbase_data_replication.demo import run

        run(port, host.emit)

    return demo


def _report(host: CommandHost, result: dict[str, Any], text: str) -> None:
    """Print how a run has ended, and its warnings on standard error; with --json they are in the result."""
    host.emit(result, text)
    for warning in [] if host.json_output else result["run"]["warnings"]:
        click.echo(f"warning: {printable(warning)}", err=True)


def _warn_if_offline(offline: bool) -> None:
    """Print that nothing is scheduled without a host; after the answer, which would suggest otherwise."""
    if offline:
        click.echo(OFFLINE, err=True)


def _current_error(status: dict[str, Any]) -> str | None:
    """The last error, unless a sync has succeeded after it."""
    failed_at, succeeded_at = status["last_error_at"], status["last_success_at"]
    past = failed_at is not None and succeeded_at is not None and failed_at < succeeded_at
    error: str | None = status["last_error"]
    return None if past and status["state"] != "degraded" else error


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [
        list(columns),
        *([("" if row[name] is None else printable(str(row[name]))) for name in columns] for row in rows),
    ]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _encoded(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")
