"""Language identification: Korean, English or other; the only module that imports py3langid.

Contract: `identify` is pure, works offline, and returns (`ko` | `en` | `other`, probability). The script decides
first. A Hangul syllable counts as two letters, since it carries about two. Korean texts are full of Latin names
and code, while texts in other languages have hardly any Hangul, so a text is Korean if a quarter of its letters
are, and certainly if half are; where that is in doubt, lines of code do not count. Mostly Latin text goes to
py3langid without its Hangul; the model is restricted to languages in Latin script and its probabilities are
normalized. Everything else is `other`. The model reads at most 1,200 code points (beginning, middle and end),
which takes up to 0.4 ms per document; of 700 English and other documents none was judged otherwise by 3,000.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from data_pipeline.readers import characters

_PIECE = 400
_SYLLABLE_WEIGHT = 2
_KOREAN_SHARE = 0.25
_HARDLY_ANY = 0.05
_SENTENCE = re.compile(r"[\uac00-\ud7a3]|(?:[^\W\d_]+,? +){4}[^\W\d_]")
"""In a line that holds Hangul or five words in a row; code has neither."""
_HANGUL = re.compile("[\uac00-\ud7a3]+")
_LATIN_LANGUAGES = (
    "af an az br bs ca cs cy da de en eo es et eu fi fr ga gl hr ht hu id is it jv la lb lt lv mg ms mt nb nl nn no "
    "oc pl pt qu ro rw se sk sl sq sv sw tl tr vi vo wa xh zu"
)


def identify(text: str) -> tuple[str, float]:
    """Language and its probability; ("other", 0.0) for a text without letters."""
    letters, korean, latin = _scripts(text)
    if _HARDLY_ANY < korean < 2 * _KOREAN_SHARE:
        letters, korean, latin = _scripts("\n".join(line for line in text.split("\n") if _SENTENCE.search(line)))
    if not letters:
        return "other", 0.0
    if korean >= _KOREAN_SHARE:
        return "ko", min(1.0, korean / (2 * _KOREAN_SHARE))
    if latin < 0.5:
        return "other", 1 - max(korean, latin)
    language, probability = _identifier().classify(_HANGUL.sub("", _sample(text)))
    return ("en" if language == "en" else "other"), min(1.0, float(probability))


def _scripts(text: str) -> tuple[int, float, float]:
    """The number of letters, and the shares of Hangul and of Latin letters by weight."""
    flags = characters.flags_of(text)
    letters = int(np.count_nonzero(flags & characters.LETTER))
    hangul = int(np.count_nonzero(flags & (characters.HANGUL | characters.JAMO)))
    han = int(np.count_nonzero(flags & characters.HAN))
    weight = max(1, letters + (_SYLLABLE_WEIGHT - 1) * (hangul + han))
    return letters, _SYLLABLE_WEIGHT * hangul / weight, int(np.count_nonzero(flags & characters.LATIN)) / weight


def _sample(text: str) -> str:
    if len(text) <= 3 * _PIECE:
        return text
    middle = (len(text) - _PIECE) // 2
    return "\n".join((text[:_PIECE], text[middle : middle + _PIECE], text[-_PIECE:]))


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(set(_LATIN_LANGUAGES.split()) & set(identifier.labels)))
    return identifier
