"""What is to be trained, on what, how, and who is told: without torch, checked before all else."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from mingmoe_eval.errors import UsageError, offence_list

Method = Literal["molora", "molora-balanced", "molora-contrastive", "lora"]
Anchors = Literal["router", "output"]
LrScheduler = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterObjective:
    """What is added to the token loss for the routers' sake; a coefficient of 0 adds nothing.

    `balance`, `z` and `contrast` are coefficients; see `router_losses` and `contrast` for the
    formulas. `responses_only` counts the tokens that are learned, not all that are no padding.
    `queue` is how many past sequences the expert memory keeps.
    """

    balance: float = 0.0
    z: float = 0.0
    contrast: float = 0.0
    anchors: Anchors = "router"
    temperature: float = 0.1
    queue: int = 16
    responses_only: bool = False

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficients that are not zero, by the name of what they weigh."""
        named = {"balance": self.balance, "z": self.z, "contrast": self.contrast}
        return {name: value for name, value in named.items() if value}


OBJECTIVES: dict[str, RouterObjective] = {
    "molora": RouterObjective(),
    # Switch Transformers (arXiv 2101.03961) and ST-MoE (arXiv 2202.08906) use these two.
    "molora-balanced": RouterObjective(balance=1e-2, z=1e-3),
    "molora-contrastive": RouterObjective(contrast=1e-2),
    "lora": RouterObjective(),
}
"""The objective that each method stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterShape:
    """Sizes of an adapter. Rank, alpha and rslora hold for experts and for the attention's LoRA.

    `targets` are names of linear layers, as `q_proj`, or `all`, that the LoRA is put on; None: all
    of attention, and without experts of the feed-forward blocks too.
    """

    num_experts: int = 4
    experts_per_token: int = 2
    rank: int = 16
    alpha: float = 32.0
    rslora: bool = False
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How training proceeds.

    `steps` overrules `epochs`. `batch_size` counts examples (packed: rows) a process and step;
    `accumulation` such batches make one step. `warmup` is the share of steps in which the learning
    rate rises, before it goes as `lr_scheduler` says. `bf16` computes in bfloat16 with
    fp32 adapters and routers. `keep` is how many of the newest training states stay on disk; None
    keeps all.
    """

    learning_rate: float = 2e-4
    epochs: float = 1.0
    steps: int | None = None
    batch_size: int = 8
    accumulation: int = 1
    lr_scheduler: LrScheduler = "cosine"
    warmup: float = 0.03
    seed: int = 0
    bf16: bool = False
    gradient_checkpointing: bool = False
    log_every: int = 10
    save_every: int = 500
    keep: int | None = 2

    def offences(self) -> list[str]:
        """What makes no sense in it."""
        offences = [
            f"{name} must be at least 1, not {value}"
            for name, value in (
                ("steps", 1 if self.steps is None else self.steps),
                ("batch size", self.batch_size),
                ("accumulation", self.accumulation),
                ("log-every", self.log_every),
                ("save-every", self.save_every),
                ("keep", 1 if self.keep is None else self.keep),
            )
            if value < 1
        ]
        for name, number in (("learning rate", self.learning_rate), ("epochs", self.epochs)):
            if not (math.isfinite(number) and number > 0):
                offences.append(f"{name} must be above 0, not {number}")
        if self.lr_scheduler not in get_args(LrScheduler):
            known = ", ".join(get_args(LrScheduler))
            offences.append(f"no lr-scheduler {self.lr_scheduler!r}: there are {known}")
        if not 0 <= self.warmup < 1:
            offences.append(f"warmup is a share of all steps, from 0 to below 1, not {self.warmup}")
        # A logged loss is a mean since the last line: a state saved between two lines would make
        # the first line after a resume a mean over fewer steps than it was.
        if not offences and self.save_every % self.log_every:
            offences.append(
                f"save-every ({self.save_every}) must be a multiple of log-every ({self.log_every})"
            )
        return offences


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Conversations that are not learned from, whose loss is taken again and again.

    Attributes:
        files: files of their own.
        split: or this share of each file's conversations.
        every: steps between two looks; None: as often as a training state is saved.
        patience: training stops after so many looks without a lower loss than before; None: never.
    """

    files: tuple[Path, ...] = ()
    split: float = 0.0
    every: int | None = None
    patience: int | None = None

    def __bool__(self) -> bool:
        return bool(self.files) or self.split > 0

    def offences(self, log_every: int) -> list[str]:
        """What makes no sense in it."""
        offences = []
        if self.files and self.split:
            offences.append("held-out conversations come from eval-data or eval-split, not both")
        if not 0 <= self.split < 1:
            offences.append(f"eval-split is a share, from 0 to below 1, not {self.split}")
        if not self and (self.every, self.patience) != (None, None):
            offences.append("eval-every and patience need eval-data or eval-split")
        for name, value in (("eval-every", self.every), ("patience", self.patience)):
            if value is not None and value < 1:
                offences.append(f"{name} must be at least 1, not {value}")
        # As for training states: whenever the loss is lowest one is saved.
        if not offences and self.every is not None and log_every >= 1 and self.every % log_every:
            offences.append(
                f"eval-every ({self.every}) must be a multiple of log-every ({log_every})"
            )
        return offences


@dataclass(frozen=True, slots=True)
class DataStream:
    """A file of conversations, and its share of what is trained on; None: by its size."""

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> "DataStream":
        """Reads `FILE` or `FILE=WEIGHT`.

        Raises:
            UsageError: a weight that is no number above 0.
        """
        path, _, weight = text.rpartition("=")
        if not path:
            return cls(Path(text))
        try:
            number = float(weight)
        except ValueError:
            # A file may have = in its name.
            return cls(Path(text))
        if not (math.isfinite(number) and number > 0):
            raise UsageError(f"--data {text}: a weight must be above 0")
        return cls(Path(path), number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """One training: everything that its outcome depends on, but for the contents of files.

    `start` is a finished adapter of this method and shape that goes on; None: a fresh one.
    `packing` puts several conversations into one row of up to `max_tokens`.
    """

    base: str
    data: tuple[DataStream, ...]
    method: Method = "molora"
    shape: AdapterShape = field(default_factory=AdapterShape)
    objective: RouterObjective = field(default_factory=RouterObjective)
    schedule: Schedule = field(default_factory=Schedule)
    max_tokens: int = 2048
    chat_template: Path | None = None
    skip_too_long: bool = False
    held_out: HeldOut = field(default_factory=HeldOut)
    packing: bool = False
    start: str | None = None

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
            UsageError: listing every offence.
        """
        offences = [*self._method_offences(), *self.schedule.offences()]
        offences += self.held_out.offences(self.schedule.log_every)
        if not self.data:
            offences.append("no data: give at least one file of conversations")
        if len({stream.weight is None for stream in self.data}) > 1:
            offences.append("either every --data has a weight or none has")
        if self.shape.rank < 1:
            offences.append(f"rank must be at least 1, not {self.shape.rank}")
        if not (math.isfinite(self.shape.alpha) and self.shape.alpha > 0):
            offences.append(f"alpha must be above 0, not {self.shape.alpha}")
        if self.max_tokens < 2:
            offences.append(f"max-tokens must be at least 2, not {self.max_tokens}")
        if self.packing and self.objective.contrast:
            # Its anchors are means over a row, which must be one conversation.
            offences.append("the contrastive loss pools a conversation a row: not with packing")
        if offences:
            raise UsageError(offence_list("this training makes no sense:", offences))

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for the record beside the checkpoint."""
        data = dataclasses.asdict(self)
        data["data"] = [{"path": str(s.path), "weight": s.weight} for s in self.data]
        data["held_out"]["files"] = [str(path) for path in self.held_out.files]
        targets = self.shape.targets
        data["shape"]["targets"] = None if targets is None else list(targets)
        data["chat_template"] = None if self.chat_template is None else str(self.chat_template)
        return data

    def _method_offences(self) -> list[str]:
        if self.method not in get_args(Method):
            return [f"no method {self.method!r}: there are {', '.join(get_args(Method))}"]
        objective = self.objective
        if self.method == "lora":
            used = ", ".join(objective.coefficients)
            return [f"method lora has no routers, so no use for {used}"] if used else []
        offences = []
        count, top_k = self.shape.num_experts, self.shape.experts_per_token
        if count < 2:
            offences.append(f"{count} expert is no mixture: take --method lora")
        if not 2 <= top_k <= max(count, 2):
            # One expert's weight is a softmax over one logit: 1, whatever the router says.
            offences.append(
                f"experts per token must be from 2 to {count}, not {top_k}: with 1, the token loss "
                "gives the router no gradient"
            )
        if any(value < 0 or not math.isfinite(value) for value in objective.coefficients.values()):
            offences.append("coefficients of the router's losses must not be negative")
        if objective.anchors not in get_args(Anchors):
            offences.append(f"no anchors {objective.anchors!r}: there are router and output")
        if objective.temperature <= 0:
            offences.append(f"temperature must be above 0, not {objective.temperature}")
        if objective.queue < 1:
            offences.append(f"queue must be at least 1, not {objective.queue}")
        return offences


class TrainingWatch(Protocol):
    """Told of what happens; a command shows it, a script may pass it over."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """So many of all steps are done; with the loss where one was computed."""


class Silence:
    """A watch that passes everything over."""

    def note(self, text: str) -> None:
        """Passes it over."""

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """Passes it over."""
