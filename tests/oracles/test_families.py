"""Families by MMseqs2 are those that a genome was made of, and those that shared k-mers tell.

    GENOMILL=target/release/genomill python -m pytest tests/oracles/test_families.py

Needs `mmseqs` (of Debian: mmseqs2) and pyarrow.
"""

import json
import os
import random
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest

COMMAND = os.environ.get("GENOMILL")
MISSING = [] if shutil.which("mmseqs") else ["mmseqs"]
MISSING += [] if COMMAND else ["GENOMILL"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


def made(draw, families):
    """Contigs by name: of each family one, its reverse complement with one base in twenty changed, and half of it."""
    contigs = {}
    for family in range(families):
        bases = draw.choices("ACGT", k=draw.randint(2000, 90_000))
        changed = [draw.choice("ACGT") if draw.random() < 0.05 else base for base in bases]
        contigs[f"f{family}a"] = "".join(bases)
        contigs[f"f{family}b"] = "".join(changed)[::-1].translate(str.maketrans("ACGT", "TGCA"))
        contigs[f"f{family}c"] = "".join(bases[: len(bases) // 2])
    return contigs


@pytest.mark.parametrize("homology", ["{}", "{mmseqs: {identity: 0.8}}"])
def test_families_are_those_that_were_made(tmp_path, homology):
    contigs = made(random.Random(11), 20)
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    (tmp_path / "w.yaml").write_text(
        "name: oracle\nstages:\n  raw: {uses: ingest, sources: [{fasta: g.fa}]}\n  clean: {uses: clean, from: raw}\n"
        f"  split: {{uses: split, from: clean, test_fraction: 0.4, homology: {homology}}}\n")
    subprocess.run([COMMAND, "run", tmp_path / "w.yaml", "--work", tmp_path / "work", "--progress", "none"], check=True)
    split = tmp_path / "work/oracle/split"
    found = json.loads((split / "manifest.json").read_text())["details"]["homology"]
    assert (found["members"], found["families"], found["largest"]) == (60, 20, 3)
    rows = pq.read_table(split / "intervals.parquet").to_pydict()
    names = list(contigs)
    splits = {}
    for record, where in zip(rows["record"], rows["split"]):
        splits.setdefault(names[record][:-1], set()).add(where)
    assert all(len(where) == 1 for where in splits.values()), splits
    assert set.union(*splits.values()) == {"train", "test"}
