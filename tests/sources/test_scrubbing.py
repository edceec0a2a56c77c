"""No part of a secret survives in a message, however it is written or cut; and no message loses its words."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from starbase_data_replication.sources.settings.scrubbing import MASK, PART, WORDS, scrub
from starbase_data_replication.sources.settings.secrets import secrets

# As the servers, the drivers and we say them.
MESSAGES = [
    'looking up t: the server says: password authentication failed for user "reader" (SQLSTATE 28P01)',
    "looking up t: the server says: Access denied for user 'reader'@'localhost' (using password: YES) (error 1045, "
    "SQLSTATE 28000)",
    "nothing listens at 127.0.0.1:1 (connection refused); start the server, or check host and port of sourceConfig",
    "what listens at 127.0.0.1:22 does not speak PostgreSQL's protocol; check host and port of sourceConfig",
    "the name db.example.com is not known; check host of sourceConfig, or at this machine's DNS",
    'the server says: database "shop" does not exist (SQLSTATE 3D000)',
    'the server says: relation "public.orders" does not exist (SQLSTATE 42P01)',
    "the server says: permission denied for table orders (SQLSTATE 42501)",
    "the connection failed: the server's certificate was refused: unable to get local issuer certificate",
    "the source did not answer in time",
    "reading t: its text is left out, because it may contain a row's value",
    "the server asks for more than 100,000 rounds of hashing the password, which would stop the host meanwhile",
    "sourceConfig.password: the environment variable PG_PASSWORD is not set; set it for the host's process",
    "the server says: canceling statement due to statement timeout (SQLSTATE 57014)",
    "the server has no TLS, which sslMode asks for; set sslMode to REQUIRED",
    "without TLS the server takes this password only encrypted by itself",
]
WRITINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "for a URL": lambda text: quote(text, safe=""),
    "for a URL, small letters": lambda text: re.sub("%..", lambda at: at[0].lower(), quote(text, safe="")),
    "for a path": quote,
    "for a form": quote_plus,
    "JSON": json.dumps,
    "JSON of JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON with its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": repr,
    "ascii": ascii,
    "SQL": lambda text: text.replace("'", "''"),
    "MySQL's backslashes": lambda text: text.replace("\\", "\\\\"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
}
# Of a secret that is like no message: letters that make no words, digits and marks.
SECRET = st.text(st.sampled_from("qxzJKQXZ0123456789@:/?#%&=+'\"\\$é ü"), min_size=PART, max_size=80)


def without_quotes(writing: str, written: str) -> str:
    return written.strip("\"\\'") if writing.startswith(("JSON", "repr", "ascii")) else written


def said(text: str, scrubbed: str, secret: str) -> None:
    """No eight characters of what was written are left."""
    left = [text[at : at + PART] for at in range(len(text) - PART + 1) if text[at : at + PART] in scrubbed]
    assert left == [], (secret, scrubbed)


@pytest.mark.parametrize("writing", WRITINGS)
@given(
    secret=SECRET, before=st.sampled_from(["", "x", "refused ", "://u:"]), after=st.sampled_from(["", "y", "@h", "."])
)
def test_a_secret_is_found_however_it_is_written(writing: str, secret: str, before: str, after: str) -> None:
    assume(secret.strip() == secret)
    written = WRITINGS[writing](secret)
    inner = without_quotes(writing, written)
    assume(len(inner) >= PART)
    said(inner, scrub(f"{before}{written}{after}", [secret]), secret)


@pytest.mark.parametrize("writing", WRITINGS)
@settings(max_examples=30)
@given(secret=SECRET, at=st.integers(0, 200), size=st.integers(PART, 80))
def test_a_secret_is_found_however_it_is_cut(writing: str, secret: str, at: int, size: int) -> None:
    """As by a server that keeps 63 of 64 characters, or an error that is cut at its end."""
    written = WRITINGS[writing](secret)
    inner = without_quotes(writing, written)
    assume(len(inner) >= PART)
    begin = at % (len(inner) - PART + 1)
    cut = inner[begin : begin + size]
    said(cut, scrub(f"the server says: {cut}", [secret]), secret)


def test_an_identifier_that_a_server_has_cut() -> None:
    secret = "Aq7" * 21 + "Z"
    assert len(secret) == 64
    assert scrub(f'database "{secret[:63]}" does not exist', [secret]) == 'database "***" does not exist'


@example(user="000\x80", secret="00000?000", after="0")
@given(user=st.text(max_size=12), secret=SECRET, after=st.text(max_size=5))
def test_base64_of_more_than_the_secret(user: str, secret: str, after: str) -> None:
    text = f"{user}:{secret}{after}".encode("utf-8", "replace")
    for written in (base64.b64encode(text).decode(), base64.urlsafe_b64encode(text).decode()):
        scrubbed = scrub(f"Basic {written} refused", [secret])
        start = len(f"{user}:".encode("utf-8", "replace"))
        # Those characters of base64 that hold nothing but the secret.
        first, last = -(-start * 8 // 6), (start + len(secret.encode())) * 8 // 6
        said(written[first:last], scrubbed, secret)


def test_a_word_of_a_message_may_be_somebodys_password() -> None:
    """All that a message says outside quotes is left as it is, even if the password is a word or a part of one."""
    message = "\n".join(re.sub(r"(['\"]).*?\1", "", each) for each in MESSAGES)
    words = set(re.findall(r"[A-Za-z]+", message))
    pieces = {word[at : at + size] for word in words for size in (1, 6) for at in range(len(word) - size + 1)}
    for secret in sorted(words | pieces):
        assert scrub(message, [secret]) == message, secret


@given(st.text(st.sampled_from("aeinorstPS"), min_size=1, max_size=4), st.sampled_from(MESSAGES))
def test_no_short_password_of_letters_takes_a_word(secret: str, message: str) -> None:
    assert scrub(message, [secret]) == message or f'"{secret}"' in message or f"'{secret}'" in message


@pytest.mark.parametrize("secret", ["password", "y", "postgres", "p4ss", "hunter2", "connection refused"])
@pytest.mark.parametrize(
    "place",
    [
        "cannot connect with '{}'", 'DETAIL: "{}"', "postgresql://u:{}@h/d", "host=h password={} port=1",
        "{{'password': '{}'}}",
        '{{"password": "{}"}}', "mysql://u:{}@h", "password: {}", "pwd={};", "token={}",
    ],
)  # fmt: skip
def test_a_short_password_is_masked_where_a_password_can_occur(secret: str, place: str) -> None:
    scrubbed = scrub(place.format(secret), [secret])
    # A key in quotes cannot be distinguished from a value.
    assert scrubbed == place.format(MASK) or (secret == "password" and scrubbed.count(MASK) == 2)


@pytest.mark.parametrize("secret", ["p4ss", "hunter2", "a-b!c", "12345"])
def test_a_short_password_that_is_not_a_word_is_masked_alone(secret: str) -> None:
    assert scrub(f"cannot connect as {secret}, sorry ({secret})", [secret]) == "cannot connect as ***, sorry (***)"
    assert scrub(f"x{secret}1 is another", [secret]) == f"x{secret}1 is another"


def test_what_mysql_says_of_a_password_is_kept() -> None:
    for secret in ("YES", "NO"):
        assert (
            scrub("(using password: YES) (using password: NO)", [secret])
            == "(using password: YES) (using password: NO)"
        )


def test_a_value_of_a_variable_takes_no_word_either() -> None:
    assert scrub("the server says: no", ["server"], "${PG_HOST}") == "the server says: no"
    assert scrub('database "shop" does not exist', ["shop"], "${DB}") == 'database "${DB}" does not exist'
    assert scrub("db.example.com is not known", ["db.example.com"], "${PG_HOST}") == "${PG_HOST} is not known"


def test_other_dialects_secrets_are_known_by_their_names() -> None:
    config = {
        "dialect": "other", "apiKey": "qx-1234567", "auth": {"refresh_token": "zz-7654321"},
        "clientSecret": "kk-1111111", "region": "eu-west-1234",
    }  # fmt: skip
    assert set(secrets(config)) == {"qx-1234567", "zz-7654321", "kk-1111111"}
    assert secrets({"token": "${TOKEN}"}) == ()


@given(st.text(max_size=300), st.lists(st.text(max_size=30), max_size=3))
def test_any_message_and_any_secrets(message: str, hidden: list[str]) -> None:
    scrubbed = scrub(message, hidden)
    assert scrub(message, []) == message
    assert len(scrubbed) <= len(message) + len(MASK) * (len(message) + 1)


def test_words_are_words() -> None:
    assert re.fullmatch(r"[a-z]+(?: [a-z]+)*", WORDS)
