"""Runs one statement on one connection under its guard: binds parameters, steps, counts, and translates errors.

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

from starbase_host.catalogue import restore_names
from starbase_host.errors import Forbidden, InvalidRequest, TooLarge, Unavailable
from starbase_host.sandbox import Guard, OnlyPrepared
from starbase_host.sandbox_rules import CLIENT_REFUSAL, TOO_LONG, VALUE_BYTES
from starbase_host.texts import has_surrogate
from starbase_host.wire import Row, Sink, write_rows

T = TypeVar("T")
Values = list[Any] | dict[str, Any] | None

# SQLite's limit on parameters, and how many wrong values an error names.
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
# Not a damaged file: the rows of the table have changed since the index was built.
STALE = (
    "a full-text index does not match the text of its table, which has changed since; rebuild the index as admin with "
    "INSERT INTO NAME(NAME) VALUES ('rebuild'), where NAME is the index"
)


def bind(params: Sequence[Any] | Mapping[str, Any] | None) -> Values:
    """Turn parameters from their JSON form into SQLite values. Raises InvalidRequest, which names each wrong value."""
    if params is None:
        return None
    if isinstance(params, (Mapping, list, tuple)) and len(params) > MAX_PARAMETERS:
        raise InvalidRequest(
            fields={"params": f"has more than {MAX_PARAMETERS:,} values, the most that a statement can take"}
        )
    wrong: dict[str, str] = {}
    values: list[Any] | dict[str, Any]
    if isinstance(params, Mapping):
        values = {_bare(name): _check_value(value, f"params.{name}", wrong) for name, value in params.items()}
        if len(values) < len(params):
            raise InvalidRequest(fields={"params": "names a parameter twice, such as `:a` and `a`"})
    elif isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        values = [_check_value(value, f"params[{index}]", wrong) for index, value in enumerate(params)]
    else:
        raise InvalidRequest(fields={"params": "must be a list of values, or an object of names and values"})
    if wrong:
        named = dict(itertools.islice(wrong.items(), MAX_NAMED))
        if more := len(wrong) - len(named):
            named["params"] = f"{more:,} more values are wrong"
        raise InvalidRequest(fields=named)
    return values


def _bare(name: Any) -> str:
    """Remove the `:`, `@` or `$` before a name, if it has one."""
    text = str(name)
    return text[1:] if text[:1] in (":", "@", "$") else text


def _check_value(value: Any, field: str, wrong: dict[str, str]) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is bytes:
        return value
    if kind is int:
        if not -(2**63) <= value < 2**63:
            wrong[field] = "is not a 64-bit integer; send it as text"
    elif kind is float:
        if value != value:
            wrong[field] = "is NaN, which SQL does not have; send null"
    elif kind is str:
        if has_surrogate(value):
            wrong[field] = "contains half of a surrogate pair"
    elif isinstance(value, Mapping) and tuple(value) == ("$base64",) and isinstance(value["$base64"], str):
        try:
            return base64.b64decode(value["$base64"], validate=True)
        except (binascii.Error, ValueError):
            wrong[field] = "$base64 is not valid base64"
    else:
        wrong[field] = 'must be null, a boolean, a number, text or {"$base64": "…"}'
    return value


def prepare(guard: Guard, sql: str, values: Values) -> None:
    """Prepare a statement without running it. Raises what `execute` raises, and NotReadOnly."""
    _run_translated(guard, sql, values, lambda: _prepare(guard, sql, values))


def execute(guard: Guard, sql: str, values: Values, sink: Sink, most_rows: int) -> None:
    """Run a statement to its end, and write its rows into the sink.

    most_rows: how many rows the statement may return.
    Raises StarbaseError; NotReadOnly on a reader, when the statement would write; apsw.InterruptError.
    """
    sql = guard.rewrite(sql)
    _run_translated(guard, sql, values, lambda: _run(guard, sql, values, sink, most_rows))


def _run_translated(guard: Guard, sql: str, values: Values, work: Callable[[], None]) -> None:
    """Run it; run it again if it was refused under an outdated schema; translate its errors."""
    if "\x00" in sql:
        raise InvalidRequest(fields={"sql": "contains NUL"})
    try:
        try:
            work()
        except (apsw.SQLError, apsw.AuthError):
            if not guard.is_outdated():
                raise
            guard.refresh()
            work()
        except apsw.TooBigError:
            if not guard.shares:
                raise
            with guard.exclusive():
                work()
    except (apsw.Error, UnicodeError, KeyError, MemoryError) as error:
        guard.raise_undecided()
        raise translate_error(error, guard, sql, values) from error


def _prepare(guard: Guard, sql: str, values: Values, *, fresh: bool = False) -> None:
    cursor = guard.connection.cursor()
    try:
        cached = guard.begin(sql, only_prepare=True)
        cursor.execute(sql, values, can_cache=cached and not fresh)
    except OnlyPrepared:
        return
    finally:
        cursor.close(True)
    raise InvalidRequest(fields={"sql": "does not contain a statement"})


def _run(
    guard: Guard,
    sql: str,
    values: Values,
    sink: Sink,
    most_rows: int,
    names: tuple[str, ...] | None = None,
) -> None:
    """names: the columns, when the rows are (type, value) pairs of the statement that `_run_for_bytes` makes."""
    cursor = guard.connection.cursor()
    before = guard.connection.total_changes()
    # When it runs again for bytes, it is wrapped, and its columns have no origin any more.
    guard.keeps_origins = sink.origins is not None and names is None
    cached = guard.begin(sql)
    count: int | None
    sink.restart()
    try:
        cursor.execute(sql, values, can_cache=cached)
        columns = names or _columns(cursor, guard)
        sink.begin(columns)
        count = write_rows(cursor if names is None else _decode_rows(cursor), sink, most_rows)
    except UnicodeDecodeError:
        count, columns = None, guard.columns
    finally:
        cursor.close(True)
    if guard.text is None:
        raise InvalidRequest(fields={"sql": "does not contain a statement"})
    guard.check_created()
    if count is None:
        if guard.keeps_origins:
            sink.origins = guard.origins
        _run_for_bytes(guard, guard.text, columns, values, sink, most_rows)
        return
    if columns and not count:
        # Without a row, the columns are those of the schema that the connection knew; prepare for the current one.
        _prepare(guard, sql, values, fresh=True)
        columns = names or guard.columns
    if guard.keeps_origins:
        sink.origins = guard.origins
    sink.finish(columns, count, guard.connection.total_changes() - before)


def _columns(cursor: apsw.Cursor, guard: Guard) -> tuple[str, ...]:
    try:
        return tuple(column[0] for column in cursor.get_description())
    except apsw.ExecutionCompleteError:
        return guard.columns


def _run_for_bytes(
    guard: Guard, text: str, columns: tuple[str, ...], values: Values, sink: Sink, most_rows: int
) -> None:
    """Run a read again that returned text which is not UTF-8; such text becomes bytes."""
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
        raise InvalidRequest("the answer contains text that is not UTF-8; write CAST(column AS BLOB)") from error


def _decode_rows(cursor: Iterator[Row]) -> Iterator[Row]:
    return (tuple(map(_decode, row[::2], row[1::2])) for row in cursor)


def _decode(kind: str, value: Any) -> Any:
    if kind != "text":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def translate_error(error: Exception, guard: Guard | None, sql: str = "", values: Values = None) -> Exception:
    """Translate an error of SQLite into one of this project. For a client, the message reveals nothing hidden."""
    if isinstance(error, apsw.InterruptError):
        return error
    if isinstance(error, apsw.TooBigError):
        return guard.too_long_error() if guard is not None else TooLarge(TOO_LONG.format(VALUE_BYTES))
    if isinstance(error, (apsw.NoMemError, MemoryError)):
        return TooLarge("the statement is too large or takes too much memory")
    if isinstance(error, apsw.CorruptError) and getattr(error, "extendedresult", None) == apsw.SQLITE_CORRUPT_VTAB:
        hidden = guard is not None and (guard.mentions_hidden(sql) or guard.mentions_hidden(str(error)))
        return Forbidden(CLIENT_REFUSAL) if hidden else InvalidRequest(f"{STALE} ({error})")
    if isinstance(error, _UNAVAILABLE):
        return Unavailable(f"the database cannot be used now: {error}")
    if isinstance(error, UnicodeEncodeError):
        return InvalidRequest(fields={"sql": "contains half of a surrogate pair"})
    hidden = guard is not None and (guard.mentions_hidden(sql) or guard.mentions_hidden(str(error)))
    if hidden:
        return Forbidden(CLIENT_REFUSAL)
    if guard is not None and guard.denied is not None:
        return Forbidden(guard.denied)
    if isinstance(error, (apsw.AuthError, apsw.ReadOnlyError)) or "may not be" in str(error):
        return Forbidden(str(error))
    if "VACUUM" in str(error):
        return Forbidden("VACUUM is not allowed, because the host keeps the database open")
    return _invalid(error, values)


def _invalid(error: Exception, values: Values) -> InvalidRequest:
    if isinstance(error, KeyError):
        return InvalidRequest(fields={f"params.{error.args[0]}": "is missing"})
    if isinstance(error, apsw.BindingsError):
        if isinstance(values, dict):
            return InvalidRequest(fields={"params": "sql has parameters without names; send a list"})
        takes = _BINDINGS.search(str(error))
        count = takes.group(1) if takes else "other"
        return InvalidRequest(fields={"params": f"sql takes {count} parameters, but params has {len(values or ())}"})
    return InvalidRequest(restore_names(str(error)))
