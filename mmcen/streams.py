"""The stream grid: T tasks x M modalities, the one idea that carries every setting of the paper.

A *stream* is one (task t, modality m) pair, the paper's "subnetwork". Streams share convolutions
and own their norms. They live in the batch: ``(B, T, M, C, H, W)`` folds to ``(T*M*B, C, H, W)``,
so that stock convolutions and heads run unchanged and read their weights once for all streams.

The fold is stream-major: all samples of the first stream, then all of the second. Each stream is a
contiguous slice in every memory format, so its norm reads and writes it in place, in channels_last
too, where a batch-major fold would have to be copied.
"""

from dataclasses import dataclass

from torch import Tensor

AXES = ('tasks', 'modalities')


@dataclass(frozen=True)
class StreamGrid:
    """Sizes of a stream grid, and the only place that folds and unfolds it.

    Args:
        tasks: T, rows of the grid, at least 1.
        modalities: M, columns of the grid, at least 1.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import torch
        >>> grid = StreamGrid(tasks=1, modalities=2)
        >>> grid.fold(torch.zeros(3, 1, 2, 8, 4, 4)).shape
        torch.Size([6, 8, 4, 4])
    """

    tasks: int = 1
    modalities: int = 1

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f'{axis} must be a positive integer, got {size!r}')

    @property
    def size(self) -> int:
        """Number of streams, T * M."""
        return self.tasks * self.modalities

    @property
    def shape(self) -> tuple[int, int]:
        """Sizes of the grid, (T, M)."""
        return self.tasks, self.modalities

    def length(self, axis: str) -> int:
        """Number of streams along ``axis``, ``'tasks'`` or ``'modalities'``."""
        return self.shape[self._index(axis)]

    def dim(self, axis: str) -> int:
        """Dimension of ``axis`` in an unfolded tensor ``(B, T, M, ...)``."""
        return 1 + self._index(axis)

    def fold(self, x: Tensor) -> Tensor:
        """Put the streams into the batch: ``(B, T, M, ...)`` to ``(T*M*B, ...)``."""
        if tuple(x.shape[1:3]) != self.shape:
            raise ValueError(
                f'expected (B, {self.tasks}, {self.modalities}, ...), got {tuple(x.shape)}'
            )
        return x.movedim(0, 2).flatten(0, 2)  # (T*M*B, ...)

    def unfold(self, x: Tensor) -> Tensor:
        """Take the streams out of the batch: ``(T*M*B, ...)`` to ``(B, T, M, ...)``, always a
        view."""
        if x.shape[0] % self.size:
            raise ValueError(
                f'batch {x.shape[0]} is not divisible by {self.size} streams: '
                'stack the modalities first'
            )
        return x.unflatten(0, (self.tasks, self.modalities, -1)).movedim(2, 0)  # (B, T, M, ...)

    @staticmethod
    def _index(axis: str) -> int:
        if axis not in AXES:
            raise ValueError(f"axis must be one of {AXES}, got '{axis}'")
        return AXES.index(axis)
