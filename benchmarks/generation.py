"""Generation against lm-eval's `hf` model and transformers' continuous batching.

    python benchmarks/generation.py [--quick] [--cpu-seconds] [--longest 1024]

The model counts down: whatever the prompt, the token with id n is followed by the one with id
n - 1, and id 0 is its end token. So each text ends by itself, after 2 to 256 tokens, or as many as
--longest says. Texts are compared word by word.
"""

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig
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
SHORTEST = 2
PROMPT_TOKENS = (60, 140)


def main() -> None:
    arguments = common_arguments(__doc__)
    arguments.add_argument(
        "--longest", type=int, default=256, help="new tokens of the longest text"
    )
    arguments.add_argument("--layers", type=int, default=4, help="of the model")
    options = arguments.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    count, rounds = (16, 1) if options.quick else (64, 3)
    model, words = countdown_model(options.layers), tokenizer()
    requests = instances("generate_until", countdown_prompts(count, words, options.longest))
    stock = HFLM(model, tokenizer=words, batch_size=BATCH)
    same_rows = CheckpointLM.from_loaded(model, words, batch_size=BATCH)
    auto = CheckpointLM.from_loaded(model, words)
    sides: dict[str, Callable[[], list[str]]] = {
        "stock": lambda: stock.generate_until(requests, disable_tqdm=True),
        "same_rows": lambda: same_rows.generate_until(requests),
        "auto": lambda: auto.generate_until(requests),
        "continuous": lambda: continuous(model, words, requests),
    }
    texts: dict[str, list[str]] = {}

    def run(name: str) -> None:
        texts[name] = sides[name]()

    seconds = paired_seconds(rounds, clock, **{name: lambda name=name: run(name) for name in sides})
    print(
        f"{count} texts, {rounds} rounds, {torch.get_num_threads()} threads: "
        f"{ratio(seconds['stock'], seconds['same_rows'])} times as fast as stock with {BATCH} rows "
        f"each, {ratio(seconds['stock'], seconds['auto'])} with batch size auto; "
        f"{ratio(seconds['continuous'], seconds['auto'])} times as fast as transformers' "
        "continuous batching"
    )
    for name in ("same_rows", "auto", "continuous"):
        differing = sum(a != b for a, b in zip(texts["stock"], texts[name], strict=True))
        print(f"{name}: {differing} texts differ from stock's")


def continuous(model: Any, words: Any, requests: Sequence[Any]) -> list[str]:
    """The same texts by `generate_batch`, which changes the attention kernel while it works."""
    prompts = [words(request.args[0])["input_ids"] for request in requests]
    settings = GenerationConfig(
        max_new_tokens=requests[0].args[1]["max_gen_toks"],
        do_sample=False,
        eos_token_id=0,
        pad_token_id=0,
    )
    kernel = model.config._attn_implementation
    try:
        given = model.generate_batch(prompts, generation_config=settings, progress_bar=False)
    finally:
        model.set_attn_implementation(kernel)
    by_prompt = {tuple(one.prompt_ids): one.generated_tokens for one in given.values()}
    return [words.decode(by_prompt[tuple(prompt)], skip_special_tokens=True) for prompt in prompts]


def countdown_model(layers: int) -> torch.nn.Module:
    """Reads its own newest token off the residual stream, and says the one before it."""
    model = base_model(layers=layers)
    embedding = model.get_input_embeddings().weight.data.normal_()
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    head.weight = torch.nn.Parameter(embedding.roll(-1, 0), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.lm_head = head
    model.generation_config.eos_token_id = 0
    return model


def countdown_prompts(
    count: int, words: object, longest: int
) -> list[tuple[str, dict[str, object]]]:
    """Prompts whose last word says how long the text will be; lengths are evenly spread."""
    texts, least, most = Texts(), SHORTEST, longest
    lengths = [least + (most - least) * i // (count - 1) for i in range(count)]
    random.Random(3).shuffle(lengths)
    settings = {"until": [], "do_sample": False, "max_gen_toks": most}
    return [
        (f"{texts.words(*PROMPT_TOKENS)} {words.convert_ids_to_tokens(n)}", dict(settings))
        for n in lengths
    ]


if __name__ == "__main__":
    main()
