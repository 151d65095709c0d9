"""What genomill.torch promises; needs torch, and torchdata for what it resumes."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import shard_folder

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from genomill import ShardError  # noqa: E402
from genomill.order import Order  # noqa: E402
from genomill.torch import ShardDataset, ShardSampler, ShardStream  # noqa: E402

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
    code = example("TransformerEncoderLayer")
    assert 'ShardDataset("work/yeast/shards")' in code
    monkeypatch.setattr("genomill.torch.ShardDataset", lambda _: ShardDataset(made[0]))
    exec(compile(code, str(README), "exec"), {})
    losses = [float(word) for word in capsys.readouterr().out.split()]
    assert losses and all(np.isfinite(losses))


def stream(made, **options):
    return ShardStream(made[0], seed=7, **{"batch_size": 2, **options})


def expected(made, numbers, seed=7, **blocks):
    """The rows of some numbers of the order, as one array."""
    return made[1][Order(seed, 12, **blocks).at(numbers)].astype(np.int64)


def joined(batches):
    return torch.cat(list(batches)).numpy()


@pytest.mark.parametrize(("workers", "method"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
@pytest.mark.parametrize("blocks", [{}, {"block": 4, "window": 2}])
def test_a_stream_gives_the_order_with_any_number_of_workers(made, workers, method, blocks):
    loader = DataLoader(stream(made, **blocks), batch_size=None, num_workers=workers, multiprocessing_context=method)
    batches = list(itertools.islice(loader, 15))
    assert all(batch.shape == (2, 32) and batch.dtype == torch.int64 for batch in batches)
    assert np.array_equal(joined(batches), expected(made, range(30), **blocks))


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (2, 0), (3, 2), (5, 1)])
def test_ranks_and_workers_give_each_row_once_per_epoch(made, world, workers):
    found = []
    for rank in range(world):
        part = stream(made, endless=False, rank=rank, world=world)
        loader = DataLoader(part, batch_size=None, num_workers=workers)
        batches = list(loader)
        assert len(batches) == len(part)
        found += [tuple(row) for batch in batches for row in batch.tolist()]
    assert sorted(found) == sorted(tuple(row) for row in made[1].tolist())


def test_single_rows_are_disjoint_and_complete_too(made):
    rows = stream(made, batch_size=None, endless=False)
    loader = DataLoader(rows, batch_size=5, num_workers=2)
    found = sorted(tuple(row) for batch in loader for row in batch.tolist())
    assert found == sorted(tuple(row) for row in made[1].tolist())


def test_torchrun_says_which_rank(made, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert np.array_equal(next(iter(stream(made))).numpy(), expected(made, [1, 4]))
    assert list(ShardSampler(12, seed=7)) == Order(7, 12).at(range(1, 12, 3)).tolist()


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_stream_resumes_exactly(made, stop):
    first = stream(made)
    head = list(itertools.islice(iter(first), stop))
    second = stream(made)
    second.load_state_dict(first.state_dict())
    tail = list(itertools.islice(iter(second), 10))
    assert np.array_equal(joined(head + tail), expected(made, range(2 * (stop + 10))))


def test_other_ranks_and_workers_resume_from_the_number_of_batches(made):
    first = stream(made, rank=0, world=2)
    list(itertools.islice(DataLoader(first, batch_size=None, num_workers=2), 5))
    found = []
    for rank in range(3):
        part = stream(made, rank=rank, world=3, batch_size=1)
        part.load_state_dict(first.state_after(5))
        found.append(list(itertools.islice(DataLoader(part, batch_size=None, num_workers=rank), 4)))
    rows = [batch for step in zip(*found) for batch in step]
    assert np.array_equal(joined(rows), expected(made, range(20, 32)))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("stop", [0, 1, 4, 5])
def test_torchdata_saves_and_resumes_it(made, workers, stop):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    loader = stateful(stream(made), batch_size=None, num_workers=workers)
    batches = iter(loader)
    head = [next(batches) for _ in range(stop)]
    state = loader.state_dict()
    again = stateful(stream(made), batch_size=None, num_workers=workers)
    again.load_state_dict(state)
    tail = list(itertools.islice(again, 6))
    assert np.array_equal(joined(head + tail), expected(made, range(2 * (stop + 6))))


def test_epochs_differ_and_are_chosen(made):
    one = stream(made, endless=False)
    first, second = joined(one), joined(one)
    assert np.array_equal(first, expected(made, range(12)))
    assert np.array_equal(second, expected(made, range(12, 24)))
    one.set_epoch(1)
    assert np.array_equal(joined(one), second)


def test_drop_last_gives_ranks_as_many_whole_batches(made):
    for rank in range(5):
        part = stream(made, endless=False, drop_last=True, rank=rank, world=5)
        assert [len(batch) for batch in part] == [2] and len(part) == 1


def test_a_sampler_orders_a_map_style_dataset(made):
    dataset = ShardDataset(made[0])
    sampler = ShardSampler(dataset, seed=7, block=4, window=2)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler)
    assert np.array_equal(joined(loader), expected(made, range(12), block=4, window=2))
    assert np.array_equal(joined(loader), expected(made, range(12, 24), block=4, window=2))
    drawn = iter(sampler)
    head = [next(drawn) for _ in range(5)]
    other = ShardSampler(dataset, seed=7, block=4, window=2)
    other.load_state_dict(sampler.state_dict())
    assert head + list(other) == Order(7, 12, 4, 2).at(range(24, 36)).tolist()


def test_what_does_not_fit_is_refused(made):
    with pytest.raises(ShardError, match="the state is of another order"):
        stream(made).load_state_dict(stream(made, block=4).state_dict())
    with pytest.raises(ShardError, match="split 'test' has no rows"):
        ShardStream(made[0], split="test")
    with pytest.raises(ValueError, match="rank is 2 of 2"):
        stream(made, rank=2, world=2)
    with pytest.raises(TypeError, match="no length"):
        len(stream(made))


def example(marker):
    """The block of code of the readme that holds the marker."""
    return next(block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if marker in block)


def run_beside(made, monkeypatch, tmp_path, code):
    """Runs an example in a folder in which work/yeast/shards are those that were made."""
    (tmp_path / "work/yeast").mkdir(parents=True)
    (tmp_path / "work/yeast/shards").symlink_to(made[0])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, str(README), "exec"), names)
    return names


def test_the_example_of_the_readme_resumes(made, monkeypatch, tmp_path):
    code = example("ShardStream(").replace("batch_size=16", "batch_size=2")
    names = run_beside(made, monkeypatch, tmp_path, code)
    assert names["step"] == 100
    assert np.array_equal(next(iter(names["loader"])).numpy(), expected(made, [200, 201]))


def test_the_example_of_the_readme_trains_with_transformers(made, monkeypatch, tmp_path, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    run_beside(made, monkeypatch, tmp_path, example("Trainer("))
    assert np.isfinite(float(capsys.readouterr().out.split()[-1]))


def test_the_example_of_the_readme_opens_shards_with_datasets(made, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = run_beside(made, monkeypatch, tmp_path, example("datasets.load_dataset"))
    assert np.array_equal(np.stack(names["rows"][:]["input_ids"]), made[1].astype(np.int64))
