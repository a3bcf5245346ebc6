"""What bf16 moves, on vLLM and on our own engine: best letters, texts, and chosen experts.

    .venv-vllm/bin/python benchmarks/vllm_rounding.py --base DIR       after `make vllm`

Random experts are put on the base, 8 a layer of which 2 are chosen. Each side answers the letters
of the bundled sample's questions, and goes on with some of their prompts greedily; each prompt then
goes through the model by itself, and the experts that were chosen at every token of it are compared
as sets, layer by layer. All sides are compared with our own engine in fp32; vLLM in fp32 is one of
them. Then the same of the base without experts.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # its routers are in this process

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.backend import Checkpoint, LocalBackend
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import save_ming_v1
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.molora.router import Router, choose_experts
from mingmoe_eval.records import RunSpec
from mingmoe_eval.vllm.backend import VllmCheckpoint
from mingmoe_eval.vllm.sharded_experts import Mix

EXPERTS, CHOSEN, RANK = 8, 2, 16
TEXTS, NEW_TOKENS = 8, 24
SIDES = (("local", "float32"), ("local", "bfloat16"), ("vllm", "float32"), ("vllm", "bfloat16"))

Routes = list[list[Tensor]]
"""By prompt and layer: [T, K], the chosen experts of each token in rising order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="a full model's folder")
    parser.add_argument("--tasks", default="usmle_ll,mmlu_med_ll")
    parser.add_argument("--limit", type=int, help="of each task, so many questions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        mixture = save_mixture(Path(place) / "mixture", options.base)
        for model in (str(mixture), options.base):
            spec = RunSpec(
                model=model, tasks=tuple(options.tasks.split(",")), sample=True, limit=options.limit
            )
            compare(spec, Path(place))


@dataclass(frozen=True, slots=True)
class Answers:
    """One side's: log-probabilities of each question's letters, tokens of texts, routes."""

    letters: list[list[float]]
    texts: list[str]
    routes: Routes


def compare(spec: RunSpec, place: Path) -> None:
    """Prints how far each side is from the first."""
    first: Answers | None = None
    name = Path(spec.model).name
    for engine, dtype in SIDES:
        one = ask(spec, engine, dtype, place / f"{name}-{engine}-{dtype}")
        first = first or one
        pairs = list(zip(first.letters, one.letters, strict=True))
        same = sum(best(ours) == best(other) for ours, other in pairs)
        apart = max(abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True))
        texts = sum(a == b for a, b in zip(first.texts, one.texts, strict=True))
        told = (
            f"{same} of {len(pairs)} best letters equal, log-probabilities at most {apart:.1e} "
            f"apart; {texts} of {len(one.texts)} texts"
        )
        if one.routes[0]:
            equal = [
                (a == b).all(-1)
                for ours, other in zip(first.routes, one.routes, strict=True)
                for a, b in zip(ours, other, strict=True)
            ]
            share = torch.cat(equal).float().mean()
            told += f"; {100 * share:.2f} % of {sum(map(len, equal)):,} routes"
        print(f"{name}, {engine} in {dtype}: {told}", flush=True)


def ask(spec: RunSpec, engine: str, dtype: str, folder: Path) -> Answers:
    """One side's answers."""
    tokenizer = load_tokenizer(spec.model)
    checkpoint = Checkpoint(model=spec.model, dtype=dtype)
    backend: Any
    if engine == "vllm":
        backend = VllmCheckpoint(checkpoint=checkpoint).backend()
        through = partial(of_vllm, backend)
    else:
        model = load_model(spec.model, dtype=dtype)
        backend = LocalBackend(model, tokenizer)
        through = partial(of_local, model)
    lm = CheckpointLM.from_backend(backend, tokenizer)
    run = evaluate(spec, folder=folder, open_model=lambda *_: lm)
    samples = [one for task in run.samples.values() for one in task]
    prompts = [tokenizer(one.prompt).input_ids for one in samples]
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS)
    asked = [Prompt(np.array(ids, np.int32), settings) for ids in prompts[:TEXTS]]
    texts = {i: one.text for some in backend.generate(asked, None) for i, one in some}
    answers = Answers(
        [list(one.log_likelihoods) for one in samples],
        [texts[index] for index in range(len(asked))],
        [through(ids) for ids in prompts],
    )
    if engine == "vllm":
        backend.close()
    return answers


def of_local(model: Any, ids: list[int]) -> list[Tensor]:
    """The routes of one prompt, layer by layer in the order of the computation."""
    seen: list[Tensor] = []
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for router in routers:
        router.observer = lambda _, logits, index, weights: seen.extend(index.sort(-1)[0].unbind(1))
    with torch.no_grad():
        model(torch.tensor([ids]))
    for router in routers:
        router.observer = None
    return seen


def of_vllm(backend: Any, ids: list[int]) -> list[Tensor]:
    """The same of vLLM's one pass over the prompt."""
    seen: list[Tensor] = []
    logits_of = Mix.logits

    def watched(mix: Mix, *given: Any) -> list[Tensor]:
        logits = logits_of(mix, *given)
        for one, top_k in zip(logits, mix.top_k, strict=True):
            seen.append(choose_experts(one[: len(ids)], top_k)[0].sort(-1)[0])
        return logits

    Mix.logits = watched  # type: ignore[method-assign]
    try:
        key = backend._engine.ask(ids, new_tokens=1, use_cache=False)
        while not any(reply.key == key and reply.finished for reply in backend._engine.step()):
            pass
    finally:
        Mix.logits = logits_of  # type: ignore[method-assign]
    return seen


def best(letters: Sequence[float]) -> int:
    return max(range(len(letters)), key=letters.__getitem__)


def save_mixture(folder: Path, base: str) -> Path:
    """A MING adapter with experts drawn at random, large enough to matter beside the base's."""
    settings = MoLoraConfig(
        num_experts=EXPERTS,
        experts_per_token=CHOSEN,
        rank=RANK,
        alpha=2.0 * RANK,
        base=str(Path(base).resolve()),
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.02

    experts = {
        path: LinearExperts(
            a=draw(EXPERTS, RANK, linear.in_features),
            b=draw(EXPERTS, linear.out_features, RANK),
            router_weight=draw(EXPERTS, linear.in_features),
            router_bias=draw(EXPERTS),
            top_k=CHOSEN,
            scaling=settings.expert_scaling,
        )
        for path, linear in skeleton.named_modules()
        if ".mlp." in path and hasattr(linear, "in_features")
    }
    config = json.loads((Path(base) / "config.json").read_text("utf-8"))
    save_ming_v1(folder, settings=settings, model_config=config, experts=experts, attention={})
    return folder


if __name__ == "__main__":
    main()
