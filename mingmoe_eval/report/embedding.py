"""Put words, data, style and script into one HTML file such that nothing in the data can run.

Data enters as JSON in which `<`, `>` and `&` are escaped, or as compressed base64; script and
style enter with their SHA-256 in the content security policy, which forbids everything else.
"""

import base64
import hashlib
import importlib.resources
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from mingmoe_eval.metrics.showing import LESS_IS_BETTER, shown
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.records import Unit
from mingmoe_eval.report.wording import Wording

# Inside a <script> element only "<" can end the element; ">" and "&" are escaped so that the
# text is inert wherever it is copied to, U+2028/9 because older readers take them for line ends.
_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)

Words = Mapping[str, Mapping[str, str]]


def json_bytes(value: Any) -> bytes:
    """Strict JSON in UTF-8; a non-finite number becomes a word, a lone surrogate its escape."""
    try:
        text = _dumps(value)
    except ValueError:
        text = _dumps(_finite(value))
    # "backslashreplace" writes a lone surrogate as \\udc80, which is just how JSON escapes it.
    return text.encode("utf-8", "backslashreplace")


def inert_json(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`; no text in it can end the element."""
    return Markup(json_bytes(value).decode("utf-8").translate(_ESCAPES))


def packed(data: bytes) -> str:
    """Zlib-compressed base64, which the browser's DecompressionStream("deflate") reads."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def content_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A policy under which only these scripts and styles work, and nothing can be loaded."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_source_hash, scripts))}",
            f"style-src {' '.join(map(_source_hash, styles))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def template(name: str) -> str:
    """One of the files in `templates/`."""
    folder = importlib.resources.files("mingmoe_eval.report")
    return folder.joinpath("templates", name).read_text("utf-8")


def read_words() -> Words:
    """Every text of the interface: key -> language -> text."""
    pairs = json.loads(template("words.json"))
    return {key: {"en": english, "zh": chinese} for key, (english, chinese) in pairs.items()}


def environment(words: Words, wording: Wording) -> jinja2.Environment:
    """Templates that escape everything, and say what is said in a language the page can switch.

    `t(key)` is a text of `words`; `name|task` and `text|said` are a task's name and a text that a
    run holds; `titled(text)` is a tooltip's attribute.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mingmoe_eval.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )

    def word(key: str) -> str:
        return words[key][wording.language]

    def t(key: str) -> Markup:
        return Markup('<span data-t="{}">{}</span>').format(key, word(key))

    made.globals.update(
        word=word,
        t=t,
        titled=wording.titled,
        option=wording.task_option,
        # Called where all else has been said.
        chinese=lambda: inert_json(wording.chinese),
    )
    made.filters.update(
        task=wording.task,
        said=wording.said,
        percent=lambda fraction: shown(fraction, "share"),
        amount=shown,
        change=_change,
        arrow=lambda better: f" {LESS_IS_BETTER}" if better == "lower" else "",
        p_value=lambda p: "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
        stars=significance_marks,
        quantity=quantity,
        price=lambda amount: "–" if amount is None else f"{amount:,.4g}",
        decimals=decimals,
        level=lambda share: max(0, min(10, round(share * 10))),
    )
    return made


def _change(difference: float, unit: Unit) -> str:
    return shown(difference, unit, signed=True).replace("-", "−")


def quantity(value: float | None) -> str:
    """A count, a time or a size with about three digits that matter: 7.70 B, 207.30 M, 12.5."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def decimals(value: float | None, places: int = 3) -> str:
    """A share or a figure near one."""
    return "–" if value is None else f"{value:.{places}f}"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
