"""Where a page's main text lies: the element whose paragraphs score highest, by Readability's measure.

Contract: `text` returns the text of that element and of the siblings that belong to it, or `""` for a page without
paragraphs, or where readers' comments score highest. Paragraphs score by length and commas, and the three elements
around them share the score. It judges an extractor's result and is not one: menus inside the element stay.
Source: Arc90's Readability (2009), as kept by Mozilla, without its penalty for links, which changed nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

_SHARES = (1.0, 1 / 2, 1 / 6)
"""Of a paragraph's score, for its parent, the parent's parent and the next."""
_COMMENTS = "[id*='comment'], [class*='comments'], [class*='comment-'], [id*='disqus']"
_MIN_PARAGRAPH = 25
_SIBLING_SHARE = 0.2
_MIN_SIBLING_SCORE = 10
_LONG_SIBLING = 80


def text(tree: Any) -> str:
    """The main part's text as it stands in the page, scripts included."""
    scores = _scores(tree)
    if not scores:
        return ""
    best, best_score = max(scores.items(), key=lambda item: item[1])
    if _is_discussion(best):
        return ""
    least = max(_MIN_SIBLING_SCORE, _SIBLING_SHARE * best_score)
    parts = [best.text_content]
    for sibling in best.parent_node.child_nodes.values():
        if sibling != best and (scores[sibling] > least or _is_long_paragraph(sibling)):
            parts.append(sibling.text_content)
    return "\n".join(parts)


def _is_discussion(element: Any) -> bool:
    """Whether readers' comments hold more paragraphs than the page they are about."""
    around = element.closest(_COMMENTS)
    return around is not None and around.local_name != "body"


def _scores(tree: Any) -> defaultdict[Any, float]:
    level: defaultdict[Any, float] = defaultdict(float)
    for paragraph in tree.document.query_selector_all("p, pre").values():
        content = paragraph.text_content or ""
        length = len(content.encode())  # a Korean sentence has a third of the characters of an English one
        if length >= _MIN_PARAGRAPH:
            commas = content.count(",") + content.count("、")
            level[paragraph.parent_node] += 1 + commas + min(length // 100, 3)
    scores: defaultdict[Any, float] = defaultdict(float)
    for share in _SHARES:
        above: defaultdict[Any, float] = defaultdict(float)
        for element, score in level.items():
            if element.node_name not in ("html", "#document"):
                scores[element] += score * share
                above[element.parent_node] += score
        level = above
    return scores


def _is_long_paragraph(node: Any) -> bool:
    return bool(node.node_name == "p") and len(node.text_content or "") > _LONG_SIBLING
