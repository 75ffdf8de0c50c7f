"""The text that says where a study is kept: a path or a URL. No message holds a password of it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from archdsl.errors import StudyError

_DIALECTS = "postgres|postgresql|psql|pg|sqlite|sqlite3|mysql|mariadb|oracle|mssql|redis|jdbc|grpc|https?|file"
_KEYWORDS = "host|hostaddr|port|dbname|database|user|username|uid|server|service|data source|sslmode|passfile"
_SECRETS = r"\w*password|passwd|pwd"

_USERINFO = re.compile(r"(://[^/:@\s]*:)[^\s]*@")
_NO_PORT = re.compile(r"(://[^/:@\s\[]*:)(?!\d{1,5}(?:[/?#\s,;:)\]\"']|$))[^@/?\s]+")
_SECRET = re.compile(rf"((?:^|[?&;,\s'\"])(?:{_SECRETS})\s*=\s*)('(?:[^'\\]|\\.)*'|[^&;\s]*)", re.IGNORECASE)

_DIALECT = re.compile(r"[A-Za-z]\w*(\+\w+)?")
_ADDRESS = re.compile(
    r"(?:[^:/@?\s]*(?::(?P<password>[^@?\s]*))?@)?(?:\[[^\]/?\s]+\]|[^/:?@\s\[\]]*)(?::\d{1,5})?(?:/[^@?\s]*)?(?:\?\S*)?"
)
"""What may stand behind `dialect://`: user:password@host:port/name?settings."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH = re.compile(r"\.{1,2}/|~|/(?!/)")
_LIKE_A_URL = re.compile(
    rf"[^/\\]*:|//[^/]*[:@]|(?:{_DIALECTS})(?:\+\w+)?(?:[/\\]{{2}}|;)|.*:[^@]*@", re.IGNORECASE | re.DOTALL
)
_LIKE_SETTINGS = re.compile(
    rf"\s*(?:{_KEYWORDS})\s*=(?:[^/]*$|\s*/|.*[\s;]\w+\s*=)|(?:.*\W)?(?:{_SECRETS})\s*=", re.IGNORECASE | re.DOTALL
)

_START = re.compile(r"[\w+./\\-]*[:;=]?")
"""Of a text that is refused: what comes before any password."""

FORM = "write it like sqlite:///study.db or postgresql://user:password@host/name, or give a path for a journal"


def is_url(text: str) -> bool:
    """Whether a storage's text is meant as the URL of a database; otherwise it is the path of a journal file."""
    return "://" in text


def masked(text: str) -> str:
    """A text with the passwords of all URLs and connection strings in it replaced by `***`."""
    return _NO_PORT.sub(r"\1***", _USERINFO.sub(r"\1***@", _SECRET.sub(r"\1***", text)))


def shown(text: str) -> str:
    """A storage's text for a message: without passwords, and cut at the first sign where they cannot be told apart."""
    if why_refused(text) is None:
        return masked(text)
    start = _START.match(text.strip())
    return f"{start[0] if start else ''}***"


def without_secrets(text: str, url: str) -> str:
    """What a driver says about a well-formed URL, without the URL's passwords, whatever form it repeats them in."""
    found = _ADDRESS.fullmatch(url.partition("://")[2])
    secrets = {found["password"] if found else None, *(value for _, value in _SECRET.findall(url))}
    for secret in sorted(filter(None, {*secrets, *(unquote(one) for one in secrets if one)}), key=len, reverse=True):
        text = text.replace(secret, "***")
    return masked(text)


def check_storage(text: str) -> None:
    """Check that a text is a well-formed URL or plainly a path, so that no mistyped URL becomes the name of a file.

    Raises: StudyError (`storage`)
    """
    why = why_refused(text)
    if why is not None:
        message, hint = why
        raise StudyError.at("--storage", shown(text), "storage", message, hint)


def why_refused(text: str) -> tuple[str, str] | None:
    """What is wrong with a storage's text, and what helps; None for a well-formed URL and for a path."""
    if _CONTROL.search(text):
        return "a URL or a path holds no control characters", FORM
    if is_url(text):
        return _why_malformed(text)
    if not _PATH.match(text) and (_LIKE_A_URL.match(text) or _LIKE_SETTINGS.match(text)):
        return "this looks like a database, but is no URL of one", f"{FORM}; for a file of this name write ./ before it"
    return None


def _why_malformed(url: str) -> tuple[str, str] | None:
    dialect, _, rest = url.partition("://")
    if not _DIALECT.fullmatch(dialect):
        return "before :// belongs the name of a database, and nothing else", FORM
    if dialect.lower().startswith("sqlite"):
        return None if rest[:1] in ("", "/") else ("a URL of SQLite begins with sqlite:///", FORM)
    if _ADDRESS.fullmatch(rest):
        return None
    encoded = "in a user's name or password @ / ? and spaces are written %40 %2F %3F %20"
    return "the URL is malformed: behind :// belongs user:password@host:port/name", encoded
