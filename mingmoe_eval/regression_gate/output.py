"""A verdict of the regression gate as JUnit XML, Markdown and JSON."""

import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator

from mingmoe_eval.comparison.output import (
    allowed_json,
    allowed_remarks,
    difference_shown,
    mark_remarks,
    markdown_table,
    plain,
    sides_shown,
    task_json,
    together_json,
    verdict_json,
)
from mingmoe_eval.comparison.verdict import TaskVerdict
from mingmoe_eval.metrics.showing import shown
from mingmoe_eval.records import JsonDict
from mingmoe_eval.regression_gate.judgement import TierVerdict, Verdict
from mingmoe_eval.regression_gate.policy import TRADE, WATCH
from mingmoe_eval.regression_gate.signals import Finding

_SUITE = "regression gate"
_SIGNS = {"equivalent": "✅", "improved": "✅", "regressed": "❌", "undecided": "❔"}


def gate_json(verdict: Verdict) -> JsonDict:
    """Everything that the verdict says, for machines; fractions at full precision."""
    return {
        "outcome": verdict.outcome,
        "exit_status": verdict.exit_status,
        "verdict": None if verdict.overall is None else verdict_json(verdict.overall),
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
        "margin": verdict.margin,
        "alpha": verdict.alpha,
        "strict": verdict.policy.must_not_regress.undecided == "hold",
        "policy": verdict.policy.source,
        "tiers": {tier.name: _tier_json(tier) for tier in verdict.tiers},
        "marks": list(verdict.marks),
        "allowed": allowed_json(verdict.allowed),
        "tasks": {task.task: _task_json(task) for task in verdict.tasks},
        "failures": [_finding_json(finding) for finding in verdict.failures],
        "warnings": [_finding_json(finding) for finding in verdict.warnings],
    }


def gate_markdown(verdict: Verdict) -> str:
    """A summary for a step summary or a merge-request comment."""
    lines = [
        f"## {plain(headline(verdict))}",
        "",
        *([f"{plain(verdict.overall.sentence)}.", ""] if verdict.overall else []),
        *markdown_table(headings(verdict), rows(verdict)),
        "",
        *(f"- {plain(remark)}" for remark in remarks(verdict)),
    ]
    return "\n".join(lines) + "\n"


def gate_annotations(verdict: Verdict) -> list[str]:
    """Failures, tiers that are held, and warnings as GitHub's annotations of a workflow's run.

    One line each, in the order in which a page that shows but ten of a kind should have them:
    docs.github.com, "Workflow commands for GitHub Actions", whose escapes these are.
    """
    held = [f"{tier.title} undecided, {_open(tier)}" for tier in verdict.held]
    return [
        *(_annotation("error", str(finding)) for finding in verdict.failures),
        *(_annotation("error", text) for text in held),
        *(_annotation("warning", str(finding)) for finding in verdict.warnings),
    ]


def _annotation(level: str, text: str) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title=Regression gate::{escaped}"


def headline(verdict: Verdict) -> str:
    """The whole in a line."""
    text = f"Regression gate {verdict.outcome}: {verdict.candidate} against {verdict.baseline}"
    return text + (f" ({len(verdict.undecided)} undecided)" if verdict.undecided else "")


def headings(verdict: Verdict) -> tuple[str, ...]:
    """What the columns of `rows` are."""
    level = 100 * (1 - 2 * (verdict.tiers[0].alpha if verdict.tiers else verdict.alpha))
    return (
        "task",
        *(["tier"] if verdict.policy.source else []),
        "verdict",
        "docs",
        "baseline",
        "candidate",
        f"difference ({level:g} % interval)",
        "p worse (adjusted)",
        "smallest visible drop",
        "docs to settle",
    )


def rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """One row a task; shares in points (hundredths), the rest as it is."""
    shown_tier = bool(verdict.policy.source)
    return [
        _row(task, tier.name if shown_tier else "") for tier in verdict.tiers for task in tier.tasks
    ]


def remarks(verdict: Verdict) -> list[str]:
    """Failures, warnings, and what the table must not be read without."""
    return [
        *mark_remarks(verdict.marks),
        *([f"{verdict.overall.sentence}."] if verdict.overall else []),
        *(f"FAILED: {finding}" for finding in verdict.failures),
        *(f"HELD: {tier.title} undecided, {_open(tier)}" for tier in verdict.held),
        *(f"warning: {finding}" for finding in verdict.warnings),
        *allowed_remarks(verdict.allowed),
        *_rules(verdict),
        *_unusual(verdict),
    ]


def _open(tier: TierVerdict) -> str:
    """Of a tier that is not decided, what is known."""
    if tier.together is None:
        return "a task that is no share is"
    return f"{tier.together.reason}: a loss of the margin is not ruled out"


def _rules(verdict: Verdict) -> Iterator[str]:
    """What was asked, in words."""
    text = f"Margin {100 * verdict.margin:g} points, one-sided alpha {verdict.alpha:g} over "
    count = len(verdict.tasks)
    text += f"{count} tasks and all of them together. " if count != 1 else "one task. "
    text += "Smallest visible: with a power of 80 %. "
    tier_alpha = verdict.tiers[0].alpha if verdict.tiers else verdict.alpha
    yield text + f"Hidden losses: at {100 * (1 - tier_alpha):g} %, of each task alone."
    if not verdict.policy.source:
        return
    yield f"Policy: {verdict.policy.source}."
    for tier in verdict.tiers:
        names = ", ".join(task.task for task in tier.tasks)
        margin = verdict.policy.margin if tier.rules.margin is None else tier.rules.margin
        text = f"{tier.name} (margin {100 * margin:g}, alpha {tier.alpha:g}): {names}"
        if tier.together is not None:
            text += f"; together {tier.together.outcome}, {tier.together.reason}"
        yield text
    own = [
        (task.task, 100 * task.margin)
        for tier in verdict.tiers
        for task in tier.tasks
        if verdict.policy.rules_of(task.task).margin is not None
    ]
    if own:
        yield "Margins of their own: " + ", ".join(f"{task} {margin:g}" for task, margin in own)


def _unusual(verdict: Verdict) -> Iterator[str]:
    """Tasks to whose main metric the margin does not apply."""
    for task in verdict.tasks:
        if task.comparison.unit != "share":
            yield f"{task.task}: no share, so that the margin says nothing of it"


def gate_junit(verdict: Verdict) -> str:
    """JUnit XML as GitHub's and GitLab's readers take it: one test case a task.

    A regressed task, and one with any other failure, is a failure; an undecided one is skipped, or
    a failure where the gate is strict. Findings that belong to no judged task are cases of their
    own.
    """
    cases = [*_task_cases(verdict), *_other_cases(verdict)]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": _SUITE, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _SUITE, **counts})
    properties = ET.SubElement(suite, "properties")
    for name in ("baseline", "candidate", "margin", "alpha", "outcome"):
        value = _xml_text(str(getattr(verdict, name)))
        ET.SubElement(properties, "property", {"name": name, "value": value})
    suite.extend(cases)
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _tier_json(tier: TierVerdict) -> JsonDict:
    together = tier.together
    return {
        "tasks": [verdict.task for verdict in tier.tasks],
        "alpha": tier.alpha,
        "undecided_means": tier.rules.undecided,
        "undecided": tier.undecided,
        "together": together and together_json(together),
    }


def _task_json(verdict: TaskVerdict) -> JsonDict:
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        **task_json(verdict.comparison),
        # What the gate tests is one-sided: its own adjusted values replace the two-sided ones.
        "p_worse_adjusted": verdict.p_worse,
        "p_better_adjusted": verdict.p_better,
        "false_discovery": verdict.false_discovery,
        "hidden_loss": None if math.isnan(verdict.hidden_loss) else verdict.hidden_loss,
        "minimum_detectable": verdict.minimum_detectable,
        "docs_to_settle": verdict.docs_to_settle,
    }


def _finding_json(finding: Finding) -> JsonDict:
    return {"kind": finding.kind, "task": finding.task, "text": finding.text}


def _row(verdict: TaskVerdict, tier: str = "") -> tuple[str, ...]:
    one, paired = verdict.comparison, verdict.comparison.paired
    undecided = verdict.outcome == "undecided"
    sign = _SIGNS[verdict.outcome]
    if verdict.outcome == "regressed" and tier in (TRADE, WATCH):
        sign = "⚠️"  # a cross stands for what fails
    return (
        verdict.task,
        *([tier] if tier else []),
        f"{sign} {verdict.outcome}",
        str(verdict.comparison.docs),
        *sides_shown(paired.baseline, paired.candidate, one.unit, one.better),
        difference_shown(paired.difference, paired.interval, one.unit),
        f"{verdict.p_worse:.3g}",
        shown(verdict.minimum_detectable, one.unit),
        str(verdict.docs_to_settle or "") if undecided else "",
    )


def _task_cases(verdict: Verdict) -> Iterator[ET.Element]:
    failures = _by_task(verdict.failures)
    for tier in verdict.tiers:
        judged = [(task.task, task.outcome, task.reason) for task in tier.tasks]
        together = tier.together
        if together is not None and (len(tier.tasks) > 1 or tier.title in failures):
            judged.append((tier.title, together.outcome, together.reason))
        # A tier that regressed is decided, and its undecided tasks still keep it from passing.
        lost = together is not None and together.outcome == "regressed"
        holds = tier in verdict.held or (lost and tier.rules.undecided == "hold")
        for name, outcome, reason in judged:
            case = _case(name)
            said = failures.get(name, [])
            if outcome == "undecided" and holds:
                said = [*said, f"undecided, {reason}"]
            if said:
                _fail(case, said)
            elif outcome == "undecided":
                ET.SubElement(case, "skipped", {"message": _xml_text(f"undecided, {reason}")})
            output = ET.SubElement(case, "system-out")
            output.text = _xml_text(f"{outcome}: {reason}")
            yield case


def _other_cases(verdict: Verdict) -> Iterator[ET.Element]:
    judged = {task.task for task in verdict.tasks}
    judged |= {tier.title for tier in verdict.tiers if tier.together is not None}
    for task, texts in _by_task(verdict.failures).items():
        if task not in judged:
            case = _case(task or "run")
            _fail(case, texts)
            yield case


def _by_task(findings: Iterable[Finding]) -> dict[str, list[str]]:
    texts = defaultdict(list)
    for finding in findings:
        texts[finding.task].append(finding.text)
    return dict(texts)


def _case(task: str) -> ET.Element:
    attributes = {"classname": "mingmoe_eval.regression_gate", "name": _xml_text(task), "time": "0"}
    return ET.Element("testcase", attributes)


def _fail(case: ET.Element, texts: list[str]) -> None:
    """One failure a case, since some readers show only the first."""
    failure = ET.SubElement(case, "failure", {"type": "regression", "message": _xml_text(texts[0])})
    failure.text = _xml_text("\n".join(texts))


def _xml_text(text: str) -> str:
    """Text without the characters that no XML may hold, not even escaped."""
    return "".join(char if char in "\t\n" or _is_xml(ord(char)) else "�" for char in text)


def _is_xml(code: int) -> bool:
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
