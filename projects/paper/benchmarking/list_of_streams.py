"""CEN as lists of streams, the way the official code is written, for any number of modalities.

``projects/paper/benchmark.py`` measures mmcen against it. A feature is a Python list with one
tensor (B, C, H, W) per stream; every layer is called once per stream. Convolutions are shared,
norms are stock norms, one per stream; heads run once per stream. It is made from a model of mmcen
and has that model's weights, so that both must give the same numbers (tests/test_benchmark.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from mmseg.models.backbones.resnet import BasicBlock, Bottleneck
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmcen.core import ExchangeNorm, PrivateCopies
from mmcen.models.backbones import CENResNet
from mmcen.models.segmentors.cen_encoder_decoder import ENSEMBLE, CENEncoderDecoder


class StreamNorms(nn.ModuleList):
    """One stock norm per stream, then exchange: the same as the ExchangeNorm it is made from.

    Called on a list in the encoder. Heads are stock modules and call it on one stream's tensor;
    ``stream`` says on whose.
    """

    def __init__(self, norm: ExchangeNorm) -> None:
        streams = norm.grid.modalities
        super().__init__(one_stream_norm(norm, m) for m in range(streams))
        self.exchanges = norm.exchanges
        self.threshold = getattr(norm.selection, 'threshold', 0.0)
        self.stream = 0
        for m in range(streams):
            for part in ('exchangeable', 'penalised'):  # (C,) of the stream's own channels
                channels = getattr(norm, part)[0, m].clone()
                self.register_buffer(f'{part}_{m}', channels, persistent=False)

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(x, Tensor):
            return self[self.stream](x)
        xs = [norm(one) for norm, one in zip(self, x, strict=True)]
        return self._exchange(xs) if self.exchanges else xs

    def _exchange(self, xs: list[Tensor]) -> list[Tensor]:
        """Select channels by a boolean mask, as the official code, with fewer copies than there."""
        result = []
        for m, (norm, x) in enumerate(zip(self, xs, strict=True)):
            small = norm.weight.detach().abs() < self.threshold
            replaced = small & self.get_buffer(f'exchangeable_{m}')  # (C,)
            others = [other[:, replaced] for k, other in enumerate(xs) if k != m]
            x = x.clone()
            x[:, replaced] = others[0] if len(others) == 1 else sum(others) / len(others)
            result.append(x)
        return result

    def penalty(self) -> Tensor:
        """Sum of |gamma| over the penalised channels of all streams."""
        parts = [norm.weight[self.get_buffer(f'penalised_{m}')] for m, norm in enumerate(self)]
        return sum(part.abs().sum() for part in parts)


def one_stream_norm(norm: ExchangeNorm, m: int) -> nn.Module:
    """Stock norm of stream m, with its part of the parameters and statistics."""
    stock, channels = norm.norm, norm.num_features
    own = type(stock)(
        channels,
        eps=stock.eps,
        momentum=stock.momentum,
        affine=stock.affine,
        track_running_stats=stock.track_running_stats,
    )
    part = slice(m * channels, (m + 1) * channels)
    own.load_state_dict({k: v[part] if v.dim() else v for k, v in stock.state_dict().items()})
    for ours, parameter in zip(stock.parameters(), own.parameters(), strict=True):
        parameter.requires_grad_(ours.requires_grad)
    return own.to(norm.weight).train(stock.training)


def each(layer: nn.Module, xs: list[Tensor]) -> list[Tensor]:
    """Apply a layer to every stream."""
    if isinstance(layer, nn.Sequential):
        for part in layer:
            xs = each(part, xs)
        return xs
    return layer(xs) if isinstance(layer, StreamNorms) else [layer(x) for x in xs]


def residual(block: BasicBlock | Bottleneck, xs: list[Tensor]) -> list[Tensor]:
    """One residual block on every stream, in step because its norms exchange."""
    last = 3 if isinstance(block, Bottleneck) else 2
    ys = xs
    for i in range(1, last + 1):
        ys = each(getattr(block, f'norm{i}'), each(getattr(block, f'conv{i}'), ys))
        ys = each(block.relu, ys) if i < last else ys
    if block.downsample is not None:
        xs = each(block.downsample, xs)
    return each(block.relu, [y.add_(x) for y, x in zip(ys, xs, strict=True)])


class ListOfStreams(nn.Module):
    """The same network as a CENEncoderDecoder with a CENResNet, and the same weights (copied).

    Args:
        model: What to mirror.

    Input: ``(B, M*C, H, W)``, as the model's.

    Raises:
        ValueError: If the model has a part that this class has no list version of.
    """

    def __init__(self, model: CENEncoderDecoder) -> None:
        super().__init__()
        check_mirrors(model)
        norms = {id(m): StreamNorms(m) for m in model.modules() if isinstance(m, ExchangeNorm)}
        # deepcopy takes what the memo has for a module, here lists of norms for exchange norms
        for name in ('backbone', 'neck', 'decode_head', 'auxiliary_head', 'ensemble'):
            setattr(self, name, deepcopy(getattr(model, name, None), norms))
        self.streams = model.streams
        self.test_cfg = model.test_cfg
        self.predict_streams = model.predict_streams
        self._norms = [m for m in self.modules() if isinstance(m, StreamNorms)]
        self.train(model.training)

    def encode(self, inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """Features of every stream, finest first."""
        net = self.backbone
        xs = list(inputs.chunk(len(self.streams), 1))  # M times (B, C, H, W)
        if net.deep_stem:
            xs = each(net.stem, xs)
        else:
            xs = each(net.relu, each(net.norm1, each(net.conv1, xs)))
        xs = each(net.maxpool, xs)
        levels = []
        for i, name in enumerate(net.res_layers):
            for block in getattr(net, name):
                xs = residual(block, xs)
            if i in net.out_indices:
                levels.append(xs)
        features = list(zip(*levels, strict=True))
        return features if self.neck is None else self._run(self.neck, features)

    def _run(self, part: nn.Module, features: list) -> list:
        """Run a neck or a head, which is a stock module, on one stream after the other."""
        results = []
        for m, feature in enumerate(features):
            for norms in self._norms:
                norms.stream = m
            results.append(part(feature))
        return results

    def _ensemble(self, logits: list[Tensor]) -> Tensor:
        scores = self.ensemble.alpha[0].softmax(0)
        return sum(score.to(x.dtype) * x.detach() for score, x in zip(scores, logits, strict=True))

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses by the names that the model gives them."""
        features = self.encode(inputs)
        logits = self._run(self.decode_head, features)
        outputs = (self._ensemble(logits), *logits)
        losses: dict[str, Tensor] = {}
        for name, one in zip((ENSEMBLE, *self.streams), outputs, strict=True):
            loss = self.decode_head.loss_by_feat(one, data_samples)
            losses.update(add_prefix(loss, f'decode.{name}'))
        heads = self.auxiliary_head
        heads = heads if isinstance(heads, nn.ModuleList) else [heads] if heads is not None else []
        for i, head in enumerate(heads):
            for name, one in zip(self.streams, self._run(head, features), strict=True):
                losses.update(add_prefix(head.loss_by_feat(one, data_samples), f'aux_{i}.{name}'))
        return losses

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits ``(B, (1+M)*K, H, W)``: the ensemble's, then, as the model's, each stream's."""
        logits = self._run(self.decode_head, self.encode(inputs))
        logits = [self.decode_head.predict_by_feat(one, batch_img_metas) for one in logits]
        outputs = [self._ensemble(logits), *(logits if self.predict_streams else ())]
        return torch.cat(outputs, 1)

    def penalty(self) -> Tensor | float:
        """``||gamma-hat||_1`` of Eq. 2, a term of the loss in the official code."""
        return sum(norms.penalty() for norms in self._norms if norms.exchanges)


def check_mirrors(model: nn.Module) -> None:
    """Complain about a model that :class:`ListOfStreams` cannot mirror.

    Raises:
        ValueError: If the model has another segmentor or backbone, plugins, or private parts.
    """
    reason = next(_reasons(model), None)
    if reason is not None:
        raise ValueError(f'list_of_streams {reason}: leave it out of --compare')


def _reasons(model: nn.Module) -> Iterator[str]:
    if type(model) is not CENEncoderDecoder:
        yield f'mirrors CENEncoderDecoder, the model is {type(model).__name__}'
    net = model.backbone
    if type(net) is not CENResNet:
        yield f'mirrors CENResNet, the backbone is {type(net).__name__}'
    for option in ('plugins', 'with_cp'):
        if getattr(net, option):
            yield f'has no {option}, the backbone has {option}={getattr(net, option)}'
    for name, module in model.named_modules():
        if isinstance(module, PrivateCopies):
            yield f'shares all layers but norms, the model has copies of {name}'
