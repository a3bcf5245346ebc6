"""What a run would have scored with less thought: its own thoughts, cut, and answered again.

Of a run whose thoughts are stored, a thought that is no longer than a budget leaves its reply as it
is; a longer one is cut there and closed by the template's own mark, and the model gives the answer
(budget forcing, s1, arXiv 2501.19393). So one run of long thoughts gives the whole curve for the
price of its answers: what the budgets of a question share is computed once.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.engine.thinking import thought_end
from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.language_model import LanguageModel
from mingmoe_eval.metrics.answer_reading.reply_text import (
    THINKING_HEADING,
    heading_behind,
    is_headed,
    opened_thought,
    split_thoughts,
    unclosed,
)
from mingmoe_eval.model_opening import OpenModel, Watch, open_named
from mingmoe_eval.records import JsonDict, Response, Run, Sample, TaskSettings
from mingmoe_eval.rescoring import refold, settings_of_all

_OF_A_CHOICE = (
    *("temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty"),
    *("no_repeat_ngram_size", "presence_penalty", "frequency_penalty"),
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One cut thought as a request; what `language_model.Request` says of one."""

    args: tuple[str, Mapping[str, Any]]
    task_name: str
    doc_id: int
    idx: int


@dataclass(frozen=True, slots=True)
class _Thought:
    """One reply in parts; `tokens` are the thought's own, without the tag that closes it.

    `needed`: with how many tokens its reply stays as it is; None: it is answered anew in any case.
    `is_cut`: a limit ended it, so that nobody knows how it would have gone on.
    """

    opened: str
    tokens: Sequence[int]
    needed: int | None
    is_cut: bool


def at_budgets(
    run: Run,
    budgets: Sequence[int],
    *,
    answer_tokens: int | None = None,
    watch: Watch | None = None,
    open_model: OpenModel = open_named,
) -> Iterator[Run]:
    """The run with its thoughts cut at each budget, as runs of their own, smallest first.

    Args:
        run: With its samples; every task of ours that asks for texts is taken.
        budgets: Tokens of thought.
        answer_tokens: Longest answer behind a cut thought; default: as long as the run's replies.
        watch: Told how it goes.
        open_model: How to get the model that made the run.

    Raises:
        UsageError: the run has no thoughts, or shorter ones than a budget asks for; or its model
            is no checkpoint, whose thoughts could be cut token by token.
    """
    watch = watch or Watch()
    budgets = sorted(set(budgets))
    settings = settings_of_all(run, "cut the thoughts of")
    asked = {
        task: samples
        for task, samples in run.samples.items()
        if any(sample.response is not None for sample in samples)
    }
    if not any(split_thoughts(s.response or "")[0] for of in asked.values() for s in of):
        raise UsageError(f"{run.name} holds no thoughts: run it with a model that thinks")
    lm = open_model(dataclasses.replace(run.spec, think=None), None, watch)
    tokenizer = getattr(lm, "tokenizer", None)
    if tokenizer is None:
        raise UsageError(
            f"{run.spec.model}: thoughts are cut token by token, which takes the checkpoint itself"
        )
    thoughts = {
        task: [_thought(tokenizer, sample, run.spec.think, answer_tokens) for sample in samples]
        for task, samples in asked.items()
    }
    _refuse_unknown_ground(run, thoughts, budgets[-1])
    cut: dict[str, dict[int, list[Sample]]] = {}
    for task, samples in asked.items():
        watch.task_started(task, len(samples))
        arguments = _arguments(run, task, answer_tokens)
        cut[task] = _answered(
            lm, tokenizer, samples, thoughts[task], budgets, arguments, settings[task]
        )
    for budget in budgets:
        at_budget = {task: by_budget[budget] for task, by_budget in cut.items()}
        yield dataclasses.replace(
            run,
            name=f"{run.name}-think-{budget}",
            spec=dataclasses.replace(run.spec, think=budget, max_new_tokens=answer_tokens),
            provenance=_provenance(run, at_budget, budget, answer_tokens),
            results=refold(run, at_budget, settings, refused=watch.note),
            samples=at_budget,
            timing={},
            routing=None,
            parent=run.name,
        )


def curve_rows(run: Run, cut: Sequence[Run]) -> list[JsonDict]:
    """The curve: one point a task and budget, and the run itself where no budget was set.

    `tokens`: of replies on average, thoughts included.
    """
    points = []
    for one in (*cut, run):
        for task, result in one.results.items():
            if not any(task in other.results for other in cut):
                continue
            samples = one.samples.get(task, ())
            generated = [sample.generated_tokens for sample in samples]
            points.append(
                {
                    "task": task,
                    "budget": one.spec.think,
                    "value": result.main.value,
                    "interval": list(result.main.interval or ()) or None,
                    "unit": result.main.unit,
                    "n": result.main.n,
                    "docs": result.counts.docs,
                    "forced": result.counts.forced,
                    "cut_off": result.counts.truncated,
                    "empty": result.counts.empty,
                    "tokens": sum(generated) / len(generated) if generated else None,
                }
            )
    return points


def _thought(
    tokenizer: Any, sample: Sample, had: int | None, answer_tokens: int | None
) -> _Thought | None:
    """The thought of a reply, if it has one; `had` is its run's budget."""
    response = sample.response or ""
    thoughts, answer = split_thoughts(response)
    if not thoughts or sample.status == "failed":
        return None
    opened = opened_thought(sample.prompt)
    opened = opened if response.startswith(opened) else ""
    ended = answer is not None and not sample.forced
    body = thoughts.removeprefix(opened)
    whole = _ids(tokenizer, body.rstrip())
    if answer is not None:
        # Whatever closed it, it is not the thought's own; neither are the blanks before it.
        body = unclosed(body)
        between = heading_behind(body)[:2] or "\n"
        body = body.removesuffix(between) if sample.forced else body
    needed = sample.thought_tokens if sample.thought_tokens is not None else len(whole)
    # Closed for it with fewer tokens than it had, the closing tag among them: it had come to its
    # end, where the model would have ended the reply.
    by_itself = sample.forced and had is not None and (sample.thought_tokens or had + 1) <= had
    stays = ended or (by_itself and answer_tokens is None)
    return _Thought(
        opened,
        _ids(tokenizer, body),
        needed=needed if stays else None,
        is_cut=not (ended or by_itself),
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _refuse_unknown_ground(
    run: Run, thoughts: Mapping[str, Sequence[_Thought | None]], budget: int
) -> None:
    """Nobody knows how a thought that was cut would have gone on."""
    offences = []
    for task, of_task in thoughts.items():
        unfinished = [len(one.tokens) for one in of_task if one and one.is_cut]
        if unfinished and min(unfinished) < budget:
            offences.append(
                f"{task}: {len(unfinished)} thoughts were cut, the shortest at {min(unfinished)}"
            )
    if offences:
        raise UsageError(
            offence_list(
                f"{run.name} does not hold {budget} tokens of every thought; name smaller budgets, "
                "or run it again with more --think or --max-new-tokens",
                offences,
            )
        )


def _arguments(run: Run, task: str, answer_tokens: int | None) -> JsonDict:
    """How the run itself chose its tokens; a run that does not say so was greedy."""
    said = run.provenance.get("tasks", {}).get(task, {}).get("generation", {})
    chosen = {name: said[name] for name in _OF_A_CHOICE if name in said}
    return {
        "until": [],
        "do_sample": "temperature" in chosen,
        "max_gen_toks": answer_tokens or said.get("max_new_tokens", 256),
        **chosen,
    }


def _answered(
    lm: LanguageModel,
    tokenizer: Any,
    samples: Sequence[Sample],
    thoughts: Sequence[_Thought | None],
    budgets: Sequence[int],
    arguments: JsonDict,
    settings: TaskSettings,
) -> dict[int, list[Sample]]:
    """Of one task the samples at each budget; those that a budget does not touch as they are."""
    tagged = [s for s in samples if not is_headed(s.response or "")]
    by_template = thought_end(tokenizer) if tagged else ""
    begun: dict[tuple[int, int], tuple[str, tuple[int, int]]] = {}
    requests = []
    for position, (sample, thought) in enumerate(zip(samples, thoughts, strict=True)):
        for number, budget in enumerate(budgets):
            if thought is None or (thought.needed is not None and thought.needed <= budget):
                continue
            kept = thought.tokens[:budget]
            text = tokenizer.decode(list(kept))
            end = heading_behind(sample.response or "")
            if end and not is_headed(text):  # less than the heading is no thought at all
                text = THINKING_HEADING
                kept = _ids(tokenizer, text)
            end = end or by_template
            closing = end.lstrip("\n") if not text or text.endswith("\n") else end
            # Blanks behind the closing tag are the answer's, as where the model writes them.
            of_thought, of_all = (len(_ids(tokenizer, c)) for c in (closing.rstrip(), closing))
            tokens = (len(kept) + of_thought, len(kept) + of_all)
            begun[position, number] = (thought.opened + text + closing, tokens)
            context = sample.prompt + text + closing
            requests.append(_Asked((context, arguments), sample.task, position, number))
    lm.take_usage()
    answers = iter(lm.generate_until(list(requests)))
    usage = lm.take_usage()
    by_budget: dict[int, list[Sample]] = {budget: list(samples) for budget in budgets}
    for request, answer in zip(requests, answers, strict=True):
        sample = samples[request.doc_id]
        beginning, (of_thought, so_far) = begun[request.doc_id, request.idx]
        cost = usage[request.task_name, request.doc_id, request.idx]
        response = Response(
            text=beginning + answer,
            usage=(
                dataclasses.replace(
                    cost,
                    prompt_tokens=sample.prompt_tokens,
                    generated_tokens=so_far + cost.generated_tokens,
                    thought_tokens=of_thought,
                    forced=True,
                ),
            ),
        )
        made = scoring.scored_again(sample, response, settings)
        by_budget[budgets[request.idx]][request.doc_id] = made
    return by_budget


def _provenance(
    run: Run, samples: Mapping[str, Any], budget: int, answer_tokens: int | None
) -> JsonDict:
    """The parent's, with the budget where the parent says how it asked."""
    said = run.provenance.get("tasks", {})
    tasks = {}
    for task in samples:
        generation = {**said.get(task, {}).get("generation", {}), "think": budget}
        if answer_tokens is not None:
            generation["max_new_tokens"] = answer_tokens
        tasks[task] = {**said.get(task, {}), "generation": generation}
    return {**run.provenance, "tasks": tasks, "thoughts_of": run.name}
