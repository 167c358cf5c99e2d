"""The web address of a record, wherever the record keeps it, and the host that an address names.

Contract: pure. `find` looks at the fields that corpora use (`url`, `warc_target_uri`, `metadata.url`, `meta` as a
JSON string, …), outermost first. `host` reads an address as browsers do (https://url.spec.whatwg.org/): without
characters that nobody sees, with a scheme by default, in the form of name servers (한국.kr is xn--3e0b707e.kr). Two
spellings of one host are therefore equal, in a document as in a recipe. Cost: some microseconds per address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

NAMES = (
    *("url", "uri", "warctargeturi", "targeturi", "sourceurl", "sourceuri", "pageurl", "documenturl", "weburl"),
    *("webpageurl", "canonicalurl", "originalurl", "urls", "permalink", "link", "href", "source", "id", "docid"),
    *("website", "hostname", "host", "domain"),
)
"""Fields that hold a record's address, best first, in lower case and without `_`, `-` and spaces."""
_OFTEN_OTHERWISE = frozenset({"source", "id", "docid", "link", "href"})
"""Fields in which only a full address counts: they often hold names."""
_NESTS = re.compile(r"meta|header|warc|source|provenance|info|attributes|document|page|extra|data")
"""Names of the fields that hold such fields."""
_DEPTH = 3
_SEPARATORS = str.maketrans("", "", "-_ ")
_SCHEME = re.compile(r"(?i)(?:(https?|ftp|wss?):[/\\]*|[a-z][a-z0-9+.-]*://|[/\\]{2})")
_AUTHORITY_END = re.compile(r"[/\\?#]")
_VERSION_6 = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d*)?$")
_PORT = re.compile(r":\d*$")
_NOT_IN_HOSTS = re.compile(r"[\s:<>^|%\[\]\"'{}()=,;]")


def lookup(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or of `outer.inner` in nested fields, which may be JSON in a string; else None."""
    if path in fields:
        return fields[path]
    head, dot, rest = path.partition(".")
    inner = as_mapping(fields.get(head)) if dot else None
    return None if inner is None else lookup(inner, rest)


def find(fields: Mapping[str, Any]) -> str | None:
    """The first usable address in a record's fields, cleaned; None if it has none."""
    for holder in holders(fields):
        named = {_key(name): value for name, value in reversed(list(holder.items()))}
        for name in NAMES:
            address = cleaned(_first(named.get(name)))
            if address and host(address) and ("://" in address or name not in _OFTEN_OTHERWISE):
                return address
    return None


def holders(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A record's fields, then the fields that its metadata hold, outermost first."""
    level = [fields]
    for _ in range(_DEPTH):
        yield from level
        level = [inner for holder in level for inner in _nested(holder)]


def holds_address(name: str) -> bool:
    """Whether a column of this name is one of those that hold addresses."""
    return _key(name) in NAMES


def holds_fields(name: str) -> bool:
    """Whether a column of this name may hold such fields."""
    return bool(_NESTS.search(_key(name)))


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """A mapping, one written as a JSON string, or a list of pairs; else None."""
    value = _first(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)  # Arrow's maps
    return value if isinstance(value, Mapping) else None


def cleaned(value: Any) -> str | None:
    """An address without characters that browsers drop and people do not see; None if nothing is left."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    visible = value if value.isprintable() else "".join(filter(str.isprintable, value))
    return visible.strip().removeprefix("<").removesuffix(">") or None


def host(address: str) -> str:
    """The host in the form that name servers use, without user, port and final dot; `""` if there is none."""
    address = cleaned(address) or ""
    scheme = _SCHEME.match(address)
    authority = _AUTHORITY_END.split(address[scheme.end() if scheme else 0 :], maxsplit=1)[0]
    name = authority.rpartition("@")[2]
    if version_6 := _VERSION_6.match(name):
        return version_6[1].lower()
    name = unquote(_PORT.sub("", name)).lower()
    if not name.isascii():
        name = _as_ascii(name)
    name = name.strip(".")
    usable = name and not _NOT_IN_HOSTS.search(name) and (scheme or "." in name)
    return name if usable else ""


def _first(value: Any) -> Any:
    """The first item of a list, unless it is one of pairs."""
    return value[0] if isinstance(value, list) and value and not isinstance(value[0], tuple) else value


def _as_ascii(name: str) -> str:
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:  # a label that no name server knows
        return name.replace("\u3002", ".")


def _nested(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, value in fields.items():
        if holds_fields(str(name)) and (inner := as_mapping(value)):
            yield inner


def _key(name: Any) -> str:
    return str(name).lower().translate(_SEPARATORS)
