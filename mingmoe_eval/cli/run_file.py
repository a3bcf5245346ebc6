"""`run --config eval.yaml`: a run as a file, checked against the options that the command has.

The file knows every option of `run`, because it is held against the command itself; a value is read
as the same word would be on the command line, so that a file and a command cannot differ.
"""

import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import typer
import yaml
from typer.main import get_command

from mingmoe_eval.cli.exits import EXIT_DONE, EXIT_INTERRUPTED, explain, headline, is_interrupt
from mingmoe_eval.cli.lm_eval_words import IN_OUR_WORDS, in_our_words
from mingmoe_eval.cli.run import run
from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.records import RunSpec
from mingmoe_eval.yaml_files import read_yaml

Settings = dict[str, Any]
"""By the name of an option, its value: what click takes as defaults of its own."""

_SECTIONS = "runs"
_ONLY_TYPED = {"config", "resume"}
"""What the file itself is, and what takes everything from the run that it finishes."""


def run_as_said(words: Sequence[str], call: Callable[..., int]) -> int:
    """The verb `run`, whoever's words it is given in, once or as often as its file says.

    Args:
        words: What is typed after `run`.
        call: Runs it, given words and `default_map`; its exit status comes back.
    """
    app = typer.Typer(add_completion=False)
    app.command(name="run")(run)
    command = get_command(app)
    words = in_our_words(words, {name for param in command.params for name in param.opts})
    # Resilient: what is wrong with the words is said by the call.
    typed = command.make_context("run", list(words), resilient_parsing=True).params
    if not typed.get("config"):
        return call(words)
    sections = read_run_file(Path(typed["config"]), command)
    if len(sections) == 1:
        return call(words, default_map=sections[0])
    _refuse_typing_mistakes(command, words)
    return _run_each(sections, words, call)


def read_run_file(file: Path, command: Any) -> list[Settings]:
    """What each run of a file is asked for, its own settings over those that all have.

    Args:
        file: YAML, or JSON. Its keys are the names of options; below `runs`, a list of the same.
        command: click's command, whose options those are.

    Raises:
        UsageError: naming every key that is no option, and every value that its option refuses.
    """
    data = _mapping_of(file)
    below = data.pop(_SECTIONS, None) if _SECTIONS in data else [{}]
    offences: list[str] = []
    shared = _settings(command, data, "", offences)
    sections = []
    if not isinstance(below, list) or not below:
        offences.append(f"{_SECTIONS}: a list of runs is expected, each with settings of its own")
        below = []
    for number, section in enumerate(below, start=1):
        where = f"{_SECTIONS}, number {number}: "
        if not isinstance(section, dict):
            offences.append(f"{where}settings are expected, such as `tasks: usmle`")
            continue
        sections.append(shared | _settings(command, section, where, offences))
    if offences:
        raise UsageError(offence_list(f"{file} is no run that can be made", offences))
    return sections


def _refuse_typing_mistakes(command: Any, words: Sequence[str]) -> None:
    """Once, and not before each of the runs."""
    # click's UsageError, which newer releases of typer bring themselves.
    option_mistake = cast(type[typer.BadParameter], typer.BadParameter.__base__)
    try:
        command.make_context("run", list(words))
    except option_mistake as mistake:
        raise UsageError(mistake.format_message()) from mistake


def _run_each(sections: Sequence[Settings], words: Sequence[str], call: Callable[..., int]) -> int:
    """One that fails does not stop the others; those that failed are listed at the end."""
    statuses, failed = [EXIT_DONE], []
    for number, section in enumerate(sections, start=1):
        label = f"run {number} of {len(sections)} ({section.get('tasks', 'no tasks')})"
        print(f"{label}:", file=sys.stderr)
        try:
            status, why = call(words, default_map=section), "see above"
        except ModuleNotFoundError:
            raise  # the same for all of them
        except Exception as error:  # not even a bug, shown as such, may cost the other runs
            if is_interrupt(error):
                raise
            status, why = explain(error), headline(error)
        statuses.append(status)
        if status == EXIT_INTERRUPTED:
            break
        if status != EXIT_DONE:
            failed.append(f"{label}: {why}")
    if failed:
        print(
            "\n  ".join([f"{len(failed)} of {len(sections)} runs failed:", *failed]),
            file=sys.stderr,
        )
    return max(statuses)


def _options(command: Any) -> Iterator[tuple[str, Any]]:
    """By its name in a file, each option: `--data-dir` is `data_dir`."""
    for param in command.params:
        for flag in param.opts:
            if flag.startswith("--") and param.name not in _ONLY_TYPED:
                yield _key(flag.removeprefix("--")), param


def _key(name: str) -> str:
    return name.replace("-", "_")


def _settings(command: Any, data: Mapping[Any, Any], where: str, offences: list[str]) -> Settings:
    options = dict(_options(command))
    settings: Settings = {}
    for name, value in data.items():
        key = _key(name) if isinstance(name, str) else ""
        if key not in options:
            offences.append(f"{where}{name}: {_no_option(key, options)}")
        elif value is not None:  # as if it had not been written
            try:
                settings[options[key].name] = _value(command, options[key], value)
            except ValueError as error:
                offences.append(f"{where}{name}: {error}")
    return settings


def _no_option(key: str, options: Mapping[str, Any]) -> str:
    if key in _ONLY_TYPED:
        return f"that is said on the command line alone, as --{key}"
    if key == _SECTIONS:
        return "no runs stand below a run"
    if key in IN_OUR_WORDS:
        return f"lm-eval's word; here: {IN_OUR_WORDS[key]}"
    close = difflib.get_close_matches(key, [*options, _SECTIONS], n=2)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"no option of `mingmoe-eval run`{hint}"


def _value(command: Any, param: Any, value: Any) -> Any:
    """The words that a file has for an option, once the option takes them.

    Raises:
        ValueError: it does not.
    """
    if param.multiple:
        words: Any = [_scalar(item) for item in (value if isinstance(value, list) else [value])]
    else:
        words = _word(param.name, value)
    try:
        command.make_context("run", [], default_map={param.name: words})
    except typer.BadParameter as error:
        raise ValueError(error.message) from error
    return words


def _word(name: str, value: Any) -> str:
    """A list, or an object, as the option takes it on the command line."""
    if isinstance(value, list) and name in _LISTS:
        if not value:
            raise ValueError("an empty list")
        return ",".join(map(_scalar, value))
    if isinstance(value, dict) and name in _HINTS and name not in _LISTS:
        texts = [text for text in (*value, *value.values()) if isinstance(text, str)]
        plain = len(texts) == 2 * len(value) and not any("," in text for text in texts)
        if plain and not any("=" in key for key in value):
            return ",".join(f"{key}={inner}" for key, inner in value.items())
        return json.dumps(value if name in _OF_TEXTS else _typed(value), ensure_ascii=False)
    return _scalar(value)


def _typed(value: Any) -> Any:
    """The numbers and truths that the words of a file are, as JSON has them."""
    if isinstance(value, dict):
        return {str(key): _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a single value is expected, not {_CALLED.get(type(value), 'nothing')}")
    return value


_CALLED: Mapping[type, str] = {list: "a list", dict: "an object"}


def _hints() -> Iterator[tuple[str, Any]]:
    """Of each setting of a run that is a list or pairs, its type."""
    for name, hint in get_type_hints(RunSpec).items():
        for part in (hint, *get_args(hint)):
            if get_origin(part) in (Sequence, tuple, Mapping):
                yield name, part


_HINTS = dict(_hints())
# A run has one model; the option takes several, one run each.
_LISTS = {n for n, hint in _HINTS.items() if get_origin(hint) is not Mapping} | {
    "model",
    "adapters",
}
_OF_TEXTS = {name for name, hint in _HINTS.items() if get_args(hint)[-1] is str}


class _Words(yaml.SafeLoader):
    """YAML in which every plain value but null is the text that stands there.

    So `split: no`, `name: 1.10` and `name: 2024-01-01` are what somebody meant who writes the same
    on the command line. A key that comes twice is refused: one of its values would be lost.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {  # noqa: RUF012  as PyYAML has it
        first: [(tag, form) for tag, form in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice} comes twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _mapping_of(file: Path) -> dict[Any, Any]:
    try:
        data = read_yaml(file, _Words)
    except ValueError as error:
        if isinstance(cause := error.__cause__, OSError):
            raise UsageError(f"--config {file} cannot be read: {cause.strerror}") from error
        raise UsageError(f"--config {file} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"--config {file}: settings are expected, such as `tasks: usmle`")
    return data
