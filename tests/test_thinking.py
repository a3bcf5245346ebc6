"""Thoughts on a budget: closed at it, answered behind it, counted, the same however they came."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
from gate_runs import make_run, make_samples
from thinking_models import (
    THOUGHT_TOKENS,
    end_after,
    exam_of,
    save_thinker,
    thinking_model,
    thinking_tokenizer,
)
from tiny_language_models import instances, make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.comparison import compare
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.growing_text import GeneratedText
from mingmoe_eval.engine.prompts import GenerationSettings
from mingmoe_eval.engine.thinking import thought_end
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.records import RunSpec
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.run_store import load_run

LETTERS = "bejpz"


@pytest.fixture(scope="module")
def thinker():
    tokenizer = thinking_tokenizer()
    return CheckpointLM.from_loaded(thinking_model(tokenizer), tokenizer)


def ask(lm, cases, **arguments):
    chats = [[{"role": "user", "content": f"case {letter}"}] for letter in cases]
    requests = [(lm.apply_chat_template(chat), {"until": [], **arguments}) for chat in chats]
    texts = lm.generate_until(instances("generate_until", requests))
    usage = [one for _, one in sorted(lm.take_usage().items(), key=lambda item: item[0][1])]
    return texts, usage


@pytest.mark.parametrize("think", [0, 1, 2, 4, 5, 9, 10, 25, 26, 99])
def test_a_thought_is_closed_at_its_budget_and_left_alone_below_it(thinker, think):
    texts, usage = ask(thinker, LETTERS, think=think, max_gen_toks=8)
    for letter, text, cost in zip(LETTERS, texts, usage, strict=True):
        needed = THOUGHT_TOKENS[letter]
        whole = "zyxwvutsrqponmlkjihgfedcba"[27 - needed :]
        if needed <= think:
            assert text == f"<think>{whole}</think>A"
            assert (cost.forced, cost.thought_tokens, cost.generated_tokens) == (
                False,
                needed,
                needed + 1,
            )
        else:
            closing = "\n</think>" if think else "</think>"
            assert text == f"<think>{whole[:think]}{closing}\n\nB"
            closing_tokens = len(thinker.tokenizer(closing)["input_ids"])
            assert (cost.forced, cost.thought_tokens) == (True, think + closing_tokens)
        assert cost.finish == "stop"


def test_a_model_that_would_end_inside_its_thought_is_asked_for_its_answer():
    tokenizer = thinking_tokenizer()
    model = thinking_model(tokenizer)
    end_after(model, tokenizer, "c")
    lm = CheckpointLM.from_loaded(model, tokenizer)
    assert ask(lm, "e", max_gen_toks=40)[0] == ["<think>dc"]
    texts, [cost] = ask(lm, "e", think=20, max_gen_toks=40)
    assert texts == ["<think>dc\n</think>\n\nB"]
    assert cost.forced


def test_the_budget_of_the_answer_is_its_own(thinker):
    """Behind a thought the limit counts the answer alone, and a cut answer is cut off."""
    texts, [cost] = ask(thinker, "z", think=30, max_gen_toks=1)
    assert texts[0].endswith("</think>A")
    assert cost.finish == "length"
    assert cost.generated_tokens == 27


def test_rows_and_neighbours_change_nothing():
    tokenizer = thinking_tokenizer()
    model = thinking_model(tokenizer)
    questions = random.Random(1).choices(LETTERS, k=17)
    one = CheckpointLM.from_loaded(model, tokenizer, batch_size=1)
    many = CheckpointLM.from_loaded(model, tokenizer, batch_size=8)
    for think in (1, 6, 12):
        asked = {"think": think, "max_gen_toks": 5}
        assert ask(one, questions, **asked) == ask(many, questions, **asked)


def test_a_model_that_does_not_think_answers_as_without_a_budget():
    model, tokenizer = make_model(), thinking_tokenizer()
    lm = CheckpointLM.from_loaded(model, tokenizer)
    for prompt in ("one two", "患者发热", "[1] <b>"):
        for limit in (3, 60):
            plain = instances("generate_until", [(prompt, {"until": [], "max_gen_toks": limit})])
            budget = instances(
                "generate_until", [(prompt, {"until": [], "max_gen_toks": limit, "think": 5})]
            )
            assert lm.generate_until(plain) == lm.generate_until(budget)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (
            "{% for m in messages %}{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}"
            "\n</think>\n\n{% endif %}{{ m.content }}{% endfor %}",
            "\n</think>\n\n",
        ),
        (
            "{% for m in messages %}{% if m.thinking %}<|channel|>analysis<|message|>"
            "{{ m.thinking }}<|end|><|start|>assistant<|channel|>final<|message|>{% endif %}"
            "{{ m.content }}{% endfor %}",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        # One that drops what was thought, and names its tags all the same.
        (
            "{% for m in messages %}{{ m.content.split('[/THINK]')[-1] }}{% endfor %}",
            "\n[/THINK]\n\n",
        ),
    ],
)
def test_what_closes_a_thought_is_read_off_the_template(template, end):
    assert thought_end(make_tokenizer(template=template)) == end


@pytest.mark.parametrize("think", [0, 1, 3, 5, 6, 20])
def test_a_thought_that_a_heading_opens_is_closed_by_the_other_heading(think):
    tokenizer = thinking_tokenizer(headed=True)
    lm = CheckpointLM.from_loaded(thinking_model(tokenizer), tokenizer)
    [text], [cost] = ask(lm, "x", think=think, max_gen_toks=8)
    # The heading, e to a, and the other heading: seven tokens by itself.
    if think >= 7:
        assert text == "## Thinking\n\nedcba## Final ResponseA"
        assert (cost.forced, cost.thought_tokens) == (False, 7)
    else:
        kept = "edcba"[: max(think - 1, 0)]
        between = "\n\n" if kept else ""  # the heading ends in line feeds itself
        assert text == f"## Thinking\n\n{kept}{between}## Final Response\n\nB"
        assert cost.forced


def test_the_curve_of_a_run_with_headings_is_that_of_runs_at_each_budget(tmp_path, capsys):
    checkpoint = str(save_thinker(tmp_path / "model", headed=True))
    exam = str(exam_of(tmp_path, "bjz"))
    plain = RunSpec(model=checkpoint, tasks=(exam,), max_new_tokens=64, cache=False)
    spec = dataclasses.replace(plain, chat_template=True)
    folder = tmp_path / "long"
    long = evaluate(spec, folder=folder, watch=Watch())
    assert long.results["thoughts"].main.value == 1.0
    assert main(["budget", str(folder), "--budgets", "1,3,8", "--output", str(tmp_path)]) == 0
    for budget, right in ((1, 0.0), (3, 0.0), (8, 1.0)):
        cut = load_run(tmp_path / f"long-think-{budget}")
        alone = evaluate(dataclasses.replace(spec, think=budget), watch=Watch())
        assert cut.results["thoughts"].main.value == right
        for mine, other in zip(cut.samples["thoughts"], alone.samples["thoughts"], strict=True):
            assert mine.response == other.response
            assert (mine.forced, mine.answered) == (other.forced, other.answered)


def test_a_model_without_thoughts_is_given_no_budget_for_them():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    with pytest.raises(UsageError, match="closes a thought"):
        lm.generate_until(instances("generate_until", [("x", {"think": 5})]))


def test_thoughts_are_counted_in_tokens_whatever_their_tag():
    tokenizer = make_tokenizer()
    for opened, text, answer in (
        ("", "<think>发热咳嗽</think>\n\nB", "\n\nB"),
        ("[THINK]", "any\n[/THINK]B", "B"),
        ("", "no thought", "no thought"),
    ):
        ids = tokenizer(text)["input_ids"]
        thoughts = GeneratedText(tokenizer, (), opened=opened).thought_tokens(ids)
        assert tokenizer.decode(ids[thoughts:]) == answer
    cut = tokenizer("<think>endless")["input_ids"]
    assert GeneratedText(tokenizer, ()).thought_tokens(cut) == len(cut)


def test_a_short_context_takes_from_the_thought_before_it_takes_from_the_answer():
    settings = GenerationSettings(max_new_tokens=10, think=100, thought_end="12345")
    assert settings.most_new_tokens == 115
    assert settings.within(115) is settings
    assert (settings.within(50).think, settings.within(50).max_new_tokens) == (35, 10)
    assert (settings.within(12).think, settings.within(12).max_new_tokens) == (0, 7)


# --- whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_thinker(tmp_path_factory.mktemp("thinker"))


@pytest.fixture
def exam(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return exam_of(tmp_path, "bbejjpzz")


def run_of(exam, checkpoint, name, *options):
    arguments = ["--tasks", str(exam), "--model", str(checkpoint), "--name", name]
    assert main([*arguments, "--output", str(exam.parent), *options]) == 0
    return load_run(exam.parent / name)


@pytest.mark.parametrize(("think", "right"), [(1, 0), (2, 2), (5, 3), (10, 5), (16, 6), (26, 8)])
def test_the_score_at_each_budget_is_that_of_the_thoughts_that_fit(
    exam, checkpoint, capsys, think, right
):
    run = run_of(exam, checkpoint, "r", "--think", str(think))
    result = run.results["thoughts"]
    assert result.main.value == right / 8
    assert result.counts.forced == 8 - right
    assert run.provenance["tasks"]["thoughts"]["generation"]["think"] == think
    told = f"{100 * (8 - right) / 8:.1f} % forced"
    assert (told in capsys.readouterr().out) is (right < 8)
    assert rescore(run).results["thoughts"].counts == result.counts
    if right == 3:
        assert main(["table", str(exam.parent / "r")]) == 0
        told = "of 8 replies 62.5 % with their thought closed at its budget"
        assert told in capsys.readouterr().out
        page = (exam.parent / "r" / "report.html").read_text("utf-8")
        assert "thought closed at its budget" in page
        assert "5/8 (62.5 %)" in page


def test_thoughts_that_are_cut_off_are_counted_as_cut_and_empty(exam, checkpoint, capsys):
    """Without a budget of their own: the task's 32 tokens, then 12."""
    assert run_of(exam, checkpoint, "whole").results["thoughts"].main.value == 1
    run = run_of(exam, checkpoint, "cut", "--max-new-tokens", "12")
    counts = run.results["thoughts"].counts
    assert (counts.truncated, counts.empty, counts.forced) == (3, 3, 0)
    out = capsys.readouterr().out
    assert "3 (37.5 %)" in out
    assert "37.5 % empty" in out


def test_answers_on_a_budget_come_back_from_the_store_with_their_counts(exam, checkpoint):
    first = run_of(exam, checkpoint, "first", "--think", "4")
    again = run_of(exam, checkpoint, "again", "--think", "4")
    assert again.timing["requests_from_store"] == 8
    assert [s.to_json() for s in first.samples["thoughts"]] == [
        s.to_json() for s in again.samples["thoughts"]
    ]
    other = run_of(exam, checkpoint, "other", "--think", "5")
    assert other.timing["requests_from_store"] == 0


def test_switched_off_there_is_no_thought(exam, checkpoint):
    run = run_of(exam, checkpoint, "off", "--thinking", "off")
    assert all(sample.thought_tokens == 0 for sample in run.samples["thoughts"])
    assert all("</think>" in sample.prompt for sample in run.samples["thoughts"])
    assert dataclasses.asdict(run.results["thoughts"].counts)["forced"] == 0


# --- the curve of one run ----------------------------------------------------------------------


def test_the_curve_of_one_run_is_that_of_runs_at_each_budget(exam, checkpoint, capsys):
    """By hand: 2, 3, 5, 6 of 8 thoughts fit; and each reply is what a run at the budget gives."""
    run_of(exam, checkpoint, "long", "--max-new-tokens", "60")
    arguments = ["budget", str(exam.parent / "long"), "--budgets", "1,2,5,10,16,26"]
    assert main([*arguments, "--max-new-tokens", "32", "--json", "curve.json"]) == 0
    points = json.loads((exam.parent / "curve.json").read_text())["points"]
    assert [(p["budget"], p["value"] * 8, p["forced"]) for p in points] == [
        *((1, 0, 8), (2, 2, 6), (5, 3, 5), (10, 5, 3), (16, 6, 2), (26, 8, 0)),
        (None, 8, 0),
    ]
    assert "score against budget" in capsys.readouterr().out
    for think in (1, 2, 5, 10, 16, 26):
        cut = load_run(exam.parent / f"long-think-{think}")
        direct = run_of(exam, checkpoint, f"direct{think}", "--think", str(think))
        assert cut.parent == "long"
        for a, b in zip(cut.samples["thoughts"], direct.samples["thoughts"], strict=True):
            assert (a.response, a.score, a.thought_tokens, a.forced, a.generated_tokens) == (
                *(b.response, b.score, b.thought_tokens, b.forced, b.generated_tokens),
            )
        assert compare(direct, cut).tasks["thoughts"].paired.difference == 0


def test_nobody_knows_how_a_thought_that_was_cut_would_have_gone_on(exam, checkpoint, capsys):
    run_of(exam, checkpoint, "short", "--think", "7")
    folder = str(exam.parent / "short")
    assert main(["budget", folder, "--budgets", "2,9"]) == 2
    assert "5 thoughts were cut, the shortest at 7" in capsys.readouterr().err
    assert main(["budget", folder, "--budgets", "2,5,7"]) == 0
    assert load_run(exam.parent / "short-think-7").results["thoughts"].main.value == 3 / 8
    run_of(exam, checkpoint, "off", "--thinking", "off")
    assert main(["budget", str(exam.parent / "off"), "--budgets", "2"]) == 2
    assert "holds no thoughts" in capsys.readouterr().err


def test_a_thought_that_ended_by_itself_is_known_at_every_budget(exam, tmp_path):
    """Each ends behind c: after 23 tokens at most, far below the run's budget of 26."""
    checkpoint = save_thinker(tmp_path / "ending", ends_after="c")
    run = run_of(exam, checkpoint, "ends", "--think", "26")
    assert all(sample.forced for sample in run.samples["thoughts"] if "c" in sample.response)
    assert main(["budget", str(exam.parent / "ends"), "--budgets", "2,9,22,25"]) == 0
    for think in (2, 9, 22, 25):
        cut = load_run(exam.parent / f"ends-think-{think}")
        direct = run_of(exam, checkpoint, f"direct{think}", "--think", str(think))
        for a, b in zip(cut.samples["thoughts"], direct.samples["thoughts"], strict=True):
            assert (a.response, a.score, a.thought_tokens, a.forced, a.generated_tokens) == (
                *(b.response, b.score, b.thought_tokens, b.forced, b.generated_tokens),
            )


def test_budgets_of_a_question_share_what_they_have_in_common():
    """One pass over the longest; of the others only what closes them and the answers."""
    tokenizer = thinking_tokenizer()
    model = thinking_model(tokenizer)
    widths = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    lm = CheckpointLM.from_loaded(model, tokenizer)
    prompt = lm.apply_chat_template([{"role": "user", "content": "case z"}])
    thought = "zyxwvutsrqponmlkjihgfedcba" * 8
    contexts = [f"{prompt}{thought[:n]}\n</think>\n\n" for n in (50, 100, 150, 200)]
    asked = [(context, {"until": [], "max_gen_toks": 1}) for context in contexts]
    widths.clear()
    assert lm.generate_until(instances("generate_until", asked)) == ["B"] * 4
    longest = len(tokenizer(contexts[-1])["input_ids"])
    # Two rows, the shortest beside all others, where four by themselves would be 540 tokens.
    assert max(widths) < 1.7 * longest


class Interrupting(Watch):
    """Ends the run after so many answers, as Ctrl-C or a kill would."""

    def __init__(self, after):
        self.after = after

    def requests_done(self, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("sampling", [{}, {"temperature": 3.0, "seed": 11}])
def test_a_run_that_is_killed_goes_on_to_the_same_replies(exam, checkpoint, sampling):
    spec = RunSpec(
        model=str(checkpoint), tasks=str(exam), think=5, gen_kwargs=sampling, cache=False
    )
    whole = evaluate(spec, folder=exam.parent / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(spec, folder=exam.parent / "killed", watch=Interrupting(3))
    resumed = evaluate(spec, folder=exam.parent / "killed", resume=True)
    assert 3 <= resumed.timing["requests_from_store"] < 8
    assert [s.to_json() for s in resumed.samples["thoughts"]] == [
        s.to_json() for s in whole.samples["thoughts"]
    ]


# --- other people's answers --------------------------------------------------------------------

ANSWERS = Path(__file__).parents[2] / "shared" / "data" / "answers"


@pytest.mark.skipif(
    not ANSWERS.exists(), reason="../shared/data/answers, real answers, is not here"
)
def test_thinking_on_and_off_differ_as_their_authors_state():
    """JMLE 2026 by Qwen3-32B: 355 of 400 right with thinking, 326 without."""
    runs = []
    for name, thinking in (("qwen3-32b", "on"), ("qwen3-32b-no-thinking", "off")):
        lines = (ANSWERS / f"jmle2026.{name}.jsonl").read_text("utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        scores = [float(sorted(row["predicted"]) == sorted(row["gold"])) for row in rows]
        run = make_run(thinking, {"usmle": make_samples(scores)})
        told = {"protocol": {"thinking": thinking, "template": {}}}
        runs.append(dataclasses.replace(run, provenance={**run.provenance, **told}))
    with pytest.raises(IncomparableRunsError, match="'on' against 'off' \\[thinking\\]"):
        compare(*runs)
    paired = compare(*runs, allow=frozenset({"thinking"})).tasks["usmle"].paired
    assert (paired.baseline * 400, paired.candidate * 400) == pytest.approx((355, 326))
    assert paired.difference == pytest.approx(-29 / 400)
    low, high = paired.interval
    assert low < paired.difference < high < 0
