"""Some questions of a run at a time: what a sequential gate asks, until it knows enough."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.asking import (
    AnsweredTask,
    fold,
    generation_facts,
    run_provenance,
    run_timing,
    seed_everything,
    settle,
)
from mingmoe_eval.engine.served_address import is_served, without_credentials
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import refuse_contradictions
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.harness import results as harness_results
from mingmoe_eval.harness.tasks import HarnessTask, load_tasks
from mingmoe_eval.model_opening import OpenModel, Watch, open_named
from mingmoe_eval.molora.presence import refuse_absent
from mingmoe_eval.provenance import task_provenance
from mingmoe_eval.records import DocIds, Run, RunSpec, fingerprint
from mingmoe_eval.task_catalog import definition_facts, open_catalog


class Questions:
    """A model and some tasks, loaded once, whose questions are asked a few at a time.

    Requests are those of the whole run, worked examples included; answers go into the response
    store, from which a run of the whole takes them.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        watch: Watch | None = None,
        open_model: OpenModel | None = None,
    ) -> None:
        """Load tasks and model.

        Args:
            spec: The run whose questions these are.
            watch: Told how it goes.
            open_model: How to get the model; default: what `spec.model` names.

        Raises:
            MingMoeError: a mistake in the spec, the data or the checkpoint.
            UsageError: a task is scored by lm-eval, which needs all of it at once.
        """
        watch = watch or Watch()
        refuse_contradictions(spec)
        catalog = open_catalog(spec.include_path)
        selection = catalog.select(spec.tasks, foreign=True, columns=spec.columns)
        if open_model is None and not is_served(spec.model):
            refuse_absent(spec.model, spec.base)
        self._tasks = {task.name: task for task in load_tasks(selection, spec)[0]}
        if foreign := [task.name for task in self._tasks.values() if not task.is_ours]:
            raise UsageError(f"{', '.join(foreign)}: lm-eval scores such a task as a whole")
        lm = (open_model or open_named)(spec, None, watch)
        self._conditions = settle(
            lm,
            dataclasses.replace(spec, model=without_credentials(spec.model)),
            list(self._tasks.values()),
            definitions={
                d.name: definition_facts(d) for d in (*selection.leaves, *selection.groups)
            },
            watch=watch,
        )
        self._requests: dict[str, dict[str, list[Any]]] = {}

    def ask(self, docs: Mapping[str, Sequence[str]]) -> Run:
        """Put some docs to the model, by task and id; gives a run over these alone.

        Raises:
            UsageError: the task's data do not hold such a doc.
        """
        started = time.perf_counter()
        done = {task: self._ask_task(self._tasks[task], ids) for task, ids in docs.items()}
        return Run(
            name=Path(self._conditions.spec.model).name,
            spec=self._conditions.spec,
            provenance=run_provenance(self._conditions, done),
            results={name: one.result for name, one in done.items()},
            samples={name: one.samples for name, one in done.items()},
            timing=run_timing(done, time.perf_counter() - started),
        )

    def _ask_task(self, task: HarnessTask, ids: Sequence[str]) -> AnsweredTask:
        by_doc = self._requests_of(task)
        if lacking := [doc for doc in ids if doc not in by_doc]:
            raise UsageError(
                f"{task.name}: {len(lacking)} docs of the baseline are not in the data, the first "
                f"is {lacking[0]}; use the data that the baseline was made with"
            )
        lm = self._conditions.lm
        seed_everything(self._conditions.spec.seed)
        lm.take_usage()
        started = time.perf_counter()
        requests = [request for doc in ids for request in by_doc[doc]]
        lm_eval_door.answer(lm, requests)
        usage = lm.take_usage()
        seconds = time.perf_counter() - started
        samples = [
            dataclasses.replace(
                scoring.make_sample(
                    task.name, a.position, a.doc, a.prompt, a.response, task.settings
                ),
                doc_id=doc,
            )
            for doc, a in zip(ids, harness_results.answers(task.name, requests, usage), strict=True)
        ]
        return AnsweredTask(
            result=fold(task, samples, seconds, ()),
            samples=samples,
            provenance={
                **task_provenance(task.docs, samples, task.settings),
                **generation_facts(lm, task),
            },
            usage=list(usage.values()),
        )

    def _requests_of(self, task: HarnessTask) -> dict[str, list[Any]]:
        """By a doc's id, as samples have it, the requests that ask it."""
        if task.name not in self._requests:
            by_doc: dict[int, list[Any]] = {}
            for request in lm_eval_door.requests_of(
                self._conditions.lm,
                task.task,
                limit=None,
                chat=self._conditions.chat,
                system=self._conditions.spec.system_instruction,
            ):
                by_doc.setdefault(request.doc_id, []).append(request)
            ids = DocIds()
            self._requests[task.name] = {
                ids.next(fingerprint(requests[0].doc)): requests for requests in by_doc.values()
            }
        return self._requests[task.name]
