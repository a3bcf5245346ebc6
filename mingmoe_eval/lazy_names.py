"""Names of a package that are imported from their modules when they are first used (PEP 562).

torch, transformers and lm-eval take seconds to import, and most of what people do with run
folders needs none of them. Type checkers see the names in an `if TYPE_CHECKING:` block.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names live in modules of it.

    Args:
        package: The package's `__name__`.
        homes: Of each name, the module below the package that defines it.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        # Found as an ordinary attribute from now on.
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
