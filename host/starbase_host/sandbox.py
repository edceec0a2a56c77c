"""The guard of a connection while a user's SQL runs on it: it applies the rules of the role.

SQLite's authorizer decides, not a parser: SQLite asks it about every table, column, function and pragma that a
statement really uses, also inside views, triggers and virtual tables. The guard searches the text of a statement only
to refuse more, or to reveal less: a statement cannot use a name that its text does not contain.

Knows one connection and one role. Must not know threads, time, plugins or HTTP.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence, Set
from typing import Any

import apsw

from starbase_host import catalogue, full_text
from starbase_host import sandbox_rules as rules
from starbase_host.database import quote
from starbase_host.errors import Forbidden, InvalidRequest, TooLarge
from starbase_host.expansion import Expansion, generated_size, relation
from starbase_host.named_joins import REFUSAL, NamedJoins, joins_by_name
from starbase_host.read_rules import ReadRules, Undecided
from starbase_host.replaced_functions import replace_trim, replace_unhex
from starbase_host.searches import is_bm25, searches, steps
from starbase_host.selects import TooManyLevels
from starbase_host.weight import weight

_CONDITION, _IN = re.compile(r"\b(?:where|on|having)\b"), re.compile(r"\bin\b")
_RELATIONS = "SELECT lower(name), type = 'view', sql FROM sqlite_schema WHERE type IN ('table', 'view')"
_FTS5_TABLES = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 AND sql LIKE '%fts5%'"
# How often a guard that waits for the exclusive lock checks whether its connection was interrupted.
POLL_SECONDS = 0.05


class NotReadOnly(Exception):
    """Raised on a reader, before the first step of a statement that would write."""


class OnlyPrepared(Exception):
    """Raised before the first step, when the statement is only to be prepared."""


def fold_bytes(name: str) -> bytes:
    """Fold a name as `fold_name` does, into bytes: `bytes.lower` changes ASCII letters only."""
    return name.encode().lower()


def _unquoted(name: str) -> bytes:
    """Fold a name or a text, without the marks that may quote a name or that a quoted name doubles."""
    return fold_bytes(name).translate(None, b"\"'`[]")


def _read_expansion(rows: list[tuple[Any, ...]]) -> Expansion:
    return Expansion({name: relation(sql, view=bool(view)) for name, view, sql in rows})


def _large_views(rows: list[tuple[Any, ...]]) -> set[str]:
    expansion = _read_expansion(rows)
    limit = rules.EXPANDED_TOKENS["admin"]
    return {
        str(name)
        for name, view, sql in rows
        if (
            not _is_small(expansion, str(name), "admin")
            if view
            else " as" in (sql or "").lower() and generated_size(sql) > limit
        )
    }


def _is_small(expansion: Expansion, view: str, role: rules.Role) -> bool:
    try:
        size = expansion.view(view)
    except TooManyLevels:
        return False
    return size.tokens <= rules.EXPANDED_TOKENS[role] and size.copied <= rules.COPIED_TOKENS[role]


def _is_short(folded: str) -> bool:
    """Whether a statement cannot grow much unless it reads a view: it has one SELECT and too few equations.

    SQLite may put the value of a column into that of another one, and so on: then each equation multiplies what all
    others have become, by as many columns as it has.
    """
    if len(folded) > rules.SHORT_SQL or folded.count("select") > 1:
        return False
    begins = _CONDITION.search(folded)
    if begins is None:
        return True
    conditions = folded[begins.end() :]
    # A list of one value makes an equation too.
    factors = conditions.count("=") + len(_IN.findall(conditions)) + 1
    return (len(conditions) / (2 * factors)) ** factors <= rules.COPIED_TOKENS["client"]


def large_views(connection: apsw.Connection) -> set[str]:
    """Return the views, and tables with generated columns, that must not be prepared, because they are too large."""
    return _large_views(connection.execute(_RELATIONS, can_cache=False).fetchall())


class Guard:
    """The authorizer and the tracer of one connection under one role. Only one thread uses it at a time.

    SQLite calls the tracer after it has prepared a statement and before the first step. Then it is known whether the
    statement only reads, what its parameters are, and how many columns it returns.

    connection: the connection that it guards.
    role: the role whose rules it applies.
    denied: why the authorizer refused the current statement; None when it did not.
    text: the current statement as SQLite sees it; None before the tracer has run.
    writer: whether the connection is the writer's.
    longest: how many bytes a value of the current statement may have.
    keeps_origins: whether `origins` is kept: for each column of the statement, its table and its name there.
    has_created: whether any statement has created or altered something.
    shares: whether that is only so because other clients' statements run at the same time; see `exclusive`.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        role: rules.Role,
        *,
        writer: bool = False,
        exclusive_lock: threading.Lock | None = None,
        read_rules: ReadRules | None = None,
    ) -> None:
        self.connection = connection
        self.role: rules.Role = role
        self.denied: str | None = None
        self.text: str | None = None
        self._description: Sequence[Sequence[Any]] = ()
        self.writer = writer
        self.has_created = False
        self._trusted = False
        self._private_tables: Set[str] = frozenset()
        self._private: frozenset[bytes] = rules.ALWAYS_PRIVATE
        self._known: frozenset[bytes] = frozenset()
        self._schema_version: Any = None
        # For statements that this client has sent before: longest, function and share.
        self._lengths: dict[str, tuple[int, str, int]] = {}
        # What their texts take in memory, and what all prepared statements took before the current one.
        self._lengths_bytes = self._prepared_before = 0
        self.longest = rules.VALUE_BYTES
        self.shares = False
        self._exclusive_lock = exclusive_lock or threading.Lock()
        self._is_exclusive = False
        # The function that limits `longest`, or "".
        self._shortened_by = ""
        # How many bytes each value may have, when all values together may have CLIENT_SHARED_BYTES.
        self._share = 0
        self._length = rules.VALUE_BYTES
        self._sql = ""
        self._only_prepare = False
        self._creates = False
        self._analyzes = False
        # The full-text tables that already held hidden text before a statement that creates something.
        self._exposing: set[str] = set()
        # The large views that existed before such a statement.
        self._large_before: set[str] = set()
        self._expansion: Expansion | None = None
        self._named_joins = NamedJoins({})
        # The full-text tables of FTS5 and the views over them, without quotation marks, of the same schema version.
        self._searched: frozenset[bytes] = frozenset()
        # Those in which a character can be a term.
        self._searched_by_characters: frozenset[bytes] = frozenset()
        # Whether the current statement may search one of them, one of the latter, and makes the search text.
        self._searches = self._by_characters = self._makes_search = False
        # What it ranks or marks by, and the tables whose column `rank` it reads.
        self._ranks: set[str] = set()
        self._ranked_tables: set[str] = set()
        # The virtual tables that hold text of tables which a client does not see.
        self._over_hidden_names: frozenset[bytes] = frozenset()
        # The schema version that these were made for.
        self._expansion_of: Any = None
        self._catalogue = catalogue.Catalogue()
        # The schema version and the private tables that the catalogue was loaded for.
        self._catalogue_of: Any = None
        self._probing = False
        self.keeps_origins = False
        self.origins: tuple[tuple[str, str] | None, ...] = ()
        self._read_rules = read_rules
        self._generation = 0
        # What the current statement reads that is not decided yet, in the order of reading.
        self._undecided: dict[tuple[str, str], None] = {}

    def install(self) -> None:
        """Set the limits and callbacks of a reader's connection, once."""
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
    def borrow(self) -> Iterator[None]:
        """Guard the writer's connection inside this context; then restore its settings."""
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
        """Hide these tables from every role. Cheap when they are the same as before."""
        if self._read_rules is not None and self._read_rules.generation != self._generation:
            self._generation = self._read_rules.generation
            self._expire_prepared()
        if private_tables != self._private_tables:
            self._private_tables = frozenset(private_tables)
            self._private = rules.ALWAYS_PRIVATE | {fold_bytes(name) for name in private_tables}
            self._expire_prepared()

    def _expire_prepared(self) -> None:
        """Make SQLite prepare every cached statement again, and so ask the authorizer again."""
        if not self.writer:
            self.connection.authorizer = self._authorize

    def begin(self, sql: str, *, only_prepare: bool = False) -> bool:
        """Prepare the guard for one statement; return whether it may come from the connection's statement cache.

        A client's statement does not, when it comes for the first time: the authorizer must see its functions. On the
        writer, no statement does: the cache holds statements of the host.
        """
        if self.role == "client" and catalogue.PREFIX in sql.lower():
            self._load_catalogue()
        self.denied = self.text = None
        self._undecided.clear()
        self._description = ()
        self._sql, self._only_prepare = sql, only_prepare
        self._creates = self._analyzes = False
        self._searches = self._by_characters = self._makes_search = False
        self._ranks.clear()
        self._ranked_tables.clear()
        self._set_length(rules.VALUE_BYTES)
        self.longest, self._shortened_by, self._share = self._lengths.get(sql, (rules.VALUE_BYTES, "", 0))
        self.shares = False
        if self.role == "client" and sql in self._lengths:
            return True
        self._check_size(sql)
        self._check_joins(sql)
        self._searches = self._may_search(sql)
        if self.role == "client":
            self._prepared_before = self.connection.status(apsw.SQLITE_DBSTATUS_STMT_USED)[0]
        return self.role == "admin" and not self.writer and not self._searches

    def forget(self) -> None:
        """Check statements that this client has sent before again: another connection has changed the schema."""
        self._lengths.clear()

    def _may_search(self, sql: str) -> bool:
        """Whether the statement, or a trigger of it, may search a table of FTS5."""
        if self.writer:
            tables = self.run_trusted(_FTS5_TABLES)
            self._by_characters = any(full_text.CHARACTER_TERMS.search(text) for (text,) in tables)
            return bool(tables)
        # `_check_size` has read the schema, for any statement that can read a table.
        folded = _unquoted(sql)
        self._by_characters = any(name in folded for name in self._searched_by_characters)
        return any(name in folded for name in self._searched)

    def _check_size(self, sql: str) -> None:
        """Raise TooLarge when preparing the statement would take too much memory, or time that nothing can limit."""
        folded = sql.lower()
        if self.writer and "create" in folded and generated_size(sql) > rules.EXPANDED_TOKENS[self.role]:
            raise TooLarge(rules.COLUMN_TOO_EXPANDED.format(rules.EXPANDED_TOKENS[self.role]))
        is_short = _is_short(folded)
        if is_short and "select" not in folded:
            return
        expansion = self._current_expansion()
        if is_short and not expansion.mentions_view(sql):
            return
        limit, most_copied = rules.EXPANDED_TOKENS[self.role], rules.COPIED_TOKENS[self.role]
        try:
            size = expansion.size(sql)
        except TooManyLevels:
            raise TooLarge(rules.TOO_MANY_LEVELS) from None
        if size.tokens > limit + len(sql):
            raise TooLarge(rules.TOO_EXPANDED.format(limit))
        if size.copied > most_copied:
            raise TooLarge(rules.TOO_COPIED.format(most_copied))

    def _check_joins(self, sql: str) -> None:
        """Raise Forbidden when the statement may join by name what the role may not read; see `named_joins`."""
        folded = fold_bytes(sql)
        if joins_by_name(folded):
            # For a statement that can read a view, `_check_size` has done so.
            self._current_expansion()
        if self._named_joins.refuses(folded, self._is_unreadable):
            raise Forbidden(REFUSAL)
        if self._read_rules is not None and (texts := self._named_joins.texts(folded)):
            self._check_joined_columns(texts)

    def _check_joined_columns(self, texts: Sequence[bytes]) -> None:
        """Raise Forbidden when a table that the folded texts mention has columns which the role may not read."""
        restricted = False
        for table, _, _ in self.run_trusted(_RELATIONS):
            if not any(table.encode() in text for text in texts):
                continue
            quoted = table.replace("'", "''")
            for (column,) in self.run_trusted(f"SELECT name FROM pragma_table_xinfo('{quoted}')"):
                restricted = self._decide(table, column) not in (None, "allow") or restricted
        self.raise_undecided()
        if restricted:
            raise Forbidden(rules.JOINED_COLUMN_REFUSAL)

    def _decide(self, table: str, column: str) -> str | None:
        """The plugins' decision about a column; None, and remembered, if they have not been asked."""
        assert self._read_rules is not None
        decision = self._read_rules.find(self.role, table, column)
        if decision is None:
            self._undecided[table, column] = None
        return decision

    def raise_undecided(self) -> None:
        """Raise Undecided when the statement reads columns about which the plugins have not been asked."""
        if self._undecided:
            # The statement was prepared as if it might read them all.
            self._expire_prepared()
            raise Undecided(list(self._undecided))

    def _is_unreadable(self, text: bytes) -> bool:
        """Whether a folded text names a table that the role may not read."""
        if self.role == "admin":
            return any(name in text for name in self._private | rules.SAMPLES)
        if any(name in text for name in self._over_hidden_names) or rules.OTHER_MODULE.search(text):
            return True
        return self._mentions_hidden_name(text)

    def _current_expansion(self) -> Expansion:
        version = self.run_trusted("PRAGMA schema_version")
        if self._expansion is None or version != self._expansion_of:
            found = self.run_trusted(_RELATIONS)
            self._expansion, self._expansion_of = _read_expansion(found), version
            self._named_joins = NamedJoins.of(
                (name.encode(), fold_bytes(sql or "")) for name, view, sql in found if view
            )
            schema = [(name, sql, bool(view)) for name, view, sql in found]
            self._searched = frozenset(map(_unquoted, full_text.searched(schema)))
            self._searched_by_characters = frozenset(
                map(_unquoted, full_text.searched(schema, by_characters=True)) if self._searched else ()
            )
            if self.role == "client":
                self._over_hidden_names = frozenset(map(fold_bytes, self._over_hidden()))
        return self._expansion

    def run_trusted(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of the host, outside the statement cache: a user's statement could find it there."""
        self._trusted = True
        try:
            return self.connection.execute(sql, can_cache=False).fetchall()
        finally:
            self._trusted = False

    def is_outdated(self) -> bool:
        """Whether the schema has changed since `refresh`; then a refusal may be wrong."""
        return not self.writer and self.run_trusted("PRAGMA schema_version") != self._schema_version

    def refresh(self) -> None:
        """Read the names in the schema. A name that is not among them may be a built-in virtual table."""
        self._schema_version = self.run_trusted("PRAGMA schema_version")
        found = self.run_trusted("SELECT name, rootpage = 0 AND type = 'table' FROM sqlite_schema")
        known = {fold_bytes(name) for name, _ in found} - rules.OTHER_MODULES
        over_hidden = self._over_hidden()
        for name, virtual in found:
            if not virtual:
                continue
            if name in over_hidden:
                known -= {fold_bytes(name), *(fold_bytes(f"{name}_{suffix}") for suffix in full_text.SHADOWS)}
            # Some modules prepare writes when they connect, which the authorizer would refuse a client.
            with contextlib.suppress(apsw.Error):
                self.run_trusted(f"SELECT 1 FROM {quote(name)} LIMIT 0")
        self._known = frozenset(known)

    def _over_hidden(self) -> set[str]:
        """Return the virtual tables that may hold text of tables that a client does not see."""
        rows = self.run_trusted(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'view' OR (type = 'table' AND rootpage = 0)"
        )
        return full_text.over_hidden(rows, lambda text: self._mentions_hidden_name(fold_bytes(text)))

    def check_created(self) -> None:
        """Raise Forbidden when the statement made what the authorizer cannot judge.

        That is a full-text table that holds text which a client may not see, and a temporary object: SQLite says of a
        trigger `temp.x` on a table of `main` that it is in `main`.

        Raises TooLarge when it made a view too large to be prepared, or another view through it.
        """
        if not self._creates:
            return
        if self._over_hidden() - self._exposing:
            raise Forbidden(rules.FULL_TEXT_REFUSAL)
        if self.run_trusted("SELECT 1 FROM temp.sqlite_schema LIMIT 1"):
            raise Forbidden(rules.TEMPORARY_REFUSAL)
        if large := self._large_views() - self._large_before:
            raise TooLarge(rules.VIEW_TOO_EXPANDED.format(min(large), rules.EXPANDED_TOKENS["admin"]))

    def _large_views(self) -> set[str]:
        return _large_views(self.run_trusted(_RELATIONS))

    def rewrite(self, sql: str) -> str:
        """Rewrite a client's statement so that it reads the visible part of the schema; see `catalogue`.

        Raises TooLarge when a client's statement is too long, before any search in it.
        """
        if self.role == "admin":
            return sql
        if len(sql) > rules.CLIENT_SQL_CHARACTERS:
            raise TooLarge(f"sql is longer than {rules.CLIENT_SQL_CHARACTERS:,} characters, a client's limit")
        return catalogue.rewrite(sql)

    def _load_catalogue(self) -> None:
        of = self.run_trusted("PRAGMA schema_version"), self._private
        if of == self._catalogue_of:
            return
        if self.is_outdated():
            self.refresh()
        found = self.run_trusted(
            "SELECT name, type = 'view' OR rootpage = 0 FROM sqlite_schema WHERE type IN ('table', 'view')"
        )
        tables = {
            name: quote(name)
            for name, doubtful in found
            if fold_bytes(name) in self._known and not self._hides(name) and (not doubtful or self._readable(name))
        }
        self._catalogue.load(self.run_trusted, tables, hides=self._hides, mentions_hidden=self.mentions_hidden)
        self._catalogue_of = of

    def _hides(self, name: str) -> bool:
        return fold_bytes(name).startswith(rules.HIDDEN_PREFIXES) or fold_bytes(name) in self._private

    def _readable(self, name: str) -> bool:
        """Whether the role may read this view or virtual table, and every table that it uses."""
        if not _is_small(self._current_expansion(), name, "client"):
            return False
        if self._named_joins.refuses(fold_bytes(name), self._is_unreadable):
            return False
        self._probing = True
        try:
            # EXPLAIN only prepares. SQLite computes some views before it applies a LIMIT, and one may never end.
            self.connection.execute(f"EXPLAIN SELECT * FROM {quote(name)}", can_cache=False).fetchall()
        except apsw.Error:
            return False
        finally:
            self._probing = False
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns when the statement was prepared. A later change of the schema may rename them."""
        return tuple(column[0] for column in self._description)

    def mentions_hidden(self, text: str) -> bool:
        """Whether the text may mention a table that is hidden from the role."""
        return self.role == "client" and self._mentions_hidden_name(fold_bytes(text))

    def _mentions_hidden_name(self, folded: bytes) -> bool:
        for name in catalogue.TABLES:
            folded = folded.replace(name, b"")
        return any(name in folded for name in (*rules.HIDDEN_PREFIXES, *self._private))

    def too_long_error(self) -> TooLarge:
        """Return the error for a value that is too long for this statement."""
        if self._makes_search:
            return TooLarge(rules.TOO_LONG_BESIDE_SEARCH.format(self.longest))
        if self._shortened_by:
            return TooLarge(rules.TOO_LONG_FOR_FUNCTION.format(self.longest, self._shortened_by))
        if self.role == "client" and self.longest < rules.CLIENT_EXCLUSIVE_BYTES:
            return TooLarge(rules.TOO_LONG_FOR_SHARE.format(self.longest))
        return TooLarge(rules.TOO_LONG.format(self.longest))

    def _set_length(self, value: int) -> None:
        if value != self._length:
            self._length = value
            self.connection.limit(apsw.SQLITE_LIMIT_LENGTH, value)

    def _trace(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if self._trusted or self._probing or not cursor.has_vdbe:
            return True
        self.raise_undecided()
        if self.text is not None:
            raise InvalidRequest("sql contains more than one statement; send them as a transaction")
        self.text = sql
        if isinstance(bindings, dict) and (unknown := bindings.keys() - set(cursor.bindings_names)):
            raise InvalidRequest(
                fields={f"params.{name}": "sql has no parameter of this name" for name in sorted(unknown)}
            )
        if not cursor.is_readonly and not self.writer:
            raise Forbidden(rules.CLIENT_REFUSAL) if self.role == "client" else NotReadOnly
        if self._creates:
            self._check_text()
            self._exposing = self._over_hidden()
            self._large_before = self._large_views()
        self._description = cursor.description
        if self.keeps_origins:
            self.origins = tuple(
                (catalogue.restore_names(table), column) if table and column else None
                for _, _, _, table, column in cursor.description_full
            )
        if self.role == "client":
            # EXPLAIN shows addresses in memory; EXPLAIN QUERY PLAN does not.
            if cursor.is_explain == 1:
                raise Forbidden("the client role may use only EXPLAIN QUERY PLAN, not EXPLAIN")
            self._measure(sql, bindings)
        if self._only_prepare:
            raise OnlyPrepared
        longest_search = self._longest_search(cursor, sql, bindings) if self._searches else rules.VALUE_BYTES
        if self.role == "client":
            share = self._exclusive_share(sql, bindings) if self._is_exclusive else self._share
            self.shares = share < self.longest and not self._is_exclusive
            if share < self.longest:
                self.longest, self._shortened_by = share, ""
        if longest_search < self.longest:
            self.longest, self._shortened_by, self.shares, self._makes_search = longest_search, "", False, True
        if self.role == "client":
            self._set_length(self.longest)
        else:
            self._set_length(min(self.longest, rules.ROW_BYTES // max(1, len(self._description))))
        return True

    def _longest_search(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> int:
        """Return how long a value may be, so that no search text that the statement makes can be too long.

        Raises TooLarge when the search texts that are known before the first step are too long.
        """
        if cursor.is_explain:
            return rules.VALUE_BYTES

        def parameter(number: int) -> Any:
            if isinstance(bindings, dict):
                return bindings.get(cursor.bindings_names[number - 1] or "")
            return bindings[number - 1] if bindings else None

        self._trusted = True
        try:
            program = steps(self.connection.execute(sql, bindings, can_cache=False, explain=1))
        finally:
            self._trusted = False
        found = searches(program, parameter)
        if not found:
            return rules.VALUE_BYTES
        known = [(search.size, search.is_rank) for search in found if search.size is not None]
        if sum(size.bytes for size, _ in known) > rules.SEARCH_BYTES:
            raise TooLarge(rules.TOO_LONG_FOR_SEARCH.format(rules.SEARCH_BYTES))
        longest = rules.SEARCH_BYTES
        if self._ranks:
            otherwise = any(search.ranks_otherwise for search in found) or any(
                map(self._ranks_otherwise, self._ranked_tables)
            )
            if otherwise and self.role == "client":
                raise Forbidden(rules.RANK_REFUSAL)
            snippets = otherwise or "snippet" in self._ranks
            limit = rules.SNIPPET_TERMS if snippets else rules.RANKED_TERMS
            if sum(size.bytes if self._by_characters else size.terms for size, is_rank in known if not is_rank) > limit:
                raise TooLarge(rules.TOO_MANY_TERMS.format(limit, rules.SNIPPETS if snippets else rules.RANKED))
            # The shortest terms are one letter and a space.
            longest = limit if self._by_characters else 2 * limit
        return longest // len(found) if len(known) < len(found) else rules.VALUE_BYTES

    def _ranks_otherwise(self, table: str) -> bool:
        """Whether an FTS5 table ranks by another function than bm25, unless a search names one."""
        try:
            rows = self.run_trusted(f"SELECT v FROM {quote(table + '_config')} WHERE k = 'rank'")
        except apsw.SQLError:
            # It is not an FTS5 table.
            return False
        return any(not is_bm25(rank) for (rank,) in rows)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let a statement use more memory inside this context, which only one guard at a time can enter.

        Raises apsw.InterruptError when the connection is interrupted while it waits.
        """
        while not self._exclusive_lock.acquire(timeout=POLL_SECONDS):
            if self.connection.is_interrupted:
                raise apsw.InterruptError("interrupted")
        self._is_exclusive = True
        try:
            yield
        finally:
            self._is_exclusive = False
            self._exclusive_lock.release()

    def _measure(self, sql: str, bindings: Any) -> None:
        """Compute and remember how long a value may be, and check the parameters, which SQLite would not."""
        if not self._share:
            # Without WITH and JSON, the text bounds the number of values, and EXPLAIN would only take time.
            text = sql.lower()
            asks = "with" in text or "json" in text
            values = self._weight(sql, bindings) if asks else len(sql) // 4 + len(self._description)
            self._share = rules.CLIENT_SHARED_BYTES // max(1, values)
        self._remember()
        self.longest = self.longest * rules.CLIENT_SHORT_SQL // max(rules.CLIENT_SHORT_SQL, len(self._sql))
        if bindings and self.longest < rules.VALUE_BYTES:
            for value in bindings.values() if isinstance(bindings, dict) else bindings:
                if isinstance(value, (str, bytes)) and len(value) > self.longest:
                    raise self.too_long_error()

    def _remember(self) -> None:
        """Remember the statement, which lets it into the cache of prepared statements, if both take little memory."""
        if self._sql in self._lengths:
            # After a change of the schema, SQLite has prepared it again, and the authorizer may have seen more.
            self._lengths[self._sql] = self.longest, self._shortened_by, self._share
            return
        if self._searches:
            # Its search texts are checked each time, and a remembered statement would not say whether it ranks.
            return
        size = sys.getsizeof(self._sql)
        prepared = self.connection.status(apsw.SQLITE_DBSTATUS_STMT_USED)[0] - self._prepared_before
        if size > rules.REMEMBERED_TEXT_BYTES or prepared > rules.REMEMBERED_PREPARED_BYTES:
            return
        self._lengths_bytes += size
        if self._lengths_bytes > rules.REMEMBERED_BYTES:
            self._lengths.clear()
            self._lengths_bytes = size
        self._lengths[self._sql] = self.longest, self._shortened_by, self._share

    def _exclusive_share(self, sql: str, bindings: Any) -> int:
        return rules.CLIENT_EXCLUSIVE_BYTES // self._weight(sql, bindings)

    def _weight(self, sql: str, bindings: Any) -> int:
        """Count how many values a statement that SQLite has just prepared can hold at once."""
        self._trusted = True
        try:
            return weight(self.connection.execute(sql, bindings, can_cache=False, explain=1))
        finally:
            self._trusted = False

    def _check_text(self) -> None:
        """Refuse private names in triggers and views, which the host's own writes would later run without a guard."""
        folded = fold_bytes(self._sql)
        for name in self._private | rules.SAMPLES:
            if name in folded:
                raise Forbidden(f"a definition must not mention {name.decode()}")

    def _authorize(self, action: int, one: str | None, two: str | None, database: str | None, inner: str | None) -> int:
        if self._trusted or action in rules.HARMLESS:
            return apsw.SQLITE_OK
        if two in rules.RANKING:
            self._ranks.add(two)
            if action == apsw.SQLITE_READ:
                self._ranked_tables.add(one or "")
        if self.role == "client":
            refusal = self._refuse_client(action, one, two, database)
        elif action == apsw.SQLITE_ANALYZE:
            self._analyzes = True
            return apsw.SQLITE_IGNORE if fold_bytes(one or "") in self._private else apsw.SQLITE_OK
        else:
            refusal = self._refuse_admin(action, one, two, database)
        if refusal is None and action == apsw.SQLITE_READ and self._read_rules is not None and not self._probing:
            refusal, ignored = self._refuse_column(one or "", two or "", database)
            if ignored:
                return apsw.SQLITE_IGNORE
        if refusal is None:
            return apsw.SQLITE_OK
        self.denied = self.denied or refusal
        return apsw.SQLITE_DENY

    def _refuse_column(self, table: str, column: str, database: str | None) -> tuple[str | None, bool]:
        """Why a column may not be read, if so; and whether it is read as NULL."""
        name = fold_bytes(table)
        if name.startswith((b"sqlite_", b"pragma_")) or name in rules.SAFE_MODULES:
            return None, False
        if self.role == "client" and column == "" and database is None and name not in self._known:
            # A common table expression that is only counted.
            return None, False
        decision = self._decide(table, column)
        if decision is None:
            # SQLite prepares some statements while another one runs, when it is too late to ask.
            return (None if self.text is None else rules.UNDECIDED_REFUSAL), False
        if decision == "null" and column and not self.writer:
            return None, True
        if decision == "deny" or (decision == "null" and column):
            what = f"the column {column}" if column else "the rows"
            return f"the role {self.role} may not read {what} of {table}", False
        return None, False

    def _refuse_client(self, action: int, one: str | None, two: str | None, database: str | None) -> str | None:
        if action == apsw.SQLITE_FUNCTION and two is not None:
            if two not in rules.CLIENT_FUNCTIONS:
                return f"the client role may not call {two}()"
            if rules.CLIENT_FUNCTIONS[two] < self.longest:
                self.longest, self._shortened_by = rules.CLIENT_FUNCTIONS[two], two
            return None
        if action == apsw.SQLITE_READ and one is not None and self._client_reads(fold_bytes(one), two, database):
            return None
        # fts5 reads this itself.
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
        # A common table expression that is only counted: SQLite passes no database and no column for it.
        return column == "" and database is None and name not in rules.OTHER_MODULES and not name.startswith(b"pragma_")

    def _refuse_admin(self, action: int, one: str | None, two: str | None, database: str | None) -> str | None:
        if action == apsw.SQLITE_FUNCTION:
            return None if two in rules.ADMIN_FUNCTIONS else f"{two}() may not be called"
        name = fold_bytes(one or "")
        if action == apsw.SQLITE_PRAGMA:
            allowed = rules.PRAGMAS if two is None else rules.PRAGMAS_OF_A_TABLE
            return None if name in allowed else f"PRAGMA {one} may not be {'read' if two is None else 'set'} here"
        if name in self._private or (action not in rules.COLUMN_ACTIONS and fold_bytes(two or "") in self._private):
            return "this table is private to the host or to a plugin"
        if action == apsw.SQLITE_READ:
            sampled = name in rules.SAMPLES and two == "sample" and not self._analyzes
            return "the samples of ANALYZE contain values of private tables" if sampled else None
        if action == apsw.SQLITE_CREATE_VTABLE and fold_bytes(two or "") not in rules.CREATABLE_MODULES:
            return f"the module {two} may not be used for a table"
        if action in rules.WRITES:
            # ALTER TABLE looks for triggers and views to change there, too.
            if database == "temp" and not (action == apsw.SQLITE_UPDATE and name.startswith(b"sqlite_")):
                return rules.TEMPORARY_REFUSAL
            self._creates = self._creates or action in rules.CREATES
            self.has_created = self.has_created or self._creates
            return self._refuse_write(action, name, fold_bytes(two or ""))
        return rules.REFUSED.get(action, "this statement is not allowed")

    def _refuse_write(self, action: int, name: bytes, other: bytes) -> str | None:
        text = fold_bytes(self._sql)
        # SQLite also asks about the indexes that a plain REINDEX rebuilds; rebuilding them does no harm.
        names = () if action == apsw.SQLITE_REINDEX else (name,) if action in rules.COLUMN_ACTIONS else (name, other)
        if any(each.startswith(rules.OWN_PREFIX) for each in names):
            return rules.OWN_REFUSAL
        if action in rules.DEFERRED and rules.OWN_PREFIX in text:
            return rules.OWN_REFUSAL
        # When SQLite itself changes sqlite_sequence, the text does not mention it. Deleting a count does no harm;
        # setting one may.
        sets = action in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE) and name == b"sqlite_sequence" and name in text
        return rules.SEQUENCE_REFUSAL if sets else None
