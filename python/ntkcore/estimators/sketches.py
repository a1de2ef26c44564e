"""What features are made with: sketches, which keep inner products in the mean, and scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft

Array = npt.NDArray[Any]
BATCH = 1024  # rows, or pixels, that a thread transforms at a time
MEAN_ABS = math.sqrt(2 / math.pi)  # E|z| of a standard normal z
Sources = npt.NDArray[np.int64]  # (taps, outputs): the pixel that each reads, -1 outside


@dataclass(frozen=True, repr=False, eq=False)
class Sketch:
    """Linear, with E<sketch(v), sketch(v')> = <v, v'>: random signs, a cosine transform
    (orthogonal), some of its entries.
    """

    signs: Array
    length: int
    entries: Array

    @classmethod
    def of(cls, inputs: int, outputs: int, rng: np.random.Generator, dtype: Any) -> Sketch:
        """Of vectors of length ``inputs``."""
        length = scipy.fft.next_fast_len(max(inputs, outputs), real=True)
        signs = rng.choice([-1.0, 1.0], inputs).astype(dtype)
        return cls(signs, length, rng.permutation(length)[:outputs])

    def __call__(self, v: Array) -> Array:
        """Of rows."""
        scale = math.sqrt(self.length / max(1, len(self.entries)))
        moved: Array = scipy.fft.dct(v * (scale * self.signs), n=self.length, norm="ortho")
        return moved[:, self.entries]


class Block(NamedTuple):
    """Columns that belong together, and about what they add to the mean square."""

    width: int
    energy: float


@dataclass(frozen=True, repr=False, eq=False)
class PatchSketch:
    """Of the vectors v_1, v_2, … that the taps of a window read: one after another while they fit
    into the columns. Else so are blocks of much energy in few columns; of the others the sum over
    the taps, each with random signs and turned about by a random number of columns.
    E<sketch, sketch'> = sum_t <v_t, v'_t>, for signs are independent.
    """

    sources: Sources
    whole: tuple[slice, ...]  # blocks whose taps stay apart
    rest: npt.NDArray[np.int64]  # columns that are added up,
    columns: int  # in so many,
    starts: npt.NDArray[np.int64]  # from these on,
    signs: Array  # (taps, rest)
    blocks: tuple[Block, ...]  # that come out; energies of a mean over the taps

    @classmethod
    def of(
        cls,
        sources: Sources,
        blocks: Sequence[Block],
        most: int,
        rng: np.random.Generator,
        dtype: Any,
    ) -> PatchSketch:
        """Of pixels with these blocks, to at most so many columns."""
        taps, ends = len(sources), np.cumsum([0, *(block.width for block in blocks)]).tolist()
        live = [i for i, block in enumerate(blocks) if block.width and block.energy]
        room = most if taps * sum(blocks[i].width for i in live) <= most else most // 2
        kept = set[int]()
        for i in sorted(live, key=lambda i: -blocks[i].energy / blocks[i].width):
            if taps * blocks[i].width <= room:
                kept.add(i)
                room -= taps * blocks[i].width
        added = [i for i in live if i not in kept]
        out = [Block(taps * blocks[i].width, blocks[i].energy) for i in sorted(kept)]
        columns = most - sum(block.width for block in out) if added else 0
        if added:
            out.append(Block(columns, sum(blocks[i].energy for i in added)))
        rest = np.array([j for i in added for j in range(ends[i], ends[i + 1])], np.int64)
        signs = rng.choice([-1.0, 1.0], (taps, len(rest))).astype(dtype)
        starts = rng.integers(max(1, columns), size=taps)
        whole = tuple(slice(ends[i], ends[i + 1]) for i in sorted(kept))
        return cls(sources, whole, rest, columns, starts, signs, tuple(out))

    def __call__(self, v: Array) -> Array:
        """Of images of shape (n, pixels, columns)."""
        taps, outputs = self.sources.shape
        width = sum(block.width for block in self.blocks)
        out = np.zeros((len(v), outputs, width), v.dtype)
        for tap, (source, start) in enumerate(zip(self.sources, self.starts.tolist(), strict=True)):
            part = v[:, source]
            part[:, source < 0] = 0
            done = 0
            for block in self.whole:
                count = block.stop - block.start
                at = done + tap * count
                out[..., at : at + count] = part[..., block]
                done += taps * count
            if len(self.rest):
                added = part[..., self.rest] * self.signs[tap]
                for here, there in _turned(start, len(self.rest), self.columns):
                    out[..., done + there.start : done + there.stop] += added[..., here]
        return out


def _turned(start: int, inputs: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Where columns go that are written one after another from ``start``, round and round."""
    done = 0
    while done < inputs:
        at = (start + done) % columns
        count = min(inputs - done, columns - at)
        yield slice(done, done + count), slice(at, at + count)
        done += count


def row_scales(x: Array, biased: bool) -> Array:
    """Powers of 2, (n, 1), that bring rows near 1; at least 1 where a bias is beside them. Features
    of x/scale and biases/scale, times the scale, are those of x, without overflow on the way.
    ValueError for what has overflowed.
    """
    largest = np.abs(x).max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError(f"X holds values beyond the range of {x.dtype}: rescale the data")
    largest[largest == 0] = 1
    scale: Array = np.exp2(np.frexp(largest)[1] - 1).astype(x.dtype)
    return np.maximum(scale, 1, dtype=x.dtype) if biased else scale


def write_scaled(out: Array, features: Array, scale: Array) -> None:
    """features * scale into ``out``; ValueError where that overflows."""
    with np.errstate(over="ignore"):
        np.multiply(features, scale, out=out)
    if not np.isfinite(out).all():
        raise ValueError(f"the features overflow {out.dtype}: rescale the data")
