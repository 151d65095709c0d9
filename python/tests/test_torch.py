"""What genomill.torch.ShardDataset promises; needs torch."""

import re
from pathlib import Path

import numpy as np
import pytest
import shard_folder

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from genomill.torch import ShardDataset  # noqa: E402

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch") / "shards"
    return folder, shard_folder.make(folder)


def test_samples_are_the_rows(made):
    folder, tokens = made
    dataset = ShardDataset(folder)
    assert len(dataset) == 12
    assert dataset[3].dtype == torch.int64 and dataset[3].shape == (32,)
    assert np.array_equal(dataset[-1].numpy(), tokens[-1])
    dataset[3][0] = 5
    assert dataset[3][0] == int(tokens[3, 0])
    assert len(ShardDataset(folder, split="test")) == 0


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_loader_gives_every_row_once(made, workers, method):
    folder, tokens = made
    dataset = ShardDataset(folder)
    dataset[0]
    loader = DataLoader(dataset, batch_size=5, num_workers=workers, multiprocessing_context=method)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert np.array_equal(torch.cat(batches).numpy(), tokens)


def test_the_example_of_the_readme_trains(made, monkeypatch, capsys):
    example = re.search(r"```python\n(import torch\n.*?)```", README.read_text(), re.DOTALL)[1]
    assert 'ShardDataset("work/yeast/shards")' in example
    monkeypatch.setattr("genomill.torch.ShardDataset", lambda _: ShardDataset(made[0]))
    exec(compile(example, str(README), "exec"), {})
    losses = [float(word) for word in capsys.readouterr().out.split()]
    assert losses and all(np.isfinite(losses))
