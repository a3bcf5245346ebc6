"""Generation against lm-eval's `hf` model, on texts of very different lengths.

    python benchmarks/generation.py [--quick] [--cpu-seconds]

The model counts down: whatever the prompt, the token with id n is followed by the one with id
n - 1, and id 0 is its end token. So each text ends by itself, after 2 to 256 tokens. Texts are
compared word by word.
"""

import logging
import random

import torch
from lm_eval.models.huggingface import HFLM
from workload import (
    Texts,
    base_model,
    choose_clock,
    common_arguments,
    instances,
    paired_seconds,
    ratio,
    tokenizer,
)

from mingmoe_eval.engine import CheckpointLM

BATCH = 8
NEW_TOKENS = (2, 256)
PROMPT_TOKENS = (60, 140)


def main() -> None:
    options = common_arguments(__doc__).parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    count, rounds = (16, 1) if options.quick else (64, 3)
    model, words = countdown_model(), tokenizer()
    requests = instances("generate_until", countdown_prompts(count, words))
    texts: dict[str, list[str]] = {}
    engines = {
        "stock": HFLM(model, tokenizer=words, batch_size=BATCH),
        "same_rows": CheckpointLM.from_loaded(model, words, batch_size=BATCH),
        "auto": CheckpointLM.from_loaded(model, words),
    }

    def run(name: str) -> None:
        texts[name] = engines[name].generate_until(requests)

    seconds = paired_seconds(
        rounds, clock, **{name: lambda name=name: run(name) for name in engines}
    )
    print(
        f"{count} texts, {rounds} rounds, {torch.get_num_threads()} threads: "
        f"{ratio(seconds['stock'], seconds['same_rows'])} times as fast as stock with {BATCH} rows "
        f"each, {ratio(seconds['stock'], seconds['auto'])} with batch size auto; "
        f"{sum(a != b for a, b in zip(texts['stock'], texts['auto'], strict=True))} texts differ"
    )


def countdown_model() -> torch.nn.Module:
    """Reads its own newest token off the residual stream, and says the one before it."""
    model = base_model()
    embedding = model.get_input_embeddings().weight.data.normal_()
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    head.weight = torch.nn.Parameter(embedding.roll(-1, 0), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.lm_head = head
    model.generation_config.eos_token_id = 0
    return model


def countdown_prompts(count: int, words: object) -> list[tuple[str, dict[str, object]]]:
    """Prompts whose last word says how long the text will be; lengths are evenly spread."""
    texts, least, most = Texts(), *NEW_TOKENS
    lengths = [least + (most - least) * i // (count - 1) for i in range(count)]
    random.Random(3).shuffle(lengths)
    settings = {"until": [], "do_sample": False, "max_gen_toks": most}
    return [
        (f"{texts.words(*PROMPT_TOKENS)} {words.convert_ids_to_tokens(n)}", dict(settings))
        for n in lengths
    ]


if __name__ == "__main__":
    main()
