"""Pickled checkpoints become safetensors, and nothing in them runs."""

import os

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
weights = pytest.importorskip("genomill.weights")


def state():
    shared = torch.arange(4.0).reshape(1, 4)
    return {"model.filter.1.freq": shared, "model.filter.3.freq": shared, "model.norm.bias": torch.ones(3).to(torch.bfloat16)}


@pytest.mark.parametrize(
    "checkpoint",
    [lambda tensors: tensors, lambda tensors: {"epoch": 3, "state_dict": tensors}, lambda tensors: {"state": {"model": tensors}}],
)
def test_tensors_keep_names_values_and_types(tmp_path, checkpoint):
    source, target = tmp_path / "weights.ckpt", tmp_path / "weights.safetensors"
    torch.save(checkpoint(state()), source)
    assert weights.convert(source, target) == 3
    found = safetensors_torch.load_file(target)
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.ckpt", "weights.safetensors"]
    with pytest.raises(weights.CheckpointError, match="exists already"):
        weights.convert(source, target)


class Runs:
    """What a pickle may ask for: a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_nothing_in_a_pickle_runs(tmp_path):
    source, trace = tmp_path / "weights.ckpt", tmp_path / "trace"
    torch.save({"state_dict": state(), "more": Runs(trace)}, source)
    with pytest.raises(weights.CheckpointError, match="none of it was run"):
        weights.convert(source, tmp_path / "out.safetensors")
    assert not trace.exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [([1, 2], "holds a list"), ({}, "found none"), ({"state_dict": {"a": torch.ones(1), "b": 3}}, "found b")],
)
def test_what_holds_no_weights_is_refused(tmp_path, checkpoint, reason):
    torch.save(checkpoint, tmp_path / "weights.ckpt")
    with pytest.raises(weights.CheckpointError, match=reason):
        weights.convert(tmp_path / "weights.ckpt", tmp_path / "out.safetensors")
