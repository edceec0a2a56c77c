"""Runs one statement on one connection under its guard: binds, steps, measures, and words what went wrong.

Must not know threads, time, transactions, plugins or HTTP.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import apsw

from starbase_host.catalogue import original
from starbase_host.errors import Forbidden, InvalidRequest, TooLarge, Unavailable
from starbase_host.sandbox import Guard, Prepared
from starbase_host.sandbox_rules import CLIENT_REFUSAL, TOO_LONG, VALUE_BYTES
from starbase_host.wire import Row, Sink, pour

T = TypeVar("T")
Values = list[Any] | dict[str, Any] | None

# SQLite's own limit. An error that names each of a million values would be longer than their body.
MAX_PARAMETERS = 32_766
MAX_NAMED = 100
WHITE = " \t\r\n\f;"
_BINDINGS = re.compile(r"(?:uses|has) (\d+)")
_UNAVAILABLE = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NotADBError,
)
# Not the file: an index that was built over other rows than its table now holds.
STALE = (
    "a full-text index does not match the text of its table, which has changed beside it; build it again, as admin: "
    "INSERT INTO it(it) VALUES ('rebuild'), with its own name"
)


def bind(params: Sequence[Any] | Mapping[str, Any] | None) -> Values:
    """Parameters in their JSON form as SQLite's values. Raises InvalidRequest naming each wrong one."""
    if params is None:
        return None
    if isinstance(params, (Mapping, list, tuple)) and len(params) > MAX_PARAMETERS:
        raise InvalidRequest(fields={"params": f"holds more than {MAX_PARAMETERS:,} values; a statement takes no more"})
    wrong: dict[str, str] = {}
    values: list[Any] | dict[str, Any]
    if isinstance(params, Mapping):
        values = {_bare(name): _value(value, f"params.{name}", wrong) for name, value in params.items()}
        if len(values) < len(params):
            raise InvalidRequest(fields={"params": "names one parameter twice"})
    elif isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        values = [_value(value, f"params[{index}]", wrong) for index, value in enumerate(params)]
    else:
        raise InvalidRequest(fields={"params": "must be a list of values, or an object of names and values"})
    if wrong:
        named = dict(itertools.islice(wrong.items(), MAX_NAMED))
        if more := len(wrong) - len(named):
            named["params"] = f"{more:,} more of its values are wrong"
        raise InvalidRequest(fields=named)
    return values


def _bare(name: Any) -> str:
    """`:name`, `@name` and `$name` may be written with their mark or without."""
    text = str(name)
    return text[1:] if text[:1] in (":", "@", "$") else text


def _value(value: Any, field: str, wrong: dict[str, str]) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is bytes:
        return value
    if kind is int:
        if not -(2**63) <= value < 2**63:
            wrong[field] = "an integer has 64 bits in SQLite; send it as text"
    elif kind is float:
        if value != value:
            wrong[field] = "NaN is not a value of SQL"
    elif kind is str:
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            wrong[field] = "holds half of a surrogate pair"
    elif isinstance(value, Mapping) and tuple(value) == ("$base64",) and isinstance(value["$base64"], str):
        try:
            return base64.b64decode(value["$base64"], validate=True)
        except (binascii.Error, ValueError):
            wrong[field] = "$base64 holds something that is not base64"
    else:
        wrong[field] = 'must be null, a boolean, a number, text or {"$base64": "…"}'
    return value


def prepare(guard: Guard, sql: str, values: Values) -> None:
    """Check a statement as `execute` would, up to its first step. Raises NotReadOnly, and what execute raises."""
    _explained(guard, sql, values, lambda: _prepare(guard, sql, values))


def execute(guard: Guard, sql: str, values: Values, sink: Sink, most_rows: int) -> None:
    """Run a statement to its end; its rows go into the sink.

    Raises StarbaseError; NotReadOnly on a reader, for what would write; apsw.InterruptError when interrupted.
    """
    sql = guard.rewritten(sql)
    _explained(guard, sql, values, lambda: _run(guard, sql, values, sink, most_rows))


def _explained(guard: Guard, sql: str, values: Values, work: Callable[[], None]) -> None:
    """Do the work; once more when it was refused under a schema that is no longer; then word its error."""
    if "\x00" in sql:
        raise InvalidRequest(fields={"sql": "holds NUL"})
    try:
        try:
            work()
        except (apsw.SQLError, apsw.AuthError):
            if not guard.outdated():
                raise
            guard.refresh()
            work()
        except apsw.TooBigError:
            if not guard.shares:
                raise
            with guard.alone():
                work()
    except (apsw.Error, UnicodeError, KeyError, MemoryError) as error:
        raise explain(error, guard, sql, values) from error


def _prepare(guard: Guard, sql: str, values: Values, *, fresh: bool = False) -> None:
    cursor = guard.connection.cursor()
    try:
        cached = guard.begin(sql, only_prepare=True)
        cursor.execute(sql, values, can_cache=cached and not fresh)
    except Prepared:
        return
    finally:
        cursor.close(True)
    raise InvalidRequest(fields={"sql": "holds no statement"})


def _run(
    guard: Guard,
    sql: str,
    values: Values,
    sink: Sink,
    most_rows: int,
    names: tuple[str, ...] | None = None,
) -> None:
    """names: the columns of an answer whose rows come as `_run_for_bytes` asks for them."""
    cursor = guard.connection.cursor()
    before = guard.connection.total_changes()
    cached = guard.begin(sql)
    count: int | None
    sink.restart()
    try:
        cursor.execute(sql, values, can_cache=cached)
        columns = names or _columns(cursor, guard)
        sink.begin(columns)
        count = pour(cursor if names is None else _decoded_rows(cursor), sink, most_rows)
    except UnicodeDecodeError:
        count, columns = None, guard.columns
    finally:
        cursor.close(True)
    if guard.text is None:
        raise InvalidRequest(fields={"sql": "holds no statement"})
    guard.check_created()
    if count is None:
        _run_for_bytes(guard, guard.text, columns, values, sink, most_rows)
        return
    if columns and not count:
        # A statement tells the columns of the schema that its connection knew, until its first row has come.
        _prepare(guard, sql, values, fresh=True)
        columns = names or guard.columns
    sink.finish(columns, count, guard.connection.total_changes() - before)


def _columns(cursor: apsw.Cursor, guard: Guard) -> tuple[str, ...]:
    try:
        return tuple(column[0] for column in cursor.get_description())
    except apsw.ExecutionCompleteError:
        return guard.columns


def _run_for_bytes(
    guard: Guard, text: str, columns: tuple[str, ...], values: Values, sink: Sink, most_rows: int
) -> None:
    """Run a read again whose answer holds text that is not UTF-8; such text comes back as bytes."""
    names = [f"c{index}" for index in range(len(columns))]
    pairs = ", ".join(f"typeof({name}), iif(typeof({name}) = 'text', CAST({name} AS BLOB), {name})" for name in names)
    wrapped = (
        f"WITH _starbase_answer({', '.join(names)}) AS MATERIALIZED (\n{text.rstrip(WHITE)}\n) "
        f"SELECT {pairs} FROM _starbase_answer"
    )
    try:
        if not names or guard.writer:
            raise apsw.SQLError
        _run(guard, wrapped, values, sink, most_rows, columns)
    except apsw.SQLError as error:
        raise InvalidRequest("the answer holds text that is not UTF-8; write CAST(column AS BLOB)") from error


def _decoded_rows(cursor: Iterator[Row]) -> Iterator[Row]:
    return (tuple(map(_decoded, row[::2], row[1::2])) for row in cursor)


def _decoded(kind: str, value: Any) -> Any:
    if kind != "text":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def explain(error: Exception, guard: Guard | None, sql: str = "", values: Values = None) -> Exception:
    """SQLite's error as the project's, in words that tell a client nothing about what it may not see."""
    if isinstance(error, apsw.InterruptError):
        return error
    if isinstance(error, apsw.TooBigError):
        return guard.too_long() if guard is not None else TooLarge(TOO_LONG.format(VALUE_BYTES))
    if isinstance(error, (apsw.NoMemError, MemoryError)):
        return TooLarge("the statement is too large or takes too much memory")
    if isinstance(error, apsw.CorruptError) and getattr(error, "extendedresult", None) == apsw.SQLITE_CORRUPT_VTAB:
        hidden = guard is not None and (guard.mentions_hidden(sql) or guard.mentions_hidden(str(error)))
        return Forbidden(CLIENT_REFUSAL) if hidden else InvalidRequest(f"{STALE} ({error})")
    if isinstance(error, _UNAVAILABLE):
        return Unavailable(f"the database cannot be used now: {error}")
    if isinstance(error, UnicodeEncodeError):
        return InvalidRequest(fields={"sql": "holds half of a surrogate pair"})
    hidden = guard is not None and (guard.mentions_hidden(sql) or guard.mentions_hidden(str(error)))
    if hidden:
        return Forbidden(CLIENT_REFUSAL)
    if guard is not None and guard.denied is not None:
        return Forbidden(guard.denied)
    if isinstance(error, (apsw.AuthError, apsw.ReadOnlyError)) or "may not be" in str(error):
        return Forbidden(str(error))
    if "VACUUM" in str(error):
        return Forbidden("VACUUM is not allowed: the host keeps the database to itself")
    return _invalid(error, values)


def _invalid(error: Exception, values: Values) -> InvalidRequest:
    if isinstance(error, KeyError):
        return InvalidRequest(fields={f"params.{error.args[0]}": "is missing"})
    if isinstance(error, apsw.BindingsError):
        if isinstance(values, dict):
            return InvalidRequest(fields={"params": "sql has parameters without a name; send a list"})
        takes = _BINDINGS.search(str(error))
        count = takes.group(1) if takes else "other"
        return InvalidRequest(fields={"params": f"sql takes {count} parameters, params holds {len(values or ())}"})
    return InvalidRequest(original(str(error)))
