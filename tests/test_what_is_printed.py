"""What is printed gives no login away and commands no terminal; a run's name stays one name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from openai_server import serving, text

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


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "status:400", "status:401", "cut", "body:oops"])
def test_no_login_is_in_anything_that_is_written_or_printed(
    fault: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An address with a password wherever one can stand, on a server that answers or does not."""

    def answer(path: str, payload: dict[str, Any]) -> Any:
        return text("A", chat=path.startswith("/chat"))

    with serving(answer, lambda *_: fault) as (model, _):
        address = model.replace("http://", f"http://bob:{SECRET}@")
        settings = {"model": address, "tasks": "usmle", "sample": True, "limit": 2}
        (tmp_path / "asked.yaml").write_text(json.dumps({**settings, "output": str(tmp_path)}))
        given = f"--tasks usmle --sample --limit 2 --output {tmp_path}"
        for command in (
            f"run --model {address} {given} --name a --json {tmp_path}/a.json",
            f"run --model {address},{address}2 {given} --name several",
            f"run --config {tmp_path}/asked.yaml --name c",
            f"run --config {tmp_path}/a/eval.yaml --name again",
            f"run --resume {tmp_path}/a --model {address}",
            f"run --model nowhere --base {address} {given}",
            f"run --model nowhere --adapters {address},b {given}",
            f"inspect {address}",
            f"serve {address} --prepare {tmp_path}/served",
            f"report {tmp_path}/a",
            f"table {tmp_path}/a --allow-marked",
            f"rescore {tmp_path}/a --name rescored",
            f"compare {tmp_path}/a {tmp_path}/a --json {tmp_path}/compared.json",
            f"gate --sequential --baseline {tmp_path}/a --model {address}",
            f"budget {tmp_path}/a --model {address}",
            f"blame {tmp_path}/a {tmp_path}/a",
            f"train --base {address} --data {tmp_path}/asked.yaml --output {tmp_path}/trained",
            f"compose --adapters {address},b --few-shot x.jsonl --output {tmp_path}/composed",
        ):
            assert main(command.split()) in (0, 2, 4), command
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    holding = [path.name for path in written if SECRET.encode() in path.read_bytes()]
    assert holding == ["asked.yaml"]  # which the user wrote
    if fault is None:
        assert (tmp_path / "a" / "run.json").exists()
        assert (tmp_path / "a" / "report.html").exists()


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
