"""Features of a text as slow, obvious code, with which test_features.py compares the compiled kernel."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import groupby

from data_pipeline.features import lexicons
from data_pipeline.readers import characters
from data_pipeline.readers.normalize import mojibake_pairs


def share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def top_n_gram(text: str, n: int) -> float:
    parts = text.split()
    grams = [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    if not grams:
        return 0.0
    gram, count = Counter(grams).most_common(1)[0]
    return share(len(gram) * count, len(text)) if count > 1 else 0.0


def duplicate_n_gram(text: str, n: int) -> float:
    parts = text.split()
    seen: set[tuple[str, ...]] = set()
    length = start = 0
    while start < len(parts) - n + 1:
        gram = tuple(parts[start : start + n])
        if gram in seen:
            length += len("".join(gram))
            start += n
        else:
            seen.add(gram)
            start += 1
    return share(length, len(text))


def repeated(parts: list[str]) -> list[str]:
    seen: set[str] = set()
    return [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]


def sentence_ends(text: str) -> int:
    return len(re.findall(r"[.?!…。！？](?=[\"'”’»」』)）]|\s|\Z)", text))


def stop_words(parts: list[str], language: str) -> int:
    edges = "".join(lexicons.EDGE_PUNCTUATION)
    if language == "en":
        folded = {"".join(c.lower() if c.isascii() else c for c in part.strip(edges)) for part in parts}
        return len(lexicons.EN_STOP_WORDS & folded)
    bare = {part.rstrip(edges) for part in parts} if language == "ko" else set()
    return sum(any(part.endswith(ending) and len(part) > 1 for part in bare) for ending in lexicons.KO_ENDINGS)


KO_SPAM = re.compile("|".join(map(re.escape, lexicons.KO_SPAM_TERMS)))
EN_SPAM = re.compile(rf"\b(?:{'|'.join(map(re.escape, lexicons.EN_SPAM_TERMS))})s?\b", re.ASCII | re.IGNORECASE)
LOREM_IPSUM = re.compile(r"\blorem ipsum", re.ASCII | re.IGNORECASE)
NOTICE = re.compile("|".join(rf"\b{term}" if term.isascii() else term for term in lexicons.NOTICES), re.ASCII | re.I)


def is_prose(line: str, ends: tuple[str, ...]) -> bool:
    parts = line.split()
    plain = (
        line.endswith(ends + lexicons.QUOTE_ENDS) and not line.endswith(lexicons.ELLIPSES) and not NOTICE.search(line)
    )
    return plain and len(parts) >= 3 and max(map(len, parts)) <= 1000


def holds_function_word(word: str, language: str) -> bool:
    edges = "".join(lexicons.EDGE_PUNCTUATION)
    if language == "en":
        return "".join(c.lower() if c.isascii() else c for c in word.strip(edges)) in lexicons.EN_STOP_WORDS
    bare = word.rstrip(edges)
    return language == "ko" and len(bare) > 1 and bare.endswith(tuple(lexicons.KO_ENDINGS))


def is_running(line: str, language: str, ends: tuple[str, ...]) -> bool:
    parts = line.split()
    if max(map(len, parts), default=0) > 1000:
        return False
    fewest, every, long_line = (2, 6, 5) if language == "ko" else (3, 8, 7)
    if len(parts) >= fewest and line.endswith(ends + lexicons.QUOTE_ENDS) and not line.endswith(lexicons.ELLIPSES):
        return True
    functional = sum(holds_function_word(part, language) for part in parts)
    return functional * every >= len(parts) and functional >= (1 if len(parts) >= long_line else 2)


def is_menu(line: str, language: str, ends: tuple[str, ...]) -> bool:
    digits = any(unicodedata.category(c)[0] == "N" or c in lexicons.CODE_SIGNS for c in line)
    return has_letter(line) and len(line) > 4 and not digits and not is_running(line, language, ends)


def tokens(word: str) -> list[str]:
    """Marks at the edges, one by one or runs of . or -; then the rest, cut at what joins letters."""

    def kind(c: str) -> str:
        category = unicodedata.category(c)[0]
        return "a" if category in "LM" else "0" if category == "N" else c if c in ".-" else "#"

    kinds = "".join(map(kind, word))
    bare = re.match(r"[^a0]*", kinds)
    start = bare.end() if bare else 0
    end = len(kinds) if start == len(kinds) else max(kinds.rfind("a"), kinds.rfind("0")) + 1
    marks = [run for edge in (kinds[:start], kinds[end:]) for run in re.findall(r"\.+|-+|#", edge)]
    core = word[start:end]
    cuts = [i for i in range(1, len(core) - 1) if kinds[start + i - 1] == kinds[start + i + 1] == "a"]
    for i in reversed(cuts):
        if core[i] in "-/–—":
            core = f"{core[:i]} {core[i]} {core[i + 1 :]}"
        elif core[i] in "'’":
            core = f"{core[:i]} {core[i:]}"
    return marks + core.split(" ") * bool(core)


def has_letter(token: str) -> bool:
    return any(unicodedata.category(c)[0] in "LM" for c in token)


def misread_syllables(text: str) -> int:
    def rare(c: str) -> bool:
        try:
            return "가" <= c <= "힣" and len(c.encode("euc-kr")) != 2
        except UnicodeEncodeError:
            return True

    odd = [rare(c) or flag for c, flag in zip(text, characters.flags_of(text) & characters.HAN > 0, strict=True)]
    near = zip([False, *odd], [*odd[1:], False], strict=False)
    return sum(rare(c) and (before or after) for c, (before, after) in zip(text, near, strict=False))


def reference(text: str, language: str) -> dict[str, float]:
    parts = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = re.split(r"\n{2,}", text.strip()) if text.strip() else []
    visible = [c for c in text if not c.isspace()]
    category = {c: unicodedata.category(c) for c in text}
    letters = [c for c in text if category[c][0] in "LM"]
    flags = dict(zip(text, characters.flags_of(text).tolist(), strict=True))
    jamo_runs = re.findall("[ㄱ-ㆎ\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]+", text)
    ends = lexicons.KO_LINE_ENDS if language == "ko" else lexicons.LINE_ENDS
    urls = [part for part in parts if "://" in part or "www." in part]
    pieces = [token for part in parts for token in tokens(part)]
    prose = [line for line in lines if is_prose(line, ends)]
    running = [line for line in lines if is_running(line, language, ends)]
    rows = [list(row) for bare, row in groupby(lines, lambda line: is_menu(line, language, ends)) if bare]
    menu = [line for row in rows if len(row) >= 4 for line in row]
    hangul = sum("가" <= c <= "힣" for c in visible)
    korean_lines = [line for line in lines if line in running or any("가" <= c <= "힣" for c in line)]
    broken = sum(c == "\ufffd" or "\x80" <= c <= "\x9f" for c in text) + mojibake_pairs(text) + misread_syllables(text)
    spam = len(KO_SPAM.findall(text)) + len(EN_SPAM.findall(text))
    return {
        "characters": len(text),
        "words": len(parts),
        "lines": len(lines),
        "paragraphs": len(paragraphs),
        "sentences": sentence_ends(text),
        "mean_word_length": ratio(len("".join(parts)), len(parts)),
        "longest_word": max(map(len, parts), default=0),
        "longest_line": max(map(len, lines), default=0),
        "stop_words": stop_words(parts, language),
        "alpha_word_ratio": share(sum(map(has_letter, parts)), len(parts)),
        "alpha_token_ratio": share(sum(map(has_letter, pieces)), len(pieces)),
        "hash_to_word_ratio": ratio(text.count("#"), len(parts)),
        "ellipsis_to_word_ratio": ratio(text.count("...") + text.count("…"), len(parts)),
        "bullet_line_frac": share(sum(line[0] in lexicons.BULLETS for line in lines), len(lines)),
        "ellipsis_line_frac": share(sum(line.endswith(lexicons.ELLIPSES) for line in lines), max(10, len(lines))),
        "punctuated_line_frac": share(sum(line.endswith(ends) for line in lines), len(lines)),
        "short_line_frac": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "notice_line_frac": share(sum(bool(NOTICE.search(line)) for line in lines), len(lines)),
        "prose_sentences": sum(max(1, sentence_ends(line)) for line in prose),
        "running_text_frac": share(len("".join(running)), len(text)),
        "menu_char_frac": share(len("".join(menu)), len(text)),
        "menu_line_frac": share(len(menu), len(lines)),
        "letters_per_word": ratio(len(letters), sum(map(has_letter, parts))),
        "syllables_per_word": ratio(hangul, sum(any("가" <= c <= "힣" for c in part) for part in parts)),
        "new_line_ratio": ratio(text.count("\n"), len(parts)),
        "dup_line_frac": share(len(repeated(lines)), len(lines)),
        "dup_line_char_frac": share(len("".join(repeated(lines))), len(text)),
        "dup_para_frac": share(len(repeated(paragraphs)), len(paragraphs)),
        "dup_para_char_frac": share(len("".join(repeated(paragraphs))), len(text)),
        **{f"top_{n}gram_char_frac": top_n_gram(text, n) for n in (2, 3, 4)},
        **{f"dup_{n}gram_char_frac": duplicate_n_gram(text, n) for n in range(5, 11)},
        "hangul_frac": share(hangul, len("".join("".join(korean_lines).split()))),
        "latin_frac": share(sum(flags[c] & characters.LATIN > 0 for c in visible), len(visible)),
        "han_frac": share(sum(flags[c] & characters.HAN > 0 for c in visible), len(visible)),
        "digit_frac": share(sum(category[c][0] == "N" for c in visible), len(visible)),
        "punctuation_frac": share(sum(category[c][0] == "P" for c in visible), len(visible)),
        "uppercase_frac": share(sum(category[c] in ("Lu", "Lt") for c in letters), len(letters)),
        "lone_jamo_frac": share(len("".join(jamo_runs)), len(visible)),
        "jamo_run_frac": share(len("".join(run for run in jamo_runs if len(run) >= 3)), len(visible)),
        "emoji_frac": share(len(re.findall("[\u2600-\u27bf\U0001f000-\U0001faff]", text)), len(visible)),
        "symbol_frac": share(sum(category[c][0] not in "LMNP" for c in visible), len(text)),
        "broken_character_frac": share(broken, len(text)),
        "url_char_frac": share(len("".join(urls)), len(visible)),
        "curly_brackets": "".join(prose).count("{"),
        "lorem_ipsum": len(LOREM_IPSUM.findall(text)),
        "spam_terms_per_1000_words": ratio(1000 * spam, len(parts)),
    }
