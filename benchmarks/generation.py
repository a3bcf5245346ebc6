"""Generation against lm-eval's `hf` model and transformers' continuous batching.

    python benchmarks/generation.py [--quick] [--cpu-seconds] [--longest 1024] [--keep FILE]
    python benchmarks/generation.py --model DIR --texts 16 --longest 256
    python benchmarks/generation.py --growth 2000,4000,8000 --texts 4

The model counts down: whatever the prompt, the token with id n is followed by the one with id
n - 1, and id 0 is its end token. So each text ends by itself, after 2 to 256 tokens, or as many as
--longest says. A real model of --model goes on with medical questions instead, to --longest
tokens each, its end tokens forbidden. Texts are compared word by word.

What takes too long in one go is measured piece by piece: `--sides stock --keep FILE`, then another
side with the same file, any number of rounds of each. --growth measures ours alone: what a token
takes in texts that all have so many tokens, and the memory above the model's.
"""

import json
import logging
import random
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
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
    ratio,
    tokenizer,
)

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.molora import load_model, load_tokenizer

BATCH = 8
SHORTEST = 2
PROMPT_TOKENS = (60, 140)
SIDES = ("stock", "same_rows", "auto", "continuous")
COMPARED = (("stock", "same_rows"), ("stock", "auto"), ("continuous", "auto"))
QUESTIONS = Path(__file__).parents[1] / "tasks" / "mmlu_med" / "sample.jsonl"

Asked = list[tuple[str, dict[str, object]]]


def main() -> None:
    arguments = common_arguments(__doc__)
    arguments.add_argument(
        "--longest", type=int, default=256, help="new tokens of the longest text"
    )
    arguments.add_argument("--layers", type=int, default=4, help="of the model that counts down")
    arguments.add_argument("--vocabulary", type=int, default=151_936, help="of that model")
    arguments.add_argument("--model", help="a real one, in place of that")
    arguments.add_argument("--texts", type=int, help="64, or 16 with --quick")
    arguments.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    arguments.add_argument("--sides", default=",".join(SIDES), help="some of them, by comma")
    arguments.add_argument("--growth", help="lengths of texts, by comma, ascending")
    arguments.add_argument("--keep", type=Path, help="add to the rounds in this file")
    options = arguments.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    count = options.texts or (16 if options.quick else 64)
    if options.growth:
        growth([int(n) for n in options.growth.split(",")], options, clock)
        return
    if options.model:
        model, words, asked = real(options.model, count, options.longest)
    else:
        model, words = countdown_model(options.layers, options.vocabulary), tokenizer()
        asked = countdown_prompts(count, words, SHORTEST, options.longest)
    requests = instances("generate_until", asked)
    # Made when they are needed: a side that is not measured takes no memory.
    sides: dict[str, Callable[[], Callable[[], list[str]]]] = {
        "stock": lambda: stock(model, words, requests),
        "same_rows": lambda: ours(model, words, requests, batch_size=BATCH),
        "auto": lambda: ours(model, words, requests, batch_size="auto"),
        "continuous": lambda: lambda: continuous(model, words, requests),
    }
    runs = {name: sides[name]() for name in options.sides.split(",")}
    kept = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}

    for turn in range(options.rounds or (1 if options.quick else 3)):
        for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            begin = clock()
            texts = runs[name]()
            taken = clock() - begin
            print(f"{name}: {taken:.1f} s", flush=True)
            before = kept.get(name, {"seconds": []})["seconds"]
            kept[name] = {"seconds": [*before, taken], "texts": texts}
            if options.keep:
                options.keep.write_text(json.dumps(kept))
    report(kept, count)


def report(kept: dict[str, Any], count: int) -> None:
    """Ratios of all pairs that were measured, round by round, and which texts differ."""
    for other, mine in COMPARED:
        if not {other, mine} <= kept.keys():
            continue
        above, below = kept[other]["seconds"], kept[mine]["seconds"]
        rounds = min(len(above), len(below))
        differing = sum(
            a != b for a, b in zip(kept[other]["texts"], kept[mine]["texts"], strict=True)
        )
        print(
            f"{count} texts, {rounds} rounds, {torch.get_num_threads()} threads: {mine} "
            f"{ratio(above[:rounds], below[:rounds])} times as fast as {other}; "
            f"{differing} texts differ"
        )


def growth(lengths: Sequence[int], options: Any, clock: Callable[[], float]) -> None:
    """Milliseconds a token, and memory, of texts that all have the same length."""
    words, rows = tokenizer(), options.texts or 4
    model = countdown_model(options.layers, options.vocabulary)
    model.config.max_position_embeddings = 2 * max(lengths)
    lm = CheckpointLM.from_loaded(model, words, batch_size=rows)
    lm.generate_until(instances("generate_until", countdown_prompts(rows, words, 2, 2)))
    for length in lengths:
        requests = instances("generate_until", countdown_prompts(rows, words, length, length))
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, clock()
        texts = lm.generate_until(requests)
        taken = clock() - begin
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        tokens = sum(len(text.split()) for text in texts)
        print(
            f"{rows} texts of {length} tokens: {taken:.1f} s, {1000 * taken / tokens:.2f} ms a "
            f"token, {more / 1024:.0f} MiB more at the peak",
            flush=True,
        )


def stock(model: Any, words: Any, requests: Sequence[Any]) -> Callable[[], list[str]]:
    """lm-eval's own `hf` model, with so many rows at a time."""
    lm = HFLM(model, tokenizer=words, batch_size=BATCH)
    return lambda: lm.generate_until(requests, disable_tqdm=True)


def ours(
    model: Any, words: Any, requests: Sequence[Any], *, batch_size: int | str
) -> Callable[[], list[str]]:
    """The engine."""
    lm = CheckpointLM.from_loaded(model, words, batch_size=batch_size)
    return lambda: lm.generate_until(requests)


def continuous(model: Any, words: Any, requests: Sequence[Any]) -> list[str]:
    """The same texts by `generate_batch`, which changes the attention kernel while it works."""
    prompts = [words(request.args[0])["input_ids"] for request in requests]
    settings = GenerationConfig(
        max_new_tokens=requests[0].args[1]["max_gen_toks"],
        do_sample=False,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=0,
    )
    kernel = model.config._attn_implementation
    try:
        given = model.generate_batch(prompts, generation_config=settings, progress_bar=False)
    finally:
        model.set_attn_implementation(kernel)
    by_prompt = {tuple(one.prompt_ids): one.generated_tokens for one in given.values()}
    return [words.decode(by_prompt[tuple(prompt)], skip_special_tokens=True) for prompt in prompts]


def real(folder: str, count: int, new_tokens: int) -> tuple[Any, Any, Asked]:
    """A model that cannot end its texts, and questions of the bundled samples to go on with."""
    model, words = load_model(folder, dtype="float32"), load_tokenizer(folder, None)
    head = model.get_output_embeddings()
    bias = torch.zeros(len(head.weight))
    ends = model.generation_config.eos_token_id
    bias[[*(ends if isinstance(ends, list) else [ends]), words.eos_token_id]] = -1e9
    # transformers' own head knows no bias; the weights stay those of the embeddings.
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    questions = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    settings = {"until": [], "do_sample": False, "max_gen_toks": new_tokens}
    prompts = list(dict.fromkeys(f"Question: {one['question']}\nAnswer:" for one in questions))
    return model, words, [(prompt, dict(settings)) for prompt in prompts[:count]]


def countdown_model(layers: int, vocabulary: int) -> torch.nn.Module:
    """Reads its own newest token off the residual stream, and says the one before it."""
    model = base_model(layers=layers, vocabulary=vocabulary)
    embedding = model.get_input_embeddings().weight.data.normal_()
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    head.weight = torch.nn.Parameter(embedding.roll(-1, 0), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.lm_head = head
    model.generation_config.eos_token_id = 0
    return model


def countdown_prompts(count: int, words: Any, least: int, most: int) -> Asked:
    """Prompts whose last word says how long the text will be; lengths are evenly spread."""
    texts = Texts()
    lengths = [least + (most - least) * i // (count - 1) for i in range(count)]
    random.Random(3).shuffle(lengths)
    settings = {"until": [], "do_sample": False, "max_gen_toks": most}
    return [
        (f"{texts.words(*PROMPT_TOKENS)} {words.convert_ids_to_tokens(n)}", dict(settings))
        for n in lengths
    ]


if __name__ == "__main__":
    main()
