"""Error translation: every error of MySQL, MariaDB or the driver becomes a SyncError here, and nowhere else."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator

from pymysql.constants import CR, ER
from pymysql.err import Error

from starbase_data_replication.errors import (
    CHANGED_ON_THE_WAY,
    ODD_ANSWER_CAUSES,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
    SyncError,
    odd_answer,
)
from starbase_data_replication.sources.batches import Damaged
from starbase_data_replication.sources.unreachable import Unreachable

# Server errors after which a retry may succeed: too many connections, too little memory or disk, a server that is
# shutting down, a connection or statement that was killed or took too long, a lock. The last line has those for which
# pymysql has no name: a statement to prepare again, too many transactions, KILL, two time limits, a server that is
# offline or not available, a session that was killed or idle for too long.
TRANSIENT = frozenset(
    {ER.CON_COUNT_ERROR, ER.OUT_OF_RESOURCES, ER.OUTOFMEMORY, ER.OUT_OF_SORTMEMORY, ER.DISK_FULL}
    | {ER.RECORD_FILE_FULL, ER.SERVER_SHUTDOWN, ER.NORMAL_SHUTDOWN, ER.BAD_HOST_ERROR, ER.HANDSHAKE_ERROR}
    | {ER.ABORTING_CONNECTION, ER.NEW_ABORTING_CONNECTION, ER.NET_READ_ERROR, ER.NET_READ_INTERRUPTED}
    | {ER.NET_ERROR_ON_WRITE, ER.NET_WRITE_INTERRUPTED, ER.TOO_MANY_USER_CONNECTIONS, ER.HOST_IS_BLOCKED}
    | {ER.USER_LIMIT_REACHED, ER.QUERY_INTERRUPTED, ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.CHECKREAD}
    | {ER.LOCK_TABLE_FULL, ER.GET_ERRNO}
    | {1615, 1637, 1927, 1969, 3024, 3032, 3168, 3169, 4031}
)
# The driver's errors, numbered from 2000, are about the connection; these ones do not go away with time.
FINAL = frozenset({CR.CR_SSL_CONNECTION_ERROR, CR.CR_AUTH_PLUGIN_CANNOT_LOAD, CR.CR_AUTH_PLUGIN_ERR})

# A column or a table that existed when it was looked up does not exist any more, or not as in the snapshot.
CHANGED = frozenset({ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE, ER.TABLE_DEF_CHANGED})

SYNTAX = frozenset({ER.PARSE_ERROR, ER.SYNTAX_ERROR})
# Errors that quote a row's value or a part of the statement; so do SQLSTATE classes 22 and 23.
QUOTING = SYNTAX | {
    ER.TRUNCATED_WRONG_VALUE, ER.TRUNCATED_WRONG_VALUE_FOR_FIELD, ER.WRONG_VALUE_FOR_TYPE,
    ER.INVALID_CHARACTER_STRING, ER.DUP_ENTRY, 1525,
}  # fmt: skip
# Errors whose text may be shown while the server works on rows: these quote only names in the statement or catalogue,
# files and settings (privileges, missing or ambiguous names, damaged tables, limits). Any other error may quote a row's
# value (EXTRACTVALUE, SIGNAL). The last line has those for which pymysql has no name: functions and their arguments,
# INTO in a subquery, a READ ONLY transaction.
KNOWN = (
    TRANSIENT
    | CHANGED
    | {ER.DBACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR}
    | {ER.PROCACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.NON_UNIQ_ERROR, ER.UNKNOWN_TABLE}
    | {ER.OPERAND_COLUMNS, ER.SUBQUERY_NO_1_ROW, ER.INVALID_GROUP_FUNC_USE, ER.NOT_SUPPORTED_YET}
    | {ER.SP_DOES_NOT_EXIST, ER.SP_WRONG_NO_OF_ARGS, ER.VIEW_INVALID, ER.CANT_AGGREGATE_2COLLATIONS}
    | {ER.CANT_AGGREGATE_3COLLATIONS, ER.CANT_AGGREGATE_NCOLLATIONS, ER.CANT_OPEN_FILE, ER.FILE_NOT_FOUND}
    | {ER.NOT_FORM_FILE, ER.NOT_KEYFILE, ER.OLD_KEYFILE, ER.CRASHED_ON_USAGE, ER.CRASHED_ON_REPAIR}
    | {ER.NET_PACKET_TOO_LARGE, ER.OPTION_PREVENTS_STATEMENT}
    | {1582, 1630, 3954, 1792}
)
# How the texts of these begin, as MySQL and MariaDB word them. SIGNAL can give any number and SQLSTATE to any text.
WORDING = re.compile(
    r"""Too\ many\ (?:connections|active\ concurrent\ transactions)|Out\ of\ (?:memory|resources|sort\ memory)
    |Disk\ (?:full|got\ full)|The\ table\ '[^']*'\ is\ full|Server\ shutdown\ in\ progress|\S+:\ Normal\ shutdown
    |Can't\ get\ hostname\ for|Bad\ handshake|Aborted\ connection\ \d|Got\ (?:an\ error|timeout|a\ read\ error)\ \w+
    |User\ \S+\ (?:already\ has\ more\ than|has\ exceeded\ the)|Host\ '[^']*'\ is\ blocked
    |Query\ execution\ was\ interrupted|Lock\ wait\ timeout\ exceeded|Deadlock\ found\ when
    |Record\ has\ changed\ since\ last\ read|The\ total\ number\ of\ locks\ exceeds|Got\ error\ -?\d+
    |Prepared\ statement\ needs\ to\ be|Connection\ was\ killed|The\ server\ is\ currently\ in\ offline\ mode
    |Server\ isn't\ available|Session\ was\ killed|The\ client\ was\ disconnected\ by\ the\ server
    |Unknown\ (?:column|table)\ '[^']*'\ in|Table\ '[^']*'\ doesn't\ exist|Table\ definition\ has\ changed
    |Access\ denied(?:\ for\ user|;\ you\ need)|[A-Z ,]+\ command\ denied\ to\ user|Column\ '[^']*'\ in\ .*ambiguous
    |Operand\ should\ contain|Subquery\ returns\ more\ than|Invalid\ use\ of\ group\ function
    |This\ version\ of\ M\w+\ doesn't\ yet\ support|(?:FUNCTION|PROCEDURE|SEQUENCE|PACKAGE)\ \S+\ does\ not\ exist
    |Incorrect\ (?:number\ of\ arguments|parameter\ count|information\ in\ file|key\ file\ for|file\ format)
    |View\ '[^']*'\ references\ invalid|Illegal\ mix\ of\ collations|Can't\ (?:open|find)\ file|Index\ for\ table
    |Old\ key\ file\ for|Table\ '[^']*'\ is\ marked\ as\ crashed|Got\ a\ packet\ bigger\ than
    |The\ M\w+\ server\ is\ running\ with|Cannot\ execute\ statement\ in\ a\ READ\ ONLY|.*INTO\ clause""",
    re.VERBOSE,
)
LEFT_OUT = "its text is left out, because it may contain a row's value"


@contextlib.contextmanager
def translate_errors(doing: str, *, rows: bool = False) -> Iterator[None]:
    """Translate what the driver raises within this context.

    doing: begins each message, as in "reading orders".
    rows: whether the server works on rows, so that its error texts may quote their values.
    """
    try:
        yield
    except Error as error:
        raise translate(error, doing, rows=rows) from error
    except Damaged as error:
        raise SourceUnavailable(f"{doing}: {CHANGED_ON_THE_WAY}") from error
    except (OSError, EOFError) as error:
        raise SourceUnavailable(f"{doing}: {_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise SyncError(f"{doing}: a text is not valid in its character set") from error
    except RuntimeError as error:
        raise SourceRejected(f"{doing}: {_setup_reason(error)}") from error
    except ODD_ANSWER_CAUSES as error:
        raise odd_answer(error, doing, "MySQL") from error


def translate(error: Error, doing: str, *, rows: bool = False) -> SyncError:
    """Translate an error of the server, or of the driver in the same form: (number, text)."""
    number, text = error.args if len(error.args) == 2 else (None, str(error))
    cause = error.__cause__
    # The driver has no SQLSTATE; a server may take a number of the driver's for a text of its own.
    if not isinstance(number, int) or (
        error.sqlstate is None and number in range(CR.CR_ERROR_FIRST, CR.CR_ERROR_LAST + 1)
    ):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceRejected(f"{doing}: the server's certificate was refused: {cause.verify_message}")
        if number in FINAL:
            return SourceRejected(f"{doing}: {text}")
        return SourceUnavailable(f"{doing}: the connection failed: {text}{_because(cause)}")
    state = error.sqlstate or ""
    if number in QUOTING or state[:2] in ("22", "23"):
        text = "there is a syntax error in it" if number in SYNTAX else "a value in it cannot be used"
    elif rows and (number not in KNOWN or WORDING.match(text) is None):
        text = LEFT_OUT
    message = f"{doing}: the server says: {text} (error {number}, SQLSTATE {state})"
    if number in CHANGED:
        return SourceChanged(message)
    return SourceUnavailable(message) if number in TRANSIENT else SourceRejected(message)


def _because(cause: BaseException | None) -> str:
    return f" ({cause})" if isinstance(cause, OSError) and str(cause) else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the source did not answer in time"
    if isinstance(error, Unreachable):
        return str(error)
    return f"the connection failed: {str(error) or type(error).__name__}"


def _setup_reason(error: RuntimeError) -> str:
    if "cryptography" in str(error):
        return (
            "without TLS the server takes this password only encrypted by itself; set sslMode to REQUIRED, "
            "or install the package cryptography"
        )
    if "LOAD_LOCAL" in str(error):
        return "the server asks for a file of this machine (LOCAL INFILE), which is refused; check which server answers"
    if "pynacl" in str(error):
        return (
            "the account's password uses MariaDB's ed25519, which needs the package PyNaCl: "
            "install starbase-host[ed25519], or give the account another kind of password"
        )
    return str(error)
