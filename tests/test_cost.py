"""What answers cost: tokens, seconds and money at a stated price, for each right answer."""

import dataclasses
import json

import pytest
from doubles import ScriptedLM
from report_runs import exam_result, exam_run, exam_samples

from mingmoe_eval.cli import main
from mingmoe_eval.cost import Price, price_of, price_said, task_costs, total_cost
from mingmoe_eval.engine.served_protocol import text_reply
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.paper_table import TableSpec, make_table
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run, save_run, summary


def run_of_ten(**facts):
    """Ten answers, six right: 40 tokens of prompt each, 30 generated, 25 of them thought."""
    samples = [
        dataclasses.replace(one, generated_tokens=30, thought_tokens=25)
        for one in exam_samples("usmle", 10, lambda n: ("A" if n < 6 else "B", "x"))
    ]
    return exam_run("r", {"usmle": samples}, **facts)


@pytest.mark.parametrize(
    ("words", "price"),
    [
        ("0.5,1.5", Price(input=0.5, output=1.5)),
        ("in=0.5,out=1.5", Price(input=0.5, output=1.5)),
        ("hour=2.4, currency=EUR", Price(hour=2.4, currency="EUR")),
        ("in=0,out=1e-3", Price(output=0.001)),
    ],
)
def test_a_price_is_read_as_it_is_said_and_said_as_it_is_read(words, price):
    assert price_said(words) == price
    assert price_said(price.said) == price


@pytest.mark.parametrize(
    "words",
    [
        *("", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1", "in=1,in=2", "per=3", "0.5,out=1"),
        *("p" * 300, f"1,{'2' * 400}", "x" * 300 + ".json"),  # longer than a file's name may be
    ],
)
def test_what_is_no_price_is_refused_or_none(words):
    if not words:
        assert price_said(words) is None
        return
    with pytest.raises(UsageError, match=r"--price|cannot be read: File name too long") as refusal:
        price_said(words)
    assert len(str(refusal.value)) < 400


def test_a_price_file_has_a_price_for_each_name_and_pattern(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"ours": "1,2", "*7b*": {"in": 3, "out": 4, "currency": "CNY"}}))
    assert price_said(str(file), "ours", "/models/x") == Price(input=1, output=2)
    assert price_said(str(file), "run", "ming-7b") == Price(input=3, output=4, currency="CNY")
    assert price_said(str(file), "run", "/models/x") is None
    with pytest.raises(UsageError, match="cannot be read"):
        price_said(str(tmp_path / "absent.json"), "ours")
    file.write_text('{"*": 3}')
    with pytest.raises(UsageError, match="a price is an object"):
        price_said(str(file), "ours")


def test_the_cost_of_a_task_by_hand():
    cost = task_costs(run_of_ten(), Price(input=2.0, output=8.0, currency="USD"))["usmle"]
    assert (cost.answers, cost.right) == (10, 6.0)
    assert (cost.prompt_tokens, cost.thought_tokens, cost.answer_tokens) == (400, 250, 50)
    # (400 x 2 + 300 x 8) / 1,000,000
    assert cost.money == pytest.approx(0.0032)
    assert cost.seconds == 12.5
    assert cost.a_right_answer() == pytest.approx(
        {"tokens": 300 / 6, "seconds": 12.5 / 6, "money": 0.0032 / 6}
    )
    assert cost.an_answer()["tokens"] == 30


def test_hours_are_paid_for_by_the_second_and_not_where_answers_were_stored():
    run = run_of_ten()
    assert task_costs(run, Price(hour=3.6))["usmle"].money == pytest.approx(0.0125)
    again = dataclasses.replace(run, timing={"requests": 10, "requests_from_store": 4})
    cost = task_costs(again, Price(hour=3.6))["usmle"]
    assert (cost.money, cost.a_right_answer()["seconds"]) == (None, None)
    assert task_costs(again, Price(output=1.0))["usmle"].money == pytest.approx(0.0003)


def test_what_nobody_counted_is_unknown_and_never_nothing():
    samples = exam_samples("usmle", 3, lambda n: ("A", "x"))
    cost = task_costs(exam_run("r", {"usmle": samples}))["usmle"]
    assert (cost.thought_tokens, cost.answer_tokens, cost.money) == (None, None, None)
    uncounted = [dataclasses.replace(s, prompt_tokens=0, generated_tokens=0) for s in samples]
    without = task_costs(exam_run("r", {"usmle": uncounted}), Price(output=1.0))["usmle"]
    assert not without.has_tokens
    assert without.money is None


def test_no_right_answer_costs_no_finite_amount():
    samples = exam_samples("usmle", 3, lambda n: ("B", "x"))
    assert task_costs(exam_run("r", {"usmle": samples}))["usmle"].a_right_answer()["tokens"] is None


def test_a_score_that_is_no_mean_of_docs_has_no_right_answers():
    samples = exam_samples("usmle", 3, lambda n: ("A", "x"))
    result = exam_result("usmle", samples)
    main = dataclasses.replace(result.main, metric="macro_f1")
    result = dataclasses.replace(result, metrics={"score": main})
    assert (
        task_costs(exam_run("r", {"usmle": samples}, results={"usmle": result}))["usmle"].right
        is None
    )


def test_the_total_is_unknown_where_a_part_is():
    known, unknown = (task_costs(r)["usmle"] for r in (run_of_ten(), run_of_ten()))
    both = total_cost([known, dataclasses.replace(unknown, seconds=None, thought_tokens=None)])
    assert (both.answers, both.right, both.generated_tokens) == (20, 12.0, 600)
    assert (both.seconds, both.thought_tokens) == (None, None)
    assert total_cost([]) is None


def test_a_stored_run_is_priced_afterwards_as_when_it_was_made(tmp_path):
    priced = run_of_ten(spec={"price": "in=2.0,out=8.0"})
    save_run(priced, tmp_path / "r")
    read = load_run(tmp_path / "r")
    assert task_costs(read, price_of(read)) == task_costs(priced, price_of(priced))
    assert price_of(read, "1,1") == Price(input=1, output=1)
    stored = json.loads((tmp_path / "r" / "run.json").read_text())["cost"]
    assert stored["total"]["money"] == pytest.approx(0.0032)
    assert stored["tasks"]["usmle"]["per_right_answer"]["tokens"] == 50
    assert summary(run_of_ten())["cost"]["total"]["money"] is None


def test_a_run_keeps_the_price_that_its_file_said(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text('{"scripted": "1,2"}')
    spec = RunSpec(model="scripted", tasks="usmle", sample=True, price=str(file))
    run = evaluate(spec, open_model=lambda *_: ScriptedLM(lambda prompt: "A"))
    assert price_of(run) == Price(input=1, output=2)
    cost = task_costs(run, price_of(run))["usmle"]
    prompt = sum(sample.prompt_tokens for sample in run.samples["usmle"])
    assert cost.money == pytest.approx((prompt + 2 * cost.answers) / 1e6)


@pytest.mark.parametrize(
    ("message", "details", "expected"),
    [
        ({"content": "B"}, {"reasoning_tokens": 70}, 70),
        ({"content": "B", "reasoning_content": "hm"}, {"reasoning_tokens": 70}, 70),
        ({"content": "B", "reasoning_content": "hm"}, {"reasoning_tokens": 700}, 90),
        ({"content": "B", "reasoning_content": "hm"}, None, None),
        ({"content": "B", "reasoning_content": "hm"}, {"reasoning_tokens": "many"}, None),
        ({"content": "<think>hm</think>B"}, None, None),
        ({"content": "B"}, None, 0),
        ({"content": "B"}, 3, 0),
    ],
)
def test_a_server_counts_its_thoughts_itself_or_nobody_does(message, details, expected):
    usage = {"completion_tokens": 90, "completion_tokens_details": details}
    reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    assert text_reply(reply, chat=True).thought_tokens == expected


def test_a_table_has_a_column_of_what_a_right_answer_cost(tmp_path, capsys):
    cheap = run_of_ten(spec={"price": "in=2.0,out=8.0,currency=USD"})
    dear = dataclasses.replace(
        cheap,
        name="dear",
        samples={
            "usmle": [dataclasses.replace(s, generated_tokens=300) for s in cheap.samples["usmle"]]
        },
    )
    kinds = ("tokens", "seconds", "money", "parameters")
    table = make_table([cheap, dear], TableSpec(costs=kinds))
    assert [column.heading for column in table.columns[-4:]] == [
        "tokens a right answer ↓",
        "seconds a right answer ↓",
        "cost a right answer (USD) ↓",
        "active parameters (B) ↓",
    ]
    amounts = [[cell.cell.amount for cell in row.cells[-4:]] for row in table.rows]
    assert amounts[0] == pytest.approx([50, 12.5 / 6, 0.0032 / 6, 7.7])
    assert amounts[1] == pytest.approx([500, 12.5 / 6, 0.0248 / 6, 7.7])
    assert [row.cells[-2].rank for row in table.rows] == [1, 2]
    save_run(cheap, tmp_path / "r")
    assert main(["table", str(tmp_path / "r"), "--price", "1,1"]) == 0
    assert f"{0.0007 / 6:.4g}" in capsys.readouterr().out
    assert main(["table", str(tmp_path / "r"), "--cost", "tears"]) == 2
    assert main(["table", str(tmp_path / "r"), "--price", "x"]) == 2


def test_runs_whose_prices_are_in_several_currencies_have_no_common_column():
    two = [run_of_ten(spec={"price": f"in=1.0,out=1.0,currency={one}"}) for one in ("USD", "CNY")]
    with pytest.raises(UsageError, match="CNY, USD"):
        make_table(two, TableSpec(costs=("money",)))
    assert make_table(two, TableSpec(costs=("money",), price="1,1")).columns
