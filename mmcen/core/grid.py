"""The stream grid of T tasks x M modalities, on which every setting of the paper is built.

A *stream* is one (task t, modality m) pair, the paper's "subnetwork". Streams share convolutions
and own their norms. They live in the batch: ``(B, T, M, C, ...)`` folds to ``(T*M*B, C, ...)``, so
that stock layers run unchanged and read their weights once for all streams.

The fold is stream-major: all samples of the first stream, then all of the second. Each stream is a
contiguous slice in every memory format, so its norm reads and writes it in place, and a batch of
streams is ``torch.cat([rgb, depth])``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

AXES = ('tasks', 'modalities')


class StreamGrid:
    """Sizes of a stream grid, the streams that are present, and how they fold into the batch.

    All norms of a converted network hold the same grid, so one call of :meth:`only` applies to all
    of them. A deep copy of a network has its own grid: copy the network and its ensemble in one
    module, or build the ensemble of the copy from the copy's ``stream_grid``.

    Args:
        tasks: T, rows of the grid, at least 1.
        modalities: M, columns of the grid, at least 1.

    Raises:
        ValueError: If a size is not a positive integer.

    Examples:
        >>> import torch
        >>> grid = StreamGrid(tasks=1, modalities=2)
        >>> grid.fold(torch.zeros(3, 1, 2, 8, 4, 4)).shape
        torch.Size([6, 8, 4, 4])
    """

    def __init__(self, tasks: int = 1, modalities: int = 1) -> None:
        for axis, size in zip(AXES, (tasks, modalities), strict=True):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f'{axis} must be a positive integer, got {size!r}')
        self.sizes = (tasks, modalities)
        self._present = (tuple(range(tasks)), tuple(range(modalities)))

    def present(self, axis: str) -> tuple[int, ...]:
        """Return the indices along ``axis`` of the streams that are present."""
        return self._present[_index(axis)]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of present tasks and modalities, (T, M)."""
        return len(self._present[0]), len(self._present[1])

    @property
    def tasks(self) -> int:
        """Number of tasks that are present."""
        return self.shape[0]

    @property
    def modalities(self) -> int:
        """Number of modalities that are present."""
        return self.shape[1]

    @property
    def size(self) -> int:
        """Number of streams that are present, T * M."""
        return self.tasks * self.modalities

    @property
    def streams(self) -> list[int]:
        """Indices t * M + m, by the full sizes, of the present streams, in fold order."""
        tasks, modalities = self._present
        return [t * self.sizes[1] + m for t in tasks for m in modalities]

    @property
    def is_whole(self) -> bool:
        """Whether all streams are present."""
        return self.shape == self.sizes

    def length(self, axis: str) -> int:
        """Return the number of streams present along ``axis``, ``'tasks'`` or ``'modalities'``."""
        return self.shape[_index(axis)]

    def dim(self, axis: str) -> int:
        """Return the dimension of ``axis`` in an unfolded tensor ``(B, T, M, ...)``."""
        return 1 + _index(axis)

    @contextmanager
    def only(
        self, modalities: Sequence[int] | None = None, tasks: Sequence[int] | None = None
    ) -> Iterator[StreamGrid]:
        """Run the network on a part of its streams.

        Inside the context, the batch holds the named streams only, and absent streams cost nothing.
        The present streams exchange among themselves. A stream that is alone keeps its channels.

        Args:
            modalities: Indices of the present modalities, counted from 0 and ascending; None for
                all.
            tasks: Indices of the present tasks, counted from 0 and ascending; None for all.

        Raises:
            ValueError: If no index is given, an index is not in the grid, or indices do not
                ascend. The batch has the order of the grid.

        Examples:
            >>> grid = StreamGrid(modalities=3)
            >>> with grid.only(modalities=[0, 2]):
            ...     grid.streams
            [0, 2]
        """
        before = self._present
        chosen = []
        for axis, given, size in zip(AXES, (tasks, modalities), self.sizes, strict=True):
            places = tuple(range(size)) if given is None else tuple(given)
            ascending = sorted(set(places)) == list(places)
            if not places or not ascending or not set(places) <= set(range(size)):
                raise ValueError(
                    f'{axis} {list(given or ())}: name some of {list(range(size))} in ascending '
                    'order, each once'
                )
            chosen.append(places)
        self._present = (chosen[0], chosen[1])
        try:
            yield self
        finally:
            self._present = before

    def fold(self, x: Tensor) -> Tensor:
        """Put the streams into the batch: ``(B, T, M, ...)`` to ``(T*M*B, ...)``."""
        if tuple(x.shape[1:3]) != self.shape:
            raise ValueError(
                f'expected (B, {self.tasks}, {self.modalities}, ...), got {tuple(x.shape)}'
            )
        return x.movedim(0, 2).flatten(0, 2)  # (T*M*B, ...)

    def unfold(self, x: Tensor) -> Tensor:
        """Take the streams out of the batch: ``(T*M*B, ...)`` to ``(B, T, M, ...)``, a view."""
        self.check_batch(x)
        return x.unflatten(0, (*self.shape, -1)).movedim(2, 0)  # (B, T, M, ...)

    def separate(self, x: Tensor) -> tuple[Tensor, ...]:
        """Take a folded batch apart: ``(T*M*B, ...)`` to ``(B, ...)`` of each stream, views."""
        self.check_batch(x)
        return x.unflatten(0, (self.size, -1)).unbind(0)  # chunk would export no dynamic batch

    def check_batch(self, x: Tensor) -> None:
        """Raise ValueError if the batch is not made of equal parts, one for each stream."""
        if x.shape[0] % self.size:
            raise ValueError(
                f'batch {x.shape[0]} is not divisible by {self.size} streams: '
                'stack the modalities first'
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamGrid) and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash(self.sizes)

    def __repr__(self) -> str:
        tasks, modalities = self.sizes
        present = '' if self.is_whole else f', present={self._present}'
        return f'StreamGrid(tasks={tasks}, modalities={modalities}{present})'


def _index(axis: str) -> int:
    if axis not in AXES:
        raise ValueError(f"axis must be one of {AXES}, got '{axis}'")
    return AXES.index(axis)
