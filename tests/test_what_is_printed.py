"""What is printed gives no login away and commands no terminal; a run's name stays one name."""

import json
import math
from pathlib import Path

import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.cli.console import write_json
from mingmoe_eval.cli.exits import printable
from mingmoe_eval.errors import UsageError
from mingmoe_eval.run_store import folder_named

SECRET = "s3cr3t"
ADDRESSES = {
    "served": f"openai:http://bob:{SECRET}@127.0.0.1:9/v1#m",
    "prefix forgotten": f"http://bob:{SECRET}@127.0.0.1:9/v1#m",
    "prefix in capitals": f"OPENAI:http://bob:{SECRET}@127.0.0.1:9/v1#m",
    "an unescaped #": f"openai:http://bob:{SECRET}#x@127.0.0.1:9/v1#m",
    "an unescaped /": f"openai:http://bob:{SECRET}/x@127.0.0.1:9/v1#m",
    "an unescaped @": f"openai:http://bob:x@{SECRET}@127.0.0.1:9/v1#m",
    "a token alone": f"openai:https://{SECRET}@127.0.0.1:9/v1#m",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize(
    "command",
    [
        "run --tasks usmle --sample --output OUT --model ADDRESS",
        "run --tasks usmle --sample --output OUT --model ADDRESS,ADDRESS2",
        "run --tasks usmle --sample --output OUT --model OUT --base ADDRESS",
        "run --tasks usmle --sample --output OUT --model OUT --adapters ADDRESS,ADDRESS2",
        "run --tasks ADDRESS --sample --output OUT --model OUT",
        "run --tasks usmle --limit ADDRESS --model OUT",
        "inspect ADDRESS",
        "report ADDRESS",
        "ADDRESS",
    ],
)
def test_no_message_holds_a_login(
    command: str, address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = {"ADDRESS2": address.replace("#m", "#n"), "ADDRESS": address, "OUT": str(tmp_path)}
    words = command.split()
    for name, value in places.items():
        words = [word.replace(name, value) for word in words]
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    assert "error" in err.lower()


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1/models@main",
        "https://example.org/a/b",
        "mail bob@example.org",
        "http://b c@d",
        "C:/x@y",
        "两个：http://127.0.0.1:8000/v1，bob@x",
    ],
)
def test_other_addresses_stay(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_shown() -> None:
    assert printable("a\x1b[31mb\x07\n\u202ec") == "a\\x1b[31mb\\x07\n\\u202ec"


@pytest.mark.parametrize(
    "name", ["../../x", "/x", ".", "..", "", "a/b", "a\nb", "\x1b[31m", "医" * 100]
)
def test_a_runs_name_is_one_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name"):
        folder_named(tmp_path, name)


@pytest.mark.parametrize("name", ["ming-moe", "医考 1", "a.b", "...a"])
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    assert folder_named(tmp_path, name) == tmp_path / name


def test_json_of_a_command_is_json(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    write_json({"score": math.nan, "high": math.inf, "half": "\ud800"}, str(file))
    text = file.read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "score": "nan",
        "high": "inf",
        "half": "\ud800",
    }
