"""The bridge to Weights & Biases: what a run becomes, with a stand-in for the package and, where it is installed, with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genomill.wandb import RunError, records, settings, take_over

HISTORY = [
    {
        "step": 10,
        "tokens": 640,
        "loss": 2.5,
        "bits_per_base": 2.1,
        "learning_rate": 0.001,
        "gradient_norm": 1.5,
        "seconds": 2.0,
    },
    {
        "step": 20,
        "tokens": 1280,
        "loss": 2.25,
        "bits_per_base": None,
        "learning_rate": 0.0005,
        "gradient_norm": 1.25,
        "seconds": 4.0,
        "validation_loss": 2.375,
        "validation_bits_per_base": 1.96875,
    },
]
MANIFEST = {
    "stage": "model",
    "tool": "genomill 0.1.0",
    "action_key": "abc",
    "config": {"preset": "olmo-1m"},
    "details": {"steps": 20},
    "files": ["x"],
}


class Stub:
    """Keeps what it is told, as the package and as a run."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def init(self, **arguments: Any) -> Stub:
        self.arguments = arguments
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in HISTORY))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


def test_every_record_is_logged_at_its_step(run: Path) -> None:
    stub = Stub()
    assert take_over(run, stub, project="dna") == 2
    assert stub.finished
    assert [step for step, _ in stub.logged] == [10, 20]
    assert stub.logged[0][1]["train/loss"] == 2.5
    assert stub.logged[1][1] == {
        "train/loss": 2.25, "train/learning_rate": 0.0005, "train/gradient_norm": 1.25, "train/tokens": 1280, "train/seconds": 4.0,
        "validation/loss": 2.375, "validation/bits_per_base": 1.96875,
    }  # fmt: skip
    assert (
        stub.arguments["mode"] == "offline" and stub.arguments["project"] == "dna" and stub.arguments["name"] == "model"
    )
    assert stub.arguments["config"]["config"] == {"preset": "olmo-1m"} and "files" not in stub.arguments["config"]


def test_the_same_artifact_is_the_same_run(run: Path, tmp_path: Path) -> None:
    first, second, other = Stub(), Stub(), Stub()
    take_over(run, first)
    moved = run.rename(tmp_path / "moved")
    take_over(moved, second)
    (moved / "manifest.json").write_text(json.dumps({**MANIFEST, "action_key": "other"}))
    take_over(moved, other)
    assert first.arguments["id"] == second.arguments["id"] != other.arguments["id"]


def test_a_run_under_way_has_its_checkpoint_and_no_half_line(run: Path) -> None:
    (run / "manifest.json").unlink()
    with (run / "history.jsonl").open("a") as history:
        history.write('{"step": 30, "los')
    for step in (10, 20):
        (run / f"checkpoints/step-{step:08}").mkdir(parents=True)
        (run / f"checkpoints/step-{step:08}/checkpoint.json").write_text(json.dumps({"config": {"seed": step}}))
    assert len(list(records(run))) == 2
    assert settings(run) == {"config": {"seed": 20}}


def test_other_folders_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no history\.jsonl: expected the folder of a `train` stage"):
        take_over(tmp_path, Stub())
    (run / "history.jsonl").write_text('{"step": 1}\n{"loss": 1}\n')
    with pytest.raises(RunError, match="line 2 of"):
        take_over(run, Stub())


def test_the_command_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('not here')")
    paths = [str(tmp_path), str(Path(__file__).parents[1])]
    command = [sys.executable, "-m", "genomill.wandb", str(run)]
    found = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,
    )
    assert found.returncode == 1 and "the package `wandb` is not installed: pip install wandb" in found.stderr


def test_the_package_writes_an_offline_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert take_over(run, wandb, project="dna") == 2
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
