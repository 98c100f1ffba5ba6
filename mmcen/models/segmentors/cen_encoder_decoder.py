"""Multimodal semantic segmentation: CEN on the encoder, any decode head of mmseg (section 3.2)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from ...core import StreamEnsemble, StreamGrid, convert
from ...outputs import ENSEMBLE, SEGMENTATION, fields_of, outputs_of
from ..checkpoint_names import keep_names
from ..label_map import label_map
from ..losses import losses_of_head
from ..modality_dropout import add_modality_dropout
from ..multi_stream import make_multi_stream

FIELDS = ('pred_sem_seg', 'seg_logits')  # of an output


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to a tensor, or to all of nested lists and tuples."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(map_tensors(function, part) for part in value)


def fails_channels_last(module: nn.Module) -> bool:
    """Whether a layer corrupts memory in a backward pass on a CPU with channels in the last place.

    oneDNN does so for strided 1x1 convolutions of fewer than 8 channels (torch 2.14.1).
    """
    if not isinstance(module, nn.Conv2d):
        return False
    strided = module.kernel_size == (1, 1) and max(module.stride) > 1
    return strided and module.in_channels < 8


@MODELS.register_module()
class CENEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder over M streams that live in the batch.

    The modalities of the data preprocessor are the streams. The parts are built for one stream,
    from any config of mmseg, and made multi-stream by :func:`mmcen.convert`: the backbone
    exchanges; neck and heads share weights between streams and have private norms that do not
    exchange.

    Losses: The head's own on every stream and on the ensemble, whose logits are detached from the
        streams, so that it trains the decision scores alone (Eq. 2 without the penalty, which is
        :class:`SparsityHook`'s).

    Args:
        backbone: Config of any mmseg backbone, unchanged.
        decode_head: Config of any mmseg decode head, unchanged.
        data_preprocessor: Config of a :class:`CENDataPreprocessor` with ``modalities``, a list.
        neck: Config of any mmseg neck, unchanged.
        auxiliary_head: Configs of mmseg auxiliary heads, unchanged.
        test_cfg: As in mmseg, and two options. ``streams`` (default True): predict each stream's
            own output besides the ensemble's, see :mod:`mmcen.outputs`.
            ``logits`` (default False): keep ``seg_logits`` of K > 1 classes at the original size,
            which takes most of the time of a test frame on a CPU. Models with one output channel
            and ``predict`` without data samples always give ``seg_logits``.
        exchange: Arguments of :func:`mmcen.convert` for the backbone. ``after`` says which of its
            norms exchange, as ``convert``'s ``exchange``: by default the ``exchange_rule`` of the
            backbone if it has one, else ``'spatial'``; None for no exchange. The rest are options
            such as ``threshold``, ``budget``, ``inside`` and ``private``.
        channels_last: Memory format of the features, which convolutions and norms keep: the faster
            one on processors and with mixed precision on GPUs. Set it to False for parts that need
            contiguous features; networks with strided 1x1 convolutions of fewer than 8 channels
            never use it.
        modality_dropout: Arguments ``p`` and ``keep_at_least`` of
            :class:`~mmcen.models.modality_dropout.ModalityDropout`, which draws the modalities that
            are present in each training step; by default all are. ``own_norms=True`` gives norms a
            second set of parameters and statistics for when one is absent.
        kwargs: Further arguments of ``EncoderDecoder``.

    Input: ``(B, M*C, H, W)``, modality-major. If ``present`` names some of the modalities, input
    and outputs contain only these: absent streams are not computed, the others exchange with each
    other, and the ensemble's scores sum to 1 over them.

    Raises:
        ValueError: If a part has a norm that cannot be converted, or an input has no multiple of M
            channels.
    """

    out_channels: int

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        data_preprocessor: dict,
        neck: dict | None = None,
        auxiliary_head: dict | list[dict] | None = None,
        test_cfg: dict | None = None,
        exchange: dict | None = None,
        channels_last: bool = True,
        modality_dropout: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            data_preprocessor=data_preprocessor,
            test_cfg=test_cfg,
            **kwargs,
        )
        self.streams: tuple[str, ...] = tuple(self.data_preprocessor.modalities)
        self.grid = StreamGrid(tasks=1, modalities=len(self.streams))  # of the heads
        self._make_multi_stream(exchange)
        self.channels_last = channels_last and not any(map(fails_channels_last, self.modules()))
        self.ensemble = StreamEnsemble(self.grid)
        add_modality_dropout(self, len(self.data_preprocessor.modalities), modality_dropout)
        keep_names(
            self,
            {SEGMENTATION: self.data_preprocessor.modalities},
            [self.out_channels],
            self.data_preprocessor.statistics,
        )
        self.predict_streams = (test_cfg or {}).get('streams', True)
        if self.predict_streams:
            # ensemble and streams side by side in the channels: slide inference serves
            self.out_channels *= 1 + self.grid.modalities

    def _make_multi_stream(self, exchange: dict | None) -> None:
        """Convert all parts; the backbone alone exchanges."""
        make_multi_stream(self.backbone, self.grid, exchange)
        for name, part in self.named_children():
            if name not in ('backbone', 'data_preprocessor'):
                convert(part, exchange=None, grid=self.grid)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
        mode: str = 'tensor',
        present: Sequence[str] | None = None,
    ) -> Any:
        """Return outputs, losses or predictions of the modalities that are present.

        Args:
            inputs: ``(B, P*C, H, W)`` of the P modalities that are present.
            data_samples: Samples, as in mmseg.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.
            present: Names of those modalities, in the order of the streams; None for all.

        Raises:
            ValueError: If a name is unknown, or the names are not in the order of the streams.
        """
        if present is None:
            return super().forward(inputs, data_samples, mode)
        with self._of_present(inputs, self.data_preprocessor.places(present)) as own:
            return super().forward(own, data_samples, mode)

    @contextmanager
    def _of_present(self, inputs: Tensor, places: Sequence[int]) -> Iterator[Tensor]:
        """Run the model on the modalities at some places alone.

        Args:
            inputs: ``(B, P*C, H, W)`` of these P modalities.
            places: Their places among all modalities, ascending.

        Yields:
            What the model takes as its input.
        """
        before = self.out_channels
        with self.grid.only(modalities=places):
            if self.predict_streams:
                self.out_channels = self.decode_head.out_channels * (1 + len(places))
            try:
                yield inputs
            finally:
                self.out_channels = before

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Return losses by name; with modality dropout those of the drawn modalities."""
        if self.modality_dropout is None or not self.training:
            return super().loss(inputs, data_samples)
        places = self.modality_dropout.draw()
        by_modality = inputs.unflatten(1, (self.modality_dropout.count, -1))  # (B, M, C, H, W)
        with self._of_present(by_modality[:, places].flatten(1, 2), places) as own:
            return super().loss(own, data_samples)

    @property
    def present_streams(self) -> list[str]:
        """Names of the streams that are present, in order."""
        return [self.streams[m] for m in self.grid.present('modalities')]

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Fold ``(B, M*C, H, W)`` and encode it: features ``(M*B, C', h, w)``."""
        grid = self.backbone.stream_grid
        modalities = grid.modalities
        if inputs.dim() != 4 or inputs.shape[1] % modalities:
            known = self.data_preprocessor.modalities
            raise ValueError(
                f'expected (B, {modalities} * C, H, W) for the modalities '
                f'{[known[m] for m in grid.present("modalities")]}, got {tuple(inputs.shape)}'
            )
        streams = grid.fold(inputs.unflatten(1, (1, modalities, -1)))
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return super().extract_feat(streams.contiguous(memory_format=layout))

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits ``(B, (1+M)*K, H, W)``: the ensemble's, then each stream's if asked for."""
        logits = super().encode_decode(inputs, batch_img_metas)  # (M*B, K, H, W)
        return torch.cat(list(self._outputs(logits, self.predict_streams).values()), 1)

    def _outputs(self, logits: Any, streams: bool = True) -> dict[str, Any]:
        """Return logits by name: the ensemble first, then the streams if ``streams``.

        Each is ``(B, K, h, w)``, or in the lists that a head with several outputs returns.
        """
        outputs = {ENSEMBLE: map_tensors(self._ensemble_of, logits)}
        for m, name in enumerate(self.present_streams if streams else ()):
            outputs[name] = map_tensors(partial(self._stream_of, m), logits)
        return outputs

    def _ensemble_of(self, logits: Tensor) -> Tensor:
        """Folded ``(M*B, K, h, w)`` to ``(B, K, h, w)``."""
        return self.ensemble(self.grid.unfold(logits))[:, 0]

    def _stream_of(self, m: int, logits: Tensor) -> Tensor:
        """Folded ``(M*B, K, h, w)`` to ``(B, K, h, w)`` of stream m of those present."""
        return self.grid.unfold(logits)[:, 0, m]

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Raw logits by name, each (B, K, h, w)."""
        return self._outputs(super()._forward(inputs, data_samples))

    def _decode_head_forward_train(self, inputs: list[Tensor], data_samples: list) -> dict:
        losses: dict[str, Tensor] = {}
        for name, logits in self._outputs(self.decode_head(inputs)).items():
            loss = losses_of_head(self.decode_head, logits, data_samples)
            losses.update(add_prefix(loss, f'decode.{name}'))
        return losses

    def _auxiliary_head_forward_train(self, inputs: list[Tensor], data_samples: list) -> dict:
        heads = self.auxiliary_head
        losses: dict[str, Tensor] = {}
        for i, head in enumerate(heads if isinstance(heads, nn.ModuleList) else [heads]):
            outputs = self._outputs(head(inputs))
            for name in self.present_streams:
                loss = losses_of_head(head, outputs[name], data_samples)
                losses.update(add_prefix(loss, f'aux_{i}.{name}'))
        return losses

    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Samples with the classes, and logits where these are asked for, of all outputs."""
        stock = type(self.decode_head).predict is BaseDecodeHead.predict
        slides = (self.test_cfg or {}).get('mode', 'whole') != 'whole'
        if data_samples is None or self._keeps_logits() or slides or not stock:
            return super().predict(inputs, data_samples)
        raw = self._outputs(self.decode_head(self.extract_feat(inputs)), self.predict_streams)
        return self._to_samples(self._resized(raw, data_samples), data_samples)

    def _keeps_logits(self) -> bool:
        """Whether samples get ``seg_logits``; the probability of a single channel always."""
        wanted = (self.test_cfg or {}).get('logits', False)
        return wanted or self.decode_head.out_channels == 1

    def _resized(
        self, outputs: dict[str, Tensor], data_samples: list[SegDataSample]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield logits at the size of the input, one output at a time.

        On the CPU they are channels-last, the layout that :func:`label_map` needs.
        """
        metas = [sample.metainfo for sample in data_samples]
        for name, logits in outputs.items():
            if logits.device.type == 'cpu':
                logits = logits.contiguous(memory_format=torch.channels_last)
            yield name, self.decode_head.predict_by_feat(logits, metas)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Convert logits ``(B, (1+M)*K, H, W)`` to samples.

        The ensemble's predictions are in mmseg's own fields, those of all outputs in ``outputs``.
        """
        logits = seg_logits.split(self.decode_head.out_channels, dim=1)
        names = (ENSEMBLE, *self.present_streams) if self.predict_streams else (ENSEMBLE,)
        return self._to_samples(zip(names, logits, strict=True), data_samples)

    def _to_samples(
        self,
        outputs: Iterable[tuple[str, Tensor]],
        data_samples: list[SegDataSample] | None,
    ) -> list[SegDataSample]:
        """Outputs by name, ``(B, K, H, W)`` each, to samples."""
        by_name = {}
        for name, logits in outputs:
            own = data_samples
            if data_samples and name != ENSEMBLE:
                own = [SegDataSample(metainfo=s.metainfo) for s in data_samples]
            by_name[name] = self._classify(logits, own)
        samples = by_name[ENSEMBLE]
        for i, sample in enumerate(samples):
            fields = {name: fields_of(found[i], FIELDS) for name, found in by_name.items()}
            sample.set_data({'outputs': outputs_of({SEGMENTATION: fields})})
        return samples

    def _classify(
        self, logits: Tensor, data_samples: list[SegDataSample] | None
    ) -> list[SegDataSample]:
        """Samples of one output; its classes alone unless logits are asked for."""
        if data_samples is None or self._keeps_logits():
            return super().postprocess_result(logits, data_samples)
        for one, sample in zip(logits, data_samples, strict=True):
            labels = label_map(as_taken(one, sample), sample.ori_shape, self.align_corners)
            sample.set_data({'pred_sem_seg': PixelData(data=labels[None])})
        return data_samples


def as_taken(logits: Tensor, sample: SegDataSample) -> Tensor:
    """Logits ``(K, H, W)`` without padding and flip, as mmseg's ``postprocess_result``."""
    meta = sample.metainfo
    height, width = logits.shape[1:]
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    logits = logits[:, top : height - bottom, left : width - right]
    if not meta.get('flip'):
        return logits
    axes = {'horizontal': 2, 'vertical': 1}
    direction = meta.get('flip_direction')
    if direction not in axes:
        raise ValueError(f"flip_direction must be one of {list(axes)}, got '{direction}'")
    return logits.flip(axes[direction])
