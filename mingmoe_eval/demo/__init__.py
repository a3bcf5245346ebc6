"""The demo: two tiny checkpoints that come with the package.

A base model of 0.6 million parameters, and a MING-MOE adapter for it that was taught some of the
bundled tasks, both from text and items that we made up (none is in a bundled sample). They show how
a run works, and know nothing of medicine beyond that text. `tools/demo_checkpoints` makes them.
"""

from dataclasses import dataclass
from pathlib import Path

BASE = "base"
ADAPTER = "molora-adapter"


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task of the demo, and what of it the adapter was taught."""

    name: str
    taught: str


TASKS = (
    DemoTask("promptcblue_kuake_qic", "yes, other queries"),
    DemoTask("medmcqa_val", "the form of an answer only"),
    DemoTask("mcmle", "the form of an answer only"),
    DemoTask("promptcblue_chip_ctc", "no"),
    DemoTask("promptcblue_kuake_qqr", "no"),
)


def checkpoints_dir() -> Path:
    """The folder with the shipped checkpoints, `base` and `molora-adapter`: not to be written to.

    The adapter names `../base`, so the two load from here and from wherever both are copied to.
    """
    return Path(__file__).parent / "checkpoints"
