"""What a training step with routed experts costs, beside a plain LoRA and the reference's way.

Three adapters on one frozen base of Qwen2's shape (width 1,024, inner 2,816, 2 layers, vocabulary
4,096), each with a LoRA of rank 16 on its attention:

- `lora`: PEFT's LoRA on the feed-forward layers too, of the rank that gives as many trained numbers
- `ours`: 8 routed experts of rank 16, two a token, with what the trainer watches and adds for
  routers; `balanced` and `contrastive` with the losses of those methods
- `reference`: the same experts by the training path of the MING-MOE reference, written anew
  (github.com/MediaBrain-SJTU/MING, ming/model/utils.py): all experts' outputs are stacked to
  [experts, tokens, out] for each linear layer, and the chosen ones gathered from the stack

A step is forward, backward and AdamW, on 4 rows of 128 tokens. Sides alternate and the median over
rounds of the ratio within a round counts. Ours and the reference hold the same weights: logits and
gradients are compared before anything is timed. Memory is counted and not sampled: every allocation
and release of the forward and the backward pass, as torch's profiler records them, summed up.

With `--base` the first two stand on that model, and its own vocabulary and depth, instead.

    python benchmarks/training_speed.py [--quick] [--cpu-seconds] [--base DIR [--bf16]]
"""

import ctypes
import gc
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from workload import choose_clock, common_arguments, paired_seconds, ratio

from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts
from mingmoe_eval.training.adapters import ATTENTION_LINEARS, fresh_molora
from mingmoe_eval.training.router_supervision import RouterSupervision, RoutingWatch
from mingmoe_eval.training.spec import OBJECTIVES, AdapterShape

Clock = Callable[[], float]

SHAPE = AdapterShape(num_experts=8, experts_per_token=2, rank=16, alpha=32.0)
ROWS, TOKENS, VOCABULARY = 4, 128, 4096


class StackedExperts(nn.Module):
    """One linear layer with experts, every expert's output for every token held at once."""

    def __init__(self, base: nn.Module, experts: LinearExperts) -> None:
        super().__init__()
        self.base, self.scaling, self.top_k = base, experts.scaling, experts.top_k
        self.a = nn.ParameterList(nn.Parameter(a.detach().clone()) for a in experts.a)
        self.b = nn.ParameterList(nn.Parameter(b.detach().clone()) for b in experts.b)
        self.router = nn.Linear(experts.a.shape[2], len(experts.a))
        self.router.weight.data.copy_(experts.router_weight)
        self.router.bias.data.copy_(experts.router_bias)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        tokens = x.reshape(-1, x.shape[-1])
        top, index = torch.topk(self.router(tokens), self.top_k)
        weights = torch.softmax(top, dim=-1)
        stacked = torch.stack(
            [
                nn.functional.linear(nn.functional.linear(tokens, a), b) * self.scaling
                for a, b in zip(self.a, self.b, strict=True)
            ]
        )
        wide = index.T.unsqueeze(-1).expand(-1, -1, stacked.shape[-1])
        chosen = stacked.gather(0, wide)
        part = (weights.T.unsqueeze(-1) * chosen).sum(0)
        return self.base(x) + part.view(*x.shape[:-1], -1)


def new_base() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).requires_grad_(False)


def load_base(name: str, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype).requires_grad_(False)


def lora_of_equal_size(numbers: int, make: Callable[[], PreTrainedModel] = new_base) -> nn.Module:
    """Rank 16 on attention; on the feed-forward layers the rank that comes nearest to `numbers`."""

    def with_rank(rank: int) -> nn.Module:
        targets = [*ATTENTION_LINEARS, *FFN_LINEARS]
        ranks = dict.fromkeys(FFN_LINEARS, rank)
        config = LoraConfig(
            r=SHAPE.rank,
            lora_alpha=SHAPE.alpha,
            target_modules=targets,
            rank_pattern=ranks,
            alpha_pattern=dict.fromkeys(FFN_LINEARS, 2 * rank),
        )
        return get_peft_model(make(), config)

    step = trained(with_rank(2)) - trained(with_rank(1))
    return with_rank(1 + round((numbers - trained(with_rank(1))) / step))


def ours_and_reference() -> tuple[nn.Module, nn.Module]:
    """The same experts, with a B that is not zero, computed in two ways."""
    ours = fresh_molora(new_base(), SHAPE, seed=0)
    reference = fresh_molora(new_base(), SHAPE, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in routed_experts(ours):
            for b in module.lora_b:
                b.copy_(torch.randn(b.shape, generator=generator) * 0.02)
    for one, layer in zip(
        ours.get_base_model().model.layers, reference.get_base_model().model.layers, strict=True
    ):
        ffn = layer.mlp
        for module in routed_experts(one.mlp):
            for path, experts in zip(module.paths, module.unstack(), strict=True):
                name = path.rpartition(".")[2]
                setattr(ffn, name, StackedExperts(getattr(ffn, name), experts))
        layer.mlp = PlainBlock(ffn)
    return ours, reference


class PlainBlock(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, ffn: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = ffn.gate_proj, ffn.up_proj, ffn.down_proj
        self.act_fn = ffn.act_fn

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class Stepper:
    """A model with its optimiser and one batch."""

    def __init__(self, model: nn.Module, *, bf16: bool = False) -> None:
        self.model, self.bf16 = model.train(), bf16
        self.optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=1e-4
        )
        generator = torch.Generator().manual_seed(2)
        self.ids = torch.randint(VOCABULARY, (ROWS, TOKENS), generator=generator)

    def loss(self) -> Tensor:
        """A forward pass."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss

    def step(self) -> None:
        """Forward, backward, optimiser."""
        self.optimiser.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimiser.step()


class SupervisedStepper(Stepper):
    """The same with what the trainer adds for routers: their loads, and their losses if any."""

    def __init__(self, model: nn.Module, method: str, *, bf16: bool = False) -> None:
        super().__init__(model, bf16=bf16)
        self.watch = RoutingWatch(model, OBJECTIVES[method])
        self.supervision = RouterSupervision(OBJECTIVES[method])

    def loss(self) -> Tensor:  # noqa: D102
        with self.watch.forward(torch.ones_like(self.ids)) as seen:
            loss = super().loss()
        return loss + self.supervision.loss(seen)


def peak_bytes(stepper: Stepper) -> int:
    """The most that forward and backward pass hold at once above what was there before."""
    stepper.optimiser.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        stepper.loss().backward()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def resident_peak(stepper: Stepper) -> int:
    """The most that a step adds to what the process holds, as Linux counts it.

    The profiler takes minutes over the events of a real model.
    """

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

    # What an earlier step freed is given back, or this one would find its room ready.
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the high-water mark begins anew
    before = resident("VmRSS")
    stepper.step()
    return resident("VmHWM") - before


def compare(ours: Stepper, reference: Stepper) -> tuple[float, float]:
    """The largest difference of logits, and of gradients as a part of their tensor's largest."""
    with torch.no_grad():
        logits = [
            side.model(input_ids=side.ids, use_cache=False).logits for side in (ours, reference)
        ]
    for side in (ours, reference):
        side.loss().backward()
    pairs = zip(expert_gradients(ours.model), stacked_gradients(reference.model), strict=True)
    worst = max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs)
    return float((logits[0] - logits[1]).abs().max()), worst


def expert_gradients(model: nn.Module) -> list[Tensor]:
    """A [N*r, in], B [N*r, out], router [N, in] and its bias, layer by layer."""
    gradients = []
    for module in routed_experts(model):
        layers = len(module.paths)
        gradients += [
            gradient
            for parts in zip(
                module.lora_a.grad.chunk(layers),
                [b.grad for b in module.lora_b],
                module.router.grad.chunk(layers),
                module.router_bias.grad,
                strict=True,
            )
            for gradient in parts
        ]
    return gradients


def stacked_gradients(model: nn.Module) -> list[Tensor]:
    """The same of the reference, in the same order."""
    gradients = []
    for module in model.modules():
        if isinstance(module, StackedExperts):
            gradients += [
                torch.cat([a.grad for a in module.a]),
                torch.cat([b.grad.T for b in module.b]),
                module.router.weight.grad,
                module.router.bias.grad,
            ]
    return gradients


def on_real_base(
    make: Callable[[], PreTrainedModel], rounds: int, clock: Clock, bf16: bool
) -> None:
    """A step and its memory beside PEFT and transformers alone."""
    with_experts = fresh_molora(make(), SHAPE, seed=0)
    sides = {
        "ours": SupervisedStepper(with_experts, "molora", bf16=bf16),
        "lora": Stepper(lora_of_equal_size(trained(with_experts), make), bf16=bf16),
    }
    print("trained numbers:", ", ".join(f"{n} {trained(s.model)}" for n, s in sides.items()))
    for name, side in sides.items():
        side.step()
        print(f"{name}: {resident_peak(side) / 2**20:.0f} MiB more at a step's peak", flush=True)
    seconds = paired_seconds(rounds, clock, **{name: side.step for name, side in sides.items()})
    for name, spent in seconds.items():
        print(f"{name}: {median(spent):.2f} s a step")
    print(f"step of ours over lora: {ratio(seconds['ours'], seconds['lora'])}")


def main() -> None:
    parser = common_arguments(__doc__.partition("\n")[0])
    parser.add_argument("--base", help="a directory or hub id; only ours and lora")
    parser.add_argument("--bf16", action="store_true", help="with --base: the base in bfloat16")
    options = parser.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    if options.base is not None:
        dtype = torch.bfloat16 if options.bf16 else torch.float32
        make = partial(load_base, options.base, dtype)
        on_real_base(make, 5 if options.quick else 11, clock, options.bf16)
        return
    with_experts, stacked = ours_and_reference()
    sides = {
        "ours": SupervisedStepper(with_experts, "molora"),
        "lora": Stepper(lora_of_equal_size(trained(with_experts))),
        "reference": Stepper(stacked),
        **{
            kind: SupervisedStepper(fresh_molora(new_base(), SHAPE, seed=0), f"molora-{kind}")
            for kind in ("balanced", "contrastive")
        },
    }
    print("trained numbers:", ", ".join(f"{n} {trained(s.model)}" for n, s in sides.items()))
    logit, gradient = compare(sides["ours"], sides["reference"])
    print(f"ours and the reference: logits differ by {logit:.1e}, gradients by {gradient:.1e}")
    for side in sides.values():
        side.step()
    peaks = {name: peak_bytes(side) / 2**20 for name, side in sides.items()}
    print("peak of forward and backward, MiB:", ", ".join(f"{n} {p:.1f}" for n, p in peaks.items()))
    print(f"ours of the reference's: {peaks['ours'] / peaks['reference']:.3f}")
    rounds = 5 if options.quick else 21
    seconds = paired_seconds(rounds, clock, **{name: side.step for name, side in sides.items()})
    for above, below in (
        ("ours", "lora"),
        ("reference", "ours"),
        ("balanced", "lora"),
        ("contrastive", "lora"),
    ):
        print(f"step of {above} over {below}: {ratio(seconds[above], seconds[below])}")


if __name__ == "__main__":
    main()
