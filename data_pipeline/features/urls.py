"""Canonical web addresses, so that copies of a page are recognized.

Contract: `canonical(url)` is pure; None if the text is not an http(s) address with a host. Addresses with the same
result nearly always lead to the same page. What is dropped or folded:

- scheme, user, `www.`, default ports and the case of the host, which servers ignore;
- fragments of trackers, text highlights and places that every page has (`#top`, `#comments`); any other may name a
  part that is a document of its own, such as an article of a statute;
- the trailing slash of the path, the case of %xx, and %xx of letters, digits and `-._~` (RFC 3986, section 6.2.2);
- query parameters of trackers and sessions, and the order of the others, which servers read by name.

Everything else stays, such as the case of path and query. Cost: about 4 microseconds per address.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urlsplit

import xxhash

_TRACKERS = re.compile(
    r"(?i)(utm_\w+|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|igshid|mc_[ce]id|_ga|_gl|n_media|n_query|n_rank"
    r"|phpsessid|jsessionid|aspsessionid\w*)(=|$)"
)
"""n_*: Naver's search advertisements."""
_IDLE_FRAGMENT = re.compile(
    r"(?i)(?:top|main|content|main-content|maincontent|header|footer|nav|comments?|respond|disqus_thread|share|print)?$"
    r"|\.[\w-]*$|(?:utm_\w+|xtor|xtref|fbclid|gclid|ref|source|from|at_\w+|cid|mc_\w+|_ga|_gl)="
)
"""A tracker's, among them AddThis's (`#.Xy12`), or a place on every page."""
_HIGHLIGHT = ":~:"
"""Begins the text that a browser highlights: https://wicg.github.io/scroll-to-text-fragment/."""
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SESSION_IN_PATH = re.compile(r"(?i);jsessionid=[^/?]*")


def canonical(url: str) -> str | None:
    """Host, port, path and query in one spelling, without scheme."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:  # a malformed IPv6 address or port
        return None
    host = _host(parts)
    if parts.scheme not in ("http", "https") or not host:
        return None
    place = "" if port in (None, 80, 443) else f":{port}"
    path = _escaped(_SESSION_IN_PATH.sub("", parts.path)).rstrip("/")
    query = "&".join(sorted(_escaped(pair) for pair in parts.query.split("&") if pair and not _TRACKERS.match(pair)))
    part = parts.fragment.split(_HIGHLIGHT)[0]
    fragment = "" if _IDLE_FRAGMENT.match(part) else f"#{_escaped(part)}"
    return f"{host}{place}{path}{'?' + query if query else ''}{fragment}"


def url_hash(url: str | None) -> bytes | None:
    """A 16-byte hash of the canonical address; None if there is none."""
    address = canonical(url) if url else None
    return xxhash.xxh3_128_digest(address.encode()) if address else None


def _host(parts: SplitResult) -> str:
    """Lower-case and in the form that name servers use (한국.kr is xn--3e0b707e.kr), without `www.`."""
    host = (parts.hostname or "").rstrip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            host = quote(host, errors="replace")
    return host.removeprefix("www.") if host.count(".") > 1 else host


def _escaped(text: str) -> str:
    """Upper-case escapes, only where necessary; non-ASCII characters are escaped."""

    def one(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else f"%{match[1].upper()}"

    return _ESCAPE.sub(one, quote(text, safe="%!#$&'()*+,/:;=?@[]~", errors="replace"))
