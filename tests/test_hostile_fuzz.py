"""Any input: no crash, nothing beyond a second, no wrong number; `make soak` tries far more."""

import copy
import gc
import json
import math
import tempfile
import time
from pathlib import Path

import pyarrow.parquet  # noqa: F401  imported before anything is timed
import pytest
from doubles import ScriptedLM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mingmoe_eval import run_store
from mingmoe_eval.errors import CheckpointError, DataError, MingMoeError, RunStoreError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.metrics.answer_reading import MODES, read_answer
from mingmoe_eval.promptcblue.catalogue import TASKS
from mingmoe_eval.promptcblue.malformed import describe
from mingmoe_eval.promptcblue.measures import measure_of
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.record_files import SUFFIXES, parse_rows
from mingmoe_eval.records import RunSpec

pytestmark = pytest.mark.fuzz

# Time is measured below, as the thread's own: a busy machine makes no failure.
any_input = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    [
        *(
            "A",
            "B",
            "ABC",
            "A、C",
            "(D)",
            "Ａ",
            "选项",
            "答案",
            "答案：",
            "故选",
            "不",
            "错误",
            "1.",
        ),
        *(
            "The answer is ",
            " and ",
            "<think>",
            "</think>",
            "\\boxed{",
            "}",
            "**",
            "；",
            "，",
            "：",
        ),
        *(
            "上述句子中的实体包含：",
            "疾病实体：",
            "具有",
            "关系",
            "头实体",
            "尾实体",
            "主体词：",
            "主诉：",
        ),
        *(
            "1.",
            "，",
            "主体词：",
            "\n",
            "\x1b[31m",
            "\u202e",
            "\ud800",
            "\x00",
            "\u3000",
            "【",
            "{",
            "[",
            '"',
            "-",
        ),
        *("A" * 400, "\n" * 200, "答案" * 100),
    ]
)
REPLIES = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=400))
OPTIONS = {letter: f"第{letter}种药" for letter in "ABCDE"}
CHOICES = ["疾病", "是的"]
PROFILES = ("official", "legacy", "lenient")


@any_input
@given(
    reply=REPLIES,
    letters=st.sampled_from(["A", "AB", "ABCDE", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]),
    single=st.booleans(),
    mode=st.sampled_from(["default", *MODES]),
)
def test_no_reply_is_read_as_an_option_that_is_not_there(reply, letters, single, mode):
    options = {x: f"第{x}种药" for x in letters}
    reading = at_once(lambda: read_answer(reply, options, single=single, mode=mode))
    if mode == "default" and reading.letters is not None:
        assert set(reading.letters) <= set(letters)
        assert not single or len(reading.letters) == 1


@any_input
@given(text=REPLIES, gold=REPLIES, task=st.sampled_from(list(TASKS.values())))
def test_counts_of_any_two_texts_are_possible_ones(text, gold, task):
    for profile in PROFILES:
        said = at_once(lambda p=profile: parse_answer(task, text, CHOICES, p))
        meant = parse_answer(task, gold, CHOICES, profile)
        for one, other in ((meant, said), (said, said)):
            comparison = measure_of(task).compare(one, other)
            assert 0 <= comparison.score <= 1
            assert all(math.isfinite(n) and n >= 0 for n in comparison.counts.values())
    assert at_once(lambda: describe(task, text, CHOICES))


LONG = [
    *"A答(（-\n{;，",
    *("答案", "故选", "AB", "<think>", "选项A", "A错误", "\\boxed{", "主体词：", "Answer: "),
]


@pytest.mark.parametrize("piece", LONG, ids=ascii)
def test_a_reply_of_twenty_thousand_characters_is_read_at_once(piece):
    text = piece * (20_000 // len(piece))
    for mode in ("default", *MODES):
        at_once(lambda m=mode: read_answer(text, OPTIONS, single=False, mode=m))
    for task in TASKS.values():
        for profile in PROFILES:
            at_once(lambda t=task, p=profile: parse_answer(t, text, CHOICES, p))


def at_once(call):
    """What a call gives; it may take a second of this thread's own time."""
    gc.disable()  # its passes over what hypothesis holds are none of the call's time
    try:
        started = time.thread_time()
        given_back = call()
        assert time.thread_time() - started < 1
    finally:
        gc.enable()
    return given_back


@any_input
@given(data=st.binary(max_size=400), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_records_or_refused(data, suffix):
    try:
        rows = at_once(lambda: parse_rows(data, name="f", suffix=suffix))
    except DataError:
        return
    assert all(isinstance(row.fields, dict) for row in rows)


# --- the run loader ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_files(tmp_path_factory):
    """The files of a good run as JSON values, and the run."""
    folder = tmp_path_factory.mktemp("fuzz") / "r"
    spec = RunSpec(model="m", tasks=("usmle_ll", "pharmacist2023"), sample=True, limit=3)
    evaluate(spec, folder=folder, open_model=lambda *_: ScriptedLM(reply=lambda prompt: "A"))
    summary = json.loads((folder / "run.json").read_text("utf-8"))
    samples = {
        path.name: [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for path in (folder / "samples").iterdir()
    }
    return summary, samples


ODD_VALUES = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**400, "", "x", "nan", "../../x", "\ud800", [], [1], {}, {"a": 1}]
).map(copy.deepcopy)  # what is drawn is damaged further


def places(value, here=()):
    yield here
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(entries):
            yield from places(inner, (*here, key))


@st.composite
def damage(draw, value):
    """The value with one to three of its places taken out, replaced or added to."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        if not (below := list(places(value))[1:]):
            break
        *way, last = draw(st.sampled_from(below))
        inner = value
        for key in way:
            inner = inner[key]
        match draw(st.sampled_from(["take out", "replace", "add"])):
            case "take out":
                del inner[last]
            case "replace":
                inner[last] = draw(ODD_VALUES)
            case "add" if isinstance(inner, dict):
                inner["odd"] = draw(ODD_VALUES)
    return value


@any_input
@given(data=st.data())
def test_a_damaged_run_is_refused_or_loads_with_sound_numbers(run_files, data):
    summary, samples = copy.deepcopy(run_files)
    if data.draw(st.booleans()):
        summary = data.draw(damage(summary))
    else:
        name = data.draw(st.sampled_from(sorted(samples)))
        samples[name] = data.draw(damage(samples[name]))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), summary, samples)
        try:
            run = at_once(lambda: run_store.load_run(folder))
        except MingMoeError:
            return
    for name, result in run.results.items():
        assert name == result.task
        assert isinstance(result.main.value, float)
    for task, listed in run.samples.items():
        assert len(listed) == run.results[task].counts.docs
        assert all(s.score is None or isinstance(s.score, float | int) for s in listed)


def write(folder, summary, samples):
    (folder / "samples").mkdir()
    (folder / "run.json").write_text(json.dumps(summary), "utf-8")
    for name, listed in samples.items():
        lines = "\n".join(json.dumps(sample) for sample in listed)
        (folder / "samples" / name).write_text(lines, "utf-8")


@any_input
@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_as_run_json_is_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.json").write_text(text, "utf-8", errors="surrogatepass")
        with pytest.raises(RunStoreError):
            run_store.load_run(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{" * 10])
def test_nesting_and_numbers_beyond_the_parser_are_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunStoreError, match=r"cannot be read|not a JSON object"):
        run_store.load_run(tmp_path)


# --- checkpoint sniffing -------------------------------------------------------------------------

CONFIGS = ("config.json", "adapter_config.json", "model.safetensors.index.json")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        *("num_experts", "num_experts_per_token", "expert_selection", "peft_type", "model_type"),
        *("routing_strategy", "weight_map", "r", "lora_alpha", "base_model_name_or_path"),
    ]
)
CONFIG_TEXTS = st.one_of(
    st.dictionaries(KEYS, JSON_VALUES).map(json.dumps), JSON_VALUES.map(json.dumps), st.text()
)
TENSOR_FILES = st.sampled_from(
    [
        *("model.safetensors", "adapter_model.safetensors", "non_lora_trainables.safetensors"),
        *("pytorch_model.bin", "adapter_model.bin", "non_lora_trainables.bin", "molora.bin"),
    ]
)


@any_input
@given(
    configs=st.dictionaries(st.sampled_from(CONFIGS), CONFIG_TEXTS, max_size=3),
    tensors=st.dictionaries(TENSOR_FILES, st.binary(max_size=64), max_size=3),
)
def test_any_folder_is_a_kind_of_model_or_refused(configs, tensors):
    pytest.importorskip("torch")
    from mingmoe_eval.molora.sources import sniff

    with tempfile.TemporaryDirectory() as folder:
        for name, text in configs.items():
            (Path(folder) / name).write_text(text, "utf-8", errors="surrogatepass")
        for name, content in tensors.items():
            (Path(folder) / name).write_bytes(content)
        try:
            kind = at_once(lambda: sniff(folder))
        except CheckpointError:
            return
    assert kind != "hub"


@pytest.mark.parametrize("weight_map", [None, [], "x", {"w": None}, {"w": 1}, {}])
def test_an_index_without_a_map_of_files_is_refused(tmp_path, weight_map):
    pytest.importorskip("torch")
    from mingmoe_eval.molora.formats.tensor_files import weight_files

    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"weight_map|names files"):
        weight_files(tmp_path)
