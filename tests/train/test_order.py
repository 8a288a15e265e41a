"""The order of clips, the batches cut from it, and the state of a run, without any file."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import InputError
from manifests.seeds import digest
from train.data.order import Batches, DataState, Order

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [5, 3, 0, 7, 1, 6, 4, 5]  # 31 clips: an epoch never ends with a batch
CLIPS = sum(COUNTS)
G = 12
RANKS = (1, 2, 3, 4)


def shard_of(row: int, counts: list[int]) -> int:
    return int(np.searchsorted(np.cumsum(counts), row, side="right"))


def rows_of(order: Order, epoch: int) -> list[int]:
    found = [order.locate(position) for position in range(epoch * order.clips, (epoch + 1) * order.clips)]
    assert {e for e, _ in found} == {epoch}
    return [row for _, row in found]


def global_batch(step: int, ranks: int, micro: int, *, start: int = 0, size: int = G) -> list[int]:
    """The positions of one step, put together from its ranks' micro-batches."""
    first = start + step * size
    parts = [Batches(first, size, micro, rank, ranks, stop=first + size) for rank in range(ranks)]
    return [position for part in parts for batch in part for position in batch]


def test_clip_order_is_a_permutation_for_any_block_size():
    """Oracle: every row once an epoch, over random shards, block sizes and epochs."""
    rng = np.random.default_rng(0)
    for trial in range(60):
        counts = rng.integers(0, 9, rng.integers(1, 12)).tolist()
        counts[int(rng.integers(len(counts)))] += 1
        order = Order(counts, seed=trial, block_shards=int(rng.integers(1, len(counts) + 3)))
        for epoch in (0, 1, int(rng.integers(1, 10**6))):
            assert sorted(rows_of(order, epoch)) == list(range(sum(counts)))


def test_clip_order_equals_a_slow_restatement():
    """Oracle: sorting by the keys, one at a time, over whole epochs."""

    def sorted_by_key(items: list[int], *key: object) -> list[int]:
        stream = hashlib.shake_256(digest("order", *key)).digest(8 * len(items))
        keys = [int.from_bytes(stream[8 * k : 8 * k + 8], "little") for k in range(len(items))]
        return [item for _, item in sorted(zip(keys, items, strict=True))]

    starts = np.concatenate([[0], np.cumsum(COUNTS)])
    for block_shards, epoch in itertools.product((1, 3, 8), (0, 5)):
        shards = sorted_by_key(list(range(len(COUNTS))), 7, epoch, "shards")
        expected = []
        for block, first in enumerate(range(0, len(shards), block_shards)):
            rows = [row for k in shards[first : first + block_shards] for row in range(starts[k], starts[k + 1])]
            expected += sorted_by_key(rows, 7, epoch, "clips", block)
        assert rows_of(Order(COUNTS, seed=7, block_shards=block_shards), epoch) == expected


def test_clip_order_never_changes_between_versions():
    """Oracle: values of the first version; a run that goes on under a newer one depends on them."""
    assert rows_of(Order([3, 4, 2], seed=0, block_shards=2), 0) == [0, 6, 5, 1, 2, 3, 4, 7, 8]
    assert rows_of(Order([3, 4, 2], seed=0, block_shards=2), 1) == [1, 7, 0, 2, 8, 4, 6, 5, 3]


def test_clip_order_differs_by_epoch_and_seed():
    """Oracle: chance; 31 clips in the same order twice do not happen."""
    orders = {
        tuple(rows_of(Order(COUNTS, seed=seed, block_shards=3), epoch)) for seed in range(4) for epoch in range(4)
    }
    assert len(orders) == 16


def test_one_block_shuffles_everything_evenly():
    """Oracle: over many epochs each row is in the first half of the order half of the time."""
    order = Order([4, 4, 4], seed=3, block_shards=3)
    halves = np.zeros(12)
    for epoch in range(2000):
        halves[rows_of(order, epoch)[:6]] += 1
    assert np.abs(halves / 2000 - 0.5).max() < 0.05  # 4.5 standard deviations


def test_reads_stay_within_the_shards_of_a_block():
    """Oracle: counting the shards met in a window of the order."""
    counts = [6] * 20
    for block_shards in (1, 2, 5, 20):
        order = Order(counts, seed=1, block_shards=block_shards)
        met = [shard_of(row, counts) for row in rows_of(order, 2)]
        block = 6 * block_shards
        for first in range(0, len(met), block):
            assert len(set(met[first : first + block])) == block_shards
        widest = max(len(set(met[first : first + block])) for first in range(len(met) - block + 1))
        assert widest <= 2 * block_shards


def test_locating_is_the_same_in_any_order_of_asking_and_after_pickling():
    """Oracle: the order asked for from front to back."""
    order = Order(COUNTS, seed=2, block_shards=2)
    expected = [order.locate(position) for position in range(3 * CLIPS)]
    fresh = pickle.loads(pickle.dumps(order))
    for position in np.random.default_rng(0).permutation(3 * CLIPS):
        assert fresh.locate(int(position)) == expected[position]


def test_a_million_clips_need_the_memory_of_a_block():
    """Oracle: what is kept after asking all over the epoch; no list of all clips is among it."""
    order = Order([64] * 15_625, seed=0, block_shards=8)
    assert order.clips == 1_000_000
    rows = {order.locate(position)[1] for position in range(0, 1_000_000, 997)}
    assert len(rows) == len(range(0, 1_000_000, 997))
    assert order._rows.cache_info().currsize <= 3
    assert len(order._rows(0, 0)) == 512


def test_an_order_of_nothing_is_refused():
    """No clip gives no position."""
    with pytest.raises(InputError, match="found no clip in 2 shards"):
        Order([0, 0], seed=0, block_shards=1)


@pytest.mark.parametrize("micro", [1, 3])
def test_steps_are_the_same_for_any_number_of_ranks_stopped_anywhere(micro):
    """Oracle: the uninterrupted run of one rank; over two epochs each clip comes exactly once an epoch."""
    order = Order(COUNTS, seed=5, block_shards=3)
    steps = 2 * CLIPS // G + 2
    whole = [order.locate(position) for position in range(steps * G)]
    for epoch in (0, 1):
        assert sorted(row for e, row in whole if e == epoch) == list(range(CLIPS))
    for before, after in itertools.product(RANKS, RANKS):
        for stop in range(steps + 1):
            if G % (before * micro) or G % (after * micro):
                continue
            positions = [p for step in range(stop) for p in global_batch(step, before, micro)]
            positions += [p for step in range(steps - stop) for p in global_batch(step, after, micro, start=stop * G)]
            assert [order.locate(position) for position in positions] == whole


def test_another_batch_size_goes_on_where_the_run_stood():
    """Oracle: positions one after the other, nothing twice and nothing left out, whatever the sizes were."""
    state, met = DataState(seed=0), []
    for ranks, size, steps in ((4, 12, 2), (3, 6, 5), (2, 8, 1), (2, 8, 2), (1, 5, 4)):
        state.begin(size)
        for step in range(steps):
            met += global_batch(0, ranks, 1, start=state.position, size=size)
            state.advance(size, ["x"] if step == 3 else [])
    assert met == list(range(state.position))
    assert state.history == [[0, 12], [24, 6], [54, 8], [78, 5]]
    assert state.skipped == ["x", "x"]


def test_a_batch_size_that_nothing_was_done_with_is_not_history():
    """Oracle: the rule."""
    state = DataState(seed=0)
    state.begin(4)
    state.begin(8)
    state.advance(8)
    state.begin(8)
    state.begin(4)
    assert state.history == [[0, 8], [8, 4]]


def test_batches_have_a_length_only_with_a_stop():
    """Oracle: counting."""
    batches = Batches(24, 12, 2, 1, 3, stop=60)
    assert len(batches) == len(list(batches)) == 6
    assert list(itertools.islice(Batches(24, 12, 2, 1, 3), 3)) == [[28, 29], [30, 31], [40, 41]]
    with pytest.raises(TypeError, match="never end"):
        len(Batches(0, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 12, "world_size": 5}, "found 12, expected a multiple of ranks x --micro-batch, 5 x 1"),
        ({"batch_size": 12, "micro_batch": 4, "world_size": 2}, "2 x 4"),
        ({"batch_size": 12, "micro_batch": 0}, "1 x 0"),
        ({"batch_size": 12, "stop": 18}, "whole number of batches of 12 after 0"),
    ],
)
def test_batches_that_do_not_divide_are_refused(arguments, message):
    """The numbers are named."""
    with pytest.raises(InputError, match=message):
        Batches(0, **arguments)


def test_data_state_survives_json_and_refuses_other_data():
    """Oracle: round trip; the error names the way around it."""
    state = DataState(seed=3, position=36, fingerprint="a" * 64, history=[[0, 12]], skipped=["fox"])
    again = DataState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    again.check("a" * 64)
    with pytest.raises(InputError, match=r"fingerprint bbbb.*stopped at clip 36.*--accept-changed-data"):
        again.check("b" * 64)


@pytest.mark.parametrize(
    ("change", "name"), [({"position": -1}, "negative"), ({"history": "x"}, "history"), ({"more": 1}, "more")]
)
def test_data_state_of_another_version_is_refused(change, name):
    """The field is named."""
    with pytest.raises(InputError, match=f"data state: found .*{name}"):
        DataState.from_dict({**DataState(seed=0).to_dict(), **change})


def test_order_and_draws_need_no_torch():
    """Oracle: sys.modules of a fresh interpreter."""
    names = (
        "train.config, train.data.order, train.data.draws, train.data.ranges, train.data.members, train.data.captions"
    )
    code = f"import sys, {names}; print(sorted({{'torch', 'diffusers', 'fsspec'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
