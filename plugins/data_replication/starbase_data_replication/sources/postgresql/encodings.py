"""Encodings with gaps: those in which some bytes have no Unicode text, and how PostgreSQL reads their bytes.

Asked for UTF-8, the server rejects such a text and with it all following rows. So it is asked for the database's
encoding, and a value without a Unicode text is kept as its bytes. Python's codecs differ from PostgreSQL's in some
places, which this module corrects. Must not know how rows come.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping

# Characters that PostgreSQL reads and Python's codecs do not: the first bytes, then the last from A1 on. A blank is a
# gap.
_ROW_13 = (
    "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ ㍉㌔㌢㍍㌘㌧㌃㌶㍑㍗㌍㌦㌣㌫㍊㌻㎜㎝㎞㎎㎏㏄㎡        "
    "㍻〝〟№㏍℡㊤㊥㊦㊧㊨㈱㈲㈹㍾㍽㍼≒≡∫∮∑√⊥∠∟⊿∵∩∪"
)
_IBM = (
    "ⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡炻仼僴凬匇匤\ufa0e咊坙\ufa0f\ufa10增寬峵嵓\ufa11德悅愠敎昻晥\ufa12\uf929栁\ufa13\ufa14橫櫢淸淲瀨\ufa15\ufa16"
    "甁皂皞\ufa17礰\ufa18\ufa19\ufa1a\ufa1b竧\ufa1c\ufa1d綠緖\ufa1e荢\ufa1f薰\ufa20\ufa21蠇\ufa22譿賴赶\ufa23\ufa24\ufa25郞\ufa26鄕\ufa27\ufa28閒\uf9dc\ufa29霻靍靑\ufa2a\ufa2b\ufa2c馞髙魲\ufa2d黑"
)
_MORE: Mapping[str, Mapping[bytes, str]] = {
    "EUC_JP": {b"\xad": _ROW_13, b"\x8f\xf3": f"{' ' * 82}ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡ", b"\x8f\xf4": _IBM},
    "EUC_KR": {b"\xa2": f"{' ' * 71}㉾", b"\xa4": f"{' ' * 51}\u3164"},
}
# Characters that Python reads differently: Python's, and PostgreSQL's.
_OTHERS: Mapping[str, tuple[str, str]] = {
    "EUC_JP": ("〜‖−¢£¬¦", "～∥－￠￡￢￤"),
    "EUC_JIS_2004": ("￣―￥⦅⦆", "‾—¥｟｠"),
}
# Encodings with gaps, by PostgreSQL's name, and Python's name of each. The server converts the others to UTF-8.
CODECS: Mapping[str, str] = {
    "EUC_CN": "gb2312", "EUC_JP": "euc_jp", "EUC_JIS_2004": "euc_jis_2004", "EUC_KR": "euc_kr",
    "ISO_8859_6": "iso8859_6", "ISO_8859_7": "iso8859_7", "ISO_8859_8": "iso8859_8", "LATIN3": "iso8859_3",
    "WIN874": "cp874", **{f"WIN{number}": f"cp{number}" for number in (*range(1250, 1256), 1257, 1258)},
}  # fmt: skip
_MORE_BYTES = "EUC_"
_LONGEST = 3


class Encoding:
    """One encoding with gaps. name: PostgreSQL's name of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codec = CODECS[name]
        self._others = tuple(zip(*_OTHERS.get(name, ("", "")), strict=True))

    def text(self, value: bytes | memoryview) -> str:
        """The text of one value, or of many. Raises UnicodeError if that text is not theirs alone."""
        text = str(value, self._codec, READS_MORE)
        if self.name.startswith(_MORE_BYTES):
            for theirs, ours in self._others:
                text = text.replace(theirs, ours)
            # If several byte sequences mean one character, only one of them comes back.
            if self.encoded(text) != value:
                raise UnicodeError("several values have this text")
        return text

    def decoded(self, value: bytes) -> str | bytes:
        """The text of one value, or its bytes if it has no text."""
        try:
            return self.text(value)
        except UnicodeError:
            return value

    def encoded(self, text: str) -> bytes:
        """The bytes of a text. Raises UnicodeError if no value has this text."""
        for theirs, ours in self._others:
            if theirs in text:
                raise UnicodeError("no value has this text")
            text = text.replace(ours, theirs)
        return text.encode(self._codec, READS_MORE)


def _read_more(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for Python's codecs: what PostgreSQL reads here. Raises the error if it reads nothing either."""
    more = _MORE_BY_CODEC.get(getattr(error, "encoding", ""), {})
    if isinstance(error, UnicodeDecodeError):
        for length in range(2, _LONGEST + 1):
            if (found := more.get(error.object[error.start : error.start + length])) is not None:
                return found, error.start + length
    if isinstance(error, UnicodeEncodeError):
        character = error.object[error.start]
        # The first of several that mean the same character.
        for value, meant in more.items():
            if meant == character:
                return value, error.start + 1
    raise error


_MORE_BY_CODEC = {
    CODECS[name]: {
        first + bytes([0xA1 + at]): character
        for first, characters in rows.items()
        for at, character in enumerate(characters)
        if character != " "
    }
    for name, rows in _MORE.items()
}
READS_MORE = "postgresql-reads-more"
codecs.register_error(READS_MORE, _read_more)


def encoding_of(server_encoding: str) -> Encoding | None:
    """The encoding of a database, if it has gaps."""
    return Encoding(server_encoding) if server_encoding in CODECS else None
