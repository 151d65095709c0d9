#!/usr/bin/env python3
"""What an engine costs for each task: a workflow of trivial tasks, run once and then again with nothing to do.

    python3 -m venv venv && venv/bin/pip install snakemake dvc
    venv/bin/python benches/engine_peers.py target/release/genomill --tasks 1000

Every task makes one empty file with `touch`, two at a time. Peers are those that the environment of this Python has:
Snakemake and DVC. Prints seconds, and milliseconds a task less those of `touch` itself. Needs Python 3.11.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genomill", type=Path)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", default=["genomill", "snakemake", "dvc"])
    options = parser.parse_args()
    engines = {"genomill": lambda folder: genomill(options.genomill.resolve(), folder, options.tasks),
               "snakemake": lambda folder: snakemake(folder, options.tasks),
               "dvc": lambda folder: dvc(folder, options.tasks)}
    print("| engine | tasks | first run | a task | again, nothing to do |\n|---|---|---|---|---|")
    for name in options.engines:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            command, made = engines[name](folder)
            bare = touches(folder, options.tasks)
            first = seconds(command, folder)
            if made() != options.tasks:
                raise SystemExit(f"{name} made {made()} files, expected {options.tasks}")
            again = seconds(command, folder)
            each = (first - bare) / options.tasks * 1e3
            print(f"| {name} | {options.tasks} | {first:.2f} s | {each:.2f} ms | {again:.2f} s |", flush=True)
    return 0


def seconds(command: list[str], folder: Path) -> float:
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return time.monotonic() - began


def touches(folder: Path, tasks: int) -> float:
    """Seconds that as many processes take, two at a time, without an engine."""
    (folder / "bare").mkdir()
    names = "\n".join(str(folder / "bare" / str(n)) for n in range(tasks))
    began = time.monotonic()
    subprocess.run(["xargs", "-P", "2", "-n", "1", "touch"], input=names, text=True, check=True)
    return time.monotonic() - began


def genomill(binary: Path, folder: Path, tasks: int):
    numbers = ", ".join(map(str, range(tasks)))
    (folder / "flow.yaml").write_text(
        f"name: flow\nmatrix: {{n: [{numbers}]}}\nstages:\n"
        "  task: {uses: command, command: [touch, '{out}/file'], outputs: [file], tags: ['t${matrix.n}']}\n"
    )
    command = [str(binary), "run", "flow.yaml", "--jobs", "2", "--progress", "none"]
    return command, lambda: len(list(folder.glob("work/flow/*/file")))


def snakemake(folder: Path, tasks: int):
    (folder / "Snakefile").write_text(
        f"rule all:\n    input: expand('out/{{n}}', n=range({tasks}))\n"
        "rule task:\n    output: 'out/{n}'\n    shell: 'touch {output}'\n"
    )
    return [str(BIN / "snakemake"), "--cores", "2", "--quiet", "all"], lambda: len(list(folder.glob("out/*")))


def dvc(folder: Path, tasks: int):
    subprocess.run([BIN / "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    (folder / "out").mkdir()
    numbers = ", ".join(map(str, range(tasks)))
    (folder / "dvc.yaml").write_text(
        f"stages:\n  task:\n    foreach: [{numbers}]\n    do:\n      cmd: touch out/${{item}}\n      outs: ['out/${{item}}']\n"
    )
    return [str(BIN / "dvc"), "repro", "-q"], lambda: len([f for f in folder.glob("out/*") if f.name.isdigit()])


if __name__ == "__main__":
    sys.exit(main())
