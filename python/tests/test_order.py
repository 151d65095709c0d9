"""The order of the Rust sampler, and how ranks and workers share it; needs numpy only."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from genomill import ShardError
from genomill.order import Order
from genomill.share import Position, Share

TABLE = json.loads((Path(__file__).resolve().parents[2] / "schemas" / "order.json").read_text())
ORDERS = [Order(3, 101), Order(3, 101, block=8, window=3)]


def of(case):
    return Order(case["seed"], case["rows"], case["block"], case["window"] or 16)


def test_the_order_is_that_of_the_rust_sampler():
    assert len(TABLE) > 50
    for case in TABLE:
        numbers = range(case["first"], case["first"] + len(case["order"]))
        assert of(case).at(numbers).tolist() == case["order"], case
        assert of(case).row(numbers[-1]) == case["order"][-1]


def test_many_numbers_at_once_are_each_by_itself():
    for order in ORDERS:
        numbers = np.random.default_rng(1).integers(0, 10**12, 300, dtype=np.uint64)
        assert order.at(numbers).tolist() == [order.row(int(number)) for number in numbers]
    assert ORDERS[0].at([]).tolist() == []


@pytest.mark.parametrize(("rows", "block", "window"), [(1, None, 16), (100, None, 16), (100, 7, 3), (64, 8, 2), (9, 50, 4)])
def test_every_epoch_holds_every_row_once(rows, block, window):
    order = Order(5, rows, block, window)
    epochs = [order.at(range(epoch * rows, (epoch + 1) * rows)).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**64}, {"rows": 0}, {"block": 0}, {"window": 0}])
def test_orders_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        Order(**{"seed": 1, "rows": 10, **wrong})


def taken(order, first, world, batch, steps):
    """What all ranks take in some steps, by their numbers: position by position, rank by rank."""
    ranks = [Share(order, first, rank, world, batch).rows() for rank in range(world)]
    parts = [np.concatenate(list(itertools.islice(rank, steps))) for rank in ranks]
    return np.stack(parts, axis=1).reshape(-1).tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_any_world_size_goes_on_where_any_other_stopped(order):
    found = []
    for world, batch, steps in [(1, 4, 3), (4, 3, 5), (3, 5, 7), (8, 1, 2), (2, 4, 11), (7, 3, 9)]:
        assert Share(order, len(found), 0, world, batch).after(steps) == len(found) + world * batch * steps
        found += taken(order, len(found), world, batch, steps)
    assert found == order.at(range(len(found))).tolist()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("world", "workers", "batch"), [(1, 1, 1), (2, 3, 4), (2, 1, 50), (3, 2, 5), (5, 4, 30), (64, 2, 2)])
def test_ranks_and_workers_are_disjoint_and_complete(world, workers, batch, drop_last):
    order, found, lengths = ORDERS[1], [], []
    for rank in range(world):
        share = Share(order, 101, rank, world, batch, end=202, drop_last=drop_last)
        batches = [rows for worker in range(workers) for rows in share.rows(worker, workers)]
        assert len(batches) == share.batches and all(len(rows) for rows in batches)
        found += [row for rows in batches for row in rows.tolist()]
        lengths.append([len(rows) for rows in batches])
    if drop_last:
        assert {tuple(rank) for rank in lengths} == {(batch,) * (101 // (batch * world))}
        assert len(found) == len(set(found))
    else:
        assert sorted(found) == list(range(101))


def test_a_far_position_is_as_near_as_the_first():
    order = Order(3, 10**9 + 7, block=1024)
    far = next(Share(order, 10**18, 1, 4, 3).rows())
    assert far.tolist() == order.at([10**18 + 1, 10**18 + 5, 10**18 + 9]).tolist()


def position(rank=0, world=1, batch=2, order=ORDERS[0], endless=True):
    return Position(order, batch, rank, world, endless, drop_last=False)


def steps(position, count):
    return [rows.tolist() for rows in itertools.islice(position.walk(), count)]


def test_a_position_resumes_where_it_was():
    whole = steps(position(), 200)
    for stop in (0, 1, 60, 199):
        first = position()
        head = steps(first, stop)
        second = position()
        second.load(json.loads(json.dumps(first.state())))
        assert head + steps(second, 200 - stop) == whole


def test_workers_resume_each_by_itself():
    def worker(state=None):
        found = position()
        if state is not None:
            found.load(state)
        found.settle(1, 3)
        return found

    whole, first = steps(worker(), 20), worker()
    assert steps(first, 8) + steps(worker(first.state()), 12) == whole
    assert whole == steps(position(), 60)[1::3]


def test_the_state_of_one_worker_of_many_cannot_become_another_layout():
    one = position()
    one.settle(1, 3)
    steps(one, 4)
    other = position()
    other.load(one.state())
    with pytest.raises(ShardError, match=r"that of worker 1 of 3.*state_after"):
        other.settle(0, 2)
    with pytest.raises(ShardError, match="that of worker 1 of 3"):
        position(world=2).load(one.state())


def test_other_ranks_and_batch_sizes_go_on_from_a_state():
    first = position(rank=1, world=2, batch=3)
    steps(first, 4)
    for state in (first.state(), position(rank=0, world=2, batch=3).state_after(4)):
        found = []
        for rank in range(3):
            other = position(rank=rank, world=3, batch=1)
            other.load(state)
            found.append(steps(other, 5))
        flat = [rows[0] for step in zip(*found) for rows in step]
        assert flat == ORDERS[0].at(range(24, 39)).tolist()


def test_a_pass_ends_with_its_epoch_and_the_next_goes_on():
    one = position(endless=False, batch=10)
    passes = [[row for rows in one.walk() for row in rows.tolist()] for _ in range(2)]
    assert passes[0] + passes[1] == ORDERS[0].at(range(202)).tolist()
    one.begin_epoch(1)
    assert [row for rows in one.walk() for row in rows.tolist()] == passes[1]


@pytest.mark.parametrize("change", [{"order": {"seed": 4, "rows": 101}}, {"order": None}])
def test_a_state_of_another_order_is_refused(change):
    with pytest.raises(ShardError, match="the state is of another order"):
        position().load({**position().state(), **change})


def test_a_state_that_is_none_is_refused():
    with pytest.raises(ShardError, match="the state has no 'first'"):
        position().load({key: value for key, value in position().state().items() if key != "first"})
