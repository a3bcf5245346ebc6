"""The two libraries that draw for the page: DataTables, which itables carries, and Vega-Lite.

All that this program relies on in itables and in vl-convert stands here, and a test names what a
new release took away.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import UsageError
from mingmoe_eval.extras import how_to_install

Chart = dict[str, Any]
"""A Vega-Lite specification."""

DATA_TABLES = "html/dt_bundle.js"
"""The file in itables' package that is all of DataTables, without any further load."""

_EXPORTS = re.compile(r"export\{([^}]*)\};?")
_DEFAULT = re.compile(r"([\w$]+) as default")

VL_CONVERT = ("vegalite_to_svg", "vegalite_to_pdf")
"""What is called of vl-convert; it comes with the extra `report`."""


def data_tables_script() -> str:
    """The DataTables library as a module that sets `globalThis.DataTable`.

    itables carries it as one file without any further load; its default export is the library.
    """
    # Found without importing itables, which would bring pandas in.
    found = importlib.util.find_spec("itables")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("itables, which carries DataTables, is not installed")
    bundle = Path(found.origin).parent.joinpath(DATA_TABLES).read_text("utf-8")
    exports = list(_EXPORTS.finditer(bundle))
    default = _DEFAULT.search(exports[-1].group(1)) if exports else None
    if default is None or "</script" in bundle.lower():
        raise RuntimeError("this version of itables carries DataTables in another form")
    start, end = exports[-1].span()
    return f"{bundle[:start]}globalThis.DataTable={default.group(1)};{bundle[end:]}"


def can_draw() -> bool:
    """Whether the library that draws is installed."""
    return importlib.util.find_spec("vl_convert") is not None


def require_drawing() -> None:
    """Refuse when the library that draws is absent.

    Raises:
        UsageError: it is; says what to install.
    """
    if not can_draw():
        raise UsageError(f"charts need one more library: {how_to_install('report')}")


def svg(chart: Chart) -> str:
    """The chart as an SVG element."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(chart)
    return text


def write_figure(chart: Chart, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `<name>.pdf`, and `<name>.vl.json`, the definition to restyle."""
    import vl_convert

    paths = [folder / f"{name}.{ending}" for ending in ("svg", "pdf", "vl.json")]
    paths[0].write_text(svg(chart), "utf-8")
    paths[1].write_bytes(vl_convert.vegalite_to_pdf(chart))
    paths[2].write_text(json.dumps(chart, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return paths
