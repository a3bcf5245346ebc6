"""Scoring against lm-eval's `hf` model, and against what no engine can go below.

    python benchmarks/scoring.py [--quick] [--cpu-seconds]

Same requests, same model in the same process, fp32. The limit is the bare transformer body, without
head, masks or tokenisation, over as many tokens as the requests' prefix tree has.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from workload import (
    Pair,
    add_experts,
    base_model,
    choose_clock,
    common_arguments,
    instances,
    letters,
    option_texts,
    paired_seconds,
    ratio,
    tokenizer,
)

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.prefix_plan import PrefixPlan, Span
from mingmoe_eval.engine.tokenisation import Tokenisation

STOCK_BATCH = 8
LIMIT_WIDTH = 114


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--only", help="run the workloads whose name holds this")
    parser.add_argument("--docs", type=int, help="so many questions")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    options = parser.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    docs, rounds = (24, 2) if options.quick else (96, 5)
    docs, rounds = options.docs or docs, options.rounds or rounds
    workloads = {
        "letters, no examples": letters(docs, shots=False),
        "letters, 560 tokens of examples": letters(docs, shots=True),
        "option texts": option_texts(docs),
    }
    print(f"{docs} questions, {rounds} rounds, {torch.get_num_threads()} threads, "
          f"stock batch {STOCK_BATCH}; medians (least to most)")  # fmt: skip
    model = base_model()
    for kind in ("base", "MoLoRA"):
        if kind == "MoLoRA":
            add_experts(model)
        for name, pairs in workloads.items():
            if not options.only or options.only in f"{kind} {name}":
                measure(f"{kind}, {name}", model, pairs, rounds, clock)


def measure(
    name: str,
    model: torch.nn.Module,
    pairs: Sequence[Pair],
    rounds: int,
    clock: Callable[[], float],
) -> None:
    words = tokenizer()
    stock = HFLM(model, tokenizer=words, batch_size=STOCK_BATCH)
    ours = CheckpointLM.from_loaded(model, words)
    requests = instances("loglikelihood", pairs)
    scores: dict[str, list[tuple[float, bool]]] = {}

    def run_stock() -> None:
        scores["stock"] = stock.loglikelihood(requests, disable_tqdm=True)

    def run_ours() -> None:
        scores["ours"] = ours.loglikelihood(requests)

    tokens = distinct_tokens(words, pairs)
    ours.loglikelihood(requests[:4])
    seconds = paired_seconds(
        rounds, clock, stock=run_stock, ours=run_ours, limit=lambda: body(model, tokens)
    )
    differences = [abs(a[0] - b[0]) for a, b in zip(*scores.values(), strict=True)]
    flags = sum(a[1] != b[1] for a, b in zip(*scores.values(), strict=True))
    print(
        f"{name}: {ratio(seconds['stock'], seconds['ours'])} times as fast as stock; "
        f"{ratio(seconds['ours'], seconds['limit'])} of the limit ({tokens} tokens); "
        f"scores differ by at most {max(differences):.1e}, greedy flags in {flags}",
        flush=True,
    )


def distinct_tokens(words: object, pairs: Sequence[Pair]) -> int:
    """Nodes of the prefix tree of all inputs."""
    encoded = Tokenisation(words, max_length=4096).encode_pairs(pairs)
    inputs = {pair.tokens[:-1].tobytes(): pair.tokens[:-1] for pair in encoded}
    plan = PrefixPlan(list(inputs.values()), share=False)
    return plan.width(Span(0, len(inputs), 0))


@torch.inference_mode()
def body(model: torch.nn.Module, tokens: int) -> None:
    """Hidden states of so many tokens, in batches like the stock engine's."""
    ids = torch.from_numpy(np.arange(tokens) % 20_000)
    for part in ids.split(STOCK_BATCH * LIMIT_WIDTH):
        whole = len(part) // LIMIT_WIDTH * LIMIT_WIDTH
        for rows in (part[:whole].view(-1, LIMIT_WIDTH), part[whole:].view(1, -1)):
            if rows.numel():
                model.get_decoder()(input_ids=rows, use_cache=False)


if __name__ == "__main__":
    main()
