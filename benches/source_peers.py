"""CPU time of reading compressed sequence beside programs that only unpack or count.

    cargo bench --bench source --no-run
    python3 benches/source_peers.py target/release/deps/source-HASH chr20.fa.gz reads.bam

Ours reads a file to bases, checked byte by byte; `igzip -dc` and `libdeflate-gunzip -c` only unpack it, to /dev/null; `samtools view -c`
counts the records of a BAM file. Every program runs once a round, in turn; what counts is the median of a round's ratios of CPU time.
"""

import os
import shutil
import statistics
import subprocess
import sys

ROUNDS = 21


def cpu_seconds(command):
    """User and system time of one run."""
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(command, stdout=nothing)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed")
    return usage.ru_utime + usage.ru_stime


def compare(title, ours, peers):
    peers = {name: command for name, command in peers.items() if shutil.which(command[0])}
    times = {name: [] for name in ["ours", *peers]}
    for _ in range(ROUNDS):
        for name, command in {"ours": ours, **peers}.items():
            times[name].append(cpu_seconds(command))
    print(title)
    for name, seconds in times.items():
        ratios = [mine / its for mine, its in zip(times["ours"], seconds)]
        print(f"  {name:22} {statistics.median(seconds):.3f} CPU s, ours takes x {statistics.median(ratios):.2f}")


def main():
    bench, fasta, bam = sys.argv[1:]
    unpackers = {"igzip": ["igzip", "-dc", fasta], "libdeflate-gunzip": ["libdeflate-gunzip", "-c", fasta]}
    compare(os.path.basename(fasta), [bench, "fasta", fasta], unpackers)
    compare(os.path.basename(bam), [bench, "bam", bam], {"samtools view -c": ["samtools", "view", "-c", bam]})


if __name__ == "__main__":
    main()
