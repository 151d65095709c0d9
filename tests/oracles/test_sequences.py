"""What ingest reads is what seqkit, samtools and bedtools read: names, bases, counts, places.

    GENOMILL=target/release/genomill python -m pytest tests/oracles/test_sequences.py

GENOMILL names the command, GENOMES a folder in which FASTA and BAM files are looked for, in all folders of it (default: that
of the workflows). Needs the three programs (of Debian) and pyarrow. Memory: the largest genome, twice.
"""

import gzip
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

COMMAND = os.environ.get("GENOMILL")
FOLDER = Path(os.environ.get("GENOMES", Path(__file__).parents[2] / "workflows" / "data")).resolve()
PROGRAMS = ["seqkit", "samtools", "bedtools"]
MISSING = [program for program in PROGRAMS if not shutil.which(program)] + ([] if COMMAND else ["GENOMILL"])
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")

GENOMES = sorted(path for ending in ("*.fa.gz", "*.fa", "*.fasta") for path in FOLDER.rglob(ending))
FOUR = [bytes(b"ACTG"[byte >> shift & 3] for shift in (0, 2, 4, 6)) for byte in range(256)]
ALIGNMENTS = sorted(FOLDER.rglob("*.bam"))


def output(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, **options).stdout


def ingested(folder, source):
    """Names of the records of one source, and the bases of each place without a gap, in order."""
    workflow = folder / "oracle.yaml"
    workflow.write_text(f"name: oracle\nstages:\n  raw: {{uses: ingest, sources: [{source}]}}\n")
    output(COMMAND, "run", workflow, "--work", folder / "work", "--progress", "none")
    raw = folder / "work" / "oracle" / "raw"
    names = pq.read_table(raw / "records.parquet", columns=["name"])["name"].to_pylist()
    places, end = [], None
    columns = ["record", "start", "bases", "bits", "others", "small"]
    # Whole sources are one partition here, whose records are counted from 0.
    (sequence,) = raw.glob("sequence-*.parquet")
    for batch in pq.ParquetFile(sequence).iter_batches(columns=columns):
        for record, start, count, *packed in zip(*(column.to_pylist() for column in batch.columns)):
            if (record, start) != end:
                places.append([])
            places[-1].append(unpacked(count, *packed))
            end = (record, start + count)
    return names, [b"".join(place) for place in places]


def unpacked(count, bits, others, small):
    """Bases from two bits each, runs of other bytes and runs of small letters."""
    bases = bytearray(b"".join(FOUR[byte] for byte in bits)[:count])
    for start, length, byte in struct.iter_unpack("<IIB", others):
        bases[start : start + length] = bytes([byte]) * length
    for start, length in struct.iter_unpack("<II", small):
        bases[start : start + length] = bases[start : start + length].lower()
    return bytes(bases)


def of_fasta(text):
    """Names and bases of FASTA."""
    records = text.split(b">")[1:]
    lines = [record.split(b"\n") for record in records]
    return [line[0].split()[0].decode() for line in lines], [b"".join(line[1:]) for line in lines]


def name(path):
    return path.name


@pytest.mark.parametrize("path", GENOMES, ids=name)
def test_contigs_are_those_of_seqkit(tmp_path, path):
    names, bases = ingested(tmp_path, f"{{name: genome, fasta: {path}}}")
    expected_names, expected = of_fasta(output("seqkit", "seq", "-w", "0", path))
    assert names == expected_names
    assert bases == expected


@pytest.mark.parametrize("path", GENOMES, ids=name)
def test_regions_are_those_of_bedtools(tmp_path, path):
    genome = tmp_path / "genome.fa"
    genome.write_bytes(gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes())
    output("samtools", "faidx", genome)
    contigs = [line.split("\t")[:2] for line in Path(f"{genome}.fai").read_text().splitlines()]
    draw, lines = random.Random(7), []
    for contig, length in contigs[:20]:
        bounds = sorted(draw.sample(range(int(length) + 1), 20))
        lines += [f"{contig}\t{start}\t{end}\n" for start, end in zip(bounds[::2], bounds[1::2])]
    bed = tmp_path / "regions.bed"
    bed.write_text("".join(lines))
    expected = of_fasta(output("bedtools", "getfasta", "-fi", genome, "-bed", bed))[1]
    for source in (genome, path):  # with an index, and as it is
        _, bases = ingested(tmp_path, f"{{name: genome, fasta: {source}, regions: {{bed: {bed}}}}}")
        assert bases == expected


@pytest.mark.parametrize("path", ALIGNMENTS, ids=name)
def test_reads_are_those_of_samtools(tmp_path, path):
    _, bases = ingested(tmp_path, f"{{name: reads, bam: {path}}}")
    assert len(bases) == int(output("samtools", "view", "-c", "-F", "0xF00", path))
    assert sorted(bases) == sorted(of_fasta(output("samtools", "fasta", "-F", "0xF00", path))[1])


@pytest.mark.parametrize("path", ALIGNMENTS, ids=name)
def test_mapped_reads_of_some_quality_are_those_of_samtools(tmp_path, path):
    reads = "reads: {min_mapping_quality: 20, unmapped: false}"
    _, bases = ingested(tmp_path, f"{{name: reads, bam: {path}, {reads}}}")
    kept = output("samtools", "view", "-u", "-q", "20", "-F", "0xF04", path)
    expected = of_fasta(output("samtools", "fasta", "-F", "0xF00", "-", input=kept))[1]
    assert sorted(bases) == sorted(expected)
