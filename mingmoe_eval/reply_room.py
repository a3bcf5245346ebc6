"""How much room replies have: of the model's context, and beside the answers that are expected.

Both are counted with the tokenizer at hand before the first text is generated, so that nobody
learns from a finished run that its replies could not have been whole.
"""

from collections.abc import Callable, Iterator, Sequence

from mingmoe_eval.harness.tasks import HarnessTask
from mingmoe_eval.language_model import CountsTokens, LanguageModel
from mingmoe_eval.records import JsonDict, RunSpec

# All but so many of a task's targets have room; the longest of a large set may be a mistake.
_TARGETS_LEFT_OUT = 1 / 500
_LIMITS_COME_IN = 64
# Below this share of the context a limit crowds nobody's prompt out, and prompts are not built
# beforehand only to be counted.
_WORTH_A_LOOK = 0.25


def make_room_for_targets(lm: LanguageModel, task: HarnessTask, spec: RunSpec) -> JsonDict:
    """Raise a task's limit to what its targets take with this tokenizer; never lower it.

    Only where the suite's targets are replies as they should be written, and the run names no limit
    of its own.

    Returns:
        What the run records: the limit, the longest target and how many are longer than the limit.
    """
    if task.settings.suite != "promptcblue" or not isinstance(lm, CountsTokens):
        return {}
    lengths = sorted(lm.token_counts([str(doc["target"]) for doc in task.docs]), reverse=True)
    if not lengths:
        return {}
    arguments = task.generation_arguments
    limit = stated = int(arguments["max_gen_toks"])
    if spec.max_new_tokens is None:
        needed = lengths[int(len(lengths) * _TARGETS_LEFT_OUT)]
        limit = max(stated, -(-needed // _LIMITS_COME_IN) * _LIMITS_COME_IN)
        task.set_generation({**arguments, "max_gen_toks": limit})
    return {
        "limit": limit,
        "by_targets": spec.max_new_tokens is None,
        "raised_from": stated if limit > stated else None,
        "longest": lengths[0],
        "longer_than_limit": sum(length > limit for length in lengths),
    }


def remarks(room: JsonDict) -> Iterator[str]:
    """What of it a reader of the task's number must know."""
    if room.get("raised_from"):
        yield (
            f"the limit is {room['limit']} new tokens, not {room['raised_from']}: with this "
            "tokenizer its targets take more"
        )
    if beyond := room.get("longer_than_limit"):
        yield (
            f"{beyond} targets are longer than the limit of {room['limit']} new tokens (the "
            f"longest has {room['longest']}), so that no reply can equal them"
        )


def tell_of_short_context(
    lm: LanguageModel,
    tasks: Sequence[HarnessTask],
    spec: RunSpec,
    *,
    chat: bool,
    note: Callable[[str], None],
) -> None:
    """Say of which tasks prompts and replies together do not fit the context, and what to do."""
    if not isinstance(lm, CountsTokens):
        return
    for task in tasks:
        if not task.generates:
            continue
        asked = lm.most_new_tokens(task.generation_arguments)
        if asked < _WORTH_A_LOOK * lm.max_length:
            continue
        limit = None if spec.permute_options else spec.limit
        prompts = task.prompts(lm, limit=limit, chat=chat, spec=spec)
        counts = lm.token_counts(prompts)
        crowded = [count for count in counts if count + asked > lm.max_length]
        if not crowded:
            continue
        room = lm.max_length - max(counts)
        thinner = "--think or --max-new-tokens" if spec.think else "--max-new-tokens"
        way_out = (
            f"{thinner} so that replies have at most {room} tokens"
            if room > 0
            else "fewer --num-fewshot, as the longest prompt alone does not fit"
        )
        note(
            f"{task.name}: {len(crowded)} of {len(counts)} prompts with up to {asked} new tokens "
            f"do not fit the context of {lm.max_length} (the longest prompt has {max(counts)}): "
            f"their replies are cut where it ends; use {way_out}, or a model with a longer context"
        )
