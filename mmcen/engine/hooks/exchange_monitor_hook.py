"""How much is exchanged, where, and whether that is too little or too much."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ...core import exchange_norms, exchanged_shares
from ...core.selection import Threshold
from ...layers import ExchangeNorm, StreamEnsemble


@HOOKS.register_module()
class ExchangeMonitorHook(Hook):
    """Log the exchanged share of channels and the ensemble's scores; warn when nothing or
    everything is exchanged.

    The share of each stream over all exchanging norms (``exchanged/rgb``, 0..1 of all their
    channels) and the decision scores (``alpha/rgb``) go with every log line; the shares of each
    layer go to the visualizer's backends (JSON, TensorBoard) after every epoch as
    ``exchange/<layer>/<stream>``.

    Args:
        interval: iterations between measurements.
        patience: share of the training, 0..1, after which to warn that nothing has been exchanged.
        most: warn if more than this share of the channels that may be exchanged are.
    """

    def __init__(self, interval: int = 50, patience: float = 0.25, most: float = 0.95) -> None:
        self.interval = interval
        self.patience = patience
        self.most = most
        self._warned = False

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if not self.every_n_train_iters(runner, self.interval):
            return
        model = _unwrap(runner.model)
        shares = list(exchanged_shares(model).values())
        if shares:
            mean = _weighted_mean(model, shares)
            for name, share in zip(_names(model), mean.flatten().tolist(), strict=True):
                runner.message_hub.update_scalar(f'train/exchanged/{name}', share)
        for module in model.modules():
            if isinstance(module, StreamEnsemble):
                for name, score in zip(
                    _names(model), module.scores().flatten().tolist(), strict=True
                ):
                    runner.message_hub.update_scalar(f'train/alpha/{name}', score)

    def after_train_epoch(self, runner: Runner) -> None:
        model = _unwrap(runner.model)
        norms = dict(exchange_norms(model))
        if not norms:
            return
        names = _names(model)
        scalars = {
            f'exchange/{layer}/{name}': value
            for layer, share in exchanged_shares(model).items()
            for name, value in zip(names, share.flatten().tolist(), strict=True)
        }
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        # how many a fixed or random choice exchanges is told to it, not learned
        by_gamma = [n for n in norms.values() if isinstance(n.selection, Threshold)]
        if by_gamma:
            self._warn(runner, by_gamma)

    def _warn(self, runner: Runner, norms: Sequence[ExchangeNorm]) -> None:
        if self._warned:
            return
        exchanged = sum(int(norm.exchange_mask().sum()) for norm in norms)
        possible = sum(int(norm.exchangeable.sum()) for norm in norms)
        if exchanged == 0 and runner.iter + 1 >= self.patience * runner.max_iters:
            gammas = (norm.gamma().detach()[norm.exchangeable] for norm in norms)
            smallest = min(float(gamma.abs().min()) for gamma in gammas)
            threshold = max(_threshold(norm) for norm in norms)
            message = (
                f'nothing is exchanged after {runner.iter + 1} iterations: the smallest |gamma| is '
                f'{smallest:.3g}, the threshold {threshold:.3g}. Raise the coefficient of '
                "SparsityHook, the learning rate of the norms' scales, or the threshold"
            )
        elif exchanged > self.most * possible:
            message = (
                f'{exchanged / possible:.0%} of the channels that may be exchanged are: the '
                'streams become alike and the ensemble adds little. Lower the coefficient of '
                'SparsityHook or the threshold'
            )
        else:
            return
        self._warned = True
        print_log(message, logger='current', level=logging.WARNING)


def _unwrap(model: nn.Module) -> nn.Module:
    return model.get_submodule('module') if is_model_wrapper(model) else model


def _names(model: nn.Module) -> list[str]:
    """Names of the streams, or their places in the grid where the model does not name them."""
    streams: Any = getattr(model, 'streams', None)
    if streams is not None:
        return list(streams)
    grid = next(norm.grid for _, norm in exchange_norms(model))
    return [f't{t}m{m}' for t in range(grid.tasks) for m in range(grid.modalities)]


def _threshold(norm: ExchangeNorm) -> float:
    selection: Any = norm.selection
    return selection.threshold


def _weighted_mean(model: nn.Module, shares: list[Tensor]) -> Tensor:
    """Share of each stream over all exchanging norms together, (T, M)."""
    widths = [norm.num_features for _, norm in exchange_norms(model)]
    return sum(share * width for share, width in zip(shares, widths, strict=True)) / sum(widths)  # type: ignore
