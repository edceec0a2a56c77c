"""A user's expression in a statement: the only place where such a text becomes part of SQL.

Owns how a server splits a text into words, quotes, comments and brackets. Refuses a text that would reach beyond the
brackets around it, or that two servers would split differently; the server checks whether it is an expression. Must not
know what the expression is for, nor the rest of the statement: names in it could close what the expression leaves open.

A pure function of the text. It needs no connection, and so runs each time the text is used.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from starbase_data_replication.errors import SourceRejected

WHERE = "where"


class Syntax(Enum):
    """How a server splits a text. MYSQL_PLAIN_BACKSLASHES is MySQL with the sql_mode NO_BACKSLASH_ESCAPES.

    STANDARD is for servers that are not known here: it takes only what all of them split alike.
    """

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MYSQL_PLAIN_BACKSLASHES = "mysql, plain backslashes"
    STANDARD = "standard SQL"


# What servers, and drivers, read in different ways: escapes, quotes of their own, comments, parameters, and a letter
# that changes a text.
UNLIKE = re.compile(r"[\\`\[\]{}$#?:@]|--|/\*|\*/|(?<=[A-WYZa-wyz0-9_])'")
STANDARD_QUOTED = re.compile(r"'(?:[^'\\]|'')*+'|\"(?:[^\"\\]|\"\")*+\"")
DIGITS = "0123456789"
# A word: the characters that a name may continue with, in both dialects.
WORD = re.compile(r"[A-Za-z0-9_$\u0080-\U0010ffff]+")
DOLLAR_QUOTE = re.compile(r"\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$")
PARAMETER = re.compile(r"\$[0-9]+")
NUL_IN_TEXT = "has a NUL character; remove it"
# What reads rows and locks them for others. MySQL refuses FOR UPDATE in a READ ONLY transaction, and not the others.
LOCKING = re.compile(r"(?:(?:^| )LOCK IN SHARE|(?:^| |[0-9])FOR (?:SHARE|UPDATE))$")
LONGEST_LOCKING = len(" LOCK IN SHARE")
COMMENT_EDGE = re.compile(r"/\*|\*/")

PLAIN = {quote: re.compile(f"{quote}(?:[^{quote}]|{quote}{quote})*+{quote}", re.DOTALL) for quote in "'\"`"}
# A quote after an odd number of backslashes: it ends a text without escapes, but not one with escapes.
ODD_BACKSLASHES = {quote: re.compile(rf"(?<!\\)\\(?:\\\\)*{quote}") for quote in "'\""}
ESCAPED = re.compile(r"'(?:[^'\\]|''|\\.)*+'", re.DOTALL)


def bracketed(expression: str, syntax: Syntax, *, field: str = WHERE) -> str:
    """Put an expression into brackets beyond which it cannot reach. Raises SourceRejected that names the field."""
    _check(expression, syntax, field=field)
    # A comment at its end must not swallow what follows.
    return f"({expression}\n)"


def negated(expression: str, syntax: Syntax, *, field: str = WHERE) -> str:
    """As `bracketed`, behind a NOT, which a server takes only before an expression: not before a list or a SELECT."""
    _check(expression, syntax, field=field)
    return f"(NOT {expression}\n)"


def _check(expression: str, syntax: Syntax, *, field: str) -> None:
    """Raise SourceRejected, naming the field, for a text that could reach beyond the brackets around it."""
    if (why := _fault(expression, syntax)) is not None:
        raise SourceRejected(f"{field}: {why}")


# One entry for each filter that is in use; a replication has at most one.
@lru_cache(maxsize=256)
def _fault(text: str, syntax: Syntax) -> str | None:
    """What is wrong with a text, with the fix; None if nothing is."""
    try:
        _Scan(text, syntax).run()
    except _Fault as fault:
        return str(fault)
    return None


class _Fault(Exception):
    pass


def _without_quoted(text: str) -> str:
    """The text with each text and name in quotes empty, and the letter before it kept."""
    return STANDARD_QUOTED.sub(lambda found: found[0][0] * 2, text)


class _Scan:
    """One way through a text, from its beginning to its end."""

    def __init__(self, text: str, syntax: Syntax) -> None:
        self._text = text
        self._standard = syntax is Syntax.STANDARD
        self._postgresql = syntax is Syntax.POSTGRESQL
        self._escapes = syntax is Syntax.MYSQL
        self._at = 0
        self._depth = 0
        # The last words with nothing but blanks and comments between them, in upper case.
        self._words = ""

    def run(self) -> None:
        if self._standard and (found := UNLIKE.search(_without_quoted(self._text))) is not None:
            raise _Fault(f"holds {found[0]}, which not all servers read alike; write it in plain SQL")
        while self._at < len(self._text):
            if (word := WORD.match(self._text, self._at)) is not None:
                self._word(word[0])
            else:
                self._between(self._text[self._at])
        if self._depth:
            raise _Fault("has a ( that is not closed")

    def _word(self, word: str) -> None:
        begin, self._at = self._at, self._at + len(word)
        self._words = f"{self._words} {word[-LONGEST_LOCKING:].upper()}"[-LONGEST_LOCKING:]
        if not self._postgresql and LOCKING.search(self._words) is not None:
            raise _Fault("locks rows of the source (FOR SHARE, FOR UPDATE or LOCK IN SHARE MODE); remove that")
        if "$" in word:
            self._dollar(word, begin)
        elif self._postgresql and self._text.startswith("'", self._at):
            if word in ("E", "e"):
                self._quoted(ESCAPED, "'")
            elif word[0] in DIGITS and word[-1] in "Ee":
                # To some versions a number and a text with escapes.
                raise _Fault("has a number and a text without a space between them; put one there")

    def _dollar(self, word: str, begin: int) -> None:
        if not self._postgresql:
            # MySQL has texts in dollars since 8.1, MariaDB has not.
            if word.count("$") > 1:
                raise _Fault("has two $ in one word; put a name in quotes, and a text between '")
        elif (tag := DOLLAR_QUOTE.match(self._text, begin)) is not None:
            end = self._text.find(tag[0], tag.end())
            if end < 0:
                raise _Fault(f"has a text that begins with {tag[0][:20]} and does not end; close it")
            self._at = end + len(tag[0])
        # The server itself refuses a parameter.
        elif word[0] in f"${DIGITS}" and PARAMETER.fullmatch(word) is None:
            raise _Fault("has a $ that begins neither a text nor a name; put it in quotes")

    def _between(self, character: str) -> None:
        begin = self._at
        self._other(character)
        piece = self._text[begin : self._at]
        if not (piece.isspace() or piece.startswith(("/*", "--", "#"))):
            self._words = ""

    def _other(self, character: str) -> None:
        two = self._text[self._at : self._at + 2]
        if character in PLAIN and (character != "`" or not self._postgresql):
            self._plain(character)
        elif two == "/*":
            self._comment()
        elif character == "#" and not self._postgresql:
            self._line("\n")
        elif two == "--" and (self._postgresql or self._is_comment()):
            self._line("\n\r" if self._postgresql else "\n")
        elif character == ";":
            raise _Fault("has a semicolon outside of quotes; it must be one expression")
        elif character in "\\\0":
            raise _Fault("has a backslash, or a NUL, outside of quotes; it must be an expression")
        elif two == "*/":
            raise _Fault("has a */ without a comment before it; remove it")
        else:
            self._depth += (character == "(") - (character == ")")
            if self._depth < 0:
                raise _Fault("has a ) without a ( before it; it must be one expression")
            self._at += 1

    def _plain(self, quote: str) -> None:
        if quote == "'" and self._escapes:
            self._quoted(ESCAPED, quote)
            return
        text = self._quoted(PLAIN[quote], quote)
        # A setting of the server decides whether PostgreSQL's texts have escapes, and what MySQL's " quotes.
        unsure = (self._postgresql and quote == "'") or (self._escapes and quote == '"')
        if unsure and ODD_BACKSLASHES[quote].search(text) is not None:
            fix = r"write the text as E'…\\', which" if self._postgresql else r"write the text as '…\"…', which"
            raise _Fault(
                f"has a backslash before a {quote}, which is an escape on some servers only; {fix} means the same "
                "everywhere"
            )

    def _quoted(self, pattern: re.Pattern[str], quote: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _Fault(f"has a {quote} that is not closed")
        self._at = found.end()
        if "\0" in found[0]:
            raise _Fault(NUL_IN_TEXT)
        return found[0]

    def _comment(self) -> None:
        depth, at = 0, self._at
        if not self._postgresql and self._text.startswith(("/*!", "/*+", "/*M!", "/*m!"), at):
            raise _Fault("has a comment that the server executes (/*! or /*+); remove it")
        while True:
            edge = COMMENT_EDGE.search(self._text, at)
            if edge is None:
                raise _Fault("has a comment that is not closed")
            depth, at = depth + (1 if edge[0] == "/*" else -1), edge.end()
            if not depth:
                break
            if depth > 1 and not self._postgresql:
                raise _Fault("has a comment in a comment; remove it")
        self._at = at

    def _is_comment(self) -> bool:
        """Whether `--` begins a comment in MySQL, by what follows it. Otherwise it is two minus signs."""
        after = self._text[self._at + 2 : self._at + 3]
        return after <= " " or after == "\x7f"

    def _line(self, ends: str) -> None:
        while self._at < len(self._text) and self._text[self._at] not in ends:
            if self._text[self._at] == "\0":
                raise _Fault(NUL_IN_TEXT)
            self._at += 1
