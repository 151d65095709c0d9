#!/usr/bin/env python3
"""Kills runs of a workflow with SIGKILL at random moments, and compares those that come to the end.

    python3 tests/campaigns/kill.py target/release/genomill --times 200

Each run goes on where the one before was killed; when one comes to the end, its artifacts must be, byte for byte, those of a
run that nobody killed, and no temporary file may be left; then all is made again. Whatever has a manifest in between must
be whole. The workflow is phage lambda, or with `--genome ecoli` E. coli, and four drawn files, from FASTA to shards, in small
partitions; `--train` adds a small model (a binary with the trainer). Needs Python 3.11.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENOMES = {"lambda": "phage_lambda.fa.gz", "ecoli": "ecoli_k12_mg1655.fa.gz"}

WORKFLOW = """
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{name: genome, fasta: "{genome}"}}, {{fasta: "{folder}/"}}], partition: 1}}
  clean:   {{uses: clean, from: raw, min_length: 100}}
  once:    {{uses: dedup, from: clean, window: 2000, near: {{jaccard: 0.9}}, partition: {partition}}}
  split:   {{uses: split, from: once, block: {block}, validation_fraction: 0.15, test_fraction: 0.15}}
  windows: {{uses: chunk, from: split, window: 1000, reverse_complement: [train]}}
  bpe:     {{uses: tokenizer, from: split, model: {{bpe: {{vocabulary_size: 96}}}}}}
  tokens:  {{uses: tokenize, from: windows, tokenizer: bpe, partition: {partition}}}
  shards:  {{uses: shard, from: tokens, context: 64, file_mib: 1}}
"""

TRAIN = """
  model:   {uses: train, from: shards, preset: olmo-300k, duration: 40 steps, batch_rows: 2, learning_rate: 1e-3,
            checkpoint_every: 5 steps}
"""


def main() -> int:
    options = arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    draw = random.Random(seed)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="genomill-kill-") as folder:
        folder = Path(folder)
        workflow = write_workflow(folder, options)
        whole = Run(options.genomill, workflow, folder / "whole")
        seconds = whole.to_the_end()
        killed = Run(options.genomill, workflow, folder / "killed")
        mistakes, ends, kills = [], 0, 0
        while kills < options.times:
            if killed.until(draw.uniform(0, seconds)):
                kills += 1
                continue
            mistakes += differences(whole.files(), killed.files()) + killed.left_over()
            ends += 1
            shutil.rmtree(killed.work)
        killed.to_the_end()
        mistakes += differences(whole.files(), killed.files()) + killed.left_over()
    print(f"killed {kills} times; {ends + 1} runs came to the end, one that nobody kills takes {seconds:.1f} s")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    print("FAILED" if mistakes else "every end was, byte for byte, that of a run that nobody killed")
    return 1 if mistakes else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genomill", type=Path, help="the binary")
    parser.add_argument("--times", type=int, default=20, help="how often to kill (20)")
    parser.add_argument("--genome", choices=GENOMES, default="lambda")
    parser.add_argument("--train", action="store_true", help="with a small model")
    parser.add_argument("--seed", type=int, help="of the moments; drawn and printed by default")
    options = parser.parse_args()
    options.genomill = options.genomill.resolve()
    return options


def write_workflow(folder: Path, options: argparse.Namespace) -> Path:
    genome = ROOT / "workflows" / "data" / GENOMES[options.genome]
    block, partition = (4000, "20kb") if options.genome == "lambda" else (100_000, "2Mb")
    others = folder / "others"
    others.mkdir()
    draw = random.Random(6)
    for number in range(4):
        # The first of them is half of each of the others.
        draw.seed(6 if number == 0 else number)
        own = "".join(draw.choices("ACGT", k=9_000 * (number + 1)))
        draw.seed(6)
        shared = "".join(draw.choices("ACGT", k=9_000))
        (others / f"other{number}.fa").write_text(f">own\n{own}\n>shared\n{shared}\n")
    text = WORKFLOW.format(genome=genome, folder=others, block=block, partition=partition)
    workflow = folder / "flow.yaml"
    workflow.write_text(text + (TRAIN if options.train else ""))
    return workflow


class Run:
    """Runs of one workflow into one work folder."""

    def __init__(self, genomill: Path, workflow: Path, work: Path) -> None:
        self.command = [str(genomill), "run", str(workflow), "--work", str(work), "--progress", "none"]
        self.work = work / "flow"

    def to_the_end(self) -> float:
        """Runs; the seconds that it took."""
        began = time.monotonic()
        subprocess.run(self.command, check=True)
        return time.monotonic() - began

    def until(self, seconds: float) -> bool:
        """Starts a run and kills it after some seconds; tells whether it was killed before it ended."""
        process = subprocess.Popen(self.command, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            self.check_what_is_there()
            return True
        if process.returncode != 0:
            raise SystemExit(f"a run after one that was killed failed:\n{said.decode()}")
        return False

    def check_what_is_there(self) -> None:
        for manifest in self.work.glob("*/manifest.json"):
            for entry in json.loads(manifest.read_text())["files"]:
                path = manifest.parent / entry["path"]
                if not path.exists() or path.stat().st_size != entry["bytes"]:
                    raise SystemExit(f"{path} is not what its manifest says")

    def files(self) -> dict[str, str]:
        """The sha256 of every lasting file of every artifact, read from the files."""
        found = {}
        for manifest in sorted(self.work.glob("*/manifest.json")):
            for entry in json.loads(manifest.read_text())["files"]:
                if not entry.get("volatile"):
                    path = manifest.parent / entry["path"]
                    found[str(path.relative_to(self.work))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def left_over(self) -> list[str]:
        """Files that no artifact lists."""
        known = {self.work / name for name in self.files()}
        lost = []
        for folder, _, names in os.walk(self.work):
            for name in names:
                path = Path(folder) / name
                inside = path.relative_to(self.work).parts
                if inside[0] == ".cache" or name == "manifest.json" or path in known:
                    continue
                if inside[0].startswith(".") or not listed(self.work / inside[0], path):
                    lost.append(f"left over: {path.relative_to(self.work)}")
        return lost


def listed(artifact: Path, path: Path) -> bool:
    manifest = json.loads((artifact / "manifest.json").read_text())
    return any(artifact / entry["path"] == path for entry in manifest["files"])


def differences(whole: dict[str, str], killed: dict[str, str]) -> list[str]:
    names = sorted(set(whole) | set(killed))
    return [f"differs: {name}" for name in names if whole.get(name) != killed.get(name)]


if __name__ == "__main__":
    sys.exit(main())
