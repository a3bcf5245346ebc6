"""The protocol of a language model: all that a run uses, and nothing besides."""

import dataclasses
import inspect
from collections import Counter

import pytest
from lm_eval.api.model import LM

from mingmoe_eval import LanguageModel, RequestUsage, RunSpec, UsageError, evaluate

SPEC = RunSpec(model="minimal", tasks=("usmle", "usmle_ll"), sample=True, limit=2)
MEMBERS = {
    name
    for name, _ in inspect.getmembers(LanguageModel, lambda m: callable(m) or type(m) is property)
    if not name.startswith("_")
}


class Minimal:
    """An object with the protocol's members and no other."""

    def __init__(self, *, template=False, without=None):
        usage = {}

        def note(requests):
            for r in requests:
                usage[r.task_name, r.doc_id, r.idx] = RequestUsage(prompt_tokens=len(r.args[0]))

        def loglikelihood(requests):
            note(requests)
            return [(-1.0 - request.idx, False) for request in requests]

        def loglikelihood_rolling(requests):
            note(requests)
            return [-2.0 for _ in requests]

        def generate_until(requests):
            note(requests)
            return ["B" for _ in requests]

        def take_usage():
            taken = dict(usage)
            usage.clear()
            return taken

        members = {
            "rank": 0,
            "world_size": 1,
            "has_chat_template": template,
            "loglikelihood": loglikelihood,
            "loglikelihood_rolling": loglikelihood_rolling,
            "generate_until": generate_until,
            "take_usage": take_usage,
            "describe": lambda: {"format": "minimal"},
        }
        members["apply_chat_template"] = lambda chat_history, add_generation_prompt=True: "".join(
            f"<{turn['role']}>{turn['content']}" for turn in chat_history
        )
        members["chat_template"] = lambda chat_template=False: "minimal"
        members.pop(without, None)
        self.__dict__.update(members)


def run_with(lm, **changes):
    spec = dataclasses.replace(SPEC, **changes)
    return evaluate(spec, open_model=lambda spec, folder, watch: lm)


def test_the_double_has_exactly_the_members_of_the_protocol():
    assert set(vars(Minimal(template=True))) == MEMBERS


@pytest.mark.parametrize("template", [False, True])
def test_an_object_with_exactly_these_members_runs_every_kind_of_our_tasks(template):
    run = run_with(Minimal(template=template))
    assert {s.response for s in run.samples["usmle"]} == {"B"}
    assert {s.log_likelihoods[0] for s in run.samples["usmle_ll"]} == {-1.0}
    assert run.samples["usmle"][0].prompt.startswith("<user>") == template
    assert run.provenance["model"] == {"format": "minimal"}
    assert run.routing is None


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_an_object_without_one_of_them_is_refused_by_name(member):
    with pytest.raises(UsageError, match=f"it lacks {member};"):
        run_with(Minimal(template=True, without=member))


def test_each_member_is_used():
    class Watched(Minimal):
        def __getattribute__(self, name):
            touched[name] += 1
            return super().__getattribute__(name)

    touched = Counter()
    run_with(Watched(template=True))
    # Perplexities are asked for by tasks of lm-eval's own alone.
    used = {name for name in MEMBERS if touched[name]}
    assert used == MEMBERS - {"loglikelihood_rolling"}
    assert "loglikelihood_rolling" in LM.__abstractmethods__


def test_one_name_is_one_task_and_any_sequence_of_names_is_a_tuple():
    assert RunSpec(model="m", tasks="usmle").tasks == ("usmle",)
    assert RunSpec(model="m", tasks=["usmle", "mcmle"]).tasks == ("usmle", "mcmle")
    assert RunSpec.from_json(SPEC.to_json()) == SPEC
    assert hash(RunSpec(model="m", tasks=["usmle"])) == hash(RunSpec(model="m", tasks="usmle"))
