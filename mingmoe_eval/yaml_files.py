"""Reading YAML: strict where the language is not, and fast.

A key that comes twice is refused; YAML lets the later one win without a word.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path) -> Any:
    """What a file holds; `!function module.name` is a plain string.

    Raises:
        ValueError: it cannot be read, is not UTF-8 or no YAML; the message is one line.
    """
    try:
        return yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from error
    except (yaml.YAMLError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error


# libyaml is ten times as fast as the pure Python parser, where PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]  # chosen at run time
    """Safe YAML without keys that come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; a merge (`<<`) may be overridden, which is what it is for."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} comes twice, again in line {line}")
            if isinstance(key, Hashable):
                seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")
