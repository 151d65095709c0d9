"""Published weights that are pickled, as a safetensors file that `genomill model import` reads.

    python -m genomill.weights weights.ckpt hyena.safetensors

The pickle is read with `weights_only=True`: it can make tensors and plain values and nothing else, whatever it says. Names stay
as they are; `model import` knows the usual prefixes. Needs torch and safetensors. Memory: the file, and its tensors twice.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# Where trainers keep the weights within a checkpoint: Lightning, Composer, and plain scripts.
PLACES = (("state_dict",), ("state", "model"), ("model",))


class CheckpointError(Exception):
    """A checkpoint that cannot be converted; the message says why."""


def tensors_of(checkpoint: Any) -> dict[str, torch.Tensor]:
    """The weights by name: the checkpoint itself, or what it keeps at one of PLACES."""
    for place in PLACES:
        inner = checkpoint
        for key in place:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            checkpoint = inner
            break
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"it holds a {type(checkpoint).__name__}, expected tensors by name")
    others = sorted(str(name) for name, value in checkpoint.items() if not isinstance(value, torch.Tensor))
    if others or not checkpoint:
        raise CheckpointError(f"expected nothing but tensors, found {', '.join(others) or 'none'}")
    return {str(name): tensor for name, tensor in checkpoint.items()}


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Writes the tensors of the pickled checkpoint `source` to the new file `target`; gives back how many there are."""
    if Path(target).exists():
        raise CheckpointError(f"`{target}` exists already: remove it or name another file")
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0] if str(error) else "no reason given"
        raise CheckpointError(f"`{source}` holds more than tensors and plain values, and none of it was run: {first}") from error
    # Tensors that share their memory, as tied ones do, are stored once for each name.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors_of(checkpoint).items()}
    part = Path(f"{target}.part")
    save_file(tensors, part)
    part.replace(target)
    return len(tensors)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m genomill.weights", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="the pickled checkpoint, such as weights.ckpt or pytorch_model.bin")
    parser.add_argument("target", help="the new safetensors file")
    arguments = parser.parse_args()
    try:
        print(f"{convert(arguments.source, arguments.target)} tensors are in {arguments.target}")
    except (CheckpointError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
