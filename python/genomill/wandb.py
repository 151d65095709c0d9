"""Takes the course of a training run over into Weights & Biases.

    python -m genomill.wandb work/mine/model --project dna
    wandb sync wandb/offline-run-*

Reads `history.jsonl` and the settings of a folder that `genomill train` made, or is making (`work/mine/.partial/model`), and writes
an offline run with the `wandb` package that is installed; nothing is sent. The same artifact gives the same run id, so that
a second time adds no second run. Memory: one record.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a record calls its figures, and what they are called there.
FIGURES = {
    "loss": "train/loss",
    "bits_per_base": "train/bits_per_base",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "tokens": "train/tokens",
    "seconds": "train/seconds",
    "validation_loss": "validation/loss",
    "validation_bits_per_base": "validation/bits_per_base",
}


class RunError(Exception):
    """A folder that holds no run; the message says why."""


def records(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The steps of a run with their figures; a last line that was cut off ends them."""
    path = folder / "history.jsonl"
    if not path.is_file():
        raise RunError(
            f"`{folder}` has no history.jsonl: expected the folder of a `train` stage, such as work/mine/model"
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                step = int(record["step"])
            except (ValueError, TypeError, KeyError) as error:
                if not line.endswith("\n"):
                    return
                raise RunError(f"line {number} of `{path}` is no record of a run: {error!r}") from error
            yield step, {name: record[key] for key, name in FIGURES.items() if record.get(key) is not None}


def settings(folder: Path) -> dict[str, Any]:
    """What the run was made from: of an artifact its manifest, of a run under way its newest checkpoint."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        found = json.loads(manifest.read_text(encoding="utf-8"))
        keep = ("tool", "stage", "action_key", "content", "inputs", "details")
        return {"config": found["config"], **{key: found[key] for key in keep if key in found}}
    checkpoints = sorted(folder.glob("checkpoints/step-*/checkpoint.json"))
    if not checkpoints:
        return {}
    return {"config": json.loads(checkpoints[-1].read_text(encoding="utf-8"))["config"]}


def take_over(
    folder: str | os.PathLike[str],
    wandb: Any,
    project: str | None = None,
    name: str | None = None,
    mode: str = "offline",
) -> int:
    """Writes the run of `folder` with the module `wandb`; gives back how many records it has."""
    folder = Path(folder)
    known = settings(folder)
    steps = list(records(folder))
    key = known.get("action_key") or str(folder.resolve())
    run = wandb.init(
        project=project,
        name=name or known.get("stage") or folder.name,
        id=hashlib.sha256(key.encode()).hexdigest()[:16],
        config=known,
        mode=mode,
        job_type="train",
    )
    try:
        for step, figures in steps:
            run.log(figures, step=step)
    finally:
        run.finish()
    return len(steps)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m genomill.wandb", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="the folder of a `train` stage, such as work/mine/model")
    parser.add_argument("--project", help="the project to put it in")
    parser.add_argument("--name", help="what to call it; by default the name of the stage")
    parser.add_argument("--online", action="store_true", help="send it at once instead of writing an offline run")
    arguments = parser.parse_args()
    try:
        module = importlib.import_module("wandb")
    except ImportError:
        sys.exit("error: the package `wandb` is not installed: pip install wandb")
    try:
        mode = "online" if arguments.online else "offline"
        count = take_over(arguments.run, module, arguments.project, arguments.name, mode)
    except (RunError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} records of {arguments.run} are in the run")


if __name__ == "__main__":
    main()
