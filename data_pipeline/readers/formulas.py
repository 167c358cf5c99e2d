r"""Formulas, sub- and superscripts and ruby as plain text, by edits of a parsed page.

Contract: `rewrite` replaces each formula, in whichever of its forms the page holds it (MathML, MathJax, KaTeX,
an image with LaTeX as its alternative text), by its LaTeX, once: `\(…\)`, or `\[…\]` for a formula of its own
line. MathML without LaTeX is written as LaTeX. `2<sup>10</sup>` becomes `2^10`, `a<sub>ij</sub>` `a_{ij}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_RENDERED = (
    ".katex-html, .MathJax_Preview, .MathJax_Display, .MathJax, .MathJax_CHTML, .MathJax_SVG, .MathJax_SVG_Display,"
    " .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
)
"""The drawn copy beside a formula's source."""
_SOURCES = "math, script[type^='math/'], img[alt*='\\\\'], mjx-container"
_TEX_COMMAND = re.compile(r"\\[A-Za-z]{2,}")
_TEX_WRAPPING = re.compile(r"^\s*\{?\\(?:displaystyle|textstyle)\s*|^\s*\$+|\$+\s*$")
_SHORT = re.compile(r"[+\-−]?[\w.]{1,8}[+\-−]?|[+\-−*′]", re.ASCII)
_ORDINAL = re.compile(r"st|nd|rd|th|er|re|ème|TM|SM")
_NOTE = re.compile(r"note|ref|cite|fn", re.IGNORECASE)
_MAX_MATHML_DEPTH = 100


def rewrite(tree: Any) -> None:
    """Edit `tree`, a parsed page, in place."""
    _rewrite_formulas(tree.document)
    for element in _all(tree.document, "sup, sub"):
        _rewrite_script(element)
    for element in _all(tree.document, "rt"):
        _rewrite_ruby(element)


def _all(document: Any, selector: str) -> Sequence[Any]:
    """The elements that the selector finds; iterating over its result queries again for each (docs/dependencies.md)."""
    return document.query_selector_all(selector).values()


def _rewrite_formulas(document: Any) -> None:
    sources = _all(document, _SOURCES)
    texts = [_latex(source) for source in sources]
    for drawn in _all(document, _RENDERED) if any(texts) else ():
        if drawn.query_selector("math") is None:
            drawn.text_content = ""
    for source, text in zip(sources, texts, strict=True):
        if not text or source.parent_node is None:
            continue
        opening, closing = (r"\[", r"\]") if _is_display(source) else (r"\(", r"\)")
        formula = document.create_text_node(f"{opening}{text}{closing}")
        _shown(source).replace_with(formula)


def _shown(source: Any) -> Any:
    """The outermost element that stands for nothing but this formula: sites hide MathML inside one."""
    return source.closest(".mwe-math-element, .katex, .MathJax, mjx-container") or source


def _is_display(source: Any) -> bool:
    kind = source.get_attribute("type") or ""
    return "mode=display" in kind or "block" in (source.get_attribute("display"), source.get_attribute("mode"))


def _latex(source: Any) -> str:
    """The formula's LaTeX; `""` if the element holds no formula of its own."""
    name = source.local_name
    if name == "script":
        kind = (source.get_attribute("type") or "").lower()
        text = source.text_content or ""
        return _bare(text) if "mml" not in kind else ""
    if name == "img":
        text = source.get_attribute("alt") or ""
        return _bare(text) if _TEX_COMMAND.search(text) and source.closest(".mwe-math-element") is None else ""
    if name == "mjx-container":
        return ""  # its assistive MathML, if any, is a source of its own
    note = source.query_selector("annotation[encoding*='tex'], annotation[encoding*='TeX']")
    if note is not None and (note.text_content or "").strip():
        return _bare(note.text_content)
    return _bare(source.get_attribute("alttext") or "") or _children(source, 0).strip()


def _bare(text: str) -> str:
    """LaTeX without the wrapping that sites add."""
    text = text.strip()
    if text.startswith(("{\\displaystyle", "{\\textstyle")):
        text = text[:-1] if text.endswith("}") else text
    text = _TEX_WRAPPING.sub("", text).strip()
    return re.sub(r"\s+", " ", text.removeprefix("% <![CDATA[").removesuffix("%]]>")).strip()


def _children(node: Any, depth: int) -> str:
    return "".join(_mathml(child, depth) for child in node.child_nodes.values())


_TEMPLATES = {
    "mfrac": r"\frac{%s}{%s}",
    "msup": "%s^{%s}",
    "msub": "%s_{%s}",
    "msubsup": "%s_{%s}^{%s}",
    "munder": "%s_{%s}",
    "mover": "%s^{%s}",
    "munderover": "%s_{%s}^{%s}",
}


def _mathml(node: Any, depth: int) -> str:
    """A MathML element as LaTeX."""
    name = getattr(node, "local_name", None)
    if name is None:
        return (node.text_content or "").strip()
    if name.startswith("annotation") or depth > _MAX_MATHML_DEPTH:
        return ""
    parts = [_mathml(child, depth + 1) for child in node.children.values()]
    if name in _TEMPLATES and len(parts) == _TEMPLATES[name].count("%s"):
        return _TEMPLATES[name] % tuple(parts)
    if name == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if name == "mtd":
        return f"{_children(node, depth + 1)} & "
    if name == "mtr":
        return f"{''.join(parts).removesuffix(' & ')} \\\\ "
    if name == "mspace":
        return " "
    if name == "mfenced":
        opening, closing = node.get_attribute("open", "("), node.get_attribute("close", ")")
        return f"{opening}{','.join(parts)}{closing}"
    inner = _children(node, depth + 1)
    return rf"\sqrt{{{inner}}}" if name == "msqrt" else inner


def _rewrite_script(element: Any) -> None:
    """Mark a short sub- or superscript; notes, ordinals and links stay as they are."""
    text = (element.text_content or "").strip()
    if not _SHORT.fullmatch(text) or element.query_selector("a, sup, sub") or element.closest("a, pre, code"):
        return
    if _ORDINAL.fullmatch(text) or _NOTE.search(f"{element.class_name or ''} {element.id or ''}"):
        return
    before = element.previous_sibling
    base = before.text_content if before is not None else ""
    if not base or not (base[-1].isalnum() or base[-1] in ")]}"):
        return
    mark = "^" if element.local_name == "sup" else "_"
    element.text_content = mark + (text if text.isdigit() or len(text) == 1 else f"{{{text}}}")


def _rewrite_ruby(element: Any) -> None:
    """Put the reading in brackets unless the page does."""
    before = element.previous_element_sibling
    if before is None or before.local_name != "rp":
        element.text_content = f"({(element.text_content or '').strip()})"
