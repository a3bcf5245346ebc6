"""Made-up consultations: a dialogue, the report that sums it up, and the doctor's next reply."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml


def consultation(rng: Random) -> tuple[str, str]:
    """A dialogue, and its report in the six sections of IMCS-V2-MRG."""
    text, case, days = _text(), rng.choice(_text()["cases"]), rng.randint(2, 9)
    lines = [_opening(case, days, rng)]
    for question_and_answer in rng.sample(text["asked"], rng.randint(2, 4)):
        lines += question_and_answer
    lines.append(f"医生：考虑{case['diagnosis']}，可以用{case['drug']}。")
    report = {
        "主诉": f"{case['chief']}{days}天。",
        "现病史": f"患者{days}天前出现{case['chief']}，无发热，精神可。",
        "辅助检查": rng.choice(text["examined"]),
        "既往史": rng.choice(text["history"]),
        "诊断": f"{case['diagnosis']}。",
        "建议": f"口服或外用{case['drug']}，{case['advice']}。",
    }
    sections = [f"{name}：{value}" for name, value in report.items()]
    return "\n".join(lines), "\n".join(["上述问诊对话的诊疗报告如下：", *sections])


def next_reply(rng: Random) -> tuple[str, str]:
    """The beginning of a dialogue, and what the doctor says next."""
    text, case, days = _text(), rng.choice(_text()["cases"]), rng.randint(2, 9)
    opening = _opening(case, days, rng)
    if rng.random() < 0.5:
        return opening, case["question"]
    heard = "\n".join([opening, *rng.choice(text["asked"])])
    return heard, rng.choice(text["replies"]).format(**case)


def _opening(case: dict[str, str], days: int, rng: Random) -> str:
    text = _text()
    opening: str = rng.choice(text["openings"])
    return opening.format(complaint=case["complaint"], n=days, who=rng.choice(text["who"]))


@cache
def _text() -> dict[str, Any]:
    path = Path(__file__).parent / "text" / "consultations.yaml"
    loaded: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return loaded
