"""Answers made elsewhere become runs: paired with the right questions, or refused."""

import itertools
import json
from pathlib import Path

import pytest

from mingmoe_eval import compare, judge, rescore
from mingmoe_eval.cli import main
from mingmoe_eval.elsewhere import Elsewhere, score_elsewhere
from mingmoe_eval.errors import DataError, UsageError
from mingmoe_eval.exams.foreign_answers import read_answers
from mingmoe_eval.exams.loading import load
from mingmoe_eval.run_store import load_run

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "answers"
DOCS = load(benchmark="usmle", sample=True)["test"]


def file_of(folder, records, name="answers.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


def scored(path, **options):
    options = {"task": "usmle", "name": "m", "sample": True, **options}
    return score_elsewhere(Elsewhere(answers=path, **options))


def test_replies_in_the_order_of_the_questions_are_read_by_our_rules(tmp_path):
    replies = [f"The answer is {doc['answer']}." for doc in DOCS[:-2]] + ["No idea.", "Z"]
    run, notes = scored(file_of(tmp_path, [{"response": reply} for reply in replies]))
    result = run.results["usmle"]
    assert result.main.value == (len(DOCS) - 2) / len(DOCS)
    assert result.counts.unanswered == 2
    assert result.chance == 0.25
    assert notes == (f"{len(DOCS) - 2} of {len(DOCS)} right, by their reply",)
    assert run.marks == ("invented sample",)


def test_the_beginning_of_a_question_tells_which_one_it_is(tmp_path):
    records = [{"question": d["question"][:50], "pred": d["answer"]} for d in reversed(DOCS)]
    run, _ = scored(file_of(tmp_path, records))
    assert run.results["usmle"].main.value == 1.0
    assert [s.doc["question"] for s in run.samples["usmle"]] == [d["question"] for d in DOCS]


def test_the_output_of_huatuogpt_o1_s_script_is_read(tmp_path):
    """evaluation/eval.py writes its data's records again, with `output` added, as one array."""
    records = [
        {
            "question": d["question"],
            "options": d["options"],
            "answer_idx": d["answer"],
            "answer": d["options"][d["answer"]],
            "option_str": "...",
            "input_str": "Please ...",
            "output": f"## Thinking\n\nNo.\n\n## Final Response\n\nThe answer is {d['answer']}.",
        }
        for d in DOCS
    ]
    path = tmp_path / "HuatuoGPT-o1-8Beval_data_hf.json"
    path.write_text(json.dumps(records, indent=2))
    run, _ = scored(path)
    assert run.results["usmle"].main.value == 1.0


def test_the_output_of_ming_s_script_is_read_out_of_order(tmp_path):
    """ming/eval/model_diverse_gen.py: the question stands in its prompt, the key below it."""
    records = [
        {
            "prompt": f"A chat. USER: {d['question']}\nA. x\nB. y ASSISTANT:",
            "text": d["answer"],
            "solution": "...",
            "additional_info": {"answer": d["answer"]},
            "model_id": "ming",
            "metadata": {},
        }
        for d in reversed(DOCS)
    ]
    run, _ = scored(file_of(tmp_path, records))
    assert run.results["usmle"].main.value == 1.0
    records[0]["additional_info"]["answer"] = "B" if DOCS[-1]["answer"] == "A" else "A"
    with pytest.raises(DataError, match="has other keys than usmle"):
        scored(file_of(tmp_path, records))


def test_a_folder_of_mirage_s_predictions_is_read_in_the_order_of_its_names(tmp_path):
    for number, doc in enumerate(DOCS):
        reply = f'{{"step_by_step_thinking": "Long.", "answer_choice": "{doc["answer"]}"}}'
        (tmp_path / f"test_{number:04}.json").write_text(json.dumps([reply, "another"]))
    run, _ = scored(tmp_path)
    assert run.results["usmle"].main.value == 1.0
    (tmp_path / "test_0001.json").write_text("{}")
    (tmp_path / "test_0002.json").write_text("[3]")
    with pytest.raises(DataError, match=r"2 bad files\n.*test_0001.*\n.*test_0002"):
        scored(tmp_path)


def test_several_replies_to_a_question_are_repeats(tmp_path):
    records = [
        {"question": d["question"], "output": [f"Answer: {d['answer']}", "who knows"], "usage": u}
        for d in DOCS
        for u in [{"completion_tokens": 7}]
    ]
    run, _ = scored(file_of(tmp_path, records))
    result = run.results["usmle"]
    assert (result.repeats, run.spec.repeats, result.main.n) == (2, 2, len(DOCS))
    assert result.main.value == 0.5
    assert result.metrics["pass@2"].value == 1.0
    assert {n: v.value for n, v in result.breakdowns["repeat"].items()} == {"1": 1.0, "2": 0.0}
    assert sum(s.generated_tokens for s in run.samples["usmle"]) == 7 * len(DOCS)
    assert not run.results["usmle"].marks


def test_another_key_than_ours_is_refused_with_its_place(tmp_path):
    records = [{"pred": "A", "gold": d["answer"]} for d in DOCS]
    wrong = "B" if DOCS[3]["answer"] == "A" else "A"
    records[3]["gold"] = wrong
    with pytest.raises(DataError, match=f"record 4: the key is {wrong} there"):
        scored(file_of(tmp_path, records))


@pytest.mark.parametrize("few", [1, len(DOCS) - 1])
def test_missing_answers_are_refused_or_marked(tmp_path, few):
    records = [{"question": d["question"], "pred": d["answer"]} for d in DOCS[:few]]
    path = file_of(tmp_path, records)
    with pytest.raises(DataError, match=f"no answer to {len(DOCS) - few} of {len(DOCS)} questions"):
        scored(path)
    run, _ = scored(path, partial=True)
    assert f"usmle: {len(DOCS) - few} of {len(DOCS)} questions have no answer" in run.marks
    assert run.results["usmle"].main.n == few


def test_without_the_text_as_many_answers_as_questions_are_needed(tmp_path):
    path = file_of(tmp_path, [{"pred": "A"}] * (len(DOCS) + 1))
    with pytest.raises(DataError, match="cannot be told to belong together"):
        scored(path, partial=True)


def test_an_answer_to_a_question_that_is_not_here_is_refused(tmp_path):
    records = [{"question": d["question"], "pred": "A"} for d in DOCS]
    records.append({"question": "What else?", "pred": "A"})
    with pytest.raises(DataError, match=f"record {len(DOCS) + 1}"):
        scored(file_of(tmp_path, records))


def test_a_question_that_is_answered_twice_is_refused(tmp_path):
    path = file_of(tmp_path, [{"id": 7, "pred": "A"}, {"id": 7, "pred": "B"}])
    with pytest.raises(DataError, match="id 7, record 2"):
        scored(path)


def test_without_data_the_file_s_own_key_and_letters_count(tmp_path):
    records = [
        {"id": "1", "gold": ["a"], "predicted": ["A"]},
        {"id": "2", "gold": ["a", "c"], "predicted": ["c", "a"]},
        {"id": "3", "gold": ["a", "c"], "predicted": ["a"]},
        {"id": "4", "gold": ["0.40"], "predicted": ["0.40"]},
        {"id": "5", "gold": ["0.40"], "predicted": ["0.4"]},
        {"id": "6", "gold": ["b"], "predicted": []},
        {"id": "7", "gold": ["b"]},
    ]
    run, _ = scored(file_of(tmp_path, records), task="ward", sample=False)
    samples = run.samples["ward"]
    assert [s.score for s in samples] == [1, 1, 0, 1, 0, 0, 0]
    assert [s.status for s in samples][5:] == ["unanswered", "unanswered"]
    assert run.results["ward"].chance is None
    with pytest.raises(UsageError, match="ward"):
        rescore(run)


def test_without_data_fewer_rows_than_the_official_part_are_marked(tmp_path):
    run, _ = scored(file_of(tmp_path, [{"gold": "A", "pred": "A"}]), sample=False)
    assert run.marks == ("usmle: 1 rows, where the official part has 1,273",)


@pytest.mark.parametrize(
    ("records", "options", "reason"),
    [
        ([{"pred": "A"}], {"sample": False}, "no key for each question"),
        ([{"output": "A", "gold": "A"}], {"sample": False}, "name the data with --data-dir"),
        ([{"answer_of_model": "A"}], {}, "no column holds a reply or letters"),
        ([{"pred": "A"}], {"by": "reply"}, "the file has no replies"),
        ([{"output": "A"}], {"by": "letters"}, "no letters that were read"),
        ([{"pred": "A"}], {"by": "luck"}, "neither reply nor letters"),
        ([{"pred": "A"}], {"task": "exams"}, "not a group"),
        ([{"pred": "A"}], {"task": "usmle_ll"}, "answers belong to usmle"),
        ([{"pred": "A"}], {"task": "promptcblue_kuake_qic"}, "name one exam"),
        ([{"pred": "A"}], {"columns": {"reply": "nowhere"}}, "no column 'nowhere'"),
        ([{"pred": "A"}], {"columns": {"replies": "pred"}}, "does not know replies"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(tmp_path, records, options, reason):
    with pytest.raises((DataError, UsageError), match=reason):
        scored(file_of(tmp_path, records), **options)


def test_a_column_s_name_can_be_said(tmp_path):
    path = file_of(tmp_path, [{"what the model said": "Answer: B", "cost": {"out": 7}}])
    columns = {"reply": "what the model said", "generated_tokens": "cost.out"}
    [answer] = read_answers(path, columns)
    assert (answer.reply, answer.generated_tokens) == ("Answer: B", 7)


def test_the_command_makes_a_run_that_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, letter in (("one", "A"), ("two", "B")):
        records = [{"question": d["question"], "completion": f"({letter})"} for d in DOCS]
        file_of(tmp_path, records, f"{name}.jsonl")
        arguments = ["--task", "usmle", "--answers", f"{name}.jsonl", "--sample"]
        assert main(["score", "exams", *arguments, "--columns", "reply=completion"]) == 0
    assert "by their reply" in capsys.readouterr().err
    assert main(["compare", "reports/one", "reports/two"]) == 0
    assert load_run("reports/one").provenance["model"]["kind"] == "answers made elsewhere"


# Right answers as the sources state them.
STATED = {
    "medqa_test.o3-mini": 1180,
    "medqa_test.deepseek-r1": 1171,
    "medqa_test.gpt-4o": 1118,
    "medqa_test.llama-3.3-70b-instruct-turbo": 978,
    "medqa_test.qwq-32b-preview": 908,
    "jmle2026.qwen3-32b": 355,
    "jmle2026.qwen3-32b-no-thinking": 326,
    "jmle2026.gpt-oss-20b-low": 303,
    "jmle2026.gpt-oss-20b-medium": 342,
}


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/answers, real answers, is not here")
def test_real_answers_of_real_models_have_as_many_right_as_their_sources_state():
    tasks = {"medqa_test": "usmle", "jmle2026": "jmle2026"}
    runs = {}
    for name, right in STATED.items():
        task = tasks[name.split(".")[0]]
        run, _ = scored(REAL / f"{name}.jsonl", task=task, name=name, sample=False)
        assert sum(sample.score for sample in run.samples[task]) == right
        assert run.marks == ()
        runs[name] = run
    without, thinking = runs["jmle2026.qwen3-32b-no-thinking"], runs["jmle2026.qwen3-32b"]
    compared = compare(without, thinking).tasks["jmle2026"]
    assert compared.paired.difference == pytest.approx(29 / 400)
    assert [f.task for f in judge(thinking, without).failures] == ["jmle2026"]
    assert judge(without, thinking).failures == ()


POINTS = {"qwen3-32b": 451, "qwen3-32b-no-thinking": 416, "gpt-oss-20b-low": 383} | {
    "gpt-oss-20b-medium": 428
}
EXAMS = REAL.parent / "exams"


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/answers, real answers, is not here")
def test_real_jmle_answers_go_through_every_verb_with_the_points_of_their_source(
    tmp_path, monkeypatch, capsys
):
    """Read here from the replies, which gives the counts that their author's own reading gave."""
    monkeypatch.chdir(tmp_path)
    for name, points in POINTS.items():
        arguments = ["--task", "jmle2026_cot", "--answers", str(REAL / f"jmle2026.{name}.jsonl")]
        arguments += ["--data-dir", str(EXAMS), "--name", name, "--pass-rule", "jmle2026"]
        assert main(["score", "exams", *arguments]) == 0
        told = capsys.readouterr()
        assert f"{STATED[f'jmle2026.{name}']} of 400 right, by their reply" in told.err
        assert f"{points} of 500 points" in " ".join(told.out.split())
    folders = [f"reports/{name}" for name in POINTS]
    assert main(["compare", *folders[:2]]) == 0
    assert main(["gate", folders[0], "--baseline", folders[1]]) == 0
    assert main(["gate", folders[1], "--baseline", folders[0]]) == 1
    capsys.readouterr()
    assert main(["table", *folders, "--pass-rule", "jmle2026"]) == 0
    table = capsys.readouterr().out
    # 158 of 200 on B and E: 160 are needed, whatever the other blocks bring
    verdicts = {"383 of 500": "fails", "416 of 500": "passes", "428 of 500": "passes"}
    for earned, verdict in verdicts.items():
        [note] = [line for line in table.splitlines() if earned in line]
        assert f": {verdict}; probability of passing" in note
        assert "which they are is not published" in note
    assert "158 of 200 (160 needed)" in table
    assert main(["report", *folders, "--pass-rule", "jmle2026", "-o", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "451 / 500" in page
    assert "Would it pass?" in page
    assert main(["table", "reports/qwen3-32b", "--pass-rule", "nowhere.yaml"]) == 2


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/answers, real answers, is not here")
def test_real_medqa_answers_go_through_every_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = [name.removeprefix("medqa_test.") for name in STATED if name.startswith("medqa_test.")]
    for name in names:
        file = str(REAL / f"medqa_test.{name}.jsonl")
        assert main(["score", "exams", "--task", "usmle", "--answers", file, "--name", name]) == 0
        right = STATED[f"medqa_test.{name}"]
        assert f"{right:,} of 1,273 right, by their letters" in capsys.readouterr().err
    assert main(["compare", "reports/gpt-4o", "reports/o3-mini"]) == 0
    assert main(["gate", "reports/o3-mini", "--baseline", "reports/gpt-4o"]) == 0
    assert main(["gate", "reports/gpt-4o", "--baseline", "reports/o3-mini"]) == 1
    capsys.readouterr()
    assert main(["table", *(f"reports/{name}" for name in names)]) == 0
    table = capsys.readouterr().out
    for name in names:
        [row] = [line for line in table.splitlines() if line.startswith(f"| {name}")]
        assert f"{100 * STATED[f'medqa_test.{name}'] / 1273:.1f}" in row


CALLED = load(benchmark="jmle2026", sample=True)["test"]


def by_id(folder, changes=None, **options):
    answers = {doc["question_id"]: doc["answer"] for doc in reversed(CALLED)} | (changes or {})
    records = [{"question_id": n, "predicted": a, "gold": a} for n, a in answers.items() if a]
    return scored(file_of(folder, records), task="jmle2026", by="letters", **options)


def test_the_exam_s_own_ids_tell_which_question_is_which(tmp_path):
    run, _ = by_id(tmp_path)
    assert run.results["jmle2026"].main.value == 1.0
    assert [s.doc["question_id"] for s in run.samples["jmle2026"]] == [
        doc["question_id"] for doc in CALLED
    ]


def test_ids_that_are_missing_or_of_other_questions_are_refused_unless_partial(tmp_path):
    gone, more = {CALLED[0]["question_id"]: None}, {"99Z-1": "A"}
    with pytest.raises(DataError, match=rf"no answer to 1 of {len(CALLED)} questions"):
        by_id(tmp_path, gone)
    with pytest.raises(DataError, match=r"(?s)not here; --partial passes over them.*99Z-1"):
        by_id(tmp_path, more)
    run, _ = by_id(tmp_path, gone | more, partial=True)
    assert run.results["jmle2026"].main.n == len(CALLED) - 1
    assert any("1 of 11 questions have no answer" in mark for mark in run.marks)
    whole, _ = by_id(tmp_path, more, partial=True)
    assert not any("have no answer" in mark for mark in whole.marks)


def test_a_calculation_s_key_may_be_the_digits_of_its_answer_sheet(tmp_path):
    docs = load(benchmark="igakuqa_2018", sample=True)["test"]
    records = [
        {"id": d["question_id"], "pred": d["answer"], "key": d["answer"].replace("1800", "1800.0")}
        for d in docs
    ]
    run, _ = scored(file_of(tmp_path, records), task="igakuqa_2018", by="letters")
    assert run.results["igakuqa_2018"].main.value == 1.0


WARDS = [
    ("What is the treatment of malaria?", "A"),
    ("What is the treatment of malaria in pregnancy?", "B"),
    ("Of fevers in travellers: what is the treatment of malaria?", "C"),
]


def ward(folder, questions, options=("a1", "b2", "c3")):
    """An exam of the user's own, with its questions beside its entry."""
    file_of(
        folder,
        [
            {"question": q, "options": dict(zip("ABC", options, strict=True)), "answer_idx": key}
            for q, key in questions
        ],
        "questions.jsonl",
    )
    (folder / "_data.yaml").write_text("ward: {parts: {test: {file: questions.jsonl}}}")
    return {"task": "ward", "sample": False, "include_path": (str(folder),)}


@pytest.mark.parametrize("around", ["", "Answer this: {}\nA. a1\nB. b2\nAnswer:"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_question_that_another_one_holds_is_not_given_its_answer(tmp_path, order, around):
    records = [{"prompt": (around or "{}").format(WARDS[n][0]), "pred": WARDS[n][1]} for n in order]
    run, _ = scored(file_of(tmp_path, records), **ward(tmp_path, WARDS))
    assert run.results["ward"].main.value == 1.0


def test_the_text_of_an_option_names_it_and_a_word_is_no_row_of_letters(tmp_path):
    """PubMedQA's predictions are yes, no and maybe."""
    words, asked = ("yes", "no", "maybe"), [(f"Is drug {n} safe?", "ABC"[n % 3]) for n in range(6)]
    options = ward(tmp_path, asked, words)
    gold = dict(zip("ABC", words, strict=True))
    records = [{"question": q, "prediction": gold[key], "gold": gold[key]} for q, key in asked]
    run, _ = scored(file_of(tmp_path, records), **options)
    assert [s.answered for s in run.samples["ward"]] == [key for _, key in asked]
    assert run.results["ward"].main.value == 1.0
    records[0]["prediction"], records[1]["prediction"] = "unclear", "MAYBE"
    run, notes = scored(file_of(tmp_path, records), **options)
    assert [s.answered for s in run.samples["ward"]][:2] == [None, "C"]
    assert run.results["ward"].counts.unanswered == 1
    assert notes[1].startswith("1 answers are neither letters nor the text of an option (record 1")
    alone, _ = scored(file_of(tmp_path, records), task="another", sample=False)
    assert alone.results["another"].main.value == pytest.approx(4 / 6)
    assert {s.doc["single"] for s in alone.samples["another"]} == {True}


def test_letters_may_be_of_full_width(tmp_path):
    wide = {letter: chr(0xFEE0 + ord(letter)) for letter in "ABCD"}
    records = [{"question": d["question"], "pred": wide[d["answer"]]} for d in DOCS]
    run, _ = scored(file_of(tmp_path, records))
    assert run.results["usmle"].main.value == 1.0


def test_answers_none_of_which_names_an_option_are_refused(tmp_path):
    asked = [(f"Is drug {n} safe?", "ABC"[n % 3]) for n in range(6)]
    options = ward(tmp_path, asked, ("yes", "no", "maybe"))
    records = [{"question": q, "pred": "ABC".index(key)} for q, key in asked]
    with pytest.raises(DataError, match=r"no answer is made of letters[^\0]*record 2: '1'"):
        scored(file_of(tmp_path, records), **options)


def test_cells_of_tables_are_numbers_and_empty_ones_say_nothing(tmp_path):
    rows = [f"{d['question'][:40]!r},{d['answer']},12.0,3,0.5" for d in DOCS]
    rows[0] = f"{DOCS[0]['question'][:40]!r},nan,,,"
    path = tmp_path / "answers.csv"
    text = "question,pred,prompt_tokens,completion_tokens,latency\n" + "\n".join(rows)
    path.write_text(text.replace("'", '"'))
    run, _ = scored(path)
    assert run.samples["usmle"][0].answered is None
    assert run.timing["prompt_tokens"] == 12 * (len(DOCS) - 1)
    path.write_text(text.replace("'", '"').replace("12.0", "12.5"))
    with pytest.raises(DataError, match="a number of tokens is a whole number"):
        scored(path)


def test_a_data_frame_s_nan_is_no_answer(tmp_path):
    import pandas as pd

    path = tmp_path / "answers.parquet"
    answers = [None if n == 0 else d["answer"] for n, d in enumerate(DOCS)]
    frame = pd.DataFrame({"question": [d["question"] for d in DOCS], "pred": answers})
    frame["prompt_tokens"] = [float("nan"), *[7.0] * (len(DOCS) - 1)]
    frame.to_parquet(path)
    run, _ = scored(path)
    assert [s.answered for s in run.samples["usmle"]] == answers
