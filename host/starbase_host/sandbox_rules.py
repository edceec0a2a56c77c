"""What each role may do in SQL, as data: limits, functions, pragmas, modules, actions.

Lists of what is allowed, so that a function or module of a later SQLite is refused until somebody has looked at it.
Must not know connections; sandbox.py puts these rules to SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import apsw

Role = Literal["admin", "client"]

KIB = 1024
MIB = 1024 * KIB

# No value of a user's statement is longer; a client's is shorter when the statement calls a function that makes or
# walks text, because SQLite cannot be interrupted inside a call: see CLIENT_FUNCTIONS.
VALUE_BYTES = 64 * MIB
# One row, before its size can be counted, is at most this: a statement of many columns gets shorter values.
ROW_BYTES = 256 * MIB
# All values that a client's statement holds at once. Beyond the first, it is run again while no other client's is that
# takes so much: what several clients take together stays bounded, and one of them may still read a long value.
CLIENT_SHARED_BYTES = 4 * MIB
CLIENT_ALONE_BYTES = 32 * MIB
# The longer a client's text is, the more calls it can hold: beyond this its values get shorter in proportion.
CLIENT_SHORT_SQL = 1000
CLIENT_SQL_CHARACTERS = 100_000
CLIENT_PROGRAM_STEPS = 50_000
CLIENT_PATTERN_BYTES = 100
TRIM_CHARACTERS, TRIM_SET_CHARACTERS = 64 * KIB, 100

# The readers' limits must never be below the writer's: a view that one could make would keep the others from
# reading the schema at all. (Hence, too, no SQLITE_LIMIT_SQL_LENGTH and _COLUMN here: tables may be wide.)
LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: VALUE_BYTES,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 500,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 250,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 100,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 50,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}

HIDDEN_PREFIXES = (b"tmp_", b"sqlite_")
# What the host and its plugins make for themselves; nobody's SQL writes there.
OWN_PREFIX = b"tmp_"
# Pages and samples of every table, whatever it is called.
ALWAYS_PRIVATE = frozenset((b"sqlite_dbpage", b"sqlite_dbdata", b"sqlite_dbptr"))
SAMPLES = frozenset((b"sqlite_stat3", b"sqlite_stat4"))
# Virtual tables that are there without being created. A client may use the first two.
SAFE_MODULES = frozenset((b"json_each", b"json_tree"))
OTHER_MODULES = frozenset(b"dbstat carray fts3tokenize bytecode tables_used generate_series completion fsdir".split())
CREATABLE_MODULES = frozenset(b"fts5 fts4 fts3 rtree rtree_i32 geopoly".split())

_QUICK = """
    abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling coalesce cos cosh count cume_dist current_date
    current_time current_timestamp date datetime degrees dense_rank exp first_value floor if ifnull iif julianday lag
    last_value lead length likelihood likely ln log log10 log2 max min mod nth_value ntile nullif octet_length
    percent_rank pi pow power radians random rank round row_number sign sin sinh sqlite_version sqrt strftime substr
    substring sum tan tanh time timediff total trunc typeof unicode unixepoch unlikely
"""
_TEXT = """
    -> ->> bm25 char concat concat_ws format group_concat hex highlight json json_array json_array_insert
    json_array_length json_error_position json_extract json_group_array json_group_object json_insert json_object
    json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array jsonb_array_insert
    jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_remove jsonb_replace jsonb_set
    lower ltrim match printf quote randomblob rtrim snippet string_agg trim unhex unistr unistr_quote upper
    zeroblob
"""
# Their work is their text times their pattern.
_PATTERN = "glob like"
# Their work grows with the square of their text.
_SEARCH = "instr replace"
# Without bound in memory (median), quadratic and more (json_patch, and json_pretty, which puts its second argument
# before every value), or of use only to who can write.
_ADMIN = """
    changes fts5_get_locale fts5_insttoken fts5_locale fts5_source_id geopoly_area geopoly_bbox geopoly_blob
    geopoly_ccw geopoly_contains_point geopoly_debug geopoly_group_bbox geopoly_json geopoly_overlap geopoly_regular
    geopoly_svg geopoly_within geopoly_xform json_patch json_pretty jsonb_patch last_insert_rowid matchinfo median
    offsets percentile percentile_cont percentile_disc rtreecheck rtreedepth rtreenode sqlite_compileoption_get
    sqlite_compileoption_used sqlite_source_id subtype total_changes
"""
# SQLite calls these itself for ALTER TABLE; a statement that names one is an error.
_ALTER = """
    sqlite_add_constraint sqlite_drop_column sqlite_drop_constraint sqlite_fail sqlite_find_constraint
    sqlite_rename_column sqlite_rename_quotefix sqlite_rename_table sqlite_rename_test
"""
# name -> how long a value may be in a client's statement that calls it
CLIENT_FUNCTIONS: Mapping[str, int] = {
    **dict.fromkeys(_QUICK.split(), VALUE_BYTES),
    **dict.fromkeys(_TEXT.split(), 4 * MIB),
    **dict.fromkeys(_PATTERN.split(), MIB),
    **dict.fromkeys(_SEARCH.split(), 64 * KIB),
}
ADMIN_FUNCTIONS = frozenset((*CLIENT_FUNCTIONS, *_ADMIN.split(), *_ALTER.split()))

PRAGMAS_OF_A_TABLE = frozenset(
    b"foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check quick_check table_info "
    b"table_list table_xinfo".split()
)
# Without an argument these only tell.
PRAGMAS = PRAGMAS_OF_A_TABLE | frozenset(
    b"application_id auto_vacuum cache_size collation_list compile_options data_version database_list encoding "
    b"foreign_keys freelist_count function_list journal_mode journal_size_limit max_page_count module_list page_count "
    b"page_size pragma_list recursive_triggers schema_version synchronous user_version".split()
)

CREATES = frozenset(
    (
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
    )
)
WRITES = CREATES | frozenset(
    (
        apsw.SQLITE_DELETE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_REINDEX,
        apsw.SQLITE_UPDATE,
    )
)
# A trigger's body is not judged when it is made, and would run unguarded in a write of the host's own. The new name of
# a table is not told to the authorizer.
DEFERRED = frozenset((apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_TRIGGER))
HARMLESS = frozenset((apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE))

TOO_LONG = "a value is longer than {:,} bytes; shorten it"
TOO_LONG_BESIDE = (
    "a value is longer than {:,} bytes, a client's limit in a statement that calls {}(); do without it, or ask as admin"
)
TOO_LONG_TOGETHER = (
    "a value is longer than {:,} bytes, its part of what a client's statement may hold at once; ask for fewer columns, "
    "compute less in one statement, or ask as admin"
)
CLIENT_REFUSAL = (
    "the client role may only read tables and views, and none whose name begins with tmp_ or sqlite_, but for "
    "sqlite_schema; GET /tables lists what it may read"
)
OWN_REFUSAL = "what begins with tmp_ belongs to the host and its plugins: SQL may read it, and their routes change it"
FULL_TEXT_REFUSAL = (
    "a full-text index would show the role client text of tables whose names begin with tmp_ or sqlite_: let its "
    "content be a table, or a view of tables, that a client may read"
)
SEQUENCE_REFUSAL = "sqlite_sequence counts for the host and its plugins too; SQL may not set it"
COLUMN_ACTIONS = frozenset((apsw.SQLITE_READ, apsw.SQLITE_UPDATE))
REFUSED = {
    apsw.SQLITE_TRANSACTION: "send the statements as a transaction; BEGIN, COMMIT and ROLLBACK are the host's",
    apsw.SQLITE_SAVEPOINT: "send the statements as a transaction; savepoints are the host's",
    apsw.SQLITE_ATTACH: "no other database may be attached or written",
    apsw.SQLITE_DETACH: "no database may be detached",
}
