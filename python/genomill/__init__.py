"""Opens the training shards that genomill makes from genomes: plain Parquet, served zero-copy from a memory map.

>>> import genomill
>>> train = genomill.open("work/yeast/shards", split="train")  # doctest: +SKIP
>>> train[0]                                                    # doctest: +SKIP
array([  1, 310,  95, ...], dtype=uint16)

Units: a row is one training sample of `context` tokens; bases are 0-based, half-open, on the forward strand.
Memory: a map of each file that was read from, which the operating system can drop at any time, and the manifest.
`genomill.torch` holds datasets for `torch.utils.data` that resume exactly, `genomill.order` the order in which rows come.
"""

from genomill.manifest import ShardError
from genomill.shards import Segment, ShardSet, Verified, open

__all__ = ["Segment", "ShardError", "ShardSet", "Verified", "open"]
__version__ = "0.1.0"
