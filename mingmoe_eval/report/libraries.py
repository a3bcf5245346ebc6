"""The two libraries that draw for the page: DataTables, which itables carries, and Vega-Lite.

All that this program relies on in itables and in vl-convert stands here, and a test names what a
new release took away.

Charts are drawn in a process of their own, which runs this file by its path: vl-convert brings a
JavaScript engine, which ends its process where memory is limited (`ulimit -v`) and panics where
streams are closed or descriptors are few. That must not happen to a process that holds a run.
"""

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import MingMoeError, UsageError
from mingmoe_eval.extras import how_to_install

Chart = dict[str, Any]
"""A Vega-Lite specification."""

DATA_TABLES = "html/dt_bundle.js"
"""The file in itables' package that is all of DataTables, without any further load."""

_EXPORTS = re.compile(r"export\{([^}]*)\};?")
_DEFAULT = re.compile(r"([\w$]+) as default")

VL_CONVERT = ("vegalite_to_svg", "vegalite_to_pdf")
"""What is called of vl-convert; it comes with the extra `report`."""

_SECONDS = 300.0  # to draw all charts of a page, which takes one or two where nobody else computes


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


class DrawingError(MingMoeError):
    """Charts that could not be drawn on this machine; everything but them is there."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart: an SVG element, and a PDF where one was asked for."""

    svg: str
    pdf: bytes


def draw(charts: Mapping[str, Chart], *, pdf: bool = False) -> dict[str, Picture]:
    """Every chart as a picture, drawn in a process of its own.

    Raises:
        DrawingError: that process failed; says how it ended.
    """
    if not charts:
        return {}
    # A lone surrogate, which no UTF-8 holds, becomes a question mark.
    asked = json.dumps({"charts": charts, "pdf": pdf}, ensure_ascii=False).encode(
        "utf-8", "replace"
    )
    # The library is found where this process finds it, whatever changed its path.
    path = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=asked,
            capture_output=True,
            timeout=_SECONDS,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        )
        if done.returncode:
            raise DrawingError(f"the drawing library {_ending(done.returncode, done.stderr)}")
        drawn = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DrawingError(f"the drawing library could not be run ({error})") from error
    return {
        name: Picture(svg=one["svg"], pdf=base64.b64decode(one.get("pdf", "")))
        for name, one in drawn.items()
    }


def _ending(status: int, stderr: bytes) -> str:
    """How a process ended, with the line in which it said why."""
    lines = stderr.decode("utf-8", "replace").strip().split("\n")
    if status < 0:  # its engine's last words, such as "# Fatal process out of memory: ..."
        how = f"was ended by {signal.Signals(-status).name}"
        said = next((line.lstrip("# ") for line in lines if line.startswith("# Fatal")), "")
    else:
        how, said = f"ended with status {status}", lines[-1]
    return f"{how} ({said})" if said else how


def _draw_here() -> None:
    """The process that draws: `draw`'s request on stdin, its answer on stdout."""
    import vl_convert

    asked = json.load(sys.stdin.buffer)
    drawn = {}
    for name, chart in asked["charts"].items():
        drawn[name] = {"svg": vl_convert.vegalite_to_svg(chart)}
        if asked["pdf"]:
            pdf = vl_convert.vegalite_to_pdf(chart)
            drawn[name]["pdf"] = base64.b64encode(pdf).decode("ascii")
    json.dump(drawn, sys.stdout)


if __name__ == "__main__":
    _draw_here()
