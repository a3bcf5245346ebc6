"""What an adapter's two JSON files say about its experts, cross-checked.

`adapter_config.json` is a PEFT LoRA config for the attention part; its r and lora_alpha hold for
the experts too. `config.json` is the base's config plus num_experts, num_experts_per_token,
expert_selection and so on. Where the two leave room, the choice is made here and noted:

- use_rslora: the MING trainer stores it in adapter_config.json alone, its loader reads it from
  config.json alone, so experts trained at alpha/sqrt(r) come back at alpha/r. We take the trained
  function: either file saying so is enough. `reference_compat` gives the loader's reading.
- no num_experts at all: 4 experts, 2 a token, as the reference assumes.
- expert_selection: "sampling" draws experts at random and is refused; every other word means the
  K largest, as in the reference, and an unknown one is noted.
- share_expert: the reference's loader never passes it on, so it changes nothing here either.
  Second-generation shared experts are known by their tensors, not by this flag.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.json_files import read_object, shown

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"

REFERENCE_EXPERTS, REFERENCE_TOP_K = 4, 2
"""What the reference assumes when config.json says nothing of experts."""

MOST_EXPERTS = 1024
"""More than this in a config is a mistake, and no reason to list a million missing tensors."""

_LARGEST_RANK = 2**20
"""Larger than any layer is wide."""

TOP_K_WORDS = ("top_k", "topk")

_FLAGS = ("use_rslora", "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out")

PLAIN_LORA: Mapping[str, Any] = {
    "use_dora": False,
    "use_qalora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "bias": "none",
    "use_bdlora": None,
    "kasa_config": None,
    "monteclora_config": None,
}
"""What leaves a LoRA a plain product beside an unchanged base.

Each of these fields changes the function; those that are not here, such as dropout, have no part in
what is computed.
"""

_WITHOUT_FUNCTION = frozenset(
    {
        # PEFT's: what a LoRA is on, where it came from, how it was begun and trained.
        *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "peft_version"),
        *("task_type", "inference_mode", "lora_dropout", "layers_pattern", "exclude_modules"),
        *("megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config"),
        *("lora_ga_config", "velora_config", "runtime_config", "qalora_group_size"),
        *("ensure_weight_tying", "merge_weights", "enable_lora", "arrow_config"),
        # The families': losses and draws of training.
        *("router_loss", "router_loss_coeff", "router_loss_mode", "router_aux_loss_coef"),
        *("router_init_range", "router_z_loss_coef", "router_dyn_loss_coef", "jitter_noise"),
        *("use_lbl_loss", "inference_path", "soft_select", "blc_alpha", "blc_weight"),
        *("sparse_step", "expert_capacity", "top_p", "temperature"),
    }
)
"""Fields that have no part in what these families compute with a finished adapter."""

_READ = frozenset(
    {
        *("r", "lora_alpha", "target_modules", "init_lora_weights", "layers_to_transform"),
        *("use_rslora", "num_experts", "num_experts_per_token", "expert_selection"),
        *("share_expert", "num_share_experts", "top_k", "act_fn", "expert_lora", "lora_nums"),
        *("routing_strategy", *PLAIN_LORA),
    }
)

ADAPTER_FIELDS = _WITHOUT_FUNCTION | _READ
"""What an adapter's files say of the adapter, wherever they stand beside a base's fields."""

HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to draw A and B that leave the base's weights as they are; others subtract from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoLoraConfig:
    """The settings of one adapter with experts, as they will be computed.

    `rank` and `alpha` are the experts', and the attention's too where it has none of its own.
    `experts_by_layer` is empty when every layer has `num_experts`, which is else the most.
    `act_fn` takes the place of the base's activation inside experts.
    """

    num_experts: int
    experts_per_token: int
    rank: int
    alpha: float
    expert_rslora: bool = False
    attention_rslora: bool = False
    attention_rank: int | None = None
    attention_alpha: float | None = None
    experts_by_layer: tuple[int, ...] = ()
    act_fn: str | None = None
    base: str | None = None
    target_modules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def expert_scaling(self) -> float:
        """What an expert's product is multiplied by."""
        return lora_scaling(self.alpha, self.rank, rslora=self.expert_rslora)

    @property
    def attention_scaling(self) -> float:
        """What the product of the attention's low-rank pair is multiplied by."""
        alpha = self.alpha if self.attention_alpha is None else self.attention_alpha
        return lora_scaling(alpha, self.pair_rank, rslora=self.attention_rslora)

    @property
    def pair_rank(self) -> int:
        """The rank of the attention's low-rank pairs."""
        return self.rank if self.attention_rank is None else self.attention_rank


def lora_scaling(alpha: float, rank: int, *, rslora: bool) -> float:
    """Gives alpha / r or, with rank stabilisation (arXiv 2312.03732), alpha / sqrt(r)."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: no such file, not JSON, or not an object.
    """
    return read_object(path, CheckpointError)


def read_config(
    adapter: Mapping[str, Any], model: Mapping[str, Any], *, reference_compat: bool = False
) -> MoLoraConfig:
    """The settings of an adapter from its adapter_config.json and config.json.

    A merged checkpoint has no adapter_config.json and keeps the same fields in config.json: pass
    that for both.

    Raises:
        CheckpointError: listing every field that is absent, senseless or not supported.
    """
    offences = [*lora_offences(adapter), *_mixture_offences(model)]
    if offences:
        raise CheckpointError(offence_list("the adapter's configuration cannot be used:", offences))
    num_experts = model.get("num_experts", REFERENCE_EXPERTS)
    top_k = model.get("num_experts_per_token", REFERENCE_TOP_K)
    targets = adapter.get("target_modules") or ()
    trained = bool(adapter.get("use_rslora"))
    stored = bool(model.get("use_rslora"))
    return MoLoraConfig(
        num_experts=num_experts,
        # A single expert has no router, and K means nothing.
        experts_per_token=1 if num_experts == 1 else top_k,
        rank=adapter["r"],
        alpha=adapter["lora_alpha"],
        expert_rslora=stored if reference_compat else trained or stored,
        attention_rslora=trained,
        base=adapter.get("base_model_name_or_path") or None,
        target_modules=() if isinstance(targets, str) else tuple(sorted(targets)),
        notes=tuple(_notes(adapter, model, reference_compat=reference_compat)),
    )


def lora_offences(adapter: Mapping[str, Any]) -> list[str]:
    """What a LoRA config lacks, or asks for that no format with experts has."""
    offences = []
    if not is_count(adapter.get("r")) or adapter["r"] > _LARGEST_RANK:
        offences.append(f"r must be a positive whole number, not {shown(adapter.get('r'))}")
    alpha = adapter.get("lora_alpha")
    # A whole number of thousands of digits is no float.
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e30:
        offences.append(f"lora_alpha must be a number above 0, not {shown(alpha)}")
    targets = adapter.get("target_modules")
    # MixLoRA's own files have names with a yes or no each.
    named = targets if isinstance(targets, list | dict) else [targets]
    if targets is not None and not all(isinstance(name, str) for name in named):
        offences.append(f"target_modules must be a list of names, not {shown(targets)}")
    if not isinstance(adapter.get("base_model_name_or_path", ""), str | None):
        offences.append(
            "base_model_name_or_path must be a directory or a hub id, not "
            f"{shown(adapter['base_model_name_or_path'])}"
        )
    for field, value in {**PLAIN_LORA, "layers_to_transform": None}.items():
        if (adapter.get(field) or value) != value:
            offences.append(f"{field} = {adapter[field]!r} is not supported, only {value!r}")
    if (start := adapter.get("init_lora_weights")) not in HARMLESS_STARTS:
        offences.append(f"init_lora_weights = {start!r} changes the base's weights")
    return [*offences, *flag_offences(adapter)]


def unknown_fields(fields: Mapping[str, Any], others: Iterable[str] = ()) -> list[str]:
    """The fields of an adapter's file that nobody here knows, unless they say nothing.

    Args:
        fields: of the file.
        others: names that are somebody else's, such as those of a model's config.
    """
    known = ADAPTER_FIELDS | {*others}
    return sorted(name for name, value in fields.items() if value and name not in known)


def flag_offences(fields: Mapping[str, Any]) -> list[str]:
    """The fields of a LoRA config that are to be true or false, and are something else."""
    # Any text is true to Python, "false" among them.
    return [
        f"{name} must be true or false: {shown(fields[name])}"
        for name in _FLAGS
        if not isinstance(fields.get(name), bool | None)
    ]


def _mixture_offences(model: Mapping[str, Any]) -> list[str]:
    offences = flag_offences(model)
    experts = model.get("num_experts", REFERENCE_EXPERTS)
    top_k = model.get("num_experts_per_token", REFERENCE_TOP_K)
    if "num_experts" in model and "num_experts_per_token" not in model:
        offences.append("num_experts_per_token is absent although num_experts is there")
    for field, value in (("num_experts", experts), ("num_experts_per_token", top_k)):
        if not is_count(value):
            offences.append(f"{field} must be a positive whole number, not {shown(value)}")
        elif value > MOST_EXPERTS:
            offences.append(f"{field} must be {MOST_EXPERTS} at most, not {value}")
    if is_count(experts) and is_count(top_k) and 1 < experts < top_k:
        offences.append(f"num_experts_per_token = {top_k} exceeds num_experts = {experts}")
    if model.get("expert_selection") == "sampling":
        offences.append(
            "expert_selection = 'sampling' draws experts at random, so that no two runs agree; "
            "set it to 'top_k' in config.json to evaluate the deterministic model"
        )
    return offences


def _notes(
    adapter: Mapping[str, Any], model: Mapping[str, Any], *, reference_compat: bool
) -> list[str]:
    notes = []
    if bool(adapter.get("use_rslora")) != bool(model.get("use_rslora")):
        told = "alpha/r" if reference_compat and adapter.get("use_rslora") else "alpha/sqrt(r)"
        notes.append(
            f"use_rslora differs between adapter_config.json ({adapter.get('use_rslora')}) and "
            f"config.json ({model.get('use_rslora')}): the experts are scaled by {told}"
            + (", as the reference loads them" if reference_compat else ", as they were trained")
        )
    if "num_experts" not in model:
        notes.append(
            f"config.json names no num_experts: {REFERENCE_EXPERTS} are assumed, with "
            f"{model.get('num_experts_per_token', REFERENCE_TOP_K)} a token, as the reference does"
        )
    word = model.get("expert_selection", "top_k")
    if word not in TOP_K_WORDS:
        notes.append(f"expert_selection = {word!r} is unknown and read as 'top_k'")
    return notes


def is_count(value: Any) -> bool:
    """Whether a value from JSON is a whole number from 1 up."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
