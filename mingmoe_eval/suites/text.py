"""The suite `text`: a reply is held against one text, as PromptCBLUE does for dialogues.

A doc: `answer`, the text. ROUGE as in `metrics.rouge`: over ideographs of Chinese, over words of
other scripts. `exact` is the share of replies that are the text but for blanks.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.metrics.choice_accuracy import ACCURACY, ANSWERED
from mingmoe_eval.metrics.metric import Counted, Scored
from mingmoe_eval.promptcblue.catalogue import CblueTask
from mingmoe_eval.promptcblue.measures import measure_of
from mingmoe_eval.records import AnyDoc, Response, Score, TaskSettings
from mingmoe_eval.suites.sampled import SampledSuite


class Doc(AnyDoc):
    """What the suite reads of a doc."""

    answer: str


def text_facts(*, answer: Any) -> Doc:
    """What the suite reads of a doc.

    Raises:
        ValueError: there is no text to compare with.
    """
    text = "" if answer is None else str(answer).strip()
    if not text:
        raise ValueError("no answer")
    return Doc(answer=text)


_MEASURE = measure_of(
    CblueTask(
        name="text",
        family="generation",
        task_type="response_generation",
        metric="rouge_l",
        max_gen_toks=512,
    )
)


def _score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    text = (split_thoughts(response.text or "")[1] or "").strip()
    compared = _MEASURE.compare(str(doc["answer"]), text)
    # The official scorer takes an empty text for "无。", whose full stop most texts have too.
    counts = compared.counts if text else {**dict.fromkeys(compared.counts, 0.0), "pairs": 1.0}
    exact = float(" ".join(text.split()) == " ".join(str(doc["answer"]).split()))
    return Score(
        value=compared.score if text else 0.0,
        answered=text or None,
        reading="the reply without its thoughts" if text else "an empty reply",
        counts={**counts, "exact": exact},
    )


def _expected(doc: Mapping[str, Any]) -> str:
    return str(doc["answer"])


def _exact(scored: Scored) -> Counted:
    return {"": (scored.counts["exact"], 1.0)}


EXACT = replace(ACCURACY, name="exact", title="exact match", count=_exact, chance=None)
_ROUGE = {metric.name: metric for metric in _MEASURE.metrics}

SUITE = SampledSuite(
    METRICS={"rougeL": _ROUGE["rougeL"], **_ROUGE, "exact": EXACT, "answered": ANSWERED},
    score_doc=_score_doc,
    expected=_expected,
)
