"""`starbase replication …`: the operations of HTTP on the command line; and the demo."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from starbase_data_replication.values import NAME
from starbase_host import CommandHost, ConfigError, InvalidRequest, StarbaseError, parse_json, printable

PATH = "/data-replication"
POLL_SECONDS = 0.2


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
    ):
        group.add_command(command)
    for verb, method, path, text in (
        ("start", "POST", "start", "Put a replication on its schedule; it is due at once."),
        ("stop", "POST", "stop", "Take a replication off its schedule."),
        ("delete", "DELETE", "configure", "Forget a replication; its table stays."),
    ):
        group.add_command(_simple(host, verb, method, path, text))
    return [group, _demo(host)]


def _simple(host: CommandHost, verb: str, method: str, path: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("name")
    def command(name: str) -> None:
        with host.client() as client:
            result = client.request(method, f"{PATH}/{path}/{_encoded(name)}")
        host.emit(result, result["message"])

    return command


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
            results = _configure_all(host, body)
            host.emit(results, results[-1]["message"] if results else "nothing")
            return
        with host.client() as client:
            result = client.request("POST", f"{PATH}/configure", body=body)
        host.emit(result, result["message"])

    return configure


class NotAllApplied(StarbaseError):
    """One of a list was refused; `status` is that of its refusal."""

    code = "not_all_applied"


def _configure_all(host: CommandHost, bodies: list[Any]) -> list[Any]:
    """Apply a list of replications, in its order, up to the first that is refused; its error says how far that was."""
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
    return results


def _is_name(body: dict[str, Any]) -> bool:
    """Whether an entry has a name that a message can show."""
    return isinstance(body.get("name"), str) and NAME.match(body["name"]) is not None


def _list(host: CommandHost) -> click.Command:
    @click.command("list", help="Every replication, with its state.")
    def list_replications() -> None:
        with host.client() as client:
            configs = client.request("GET", f"{PATH}/status")["configs"]
        columns = ("name", "state", "source_table", "target_table", "row_count", "last_sync_timestamp", "last_error")
        host.emit(configs, _table(columns, configs) or "no replication is configured")

    return list_replications


def _logs(host: CommandHost) -> click.Command:
    @click.command("logs", help="The latest runs, newest first.")
    @click.argument("name", required=False)
    @click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
    def logs(name: str | None, limit: int) -> None:
        params = {"limit": limit, **({"name": name} if name is not None else {})}
        with host.client() as client:
            found = client.request("GET", f"{PATH}/logs", params=params)["logs"]
        columns = ("created_at", "config_name", "status", "records_processed", "sync_duration_ms", "error_message")
        host.emit(found, _table(columns, found) or "no run is recorded")

    return logs


def _sync(host: CommandHost) -> click.Command:
    @click.command("sync", help="Sync now, and wait for the end.")
    @click.argument("name")
    def sync(name: str) -> None:
        with host.client() as client:
            if not sys.stderr.isatty() or host.json_output:
                result = client.request("POST", f"{PATH}/sync/{_encoded(name)}", patient=True)
            else:
                result = _watched(client, name)
        run = result["run"]
        host.emit(result, f"{name}: {run['records_processed']} rows in {run['sync_duration_ms']} ms")

    return sync


def _verify(host: CommandHost) -> click.Command:
    @click.command("verify", help="Compare the replica with its source, row by row.")
    @click.argument("name")
    @click.option("--repair", is_flag=True, help="Mend what differs.")
    def verify(name: str, repair: bool) -> None:
        with host.client() as client:
            path = f"{PATH}/verify/{_encoded(name)}"
            found = client.request("POST", path, body={"repair": repair}, patient=True)
        counts = ", ".join(f"{found[kind]} {kind}" for kind in ("missing", "extra", "different"))
        host.emit(found, f"{name}: {found['rows_compared']} rows compared, {counts}; {found['changed']} repaired")

    return verify


def _reconcile(host: CommandHost) -> click.Command:
    @click.command("reconcile", help="Remove, or mark, what is gone from the source.")
    @click.argument("name")
    @click.option("--force", is_flag=True, help="However large the share of the rows is.")
    def reconcile(name: str, force: bool) -> None:
        with host.client() as client:
            path = f"{PATH}/reconcile/{_encoded(name)}"
            found = client.request("POST", path, body={"force": force}, patient=True)
        host.emit(found, f"{name}: {found['rows_compared']} keys compared, {found['changed']} rows gone")

    return reconcile


def _reset(host: CommandHost) -> click.Command:
    @click.command("reset", help="Load a replication anew, beside what is there, and swap it in.")
    @click.argument("name")
    @click.option("--force", is_flag=True, help="Let rows go that may only be hidden from the source's user.")
    def reset(name: str, force: bool) -> None:
        with host.client() as client:
            result = client.request("POST", f"{PATH}/reset/{_encoded(name)}", body={"force": force}, patient=True)
        host.emit(result, result["message"])

    return reset


def _watched(client: Any, name: str) -> dict[str, Any]:
    """Sync with a line of progress on the terminal, kept up to date while the answer is awaited."""
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
    @click.command("demo", help="A shop in an embedded PostgreSQL, kept mirrored: see it work in a minute.")
    @click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
    def demo(port: int) -> None:
        from starbase_data_replication.demo.shop import run

        run(port, host.emit)

    return demo


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
