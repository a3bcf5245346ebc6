"""A checkpoint by name, to be loaded in whatever process it is sent to."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.engine.fingerprint import tokenizer_fingerprint
from mingmoe_eval.engine.local_backend import LocalBackend, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What to load, and how; the arguments are those of `CheckpointLM`."""

    model: str
    base: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | str = "auto"

    def anywhere(self) -> "Checkpoint":
        """The same for a process with another working directory."""
        names = {"model": self.model, "base": self.base}
        there = {
            field: str(Path(name).resolve())
            for field, name in names.items()
            if name is not None and Path(name).exists()
        }
        return dataclasses.replace(self, **there)

    def __call__(self) -> tuple[LocalBackend, str]:
        """Load model and tokenizer here; gives also the tokenizer's fingerprint."""
        from mingmoe_eval.molora import load_tokenizer

        tokenizer = load_tokenizer(self.model, self.base)
        return self.backend(tokenizer), tokenizer_fingerprint(tokenizer)

    def backend(self, tokenizer: Any, loaded: Any = None) -> LocalBackend:
        """The model in this process; `loaded` if it is in memory already."""
        from mingmoe_eval.molora import load_model

        if loaded is None:
            loaded = load_model(self.model, self.base, dtype=self.dtype, device=self.device)
        return LocalBackend(loaded, tokenizer, most_rows=rows_of(self.batch_size))
