"""lm-eval's command line in the words of ours: understood, or answered with what to say instead.

Somebody who comes from there types `--model hf --model_args pretrained=ckpt/ --batch_size auto:4`.
What means the same here is taken; what has no counterpart is refused, all of it in one message.
Options that differ only in `_` for `-` are looked up among our own, whatever those are.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mingmoe_eval.engine.served_address import PREFIX, without_credentials
from mingmoe_eval.errors import UsageError, offence_list

_SHORT = {
    "-a": "model_args",
    "-b": "batch_size",
    "-c": "use_cache",
    "-C": "config",
    "-E": "samples",
    "-f": "num_fewshot",
    "-L": "limit",
    "-m": "model",
    "-M": "model",
    "-o": "output_path",
    "-s": "log_samples",
    "-t": "tasks",
    "-v": "verbosity",
    "-w": "write_out",
    "-x": "predict_only",
}
_WITHOUT_VALUE = {
    *("log_samples", "write_out", "check_integrity", "show_config", "predict_only"),
    *("trust_remote_code", "confirm_run_unsafe_code"),
}
_PERHAPS_A_VALUE = {"apply_chat_template", "fewshot_as_multiturn", "cache_requests"}
_SEVERAL_VALUES = {
    *("tasks", "model_args", "gen_kwargs", "metadata", "wandb_args", "wandb_config_args"),
    *("trackio_args", "hf_hub_log_args"),
}
_ONE_VALUE = {
    *("model", "num_fewshot", "batch_size", "max_batch_size", "device", "output_path", "limit"),
    *("use_cache", "samples", "system_instruction", "include_path", "verbosity", "seed", "config"),
}
_KNOWN = _WITHOUT_VALUE | _PERHAPS_A_VALUE | _SEVERAL_VALUES | _ONE_VALUE

_NEEDLESS = {
    "log_samples": "samples are always kept",
    "use_cache": "answers are always kept for the next run; --no-cache asks again",
    "cache_requests": "prompts are never kept, only answers",
    "max_batch_size": "the largest batch is what memory allows",
    "verbosity": "there are no levels of talk",
    "write_out": "every prompt stands in the run's samples",
    "show_config": "every setting stands in the run's run.json and eval.yaml",
    "check_integrity": "every definition is checked as it is read",
    "fewshot_as_multiturn": "examples are turns wherever the chat template is used",
    "confirm_run_unsafe_code": "no task of ours runs what a model writes",
}
_REFUSED = {
    "predict_only": "score the run again at any time with `mingmoe-eval rescore`",
    "samples": "--limit N takes the first N docs of each task",
    "trust_remote_code": "code that comes with a checkpoint is never run",
    "metadata": "--data-dir names local data",
    "wandb_args": "read run.json, or the report",
    "wandb_config_args": "read run.json, or the report",
    "trackio_args": "read run.json, or the report",
    "hf_hub_log_args": "read run.json, or the report",
}

IN_OUR_WORDS: Mapping[str, str] = {
    "model_args": "model, base, dtype and device, each an option of its own",
    "output_path": "output",
    "apply_chat_template": "chat_template",
    **{name: f"leave it out: {reason}" for name, reason in _NEEDLESS.items()},
    **_REFUSED,
}
"""What to write instead of a setting of lm-eval's, for one that meets it in a file."""

_LOCAL = {"hf", "hf-auto", "huggingface"}
_SERVED = {
    "local-completions": False,
    "openai-completions": False,
    "local-chat-completions": True,
    "openai-chat-completions": True,
}
"""Whether it is a chat that the endpoint is sent."""
_ENGINES = {"vllm"}
_FOREIGN_MODELS = {
    *("anthropic-chat", "anthropic-chat-completions", "anthropic-completions", "gguf", "ggml"),
    *("hf-multimodal", "hf-mistral3", "litellm", "mamba_ssm", "megatron_lm", "nemo_lm", "neuronx"),
    *("openvino", "sparseml", "steered", "textsynth", "vllm-vlm", "watsonx_llm", "ipex", "trtllm"),
}
_NAMES_OF_ARGS = {
    "max_gen_toks": "max_new_tokens",
    "tensor_parallel_size": "tensor_parallel",
    "gpu_memory_utilization": "gpu_memory",
    "max_length": "max_model_len",
}
_NEEDLESS_ARGS = {
    *("parallelize", "use_fast_tokenizer", "tokenizer_backend", "tokenized_requests"),
    *("max_retries", "timeout", "eos_string", "verify_certificate", "backend"),
}


@dataclass(slots=True)
class _Said:
    """What becomes of the words: ours, what was left out, and what cannot be said here."""

    options: Collection[str]
    words: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def in_our_words(words: Sequence[str], options: Collection[str]) -> list[str]:
    """The words of `mingmoe-eval run`; those of ours come back as they are.

    Args:
        words: What was typed.
        options: The options that there are here, with their dashes.

    Raises:
        UsageError: some of lm-eval's options have no counterpart; all of them are listed.
    """
    parts = list(_parts(words, options))
    if not any(_is_lm_evals(name, values, typed, options) for name, values, typed in parts):
        return list(words)
    said = _Said(options)
    by_name = {name: values for name, values, _ in parts if name}
    is_theirs = "model_args" in by_name
    for name, values, typed in parts:
        if name == "model_args" or (name == "model" and is_theirs):
            continue
        _say(said, name, values, typed, is_theirs=is_theirs)
    if is_theirs:
        _say_model(said, _kind(by_name), by_name.get("model_args", []))
        _say_template(said, _kind(by_name), "apply_chat_template" in by_name)
    if said.refused:
        raise UsageError(offence_list("lm-eval's options that are others here", said.refused))
    shown = shlex.join(map(without_credentials, said.words))
    print(f"note: in our words: mingmoe-eval {shown}", file=sys.stderr)
    for reason in said.left_out:
        print(f"note: left out: {reason}", file=sys.stderr)
    return said.words


_Part = tuple[str, list[str], list[str]]
"""An option's name as lm-eval has it ("" for one it does not know), its values, and the words."""


def _parts(words: Sequence[str], options: Collection[str]) -> Iterator[_Part]:
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        name = _SHORT.get(word, "") if word not in options else ""
        if not name and flag.startswith("--"):
            name = flag.removeprefix("--").replace("-", "_")
        if name not in _KNOWN:
            yield "", [], [word]
            continue
        most = _most_values(name)
        if equals and flag.startswith("--"):
            yield name, [value], [word]
            continue
        count = 0
        # A value may begin with a dash only where exactly one is due: `--limit -3`.
        while count < min(most, len(left)) and (name in _ONE_VALUE or left[count][:1] != "-"):
            count += 1
        values, left = left[:count], left[count:]
        yield name, values, [word, *values]


def _most_values(name: str) -> int:
    if name in _WITHOUT_VALUE:
        return 0
    return sys.maxsize if name in _SEVERAL_VALUES else 1


def _is_lm_evals(
    name: str, values: Sequence[str], typed: Sequence[str], options: Collection[str]
) -> bool:
    if not name:
        return False
    flag = typed[0].partition("=")[0]
    return (
        flag not in options
        or (name == "batch_size" and values[:1] != ["auto"] and "auto:" in "".join(values))
        or (name == "tasks" and (len(values) > 1 or values == ["list"]))
        or (name == "seed" and "," in "".join(values))
        or (name == "limit" and "." in "".join(values))
    )


def _kind(by_name: Mapping[str, Sequence[str]]) -> str:
    """lm-eval's own default is a checkpoint of transformers."""
    return "".join(by_name.get("model", ["hf"])[:1])


def _say(said: _Said, name: str, values: list[str], typed: list[str], *, is_theirs: bool) -> None:
    value = values[0] if values else ""
    ours = f"--{name.replace('_', '-')}"
    if not name:
        said.words += typed
    elif name == "apply_chat_template":
        if value.lower() in ("", "true"):
            said.words.append("--chat-template")
        elif value.lower() != "false":
            said.refused.append(f"--{name} {value}: the tokenizer's own template is used, no other")
    elif name == "output_path":
        said.words += ["--output", value]
    elif name == "batch_size" and value.startswith("auto:"):
        said.words += [ours, "auto"]
    elif name == "seed" and "," in value:
        seeds = set(value.split(",")) - {"None"}
        if len(seeds) == 1:
            said.words += [ours, *seeds]
        else:
            said.refused.append(f"--seed {value}: one seed is for all that is random, such as 1234")
    elif name == "limit" and "." in value:
        whole, _, rest = value.partition(".")
        if whole.strip("0") and not rest.strip("0"):
            said.words += [ours, whole]
        else:
            said.refused.append(f"--limit {value}: how many docs of each task, not which share")
    elif name == "tasks" and value == "list":
        said.refused.append("--tasks list: `mingmoe-eval tasks`")
    elif ours in said.options:
        said.words += [ours, ",".join(values)] if values else [ours]
    elif name in _NEEDLESS:
        said.left_out.append(f"--{name}: {_NEEDLESS[name]}")
    else:
        said.refused.append(f"--{name}: {_REFUSED.get(name, 'nothing here is like it')}")


def _say_model(said: _Said, kind: str, texts: Sequence[str]) -> None:
    arguments = _arguments(texts)
    if kind in _SERVED:
        said.words[:0] = _served_model(said, kind, arguments)
    elif kind == "sglang" or (kind in _ENGINES and "--backend" not in said.options):
        said.refused.append(f"--model {kind}: serve it, and name it --model {PREFIX}http://...")
    elif kind in _LOCAL | _ENGINES:
        said.words[:0] = _local_model(said, arguments)
        said.words += ["--backend", kind] if kind in _ENGINES else []
    elif kind in _FOREIGN_MODELS:
        said.refused.append(f"--model {kind}: checkpoints of transformers and endpoints are read")
    else:
        said.refused.append(f"--model {kind} with --model_args: name dtype, device and base alone")
    for name, value in arguments.items():
        option = f"--{_NAMES_OF_ARGS.get(name, name).replace('_', '-')}"
        if name == "api_key":
            said.refused.append("model_args api_key: keys come from MINGMOE_API_KEY alone")
        elif name == "enable_thinking" and value.lower() in ("true", "false"):
            said.words += ["--thinking", "on" if value.lower() == "true" else "off"]
        elif name in _NEEDLESS_ARGS or value in ("False", "None", "false"):
            said.left_out.append(f"model_args {name}={value}")
        elif option in said.options:
            said.words += [option] if value in ("True", "true") else [option, value]
        else:
            said.refused.append(f"model_args {name}={value}: nothing here is like it")


def _local_model(said: _Said, arguments: dict[str, str]) -> list[str]:
    pretrained = arguments.pop("pretrained", "")
    adapter = arguments.pop("peft", arguments.pop("lora_local_path", ""))
    if not pretrained:
        said.refused.append("model_args: pretrained is not among them; here it is --model")
    return ["--model", adapter, "--base", pretrained] if adapter else ["--model", pretrained]


def _served_model(said: _Said, kind: str, arguments: dict[str, str]) -> list[str]:
    address = arguments.pop("base_url", "https://api.openai.com/v1" if "openai" in kind else "")
    if not address:
        said.refused.append(f"--model {kind}: base_url is not among the model_args")
    for end in ("/chat/completions", "/completions"):
        address = address.removesuffix("/").removesuffix(end)
    concurrent = arguments.pop("num_concurrent", "")
    name = arguments.pop("model", arguments.pop("pretrained", ""))
    arguments.pop("tokenizer", None)  # the server's own
    batch = ["--batch-size", concurrent] if concurrent else []
    return ["--model", f"{PREFIX}{address}#{name}", *batch]


def _say_template(said: _Said, kind: str, asked: bool) -> None:
    """There no template is used unless it is asked for; here it is, wherever there is one."""
    if _SERVED.get(kind) and not asked:
        said.words.append("--chat-template")
    elif not asked:
        said.words.append("--no-chat-template")


def _arguments(texts: Sequence[str]) -> dict[str, str]:
    """`a=1,b=2`, several of such, or one JSON object."""
    joined = " ".join(texts).strip()
    if joined.startswith("{"):
        with contextlib.suppress(ValueError):
            parsed = json.loads(joined)
            return {str(name): str(value) for name, value in parsed.items()}
    pairs = (pair.partition("=") for text in texts for pair in text.split(",") if pair)
    return {name.strip(): value.strip() for name, _, value in pairs}
