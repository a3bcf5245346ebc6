"""What replies have room for is counted with the tokenizer at hand, and said before the run."""

import dataclasses
import json

import pytest
from gate_runs import make_run, make_samples
from tiny_checkpoints import save_base
from tiny_language_models import make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.comparison.comparability import find_differences
from mingmoe_eval.reply_room import remarks
from mingmoe_eval.run_store import load_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = save_base(
        tmp_path_factory.mktemp("model") / "base", vocab_size=384, max_position_embeddings=512
    )
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))


def cblue(folder, targets, task="KUAKE-QIC"):
    rows = [
        {
            "input": f"判断下面搜索词的意图：{number}\n",
            "target": target,
            "answer_choices": ["病情诊断", "病因分析"],
            "task_type": "cls",
            "task_dataset": task,
            "sample_id": f"x{number}",
        }
        for number, target in enumerate(targets)
    ]
    (folder / "promptcblue").mkdir()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "promptcblue" / "test.jsonl").write_text(text, "utf-8")
    return folder


def run_named(folder, name, checkpoint, tasks, *options):
    arguments = ["--tasks", tasks, "--model", str(checkpoint), "--output", str(folder)]
    assert main([*arguments, "--name", name, *options]) == 0
    return load_run(folder / name)


def test_a_limit_is_raised_to_what_the_targets_take_with_this_tokenizer(
    tmp_path, checkpoint, capsys
):
    tokens = len(make_tokenizer()("病因分析" * 12)["input_ids"])
    assert tokens > 64  # a tokenizer of bytes takes some three a character
    data = ("--data-dir", str(cblue(tmp_path, ["病情诊断", "病因分析" * 12])))
    run = run_named(tmp_path, "r", checkpoint, "promptcblue_kuake_qic", *data)
    facts = run.provenance["tasks"]["promptcblue_kuake_qic"]
    limit = -(-tokens // 64) * 64
    assert facts["targets"] == {
        "limit": limit,
        "by_targets": True,
        "raised_from": 64,
        "longest": tokens,
        "longer_than_limit": 0,
    }
    assert facts["generation"]["max_new_tokens"] == limit
    assert f"the limit is {limit} new tokens, not 64" in capsys.readouterr().out


def test_a_limit_that_holds_the_targets_stays_and_a_users_own_is_only_counted(
    tmp_path, checkpoint, capsys
):
    data = ("--data-dir", str(cblue(tmp_path, ["病情诊断", "病因分析"])))
    run = run_named(tmp_path, "r", checkpoint, "promptcblue_kuake_qic", *data)
    targets = run.provenance["tasks"]["promptcblue_kuake_qic"]["targets"]
    assert (targets["limit"], targets["raised_from"], targets["longer_than_limit"]) == (64, None, 0)
    own = (*data, "--max-new-tokens", "3")
    run = run_named(tmp_path, "own", checkpoint, "promptcblue_kuake_qic", *own)
    targets = run.provenance["tasks"]["promptcblue_kuake_qic"]["targets"]
    assert (targets["limit"], targets["by_targets"], targets["longer_than_limit"]) == (3, False, 2)
    assert "2 targets are longer than the limit of 3 new tokens" in capsys.readouterr().out


def test_one_target_in_five_hundred_may_be_longer():
    assert list(remarks({"limit": 64, "longest": 90, "longer_than_limit": 1})) == [
        "1 targets are longer than the limit of 64 new tokens (the longest has 90), so that no "
        "reply can equal them"
    ]
    assert list(remarks({})) == []


def test_limits_that_the_targets_set_are_no_difference_between_two_tokenizers():
    def asking(name, limit, *, by_targets):
        run = make_run(name, {"usmle": make_samples([1, 0])})
        said = {
            "generation": {"max_new_tokens": limit, "greedy": True},
            "targets": {"by_targets": by_targets},
        }
        tasks = {"usmle": {**run.provenance["tasks"]["usmle"], **said}}
        return dataclasses.replace(run, provenance={**run.provenance, "tasks": tasks})

    one, other = asking("a", 64, by_targets=True), asking("b", 128, by_targets=True)
    assert not list(find_differences(one, other))
    own = asking("c", 128, by_targets=False)
    assert [d.kind for d in find_differences(one, own)] == ["budget"]


def test_prompts_that_leave_too_little_of_the_context_are_said_before_the_run(
    tmp_path, checkpoint, capsys
):
    options = ("--sample", "--limit", "3", "--max-new-tokens", "500")
    run = run_named(tmp_path, "r", checkpoint, "usmle,usmle_ll", *options)
    told = capsys.readouterr().err
    tokenizer = make_tokenizer()
    longest = max(len(tokenizer(sample.prompt)["input_ids"]) for sample in run.samples["usmle"])
    assert "usmle: 3 of 3 prompts with up to 500 new tokens do not fit the context of 512" in told
    assert f"(the longest prompt has {longest})" in told
    assert f"use --max-new-tokens so that replies have at most {512 - longest} tokens" in told
    assert told.index("do not fit the context") < told.index("usmle: ", told.index("cut where") + 1)
    fitting = ("--sample", "--limit", "3", "--max-new-tokens", str(512 - longest))
    run_named(tmp_path, "fits", checkpoint, "usmle", *fitting)
    assert "do not fit" not in capsys.readouterr().err


def test_counting_beforehand_draws_no_other_shots(tmp_path, checkpoint):
    """Few-shot examples are drawn from a seeded generator: building prompts twice moves nothing."""
    options = ("--sample", "--limit", "2", "--num-fewshot", "1", "--no-cache")
    counted = run_named(tmp_path, "a", checkpoint, "cmexam", *options, "--max-new-tokens", "200")
    plain = run_named(tmp_path, "b", checkpoint, "cmexam", *options, "--max-new-tokens", "2")
    assert [s.prompt for s in counted.samples["cmexam"]] == [
        s.prompt for s in plain.samples["cmexam"]
    ]
