"""A whole run over the bundled sample, with a model that answers from a function."""

import dataclasses
import json
import math

import pytest
from doubles import ScriptedLM

from mingmoe_eval import run_store
from mingmoe_eval.errors import CheckpointError, MingMoeError, UnknownTaskError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.records import RunSpec
from mingmoe_eval.rescoring import rescore

SPEC = RunSpec(model="scripted", tasks=("usmle",), sample=True)


def run_with(lm, spec=SPEC, **options):
    return evaluate(spec, open_model=lambda spec, folder, watch: lm, **options)


def always(letter):
    return ScriptedLM(reply=lambda prompt: letter)


def test_the_score_is_the_share_of_docs_whose_key_was_answered():
    run = run_with(always("A"))
    samples = run.samples["usmle"]
    share = sum(sample.doc["answer"] == "A" for sample in samples) / len(samples)
    assert 0 < share < 1
    assert run.results["usmle"].main.value == share
    assert run.results["usmle"].main.n == len(samples) >= 8


def test_a_run_says_that_it_is_a_sample_and_what_stands_behind_it():
    run = run_with(always("A"))
    assert run.spec.marks == ("invented sample",)
    assert run.provenance["chat_template"] == {"applied": False, "fingerprint": None}
    assert run.provenance["tasks"]["usmle"]["data_fingerprint"]
    assert run.provenance["packages"]["lm_eval"]


def test_an_unanswered_question_is_wrong_and_counted_never_guessed():
    run = run_with(always("I would rather not say."))
    result = run.results["usmle"]
    assert result.main.value == 0
    assert result.counts.unanswered == result.counts.docs
    assert not run.incomplete


def test_nan_log_likelihoods_fail_their_docs_and_make_the_run_incomplete():
    def likelihood(prompt, continuation):
        return math.nan if prompt in poisoned else -1.0

    spec = dataclasses.replace(SPEC, tasks=("usmle_ll",))
    clean = ScriptedLM()
    run_with(clean, spec)
    poisoned = {clean.prompts[0]}
    run = run_with(ScriptedLM(likelihood=likelihood), spec)
    counts = run.results["usmle_ll"].counts
    assert (counts.failed, counts.non_finite) == (1, 1)
    assert run.results["usmle_ll"].main.n == counts.docs - 1
    assert run.samples["usmle_ll"][0].score is None
    assert run.incomplete == ("usmle_ll",)


def test_a_doc_that_gets_no_answer_fails_alone_and_says_why():
    lm = ScriptedLM(
        reply=lambda prompt: "A",
        failure=lambda prompt: "the server cut the line" if len(lm.prompts) == 3 else "",
    )
    run = run_with(lm)
    failed = [sample for sample in run.samples["usmle"] if sample.status == "failed"]
    assert [sample.failure for sample in failed] == ["the server cut the line"]
    assert run.incomplete == ("usmle",)


def test_generations_that_were_cut_off_are_counted():
    lm = ScriptedLM(reply=lambda prompt: "A", finish=lambda prompt: "length")
    counts = run_with(lm).results["usmle"].counts
    assert counts.truncated == counts.docs


def test_the_chat_template_is_used_when_there_is_one_and_left_out_on_request():
    with_template = always("A")
    with_template.has_chat_template = True
    assert run_with(with_template).provenance["chat_template"]["applied"]
    assert with_template.prompts[0].startswith("<user>")
    plain = dataclasses.replace(SPEC, chat_template=False)
    without = always("A")
    without.has_chat_template = True
    assert not run_with(without, plain).provenance["chat_template"]["applied"]
    assert "<user>" not in without.prompts[0]


def test_asking_for_a_template_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no chat template"):
        run_with(always("A"), dataclasses.replace(SPEC, chat_template=True))


def test_a_mistyped_task_among_good_ones_stops_everything_before_the_model_is_opened():
    def never(spec, folder, watch):
        raise AssertionError("opened")

    spec = dataclasses.replace(SPEC, tasks=("usmle", "usmle_lll*"))
    with pytest.raises(UnknownTaskError):
        evaluate(spec, open_model=never)


def test_a_checkpoint_that_does_not_load_leaves_no_run_folder(tmp_path):
    def broken(spec, folder, watch):
        raise CheckpointError("no such checkpoint")

    with pytest.raises(CheckpointError):
        evaluate(SPEC, open_model=broken, folder=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_named_for_every_task_before_the_model_is_opened(tmp_path):
    def never(spec, folder, watch):
        raise AssertionError("opened")

    spec = RunSpec(model="m", tasks=("usmle", "mcmle"), data_dir=str(tmp_path))
    with pytest.raises(MingMoeError) as caught:
        evaluate(spec, open_model=never)
    assert "medqa_usmle_4opt" in str(caught.value)
    assert "medqa_mcmle" in str(caught.value)


def test_more_shots_than_worked_examples_are_refused():
    with pytest.raises(UsageError, match="worked examples"):
        run_with(always("A"), dataclasses.replace(SPEC, num_fewshot=1000))


def test_the_same_run_twice_is_identical():
    def made():
        run = run_with(ScriptedLM(reply=lambda prompt: "ABCD"[len(prompt) % 4]))
        return [sample.to_json() for sample in run.samples["usmle"]]

    assert made() == made()


def test_a_run_is_saved_task_by_task_and_read_back_equal(tmp_path):
    seen = []

    class Look(Watch):
        def task_done(self, result):
            seen.append(sorted(path.name for path in (tmp_path / "r" / "samples").iterdir()))

    spec = dataclasses.replace(SPEC, tasks=("usmle", "usmle_5opt"))
    run = run_with(always("B"), spec, folder=tmp_path / "r", watch=Look())
    assert seen == [["usmle.jsonl"], ["usmle.jsonl", "usmle_5opt.jsonl"]]
    loaded = run_store.load_run(tmp_path / "r")
    assert loaded.results == run.results
    assert {task: list(s) for task, s in loaded.samples.items()} == run.samples


def test_a_run_folder_also_holds_lm_evals_own_layout(tmp_path):
    run = run_with(always("B"), folder=tmp_path / "r")
    (results,) = (tmp_path / "r" / "lm_eval").glob("results_*.json")
    value = json.loads(results.read_text())["results"]["usmle"]["score,none"]
    assert value == run.results["usmle"].main.value


def test_a_group_is_folded_over_all_its_members():
    spec = dataclasses.replace(SPEC, tasks=("pharmacist2023",))
    run = run_with(always("A"), spec)
    group = run.results["pharmacist2023"]
    assert group.members == ("pharmacist2023_pharmacy", "pharmacist2023_tcm")
    members = [run.results[name] for name in group.members]
    right = sum(round(m.main.value * m.main.n) for m in members)
    docs = sum(m.main.n for m in members)
    assert group.metrics["micro"].value == pytest.approx(right / docs, abs=1e-12)
    mean = sum(m.main.value for m in members) / 2
    assert group.metrics["macro"].value == pytest.approx(mean, abs=1e-12)


def test_rescoring_with_the_same_settings_changes_nothing():
    run = run_with(ScriptedLM(reply=lambda prompt: "ABCD"[len(prompt) % 4]))
    again = rescore(run)
    assert again.results == run.results
    assert again.samples == run.samples
    assert again.parent == run.name


def test_rescoring_in_a_compatibility_mode_reads_silence_as_that_script_does():
    run = run_with(always("..."))
    assert run.results["usmle"].main.value == 0
    again = rescore(run, reading="huatuo2")
    share_of_b = sum(sample.doc["answer"] == "B" for sample in run.samples["usmle"])
    assert again.results["usmle"].main.value == share_of_b / len(run.samples["usmle"])
    assert again.provenance["tasks"]["usmle"]["reading"] == "huatuo2"
