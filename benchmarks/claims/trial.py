"""Everything that one seed decides: a world, a base, all adapters, and what they answer."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.claims.asking import ask
from benchmarks.claims.base import make_base
from benchmarks.claims.composition import compose
from benchmarks.claims.methods import (
    CONTENDERS,
    LORA,
    UNTRAINED,
    Contender,
    train,
    write_items,
    write_untrained,
)
from benchmarks.claims.specialisation import specialisation
from benchmarks.claims.tasks import HELD_OUT, TRAINED, Item, Sizes, make_tasks
from benchmarks.claims.world import draw_world


@dataclass(frozen=True, slots=True)
class Effort:
    """How long everything is trained; `adapter_steps` are shared evenly among the tasks."""

    base_steps: int = 300
    adapter_steps: int = 600
    few_shot_steps: int = 100
    sizes: Sizes = field(default_factory=Sizes)


def run_trial(seed: int, effort: Effort, folder: Path) -> dict[str, Any]:
    """The figures of one seed, as plain JSON.

    Each stage is kept in `folder` when it is done, and not done again by a second call with the
    same effort.
    """
    begun_with = folder / "effort.json"
    text = json.dumps(asdict(effort))
    if not begun_with.is_file() or begun_with.read_text("utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        begun_with.write_text(text, "utf-8")
    return _Trial(seed, effort, folder).run()


class _Trial:
    def __init__(self, seed: int, effort: Effort, folder: Path) -> None:
        self.seed, self.effort, self.folder = seed, effort, folder
        self.world = draw_world(seed)
        self.tasks = make_tasks(self.world, seed, effort.sizes)
        self.base = folder / "base"

    def run(self) -> dict[str, Any]:
        base = self._stage("base", self._base)
        files = [
            write_items(self.folder / f"{name}.jsonl", self.tasks[name].train) for name in TRAINED
        ]
        methods = {
            one.name: self._stage(one.name, partial(self._method, one, files)) for one in CONTENDERS
        }
        loras = [self.folder / f"only {name}" for name in TRAINED]
        separate = {
            name: self._stage(lora.name, partial(self._separately, name, file))
            for name, file, lora in zip(TRAINED, files, loras, strict=True)
        }
        return {
            "seed": self.seed,
            "effort": asdict(self.effort),
            "base": base,
            "methods": methods,
            "untrained": self._stage("untrained", self._untrained),
            "separate": separate,
            "composition": {
                name: self._stage(f"new {name}", partial(self._composed, name, loras))
                for name in HELD_OUT
            },
        }

    def _stage(self, name: str, make: Callable[[Path], Any]) -> Any:
        """What `make` gives, which writes into a folder of its own; read where it is kept."""
        kept, own = self.folder / f"{name}.json", self.folder / name
        if not kept.is_file():
            shutil.rmtree(own, ignore_errors=True)
            kept.write_text(json.dumps(make(own)), "utf-8")
        return json.loads(kept.read_text("utf-8"))

    def _base(self, output: Path) -> dict[str, float]:
        make_base(output, self.world, self.tasks, seed=self.seed, steps=self.effort.base_steps)
        return ask(output, self._tests(TRAINED)).accuracy

    def _method(self, contender: Contender, files: list[Path], output: Path) -> dict[str, Any]:
        steps = self.effort.adapter_steps
        trained = train(contender, self.base, files, output, steps=steps, seed=self.seed)
        return {"trained": trained, **self._figures(output)}

    def _untrained(self, output: Path) -> dict[str, Any]:
        write_untrained(UNTRAINED, self.base, output, seed=self.seed)
        return self._figures(output)

    def _separately(self, name: str, file: Path, output: Path) -> float:
        """A LoRA for one task, which sees as many examples of it as the mixtures do."""
        steps = self.effort.adapter_steps // len(TRAINED)
        train(LORA, self.base, [file], output, steps=steps, seed=self.seed)
        return ask(output, self._tests([name])).accuracy[name]

    def _composed(self, name: str, loras: list[Path], output: Path) -> dict[str, float]:
        output.mkdir()
        steps = self.effort.few_shot_steps
        return compose(self.base, loras, self.tasks[name], output, steps=steps, seed=self.seed)

    def _figures(self, checkpoint: Path) -> dict[str, Any]:
        tests = self._tests(TRAINED)
        answers = ask(checkpoint, tests)
        figures: dict[str, Any] = {"accuracy": answers.accuracy, "active": answers.active}
        if answers.routing is not None:
            figures["routing"] = specialisation(answers.routing, checkpoint, tests)
        return figures

    def _tests(self, names: Iterable[str]) -> dict[str, tuple[Item, ...]]:
        return {name: self.tasks[name].test for name in names}
