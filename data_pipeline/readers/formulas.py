r"""Formulas, sub- and superscripts and ruby as plain text, by edits of a parsed page.

Contract: `rewrite` replaces each formula, in whichever of its forms the page holds it (MathML, MathJax, KaTeX,
an image with LaTeX as its alternative text), by its LaTeX, once: `\(…\)`, or `\[…\]` for a formula of its own
line. MathML without LaTeX is written as LaTeX. `2<sup>10</sup>` becomes `2^10`, `a<sub>ij</sub>` `a_{ij}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

KEEP = "\ufdd0"
"""A noncharacter, which no text may hold, at the end of text nodes that the extractor would drop."""
_RENDERED = (
    ".katex-html, .MathJax_Preview, .MathJax_Display, .MathJax, .MathJax_CHTML, .MathJax_SVG, .MathJax_SVG_Display,"
    " .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
)
"""The drawn copy beside a formula's source."""
_COPIES = ".MathJax, .MathJax_SVG, .MathJax_CHTML, .MJX_Assistive_MathML"
"""What MathJax 2 draws, from a script that the page holds as well."""
_SCRIPTS = "script[type^='math/']"
_PICTURES = "img[alt*='\\\\'], img[alt^='$'], img.tex, img.latex, img.math"
_SOURCES = rf"math, m\:math, mml\:math, [data-mathml], {_SCRIPTS}, {_PICTURES}"
_TEX_PICTURE = re.compile(r"\\[A-Za-z]{2,}|^\$.*\$$|[\^_=]", re.DOTALL)
_TEX_WRAPPING = re.compile(r"^\s*\{?\\(?:displaystyle|textstyle)\s*|^\s*\$+|\$+\s*$")
_SHORT = re.compile(r"[\wα-ωΑ-Ω.,+\-−*/=′^{}]{1,12}", re.ASCII)
_ORDINAL = re.compile(r"st|nd|rd|th|er|re|ème|TM|SM")
_NOTE = re.compile(r"note|ref|cite|fn", re.IGNORECASE)
_MAX_MATHML_DEPTH = 100


def rewrite(tree: Any) -> None:
    """Edit `tree`, a parsed page, in place."""
    _rewrite_formulas(tree.document)
    for element in reversed(_all(tree.document, "sup, sub")):
        _rewrite_script(element)
    for element in _all(tree.document, "rt"):
        _rewrite_ruby(element)


def _text(node: Any) -> str:
    return (node.text_content or "").replace(KEEP, "")


def _all(document: Any, selector: str) -> Sequence[Any]:
    """The elements that the selector finds; iterating over its result queries again for each (docs/dependencies.md)."""
    found: Sequence[Any] = document.query_selector_all(selector).values()
    return found


def _rewrite_formulas(document: Any) -> None:
    sources = _all(document, _SOURCES)
    has_scripts = document.query_selector(_SCRIPTS) is not None
    texts = ["" if has_scripts and _is_copy(source) else _latex(source, document) for source in sources]
    for drawn in _all(document, _RENDERED) if any(texts) else ():
        if has_scripts or drawn.query_selector("math") is None:
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


def _is_copy(source: Any) -> bool:
    return source.local_name != "script" and source.closest(_COPIES) is not None


def _is_display(source: Any) -> bool:
    kind = source.get_attribute("type") or ""
    return "mode=display" in kind or "block" in (source.get_attribute("display"), source.get_attribute("mode"))


def _latex(source: Any, document: Any) -> str:
    """The formula's LaTeX; `""` if the element holds no formula of its own."""
    name = source.local_name
    if name == "script" and "mml" not in (source.get_attribute("type") or ""):
        return _bare(_text(source))
    if name == "img":
        text = source.get_attribute("alt") or ""
        return _bare(text) if _TEX_PICTURE.search(text) and not _beside_mathml(source) else ""
    if name == "script" or source.has_attribute("data-mathml"):
        holder = document.create_element("div")
        holder.inner_html = source.text_content if name == "script" else source.get_attribute("data-mathml")
        math = holder.query_selector("math")
        return _latex(math, document) if math is not None else ""
    note = source.query_selector("annotation[encoding*='tex'], annotation[encoding*='TeX']")
    if note is not None and _text(note).strip():
        return _bare(_text(note))
    return _bare(source.get_attribute("alttext") or "") or _mathml(source, 0).strip()


def _beside_mathml(picture: Any) -> bool:
    formula = picture.closest(".mwe-math-element")
    return formula is not None and formula.query_selector("math") is not None


def _bare(text: str) -> str:
    """LaTeX without the wrapping that sites add."""
    text = text.strip()
    if text.startswith(("{\\displaystyle", "{\\textstyle")):
        text = text[:-1] if text.endswith("}") else text
    text = _TEX_WRAPPING.sub("", text).strip()
    return re.sub(r"\s+", " ", text.removeprefix("% <![CDATA[").removesuffix("%]]>")).strip()


_TEMPLATES = {
    "mfrac": r"\frac{%s}{%s}",
    "msup": "%s^{%s}",
    "msub": "%s_{%s}",
    "msubsup": "%s_{%s}^{%s}",
    "munder": "%s_{%s}",
    "mover": "%s^{%s}",
    "munderover": "%s_{%s}^{%s}",
}
_ACCENTS = {
    "^": r"\hat",
    "ˆ": r"\hat",
    "~": r"\tilde",
    "˜": r"\tilde",
    "¯": r"\overline",
    "‾": r"\overline",
    "→": r"\vec",
    "˙": r"\dot",
    "¨": r"\ddot",
    "⏞": r"\overbrace",
}


def _mathml(node: Any, depth: int) -> str:
    """A MathML element as LaTeX."""
    name = (getattr(node, "local_name", None) or "").rpartition(":")[2]
    if not name:
        return _text(node).strip()
    if name.startswith("annotation") or name == "mphantom" or depth > _MAX_MATHML_DEPTH:
        return ""
    if name == "mtext":
        text = re.sub(r"\s+", " ", _text(node))
        return rf"\text{{{text}}}" if text.strip() else " "
    children = [(_mathml(child, depth + 1), hasattr(child, "local_name")) for child in node.child_nodes.values()]
    parts = [text for text, is_element in children if is_element]
    if name == "mover" and len(parts) == 2 and parts[1] in _ACCENTS:
        return f"{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    if name in _TEMPLATES and len(parts) == _TEMPLATES[name].count("%s"):
        return _TEMPLATES[name] % tuple(parts)
    if name == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if name == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(parts) + r"\end{matrix}"
    if name == "mtr":
        return " & ".join(parts)
    if name == "mspace":
        return " "
    if name == "mfenced":
        opening, closing = node.get_attribute("open", "("), node.get_attribute("close", ")")
        return f"{opening}{','.join(parts)}{closing}"
    inner = "".join(text for text, _ in children)
    return rf"\sqrt{{{inner}}}" if name == "msqrt" else inner


def _rewrite_script(element: Any) -> None:
    """Mark a short sub- or superscript; notes, ordinals and links stay as they are."""
    text = _text(element).strip()
    if not _SHORT.fullmatch(text) or element.query_selector("a") or element.closest("a, pre, code"):
        return
    if _ORDINAL.fullmatch(text) or _NOTE.search(f"{element.class_name or ''} {element.id or ''}"):
        return
    before = element.previous_sibling
    base = _text(before) if before is not None else ""
    if not base or not (base[-1].isalnum() or base[-1] in ")]}"):
        return
    mark = "^" if element.local_name == "sup" else "_"
    element.text_content = mark + (text if text.isdigit() or len(text) == 1 else f"{{{text}}}")


def _rewrite_ruby(element: Any) -> None:
    """Put the reading in brackets unless the page does."""
    before = element.previous_element_sibling
    if before is None or before.local_name != "rp":
        element.text_content = f"({_text(element).strip()})"
