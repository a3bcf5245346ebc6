"""Put data, style and script into one HTML file such that nothing in the data can run.

Data enters as JSON in which `<`, `>` and `&` are escaped, or as compressed base64; script and
style enter with their SHA-256 in the content security policy, which forbids everything else.
"""

import base64
import hashlib
import importlib.util
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

# Inside a <script> element only "<" can end the element; ">" and "&" are escaped so that the
# text is inert wherever it is copied to, U+2028/9 because older readers take them for line ends.
_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


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


def data_tables_script() -> str:
    """The DataTables library as a module that sets `globalThis.DataTable`.

    itables carries it as one file without any further load; its default export is the library.
    """
    # Found without importing itables, which would bring pandas in.
    found = importlib.util.find_spec("itables")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("itables, which carries DataTables, is not installed")
    bundle = Path(found.origin).with_name("html").joinpath("dt_bundle.js").read_text("utf-8")
    exports = list(re.finditer(r"export\{([^}]*)\};?", bundle))
    default = re.search(r"([\w$]+) as default", exports[-1].group(1)) if exports else None
    if default is None or "</script" in bundle.lower():
        raise RuntimeError("this version of itables carries DataTables in another form")
    start, end = exports[-1].span()
    return f"{bundle[:start]}globalThis.DataTable={default.group(1)};{bundle[end:]}"


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
