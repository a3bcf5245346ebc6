"""Reading YAML: strict where the language is not, and fast.

A key that comes twice is refused; YAML lets the later one win without a word.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_DEEPEST = 100
_SHALLOW_BYTES = 10_000
"""A text of no more bytes cannot be deep enough to hurt: libyaml's composer ends the whole process
between 20,000 and 40,000 levels."""
_MOST_VALUES = 1_000_000


def read_yaml(path: Path, loader: Any = None) -> Any:
    """What a file holds; `!function module.name` is a plain string.

    Args:
        path: The file.
        loader: A loader of PyYAML's with a reading of its own, whose caller looks at each value;
            default: safe YAML.

    Raises:
        ValueError: it cannot be read, is not UTF-8 or no YAML; the message is one line.
    """
    try:
        text = path.read_text("utf-8")
        if len(text) > _SHALLOW_BYTES:
            _refuse_deep(text)
        value = yaml.load(text, Loader=loader or _Loader)
        if loader is None and "*" in text and _values(value, {}) > _MOST_VALUES:
            raise ValueError(
                f"its aliases stand for more than {_MOST_VALUES:,} values, or for themselves"
            )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from error
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, LookupError, TypeError) as error:
        # As PyYAML's constructors end of a value that is not of its tag, such as `!!timestamp x`.
        told = f"a value is not what its tag says ({type(error).__name__}: {error})"
        raise ValueError(told) from error
    return value


def _refuse_deep(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _values(value: Any, known: dict[int, int]) -> int:
    """How many values there are, each alias counted for all that it stands for."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES + 1  # one that holds itself has no end
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(value)]


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
