"""From conversations to token ids, through a chat template.

Only what the assistant says is learned. Where a response begins and ends is read off the template:
it begins where the conversation up to it, rendered with the generation prompt, ends, so that
training sees exactly what generation will continue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerBase

from mingmoe_eval.errors import CheckpointError, DataError, UsageError, offence_list
from mingmoe_eval.molora import load_tokenizer
from mingmoe_eval.training.conversations import Conversation

NOT_LEARNED = -100
"""The label of a token that is read and not predicted; torch's cross entropy passes it over."""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and for each the id to be predicted there (itself) or NOT_LEARNED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncodedStream:
    """The examples of one file.

    `cut` of them were longer than allowed and lost their end; `skipped` conversations are not among
    them, because they lost every response.
    """

    name: str
    examples: tuple[Example, ...]
    cut: int = 0
    skipped: int = 0


class _Unrenderable(ValueError):
    """What keeps a chat template from rendering a conversation in parts."""


def load_chat_tokenizer(
    model: str, template: Path | None = None, *, base: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, or of the base of an adapter without one of its own.

    With the template in a file if one is given.

    Raises:
        CheckpointError: no tokenizer, none that tells where tokens stand, or no chat template.
        UsageError: the template's file cannot be read.
    """
    tokenizer = load_tokenizer(model, base)
    if template is not None:
        try:
            tokenizer.chat_template = template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the chat template {template} cannot be read: {error}") from error
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"the tokenizer of {model} has no chat template: take the chat variant of this base, "
            "or give a Jinja template with --chat-template"
        )
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer of {model} does not tell where its tokens stand in the text; save it "
            "once with a tokenizer.json"
        )
    return tokenizer


def encode_stream(
    name: str,
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    *,
    skip_too_long: bool = False,
) -> EncodedStream:
    """Every conversation as one example, or as one a response where the template demands it.

    Raises:
        DataError: listing the conversations that the template cannot render, or of which nothing
            to learn is left within `max_tokens`, unless those are to be skipped and others stay.
    """
    examples: list[Example] = []
    offences, cut, skipped = [], 0, 0
    for conversation in conversations:
        try:
            whole = encode(conversation, tokenizer)
        except _Unrenderable as fault:
            offences.append(f"{conversation.origin}: {fault}")
            continue
        kept = [Example(e.ids[:max_tokens], e.labels[:max_tokens]) for e in whole]
        # The first token of all is never predicted.
        learned = [e for e in kept if any(label != NOT_LEARNED for label in e.labels[1:])]
        if learned:
            cut += sum(len(e.ids) > max_tokens for e in whole)
        elif skip_too_long:
            skipped += 1
        else:
            offences.append(f"{conversation.origin}: no response within {max_tokens} tokens")
        examples += learned
    if skipped and not examples:
        offences.append(f"no conversation has a response within {max_tokens} tokens")
    if offences:
        raise DataError(offence_list(f"{name} cannot be trained on:", offences))
    return EncodedStream(name, tuple(examples), cut, skipped)


def encode(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """One example with every response learned; or one a response, in which only that is learned.

    The second where a template renders a response otherwise once more turns follow it, as those do
    that leave out earlier reasoning.
    """
    turns = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    text = _render(tokenizer, conversation, len(conversation.messages))
    # Turns below the last one end where the following user turn's rendering begins.
    spans = [_span(tokenizer, conversation, turn) for turn in turns]
    if all(text.startswith(up_to) for _, up_to in spans):
        places = [(len(before), len(up_to)) for before, up_to in spans]
        return [_example(tokenizer, text, places)]
    return [_example(tokenizer, up_to, [(len(before), len(up_to))]) for before, up_to in spans]


def _span(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, turn: int
) -> tuple[str, str]:
    """The text up to a response, as generation sees it, and the text up to the response's end."""
    before = _render(tokenizer, conversation, turn, prompt=True)
    up_to = _render(tokenizer, conversation, turn + 1)
    if not up_to.startswith(before) or len(up_to) == len(before):
        raise _Unrenderable(
            "the chat template renders the prompt of a response differently from the response "
            "with its prompt, so that where the response begins cannot be told"
        )
    return before, up_to


def _render(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, count: int, prompt: bool = False
) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            conversation.as_dicts(count), tokenize=False, add_generation_prompt=prompt
        )
    except jinja2.TemplateError as error:
        raise _Unrenderable(f"the chat template refuses it: {error}") from error
    return text


def _example(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]
) -> Example:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    labels = [NOT_LEARNED] * len(ids)
    special = set(tokenizer.all_special_ids)
    ended = True
    for start, end in spans:
        inside = [i for i, (left, _) in enumerate(offsets) if start <= left < end]
        marks = [i for i in inside if ids[i] in special]
        # After the token that ends a turn, templates put a newline: nothing that a model writes.
        last = marks[-1] if marks else inside[-1] if inside else 0
        ended = bool(marks)
        for i in inside:
            labels[i] = ids[i] if i <= last else NOT_LEARNED
    if not ended and tokenizer.eos_token_id is not None:
        # A template without an end of turn: without this the model would never learn to stop.
        return Example((*ids, tokenizer.eos_token_id), (*labels, tokenizer.eos_token_id))
    return Example(tuple(ids), tuple(labels))
