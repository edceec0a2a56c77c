"""The guard that stands on a connection while a user's SQL runs there, and puts the role's rules to SQLite.

SQLite's own authorizer decides, never a parser: it is asked about every table, column, function and pragma that a
statement really touches, also inside views, triggers and virtual tables. Text is looked at only to refuse more, or to
say less: a name that a statement uses must stand in its text, so a text without it cannot mean it.

Knows one connection and one role. Must not know threads, time, plugins or HTTP.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence, Set
from typing import Any

import apsw

from starbase_host import catalogue, full_text
from starbase_host import sandbox_rules as rules
from starbase_host.database import quote
from starbase_host.errors import Forbidden, InvalidRequest, TooLarge
from starbase_host.replaced_functions import replace_trim, replace_unhex
from starbase_host.weight import weight

# Who waits for his turn looks up that often, whether he has been interrupted.
TURN_SECONDS = 0.05


class NotReadOnly(Exception):
    """Raised on a reader before the first step of a statement that would write."""


class Prepared(Exception):
    """Raised instead of the first step, when only preparing was asked for."""


def fold(name: str) -> bytes:
    """A name as SQLite compares names: ASCII letters without case, everything else as it is."""
    return name.encode().lower()


class Guard:
    """Authorizer and tracer of one connection under one role; one thread uses it at a time.

    The tracer runs between preparing and the first step, which is where SQLite can say whether a statement is
    read-only, what it is called with and how wide its rows are.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        role: rules.Role,
        *,
        writer: bool = False,
        turn: threading.Lock | None = None,
    ) -> None:
        self.connection = connection
        self.role: rules.Role = role
        self.denied: str | None = None
        self.text: str | None = None
        self._description: Sequence[Sequence[Any]] = ()
        self.writer = writer
        self._trusted = False
        self._private_tables: Set[str] = frozenset()
        self._private: frozenset[bytes] = rules.ALWAYS_PRIVATE
        self._known: frozenset[bytes] = frozenset()
        self._schema_version: Any = None
        # Of texts that a client has sent before.
        self._lengths: dict[str, tuple[int, str, int]] = {}
        self.longest = rules.VALUE_BYTES
        # Whether values are this short only because others run at the same time; see `alone`.
        self.shares = False
        self._turn = turn or threading.Lock()
        self._is_alone = False
        # The function that has made it shorter, if one has.
        self._shortened_by = ""
        # What each of its values may have of what a client's statement may hold.
        self._part = 0
        self._length = rules.VALUE_BYTES
        self._sql = ""
        self._only_prepare = False
        self._creates = False
        self._analyzes = False
        # The full-text tables that held hidden text before a statement that creates something.
        self._showing: set[str] = set()
        self._catalogue = catalogue.Catalogue()
        # What it was looked up under: the schema's version, and the tables that are private.
        self._catalogue_of: Any = None
        self._tries = False

    def install(self) -> None:
        """Make a reader's connection fit for users, once and for good."""
        for limit, value in rules.LIMITS.items():
            self.connection.limit(limit, value)
        self.connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0)
        self.connection.enable_load_extension(False)
        self.connection.exec_trace = self._trace
        self.connection.authorizer = self._authorize
        if self.role == "client":
            self.connection.limit(apsw.SQLITE_LIMIT_VDBE_OP, rules.CLIENT_PROGRAM_STEPS)
            self.connection.limit(apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, rules.CLIENT_PATTERN_BYTES)
            replace_trim(self.connection)
            replace_unhex(self.connection)
            self._catalogue.register(self.connection)
            self.refresh()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Stand on the writer's connection, which is the host's, and leave it as it was."""
        connection = self.connection
        limits = {limit: connection.limit(limit, value) for limit, value in rules.LIMITS.items()}
        defensive = connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.exec_trace = self._trace
            connection.authorizer = self._authorize
            yield
        finally:
            connection.authorizer = None
            connection.exec_trace = None
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, defensive)
            for limit, value in limits.items():
                connection.limit(limit, value)

    def protect(self, private_tables: Set[str]) -> None:
        """Keep these tables from every role. Cheap when they are the same as before."""
        if private_tables != self._private_tables:
            self._private_tables = frozenset(private_tables)
            self._private = rules.ALWAYS_PRIVATE | {fold(name) for name in private_tables}
            if not self.writer:
                # Setting the authorizer makes SQLite ask it again about every statement in the cache.
                self.connection.authorizer = self._authorize

    def begin(self, sql: str, *, only_prepare: bool = False) -> bool:
        """Get ready for one statement. Answers whether it may come from the connection's statement cache.

        A statement that a client sends for the first time does not, so that its functions are seen. What the
        host's own writes have cached is never a user's.
        """
        if self.role == "client" and catalogue.PREFIX in sql.lower():
            self._look_up_catalogue()
        self.denied = self.text = None
        self._description = ()
        self._sql, self._only_prepare = sql, only_prepare
        self._creates = self._analyzes = False
        self._set_length(rules.VALUE_BYTES)
        self.longest, self._shortened_by, self._part = self._lengths.get(sql, (rules.VALUE_BYTES, "", 0))
        self.shares = False
        if self.role == "admin":
            return not self.writer
        return sql in self._lengths

    def trusted(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of the host's own; it never enters the statement cache, where a user could meet it."""
        self._trusted = True
        try:
            return self.connection.execute(sql, can_cache=False).fetchall()
        finally:
            self._trusted = False

    def outdated(self) -> bool:
        """Whether a reader's schema has changed since it was last looked at; a refusal may rest on the old one."""
        return not self.writer and self.trusted("PRAGMA schema_version") != self._schema_version

    def refresh(self) -> None:
        """Learn the schema, and for a client its tables: what is not among them may be a built-in virtual table."""
        self._schema_version = self.trusted("PRAGMA schema_version")
        found = self.trusted("SELECT name, rootpage = 0 AND type = 'table' FROM sqlite_schema")
        known = {fold(name) for name, _ in found} - rules.OTHER_MODULES
        over_hidden = self._over_hidden()
        for name, virtual in found:
            if not virtual:
                continue
            if name in over_hidden:
                known -= {fold(name), *(fold(f"{name}_{suffix}") for suffix in full_text.SHADOWS)}
            # Some modules prepare their writes when they connect, which a client could not.
            with contextlib.suppress(apsw.Error):
                self.trusted(f"SELECT 1 FROM {quote(name)} LIMIT 0")
        self._known = frozenset(known)

    def _over_hidden(self) -> set[str]:
        """The virtual tables that may hold text of tables which a client never sees."""
        rows = self.trusted(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'view' OR (type = 'table' AND rootpage = 0)"
        )
        return full_text.over_hidden(rows, self._speaks_of_hidden)

    def check_created(self) -> None:
        """Raises Forbidden when the statement that has run lets a full-text table hold what a client may not see."""
        if self._creates and self._over_hidden() - self._showing:
            raise Forbidden(rules.FULL_TEXT_REFUSAL)

    def rewritten(self, sql: str) -> str:
        """A statement as it is run: what a client asks of the schema is asked of what it may see.

        Raises TooLarge for one that is longer than a client's may be, before anything goes through it.
        """
        if self.role == "admin":
            return sql
        if len(sql) > rules.CLIENT_SQL_CHARACTERS:
            raise TooLarge(f"sql is longer than {rules.CLIENT_SQL_CHARACTERS:,} characters, a client's limit")
        return catalogue.rewritten(sql)

    def _look_up_catalogue(self) -> None:
        of = self.trusted("PRAGMA schema_version"), self._private
        if of == self._catalogue_of:
            return
        if self.outdated():
            self.refresh()
        found = self.trusted(
            "SELECT name, type = 'view' OR rootpage = 0 FROM sqlite_schema WHERE type IN ('table', 'view')"
        )
        tables = {
            name: quote(name)
            for name, doubtful in found
            if fold(name) in self._known and not self._hides(name) and (not doubtful or self._readable(name))
        }
        self._catalogue.look_up(self.trusted, tables, hides=self._hides, mentions_hidden=self.mentions_hidden)
        self._catalogue_of = of

    def _hides(self, name: str) -> bool:
        return fold(name).startswith(rules.HIDDEN_PREFIXES) or fold(name) in self._private

    def _readable(self, name: str) -> bool:
        """Whether the role may read this view or virtual table: the authorizer is asked of all that it stands on."""
        self._tries = True
        try:
            # Prepared only: SQLite fills some views before it comes to a LIMIT, and one may never end.
            self.connection.execute(f"EXPLAIN SELECT * FROM {quote(name)}", can_cache=False).fetchall()
        except apsw.Error:
            return False
        finally:
            self._tries = False
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the answer's columns as they were prepared; a schema that changed since may rename them."""
        return tuple(column[0] for column in self._description)

    def mentions_hidden(self, text: str) -> bool:
        """Whether the text could speak of a table that the role never sees."""
        return self.role == "client" and self._speaks_of_hidden(text)

    def _speaks_of_hidden(self, text: str) -> bool:
        folded = fold(text)
        for name in catalogue.TABLES:
            folded = folded.replace(name, b"")
        return any(name in folded for name in (*rules.HIDDEN_PREFIXES, *self._private))

    def too_long(self) -> TooLarge:
        """What is said of a value that is too long for this statement."""
        if self._shortened_by:
            return TooLarge(rules.TOO_LONG_BESIDE.format(self.longest, self._shortened_by))
        if self.role == "client" and self.longest < rules.CLIENT_ALONE_BYTES:
            return TooLarge(rules.TOO_LONG_TOGETHER.format(self.longest))
        return TooLarge(rules.TOO_LONG.format(self.longest))

    def _set_length(self, value: int) -> None:
        if value != self._length:
            self._length = value
            self.connection.limit(apsw.SQLITE_LIMIT_LENGTH, value)

    def _trace(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if self._trusted or self._tries or not cursor.has_vdbe:
            return True
        if self.text is not None:
            raise InvalidRequest("sql holds more than one statement; send them as a transaction")
        self.text = sql
        if isinstance(bindings, dict) and (unknown := bindings.keys() - set(cursor.bindings_names)):
            raise InvalidRequest(
                fields={f"params.{name}": "sql has no parameter of this name" for name in sorted(unknown)}
            )
        if not cursor.is_readonly and not self.writer:
            raise Forbidden(rules.CLIENT_REFUSAL) if self.role == "client" else NotReadOnly
        if self._creates:
            self._check_text()
            self._showing = self._over_hidden()
        self._description = cursor.description
        if self.role == "client":
            # A program shows addresses in memory; a plan does not.
            if cursor.is_explain == 1:
                raise Forbidden("the client role may ask for EXPLAIN QUERY PLAN only")
            self._measure(sql, bindings)
        if self._only_prepare:
            raise Prepared
        if self.role == "client":
            part = self._part_alone(sql, bindings) if self._is_alone else self._part
            self.shares = part < self.longest and not self._is_alone
            if part < self.longest:
                self.longest, self._shortened_by = part, ""
            self._set_length(self.longest)
        else:
            self._set_length(min(self.longest, rules.ROW_BYTES // max(1, len(self._description))))
        return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """What a statement may hold in here is more, and one guard at a time is in here.

        Raises apsw.InterruptError when the connection is interrupted meanwhile.
        """
        while not self._turn.acquire(timeout=TURN_SECONDS):
            if self.connection.is_interrupted:
                raise apsw.InterruptError("interrupted")
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            self._turn.release()

    def _measure(self, sql: str, bindings: Any) -> None:
        """Remember how long a value may be in this text, and hold its parameters to that: SQLite would not."""
        if not self._part:
            # Without either, what its program is made of stands in the text, and EXPLAIN would only take time.
            text = sql.lower()
            asks = "with" in text or "json" in text
            values = self._weight(sql, bindings) if asks else len(sql) // 4 + len(self._description)
            self._part = rules.CLIENT_SHARED_BYTES // max(1, values)
        if len(self._sql) <= 16 * rules.KIB:
            if len(self._lengths) >= 256:
                self._lengths.clear()
            self._lengths[self._sql] = self.longest, self._shortened_by, self._part
        self.longest = self.longest * rules.CLIENT_SHORT_SQL // max(rules.CLIENT_SHORT_SQL, len(self._sql))
        if bindings and self.longest < rules.VALUE_BYTES:
            for value in bindings.values() if isinstance(bindings, dict) else bindings:
                if isinstance(value, (str, bytes)) and len(value) > self.longest:
                    raise self.too_long()

    def _part_alone(self, sql: str, bindings: Any) -> int:
        return rules.CLIENT_ALONE_BYTES // self._weight(sql, bindings)

    def _weight(self, sql: str, bindings: Any) -> int:
        """How many values a statement that SQLite has just prepared can hold at once."""
        self._trusted = True
        try:
            return weight(self.connection.execute(sql, bindings, can_cache=False, explain=1))
        finally:
            self._trusted = False

    def _check_text(self) -> None:
        """Keep private names out of what the host's own writes would later run, with nobody to ask: triggers, views."""
        folded = fold(self._sql)
        for name in self._private | rules.SAMPLES:
            if name in folded:
                raise Forbidden(f"a definition may not mention {name.decode()}")

    def _authorize(self, action: int, one: str | None, two: str | None, database: str | None, inner: str | None) -> int:
        if self._trusted or action in rules.HARMLESS:
            return apsw.SQLITE_OK
        if self.role == "client":
            refusal = self._refuse_client(action, one, two, database)
        elif action == apsw.SQLITE_ANALYZE:
            self._analyzes = True
            return apsw.SQLITE_IGNORE if fold(one or "") in self._private else apsw.SQLITE_OK
        else:
            refusal = self._refuse_admin(action, one, two)
        if refusal is None:
            return apsw.SQLITE_OK
        self.denied = self.denied or refusal
        return apsw.SQLITE_DENY

    def _refuse_client(self, action: int, one: str | None, two: str | None, database: str | None) -> str | None:
        if action == apsw.SQLITE_FUNCTION and two is not None:
            if two not in rules.CLIENT_FUNCTIONS:
                return f"the client role may not call {two}()"
            if rules.CLIENT_FUNCTIONS[two] < self.longest:
                self.longest, self._shortened_by = rules.CLIENT_FUNCTIONS[two], two
            return None
        if action == apsw.SQLITE_READ and one is not None and self._client_reads(fold(one), two, database):
            return None
        # fts5 asks this of itself.
        if action == apsw.SQLITE_PRAGMA and one == "data_version" and two is None:
            return None
        return rules.CLIENT_REFUSAL

    def _client_reads(self, name: bytes, column: str | None, database: str | None) -> bool:
        if name in catalogue.TABLES:
            return True
        if name.startswith(rules.HIDDEN_PREFIXES) or name in self._private:
            return False
        if name in self._known or name in rules.SAFE_MODULES:
            return True
        # A common table expression that is only counted; SQLite gives no database for it, and no column.
        return column == "" and database is None and name not in rules.OTHER_MODULES and not name.startswith(b"pragma_")

    def _refuse_admin(self, action: int, one: str | None, two: str | None) -> str | None:
        if action == apsw.SQLITE_FUNCTION:
            return None if two in rules.ADMIN_FUNCTIONS else f"{two}() may not be called"
        name = fold(one or "")
        if action == apsw.SQLITE_PRAGMA:
            allowed = rules.PRAGMAS if two is None else rules.PRAGMAS_OF_A_TABLE
            return None if name in allowed else f"PRAGMA {one} may not be {'read' if two is None else 'set'} here"
        if name in self._private or (action not in rules.COLUMN_ACTIONS and fold(two or "") in self._private):
            return "this table is private to the host or to a plugin"
        if action == apsw.SQLITE_READ:
            sampled = name in rules.SAMPLES and two == "sample" and not self._analyzes
            return "the samples of ANALYZE hold values of private tables" if sampled else None
        if action == apsw.SQLITE_CREATE_VTABLE and fold(two or "") not in rules.CREATABLE_MODULES:
            return f"no table may be made with the module {two}"
        if action in rules.WRITES:
            self._creates = self._creates or action in rules.CREATES
            return self._refuse_write(action, name, fold(two or ""))
        return rules.REFUSED.get(action, "this statement is not allowed")

    def _refuse_write(self, action: int, name: bytes, other: bytes) -> str | None:
        text = fold(self._sql)
        # The authorizer is asked about indexes that a plain REINDEX rebuilds, too; that changes nothing.
        names = () if action == apsw.SQLITE_REINDEX else (name,) if action in rules.COLUMN_ACTIONS else (name, other)
        if any(each.startswith(rules.OWN_PREFIX) for each in names):
            return rules.OWN_REFUSAL
        if action in rules.DEFERRED and rules.OWN_PREFIX in text:
            return rules.OWN_REFUSAL
        # SQLite's own changes of it do not stand in the text. To forget a count does no harm; to set one may.
        sets = action in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE) and name == b"sqlite_sequence" and name in text
        return rules.SEQUENCE_REFUSAL if sets else None
