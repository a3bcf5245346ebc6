"""The hub of data sets and models; the only file that knows `datasets`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.library_noise import quiet_libraries


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSet:
    """One split of a data set on the hub: its id, and which configuration or files of it."""

    id: str
    split: str
    config: str | None = None
    files: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.id, self.config, self.files or self.split)))


HubReader = Callable[[HubSet], tuple[list[dict[str, Any]], str | None]]
"""Gives the records of a hub set, and the commit that they are of, or None if it is not known."""


def read_hub(hub: HubSet) -> tuple[list[dict[str, Any]], str | None]:
    """Download with `datasets`; the commit is looked up first, so that it is the one downloaded.

    Raises:
        Exception: whatever `datasets`, its HTTP client or the data set's own files lead to.
    """
    import datasets

    with quiet_libraries():
        commit = _newest_commit(hub.id)
        files = {"data_files": hub.files} if hub.files else {}
        data = datasets.load_dataset(hub.id, hub.config, split=hub.split, revision=commit, **files)
        return list(data), commit


def _newest_commit(dataset_id: str) -> str | None:
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().dataset_info(dataset_id).sha)
    except (
        Exception
    ):  # offline, whatever the HTTP client calls it: a stored copy may still be there
        return None  # whose commit nobody could look up


def fetch(repository: str, patterns: tuple[str, ...]) -> Path:
    """Those files of a hub repository, downloaded or from the local cache; never its code.

    Raises:
        CheckpointError: no such repository, or the hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        with quiet_libraries():
            return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"{repository} is no directory here, and could not be had from the hub: {reason}"
        ) from error
