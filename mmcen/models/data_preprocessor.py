"""Batches of named modalities to one tensor: normalised, of equal channel counts, padded."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor
from torch import Tensor

from ..modalities import ModalitySpec, nearest, read_specs

# What a config may have inherited from a stock data preprocessor; each modality states its own.
STOCK = {'mean', 'std', 'pad_val', 'bgr_to_rgb', 'rgb_to_bgr'}
Inputs = Mapping[str, Sequence[Tensor] | Tensor] | Sequence[Mapping[str, Tensor]]


@MODELS.register_module()
class CENDataPreprocessor(SegDataPreProcessor):
    """Normalise each modality by its own mean and deviation, join them, pad and stack.

    Every modality gets as many channels C as the least common multiple of all, by repeating its
    own (paper, footnote 3), because the streams share their convolutions; where all have a single
    one C is 3, which is what networks for images take. The modalities are
    joined along the channels, (B, M*C, H, W), modality by modality in the order of
    ``modalities``, which is the order of the streams; mmseg can pad, stack, slice and flip that
    as it does any image. Colour is RGB, as it is loaded.

    Args:
        modalities: List of modalities, in the order of the streams, each a dict of the arguments
            of :class:`~mmcen.modalities.ModalitySpec`, of which ``name``, ``mean``, ``std`` and
            ``pad`` matter here: give it the list of the data set.
        size: (height, width) to pad to, in training.
        size_divisor: pad to a multiple of it in training; default 1, the largest of the batch.
        seg_pad_val: value of the label where it is padded.
        batch_augments: as in mmseg.
        test_cfg: ``size`` or ``size_divisor`` to pad to in test; not padded by default.
        inherited: ``mean``, ``std``, ``pad_val``, ``bgr_to_rgb`` and ``rgb_to_bgr`` from the config
            of a stock model, which do not matter here.
        common_channels: C, where it is to be another multiple, such as 1 for depth alone and a
            backbone with ``in_channels=1``.

    Raises:
        TypeError: ``modalities`` is not a list.
        ValueError: no modality, an impossible one, one without ``mean`` and ``std``, or
            ``common_channels`` that is no common multiple.

    Examples:
        >>> preprocess = CENDataPreprocessor(modalities=[
        ...     dict(name='rgb', mean=[124, 116, 104], std=[58, 57, 57]),
        ...     dict(name='depth', mean=[0], std=[5])])
        >>> batch = dict(rgb=[torch.ones(3, 4, 6)], depth=[torch.ones(1, 4, 6)])
        >>> preprocess(dict(inputs=batch))['inputs'].shape
        torch.Size([1, 6, 4, 6])
    """

    def __init__(
        self,
        modalities: Sequence[Mapping[str, Any]],
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        seg_pad_val: int = 255,
        batch_augments: list[dict] | None = None,
        test_cfg: dict | None = None,
        common_channels: int | None = None,
        **inherited: Any,
    ) -> None:
        for name in sorted(set(inherited) - STOCK):
            arguments = inspect.signature(CENDataPreprocessor.__init__).parameters
            known = [key for key in arguments if key not in ('self', 'inherited')]
            raise TypeError(
                f'CENDataPreprocessor has no argument {name!r}{nearest(name, known)}: the '
                f'arguments are {known}'
            )
        specs = read_specs(modalities, keys=('mean', 'std', 'pad'))
        if size is not None and size_divisor is not None:
            raise ValueError(f'both size {size} and size_divisor {size_divisor}: give one of them')
        super().__init__(
            size=size,
            size_divisor=1 if size is None and size_divisor is None else size_divisor,
            seg_pad_val=seg_pad_val,
            batch_augments=batch_augments,
            test_cfg=test_cfg,
        )
        self._channels = {spec.name: _channels(spec) for spec in specs}
        self._stated = {spec.name: (spec.mean or (), spec.std or ()) for spec in specs}
        least = math.lcm(*self._channels.values())
        common = common_channels or (least if least > 1 else 3)
        if common % least:
            raise ValueError(
                f'common_channels {common} is no multiple of what the modalities have, '
                f'{self._channels}: give a multiple of {least}, or leave it out'
            )
        self._repeats = {name: common // count for name, count in self._channels.items()}
        self._reported: set[tuple[str, ...]] = set()
        self._register_normalisation(specs)

    @property
    def modalities(self) -> list[str]:
        """Names in the order of the streams."""
        return list(self._channels)

    def places(self, present: Sequence[str]) -> list[int]:
        """Return the places of some modalities among all.

        Raises:
            ValueError: If none is named, a name is unknown, or they are not in the order of the
                streams.
        """
        known = self.modalities
        if not present or list(present) != [name for name in known if name in present]:
            raise ValueError(f'present {list(present)}: name some of {known}, in this order')
        return [known.index(name) for name in present]

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each modality as it comes, before they are repeated."""
        return dict(self._channels)

    @property
    def statistics(self) -> dict[str, list[list[float]]]:
        """Mean and standard deviation of each modality, a number for each channel, as stated."""
        return {name: [list(mean), list(std)] for name, (mean, std) in self._stated.items()}

    def normalisation(self, name: str) -> tuple[Tensor, Tensor, int]:
        """Return mean and deviation of a modality, and how often its channels are repeated.

        Mean and deviation are ``(C, 1, 1)`` each.
        """
        i, common = self.modalities.index(name), self.mean.shape[0] // len(self._channels)
        part = slice(i * common, (i + 1) * common)
        mean = self.mean - self.shift * self.std  # the value of padding is no part of it
        return mean[part].clone(), self.std[part].clone(), self._repeats[name]

    def _register_normalisation(self, specs: Sequence[ModalitySpec]) -> None:
        """Buffers over all M*C channels, which the parent normalises by.

        The parent pads with zeros after normalising. To pad with another value than the mean,
        that value is subtracted instead, and the difference is added after padding.
        """
        mean: list[float] = []
        std: list[float] = []
        pad: list[float] = []
        for spec in specs:
            count, repeats, value = (
                self._channels[spec.name],
                self._repeats[spec.name],
                spec.padding,
            )
            mean += [*(spec.mean or ())] * repeats
            std += [*(spec.std or ())] * repeats
            values = value if isinstance(value, Sequence) else [value or 0.0] * count
            pad += [*values] * repeats
        columns = torch.tensor([mean, std, pad], dtype=torch.float32)
        of_mean, of_std, of_pad = columns.view(3, -1, 1, 1)  # (M*C, 1, 1) each
        self.register_buffer('mean', of_pad, persistent=False)
        self.register_buffer('std', of_std, persistent=False)
        self.register_buffer('shift', (of_pad - of_mean) / of_std, persistent=False)
        self._shifts = pad != mean

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Turn a batch of the data loader into the model's input.

        Args:
            data: ``inputs`` and perhaps ``data_samples``. ``inputs`` is, by name, a list of B
                tensors (C_m, H, W) or one tensor (B, C_m, H, W); or a list of B mappings from
                name to (C_m, H, W). Modalities that are not wanted are ignored.
            training: pad inputs and labels; else inputs as ``test_cfg`` says. Training needs all
                modalities, testing needs at least one.

        Returns:
            ``inputs``: (B, M*C, H, W) of the model's type, and ``data_samples``. If modalities are
            absent, also ``present``, the names of the others, and ``inputs`` contains only these.

        Raises:
            ValueError: a modality is missing, or its shape does not fit.
        """
        data = self.cast_data(data)
        by_name = self._by_name(data['inputs'])
        present = self._present(by_name, training)
        self._report(present)
        joined = self._join([by_name[name] for name in present], present)
        if not training and len({tensor.shape for tensor in joined}) > 1:
            sizes = [tuple(tensor.shape[1:]) for tensor in joined]
            raise ValueError(
                f'frames of one test batch differ in size, {sizes}: use batch_size=1, or resize'
            )
        mean, std, shift = (self._rows(values, present) for values in self._columns)
        normalised = [(tensor.float() - mean) / std for tensor in joined]
        output = super().forward({**data, 'inputs': normalised}, training)
        if self._shifts:
            output['inputs'] += shift
        output['inputs'] = output['inputs'].to(mean.dtype)  # mmseg's part gives float32
        if len(present) < len(self.modalities):
            output['present'] = present
        return output

    @property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.mean, self.std, self.shift  # (M*C, 1, 1) each

    def _rows(self, values: Tensor, present: Sequence[str]) -> Tensor:
        """Select the rows of ``(M*C, 1, 1)`` that belong to some modalities."""
        if len(present) == len(self.modalities):
            return values
        return values.unflatten(0, (len(self.modalities), -1))[self.places(present)].flatten(0, 1)

    def _by_name(self, inputs: Inputs) -> Mapping[str, Any]:
        """Return the modalities of the batch by name, a list of frames or one tensor each."""
        if not isinstance(inputs, Mapping):
            if isinstance(inputs, Tensor) or not all(isinstance(one, Mapping) for one in inputs):
                raise TypeError(
                    'inputs without names of modalities: pack them by PackModalities, or give '
                    f'dict({self.modalities[0]}=..., ...)'
                )
            names = [[name for name in self.modalities if name in one] for one in inputs]
            if any(own != names[0] for own in names):
                raise ValueError(
                    f'frames of one batch have different modalities, {names}: use batch_size=1'
                )
            inputs = {name: [one[name] for one in inputs] for name in names[0]}
        return inputs

    def _present(self, by_name: Mapping[str, Any], training: bool) -> list[str]:
        """Return the names of the modalities that the batch has."""
        missing = [name for name in self.modalities if name not in by_name]
        if missing and (training or len(missing) == len(self.modalities)):
            raise ValueError(
                f'modality {missing[0]!r} is missing, the batch has {list(by_name)}: load it, or '
                'leave it out of the modalities of the data preprocessor'
            )
        return [name for name in self.modalities if name in by_name]

    def _report(self, present: Sequence[str]) -> None:
        """Log each incomplete set of modalities once."""
        if len(present) < len(self.modalities) and tuple(present) not in self._reported:
            self._reported.add(tuple(present))
            missing = [name for name in self.modalities if name not in present]
            print_log(
                f'modalities {missing} are missing in the data: only {list(present)} are used',
                'current',
                logging.WARNING,
            )

    def _join(self, columns: Sequence[Any], present: Sequence[str]) -> list[Tensor]:
        """Samples of the batch, (M*C, H, W) each, not yet normalised."""
        counts = {name: len(column) for name, column in zip(present, columns, strict=True)}
        if len(set(counts.values())) > 1:
            raise ValueError(f'modalities differ in number of frames, {counts}: give equal numbers')
        return [self._join_frame(frame, present) for frame in zip(*columns, strict=True)]

    def _join_frame(self, frame: Sequence[Tensor], present: Sequence[str]) -> Tensor:
        parts: list[Tensor] = []
        for name, tensor in zip(present, frame, strict=True):
            channels = self._channels[name]
            if tensor.ndim != 3 or tensor.shape[0] != channels:
                raise ValueError(
                    f'modality {name!r} has shape {tuple(tensor.shape)}, but its mean has '
                    f'{channels} channels: give ({channels}, H, W), or as many means as channels'
                )
            if tensor.shape[1:] != frame[0].shape[1:]:
                raise ValueError(
                    f'modality {name!r} has {tuple(tensor.shape[1:])} pixels (height, width), but '
                    f'{present[0]!r} has {tuple(frame[0].shape[1:])}: modalities must be '
                    'aligned pixel by pixel'
                )
            parts += [tensor] * self._repeats[name]
        return torch.cat(parts)  # (M*C, H, W)


def _channels(spec: ModalitySpec) -> int:
    """How many channels a modality has, by its mean."""
    if spec.mean is None:
        raise ValueError(
            f'modality {spec.name!r} has no mean and std: state lists of one number per channel'
        )
    return len(spec.mean)
