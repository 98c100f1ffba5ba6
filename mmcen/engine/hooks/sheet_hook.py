"""Pictures of what the model predicts, at every validation and test."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ...visualization import prediction_sheet


@HOOKS.register_module()
class SheetHook(Hook):
    """Write the first frames of a validation or test as a sheet.

    The file is ``<work_dir>/sheets/epoch_<n>.png`` after a validation (``iter_<n>.png`` if training
    counts iterations) and ``sheets/test.png`` after a test, see :func:`prediction_sheet`. The main
    process draws its own frames.

    Args:
        frames: Number of frames, the rows of the sheet.
        by_epoch: Whether to name sheets by the epoch instead of the iteration.

    Raises:
        ValueError: If ``frames`` is less than 1.
        TypeError: Later, if inputs have no names.
    """

    def __init__(self, frames: int = 4, by_epoch: bool = True) -> None:
        if frames < 1:
            raise ValueError(f'frames must be 1 or more, got {frames}: leave the hook out for none')
        self.frames = frames
        self.by_epoch = by_epoch
        self._reset()

    def _reset(self) -> None:
        self._inputs: list[dict[str, Tensor]] = []
        self._samples: list[Any] = []

    def before_val_epoch(self, runner: Runner) -> None:
        self._reset()

    def before_test_epoch(self, runner: Runner) -> None:
        self._reset()

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._take_inputs(data_batch)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._take_inputs(data_batch)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        self._take_samples(outputs)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        self._take_samples(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        name = f'epoch_{runner.epoch}' if self.by_epoch else f'iter_{runner.iter}'
        self._draw(runner, name)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._draw(runner, 'test')

    def _take_inputs(self, data_batch: dict) -> None:
        """Keep the inputs before the data preprocessor normalises them in the batch."""
        missing = self.frames - len(self._inputs)
        if missing > 0 and is_main_process():
            inputs = data_batch['inputs']
            if isinstance(inputs, list) and isinstance(inputs[0], Mapping):
                inputs = inputs[0]  # the first view of test-time augmentation
            if not isinstance(inputs, Mapping):
                raise TypeError(
                    f'SheetHook draws named modalities, the inputs are a {type(inputs).__name__}: '
                    'pack them by PackModalities, or leave the hook out'
                )
            frames = zip(*inputs.values(), strict=True)  # B times M of (C, H, W)
            rows = [dict(zip(inputs, frame, strict=True)) for frame in frames]
            self._inputs += rows[:missing]

    def _take_samples(self, outputs: Sequence | None) -> None:
        missing = len(self._inputs) - len(self._samples)
        if missing > 0 and outputs is not None:
            self._samples += [sample.cpu() for sample in outputs[:missing]]

    def _draw(self, runner: Runner, name: str) -> None:
        if self._samples:
            path = f'{runner.work_dir}/sheets/{name}.png'
            meta = runner.visualizer.dataset_meta or {}
            classes, palette = meta.get('classes', ()), meta.get('palette', ())
            prediction_sheet(self._inputs, self._samples, path, classes, palette)
            print_log(f'predictions of {len(self._samples)} frames: {path}', 'current')
        self._reset()
