"""What each role may do in SQL, as data: limits, functions, pragmas, modules, actions.

The lists name what is allowed, so that a function or module of a later SQLite is refused until somebody has checked it.
Must not know connections; sandbox.py applies these rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import apsw

Role = Literal["admin", "client"]

KIB = 1024
MIB = 1024 * KIB

# The longest value in a user's statement. For a client it is shorter when the statement calls a function that makes or
# reads text, because SQLite cannot be interrupted inside a call; see CLIENT_FUNCTIONS.
VALUE_BYTES = 64 * MIB
# The longest row, whose size can be counted only once it exists: a statement with many columns gets shorter values.
ROW_BYTES = 256 * MIB
# How much memory all values of a client's statement may use together. A statement that needs more than the first limit
# runs again under the second one, alone: so the memory of all clients is bounded, and each can still read a long value.
CLIENT_SHARED_BYTES = 4 * MIB
CLIENT_EXCLUSIVE_BYTES = 32 * MIB
# A longer text can contain more calls: above this many characters, values get shorter in proportion.
CLIENT_SHORT_SQL = 1000
CLIENT_SQL_CHARACTERS = 100_000
CLIENT_PROGRAM_STEPS = 50_000
CLIENT_PATTERN_BYTES = 100
# What each reader remembers of a client's statements: of one text, of one prepared statement, and of all texts. APSW
# keeps up to 100 prepared statements for each connection.
REMEMBERED_TEXT_BYTES, REMEMBERED_PREPARED_BYTES, REMEMBERED_BYTES = 16 * KIB, 64 * KIB, 512 * KIB
# How many tokens a statement may have once SQLite has put the expressions of subqueries, aliases and views in the place
# of their columns; its text comes on top. Each token takes up to 200 bytes while SQLite prepares.
EXPANDED_TOKENS: Mapping[Role, int] = {"client": 50_000, "admin": 500_000}
# A statement this short, with one SELECT and no view, cannot grow beyond that.
SHORT_SQL = 1000
# How long the search texts of a statement may be together. FTS5 cannot be interrupted while it parses them, which takes
# a time that grows with the square of their terms.
SEARCH_BYTES = 8 * KIB
# How many terms they may have when it ranks or marks rows: for each row, the square of the terms again, times how often
# each occurs in the row. For snippet() it is the square of both, so that a client may not call it.
RANKED_TERMS, SNIPPET_TERMS = 64, 8
RANKING = frozenset(("bm25", "highlight", "rank", "snippet"))
# How many tokens of its conditions SQLite may copy besides. Each takes about 60 bytes while SQLite prepares.
COPIED_TOKENS: Mapping[Role, int] = {"client": 800_000, "admin": 8_000_000}
TRIM_CHARACTERS, TRIM_SET_CHARACTERS = 64 * KIB, 100

# A reader's limit must not be below the writer's: a view that the writer accepts would keep readers from reading the
# schema at all. That is why SQLITE_LIMIT_SQL_LENGTH and SQLITE_LIMIT_COLUMN are not here: tables may be wide.
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
# The tables of the host and its plugins; no user's SQL may write them.
OWN_PREFIX = b"tmp_"
# These show the pages of every table, and samples of its values.
ALWAYS_PRIVATE = frozenset((b"sqlite_dbpage", b"sqlite_dbdata", b"sqlite_dbptr"))
SAMPLES = frozenset((b"sqlite_stat3", b"sqlite_stat4"))
# Virtual tables that exist without being created. A client may use the safe ones.
SAFE_MODULES = frozenset((b"json_each", b"json_tree"))
OTHER_MODULES = frozenset(b"dbstat carray fts3tokenize bytecode tables_used generate_series completion fsdir".split())
# A name of one of these, or of a pragma's table, in a folded text.
OTHER_MODULE = re.compile(rb"\b(?:pragma_\w+|" + b"|".join(sorted(OTHER_MODULES)) + rb")\b")
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
    lower ltrim match printf quote randomblob rtrim string_agg trim unhex unistr unistr_quote upper
    zeroblob
"""
# Their work grows with the product of text and pattern.
_PATTERN = "glob like"
# Their work grows with the square of their text.
_SEARCH = "instr replace"
# These have no bound in memory (median), or quadratic work or more (json_patch, and json_pretty, which writes its
# second argument before every value; snippet), or are of use only to a role that can write.
_ADMIN = """
    changes fts5_get_locale fts5_insttoken fts5_locale fts5_source_id geopoly_area geopoly_bbox geopoly_blob
    geopoly_ccw geopoly_contains_point geopoly_debug geopoly_group_bbox geopoly_json geopoly_overlap geopoly_regular
    geopoly_svg geopoly_within geopoly_xform json_patch json_pretty jsonb_patch last_insert_rowid matchinfo median
    offsets percentile percentile_cont percentile_disc rtreecheck rtreedepth rtreenode snippet
    sqlite_compileoption_get sqlite_compileoption_used sqlite_source_id subtype total_changes
"""
# SQLite calls these itself for ALTER TABLE; a statement that names one fails.
_ALTER = """
    sqlite_add_constraint sqlite_drop_column sqlite_drop_constraint sqlite_fail sqlite_find_constraint
    sqlite_rename_column sqlite_rename_quotefix sqlite_rename_table sqlite_rename_test
"""
# name -> how many bytes a value may have in a client's statement that calls the function
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
# Without an argument, these only read.
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
# SQLite does not ask the authorizer about the body of a trigger when it is created, and the trigger would later run
# without a guard, in a write of the host. Nor does it pass the new name of a table.
DEFERRED = frozenset((apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_TRIGGER))
HARMLESS = frozenset((apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE))

TOO_LONG = "a value is longer than {:,} bytes; shorten it"
TOO_LONG_FOR_FUNCTION = (
    "a value is longer than {:,} bytes, a client's limit in a statement that calls {}(); avoid it, or ask as admin"
)
TOO_LONG_FOR_SHARE = (
    "a value is longer than {:,} bytes, its share of what a client's statement may hold at once; ask for fewer "
    "columns, compute less in one statement, or ask as admin"
)
TOO_LONG_FOR_SEARCH = (
    "the search texts (MATCH, =, LIKE or GLOB on a full-text table) have more than {:,} bytes together; search for "
    "fewer words in one statement"
)
TOO_MANY_TERMS = (
    "the search texts (MATCH, =, LIKE or GLOB on a full-text table) have more than {} terms together, the limit of a "
    "statement that uses {}; search for fewer words, or find the rowids in one statement and rank in another"
)
RANKED, SNIPPETS = "rank, bm25() or highlight()", "snippet() or a rank function other than bm25"
RANK_REFUSAL = (
    "the client role may rank only by bm25; ask as admin, or let an admin set it: "
    "INSERT INTO t(t, rank) VALUES ('rank', 'bm25()')"
)
TOO_LONG_BESIDE_SEARCH = (
    "a value is longer than {:,} bytes, the limit in a statement that makes the search text of a full-text table from "
    "rows or functions; write the search text as a literal or a parameter"
)
TOO_EXPANDED = (
    "the statement uses the columns of its subqueries, common table expressions, views or aliases too often: SQLite "
    "replaces each use by the column's expression, which makes more than {:,} tokens here; write WITH name AS "
    "MATERIALIZED (SELECT …) for an inner one, or use its columns fewer times"
)
TOO_COPIED = (
    "the conditions of the statement are too long for how often SQLite would copy them while it prepares it: "
    "more than {:,} tokens here. It copies a condition into each SELECT below, and the value of `x = value` into the "
    "place of each other x; write WITH name AS MATERIALIZED (SELECT …) for what is below, x IN (SELECT value FROM "
    "json_each(?)) for a long list, and x IS value for a long value"
)
COLUMN_TOO_EXPANDED = (
    "a generated column would become more than {:,} tokens, because SQLite replaces each generated column in it by its "
    "expression; use fewer of them in one another"
)
VIEW_TOO_EXPANDED = (
    "with this, the view or table {} would become more than {:,} tokens, because SQLite replaces each use of an inner "
    "column by its expression, and copies conditions; write WITH name AS MATERIALIZED (SELECT …) in the view, or use "
    "inner columns fewer times"
)
TOO_MANY_LEVELS = "too many SELECTs are nested in one another; write them as common table expressions"
CLIENT_REFUSAL = (
    "the client role may only read tables and views, but not those whose name begins with tmp_ or sqlite_, except "
    "sqlite_schema; GET /tables lists what it may read"
)
JOINED_COLUMN_REFUSAL = (
    "a statement with USING or NATURAL may not mention a table with columns that the role may not read, because SQLite "
    "does not check such joins; write JOIN … ON a.id = b.id instead"
)
UNDECIDED_REFUSAL = "a column that the statement reads only while it runs is not decided yet"
OWN_REFUSAL = "names that begin with tmp_ belong to the host and its plugins; SQL may only read them"
FULL_TEXT_REFUSAL = (
    "a full-text index would show the role client text of tables whose names begin with tmp_ or sqlite_; use a table "
    "or a view as its content that a client may read"
)
TEMPORARY_REFUSAL = (
    "a temporary table, view or trigger would take effect in the host's own writes, and nothing shows "
    "it; create it in main, or use WITH"
)
SEQUENCE_REFUSAL = "the host and its plugins use sqlite_sequence too; SQL may not change it"
COLUMN_ACTIONS = frozenset((apsw.SQLITE_READ, apsw.SQLITE_UPDATE))
REFUSED = {
    apsw.SQLITE_TRANSACTION: "BEGIN, COMMIT and ROLLBACK are not allowed; send the statements as a transaction",
    apsw.SQLITE_SAVEPOINT: "savepoints are not allowed; send the statements as a transaction",
    apsw.SQLITE_ATTACH: "attaching or writing another database is not allowed",
    apsw.SQLITE_DETACH: "detaching a database is not allowed",
}
