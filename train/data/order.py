"""Which clip comes at which position, which positions a process takes, and where a run stands in them.

Positions count clips from the start of the training and never end: epoch e covers [e * clips, (e + 1) * clips), global
batch g covers [g * G, (g + 1) * G), and an epoch may end inside a batch. Everything is a pure function of the seed and
the shards, so ranks, workers and batch size change nothing about the order. Nothing here reads a file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from manifests.errors import InputError
from manifests.seeds import digest

__all__ = ["Batches", "DataState", "Order"]


class Order:
    """The clips of a split, in an order that is new in every epoch and stays near in the tars.

    Shards are permuted per epoch and cut into blocks of ``block_shards``; the clips of a block are permuted among
    themselves. Whoever reads in this order has at most the shards of one block open, two at its border.

    Args:
        counts: clips of each shard, in the order of the dataset; 0 is allowed.
        seed: of the permutations.
        block_shards: shards a block, at least 1; as many as there are gives one shuffle of everything.

    Raises:
        InputError: no clip at all.
    """

    def __init__(self, counts: Sequence[int], *, seed: int, block_shards: int) -> None:
        assert block_shards >= 1, f"block_shards is {block_shards}, expected at least 1"
        assert all(number >= 0 for number in counts), "a shard with less than no clips"
        self.counts, self.seed, self.block_shards = tuple(map(int, counts)), seed, block_shards
        self.clips = sum(self.counts)
        if not self.clips:
            raise InputError(
                f"order: found no clip in {len(self.counts)} shards, expected at least one; choose another split"
            )
        self._first_rows = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        # Two epochs meet at a border, and two blocks; a third is room for one who looks back.
        self._plan = functools.lru_cache(3)(self._plan_epoch)
        self._rows = functools.lru_cache(3)(self._permute_block)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), seed=self.seed, block_shards=self.block_shards), (self.counts,)

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, index) of a position; index is the clip's row in shard order, 0 to ``clips`` - 1.

        The first call in a block costs a permutation of the block, the others microseconds; memory is that of a block.
        """
        assert position >= 0, f"position is {position}, expected 0 or more"
        epoch, place = divmod(position, self.clips)
        _, ends = self._plan(epoch)
        block = int(np.searchsorted(ends, place, side="right"))
        first = int(ends[block - 1]) if block else 0
        return epoch, int(self._rows(epoch, block)[place - first])

    def _plan_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the order of the epoch, and the number of clips up to the end of each block."""
        shards = _permutation(len(self.counts), self.seed, epoch, "shards")
        ends = np.cumsum(np.asarray(self.counts, np.int64)[shards])
        last = [*range(self.block_shards - 1, len(shards) - 1, self.block_shards), len(shards) - 1]
        return shards, ends[last]

    def _permute_block(self, epoch: int, block: int) -> np.ndarray:
        shards = self._plan(epoch)[0][block * self.block_shards : (block + 1) * self.block_shards]
        rows = np.concatenate([np.arange(self._first_rows[k], self._first_rows[k + 1]) for k in shards])
        return rows[_permutation(len(rows), self.seed, epoch, "clips", block)]


def _permutation(length: int, *key: object) -> np.ndarray:
    """A permutation that only the key decides. Not numpy's generator, whose streams may change between versions."""
    stream = hashlib.shake_256(digest("order", *key)).digest(8 * length)
    return np.argsort(np.frombuffer(stream, "<u8"), kind="stable")


@dataclass(frozen=True)
class Batches:
    """The positions that one rank takes, a micro-batch at a time; goes into ``DataLoader(batch_sampler=...)``.

    A global batch is cut into contiguous parts, one a rank, and a part into micro-batches. Without ``stop`` there is
    no end. Progress is counted by whoever makes the steps: what was prefetched does not count.

    Attributes:
        start: position of the first clip of the first batch.
        batch_size: clips of a global batch, over all ranks.
        micro_batch: clips yielded at a time.
        rank: this process, 0 to ``world_size`` - 1.
        world_size: processes.
        stop: position behind the last batch, a whole number of batches after ``start``; None is never.

    Raises:
        InputError: a batch that does not divide by ranks x micro-batch, or a stop within a batch.
    """

    start: int
    batch_size: int
    micro_batch: int = 1
    rank: int = 0
    world_size: int = 1
    stop: int | None = None

    def __post_init__(self) -> None:
        assert self.start >= 0, f"start is {self.start}, expected 0 or more"
        assert 0 <= self.rank < self.world_size, f"rank is {self.rank} of {self.world_size}"
        together = self.world_size * self.micro_batch
        if self.micro_batch < 1 or self.batch_size < 1 or self.batch_size % together:
            raise InputError(
                f"--batch-size: found {self.batch_size}, expected a multiple of ranks x --micro-batch,"
                f" {self.world_size} x {self.micro_batch}; choose another batch, micro-batch or number of processes"
            )
        if self.stop is not None and (self.stop < self.start or (self.stop - self.start) % self.batch_size):
            raise InputError(
                f"stop: found position {self.stop}, expected a whole number of batches of {self.batch_size} after"
                f" {self.start}; count in steps"
            )

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.world_size
        for batch in count(self.start, self.batch_size):
            if self.stop is not None and batch >= self.stop:
                return
            first = batch + self.rank * part
            for micro in range(first, first + part, self.micro_batch):
                yield list(range(micro, micro + self.micro_batch))

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("these batches never end and have no length; give them a stop")
        return (self.stop - self.start) // (self.world_size * self.micro_batch)


@dataclass(kw_only=True)
class DataState:
    """Where a run stands in its clips: a few integers, whatever the number of ranks and workers.

    Attributes:
        seed: of the order and the draws.
        position: clips that steps were made with; the next batch begins here.
        fingerprint: of the clips and their order, see `train.data.clips.ClipDataset`.
        history: (position, batch size) wherever another batch size began.
        skipped: ids of damaged clips that were replaced, in the order they were met.
    """

    seed: int
    position: int = 0
    fingerprint: str = ""
    history: list[list[int]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def begin(self, batch_size: int) -> None:
        """Notes the batch size from here on, if it is another one; call it when a run starts or goes on."""
        if self.history and self.history[-1][0] == self.position:
            self.history.pop()  # nothing was done with that one
        if not self.history or self.history[-1][1] != batch_size:
            self.history.append([self.position, batch_size])

    def advance(self, clips: int, skipped: Sequence[str] = ()) -> None:
        """Counts the clips of a step that is done, and the damaged ones among them."""
        self.position += clips
        self.skipped += skipped

    def check(self, fingerprint: str) -> None:
        """Refuses to go on over other clips.

        Raises:
            InputError: the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"--data: found a dataset with fingerprint {fingerprint[:16]}, expected {self.fingerprint[:16]} as when"
                f" the run stopped at clip {self.position}: clips, their order or captions have changed; give the same"
                " dataset, or go on with --accept-changed-data, which sees some clips twice in this epoch and some not"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataState:
        """Inverse of `to_dict`.

        Raises:
            InputError: other fields, or values of another kind.
        """
        kinds = {"seed": int, "position": int, "fingerprint": str, "history": list, "skipped": list}
        wrong = sorted(name for name in kinds.keys() ^ values.keys())
        wrong += [name for name, kind in kinds.items() if name in values and not isinstance(values[name], kind)]
        if wrong or values["position"] < 0:
            raise InputError(
                f"data state: found {', '.join(wrong) or 'a negative position'} absent, unknown or of another kind,"
                f" expected {', '.join(kinds)}; take an earlier checkpoint, this one is of another version or damaged"
            )
        return cls(
            **{**values, "history": [list(entry) for entry in values["history"]], "skipped": [*values["skipped"]]}
        )
