"""LoRAHub for causal models: one LoRA from several, by weights found without gradients.

After LoRAHub (arXiv 2307.13269). For L finished adapters, at every layer

    A = sum_j w_j A_j        B = sum_j w_j B_j        weight change s B A

so that the product has cross terms: it is no sum of the adapters' products. The weights are sought
in [-1.5, 1.5], from zero, by nevergrad's NGOpt within a budget of steps, so as to make

    few-shot loss + 0.05 * mean_j |w_j|

small. Cross terms hang on how a product is split into A and B: adapters are first brought to one
rank and one scaling, see `finished_loras`.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import UsageError
from mingmoe_eval.extras import how_to_install
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora import peft_door
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM
from mingmoe_eval.molora.peft_door import PeftModel
from mingmoe_eval.training.conversations import read_conversations
from mingmoe_eval.training.examples import (
    EncodedStream,
    Example,
    encode_stream,
    load_chat_tokenizer,
)
from mingmoe_eval.training.fine_tuning import base_name, load_base
from mingmoe_eval.training.finished_loras import AlignedLoras, align, common_base, read_loras
from mingmoe_eval.training.held_out import summed_loss
from mingmoe_eval.training.output_folder import (
    claim_output,
    move_files,
    staging_folder,
    telling,
    write_record,
)
from mingmoe_eval.training.spec import Schedule, Silence, TrainingWatch

BOUND = 1.5
L1 = 0.05
RECORD_FILE = "composition.json"

Objective = Callable[[Sequence[float]], float]
Search = Callable[[Objective, int], list[float]]
"""Finds weights, so many of them, that make an objective small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositionSpec:
    """What is to be composed: adapters, the few examples, and how long to search."""

    adapters: tuple[str, ...]
    few_shot: Path
    base: str | None = None
    steps: int = 40
    seed: int = 42
    bf16: bool = False
    max_tokens: int = 2048
    chat_template: Path | None = None

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
            UsageError: no step at all.
        """
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}")


@quiet_libraries()
def compose_adapter(
    spec: CompositionSpec,
    output: Path,
    *,
    search: Search | None = None,
    watch: TrainingWatch | None = None,
) -> dict[str, Any]:
    """Composes adapters into one and writes it as an ordinary PEFT LoRA adapter.

    Args:
        spec: what to compose.
        output: a folder that is empty or not there yet.
        search: finds the weights; default NGOpt with the spec's steps and seed.
        watch: told of progress.

    Returns:
        What is written as composition.json: sources, weights, losses on the few examples (the
        base's own too) and settings. The weights are also in the tensor file's metadata.

    Raises:
        MingMoeError: adapters, base or examples that cannot be used; before any search.
    """
    watch = watch or Silence()
    spec.check()
    search = search or _ngopt(spec.steps, spec.seed)
    loras = read_loras(spec.adapters)
    base_source = common_base(loras, spec.base)
    examples = read_examples(spec, base_source).examples
    base = load_base(base_source, Schedule(bf16=spec.bf16))
    aligned = align(loras, base)
    claim_output(output)
    model = _blank(base, aligned)
    losses: list[float] = []

    def objective(weights: Sequence[float]) -> float:
        set_weights(model, aligned, weights)
        losses.append(few_shot_loss(model, examples))
        watch.step_done(len(losses), spec.steps, losses[-1])
        return losses[-1] + L1 * float(sum(map(abs, weights))) / len(weights)

    weights = search(objective, len(aligned.sources))
    without = _loss_at(model, aligned, [0.0] * len(weights), examples)
    reached = _loss_at(model, aligned, weights, examples)
    if reached >= without:
        watch.note("the composition is no better on the few examples than the base alone")
    record = {
        "method": "lorahub",
        "base": base_name(base_source),
        "weights": dict(zip(aligned.sources, weights, strict=True)),
        "few_shot": str(spec.few_shot),
        "few_shot_loss": reached,
        "few_shot_loss_of_base": without,
        "steps": spec.steps,
        "seed": spec.seed,
        "bound": BOUND,
        "l1": L1,
    }
    _write(model, output, record)
    return record


def set_weights(model: PeftModel, aligned: AlignedLoras, weights: Sequence[float]) -> None:
    """Makes the model's LoRA the sum of the adapters with these weights."""
    mix = torch.tensor(list(weights), dtype=torch.float32)
    with torch.no_grad():
        for path, a, b in peft_door.live_pairs(model.get_base_model()):
            stacked_a, stacked_b = aligned.layers[path]
            a.copy_(_weighted(mix, stacked_a))
            b.copy_(_weighted(mix, stacked_b))


def read_examples(spec: CompositionSpec, base: str) -> EncodedStream:
    """The few examples, encoded as for training."""
    tokenizer = load_chat_tokenizer(base, spec.chat_template)
    conversations = read_conversations(spec.few_shot)
    return encode_stream(str(spec.few_shot), conversations, tokenizer, spec.max_tokens)


def few_shot_loss(model: nn.Module, examples: Sequence[Example], batch_size: int = 8) -> float:
    """Mean negative log-likelihood, in nats, of the learned tokens of all examples together."""
    loss, tokens = summed_loss(model, examples, batch_size).tolist()
    return float(loss / tokens)


def _weighted(mix: Tensor, stacked: Tensor) -> Tensor:
    return torch.einsum("l,lij->ij", mix, stacked)


def _loss_at(
    model: PeftModel, aligned: AlignedLoras, weights: Sequence[float], examples: Sequence[Any]
) -> float:
    set_weights(model, aligned, weights)
    return few_shot_loss(model, examples)


def _blank(base: PreTrainedModel, aligned: AlignedLoras) -> PeftModel:
    """The base with a LoRA on every layer that any adapter touches."""
    # Whole paths: an adapter may touch q_proj in one block alone.
    targets = list(aligned.layers)
    return peft_door.add_lora(base, rank=aligned.rank, alpha=aligned.alpha, targets=targets).eval()


def _write(model: PeftModel, output: Path, record: dict[str, Any]) -> None:
    staging = staging_folder(output)
    with telling(output):
        peft_door.save_adapter(model, staging, base=record["base"])
        tensors = staging / f"{ATTENTION_STEM}.safetensors"
        metadata = {"format": "pt", "composition": json.dumps(record, ensure_ascii=False)}
        save_file(load_file(tensors), tensors, metadata=metadata)
        write_record(staging / RECORD_FILE, record)
    move_files(staging, output)


def _ngopt(steps: int, seed: int) -> Search:
    """NGOpt, as LoRAHub uses it.

    Raises:
        UsageError: nevergrad is not installed.
    """
    try:
        import nevergrad  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(f"composing needs nevergrad: {how_to_install('train')}") from error

    def search(objective: Objective, count: int) -> list[float]:
        space = nevergrad.p.Array(init=[0.0] * count, lower=[-BOUND] * count, upper=[BOUND] * count)
        space.random_state.seed(seed)
        optimiser = nevergrad.optimizers.NGOpt(parametrization=space, budget=steps)
        with warnings.catch_warnings():
            # Its inner optimisers warn of budgets too small for their taste.
            warnings.simplefilter("ignore")
            best = optimiser.minimize(objective)
        return [float(weight) for weight in best.value]

    return search
