"""Report how much is exchanged and where, and warn if it is too little or too much."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ...core import (
    Budget,
    ExchangeNorm,
    StreamEnsemble,
    Threshold,
    exchange_norms,
    exchanged_share,
    exchanged_shares,
)
from ...files import whole_file

MASKS = 'exchange_masks.npz'  # in the work directory


@HOOKS.register_module()
class ExchangeMonitorHook(Hook):
    """Log exchanged shares and ensemble scores; warn if too little or too much is exchanged.

    Every log line has the exchanged share of each stream over all exchanging norms
    (``exchanged/rgb``, 0..1 of all their channels) and the decision scores (``alpha/rgb``). Under a
    budget it also has the wanted and the exchanged share (``budget/wanted``, ``budget/met``), and
    the share of the exchanged channels that the last choice replaced (``churn``).

    After every epoch, the visualizer's backends (JSON, TensorBoard) get the share of each layer as
    ``exchange/<layer>/<stream>``, and the mask of each layer, ``(T*M, C)``, is written to the file
    ``exchange_masks.npz`` in the work directory.

    Args:
        interval: Iterations between measurements.
        patience: Share of the training, 0..1, after which to warn that nothing has been exchanged.
        most: Warn if more than this share of the exchangeable channels is exchanged.
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
        norms = dict(exchange_norms(model))
        scalars = _of_budget(list(norms.values()))
        if norms:
            shares = exchanged_share(model).flatten().tolist()
            scalars |= _by_stream('exchanged', model, shares)
        for module in model.modules():
            if isinstance(module, StreamEnsemble):
                scalars |= _by_stream('alpha', model, module.scores().flatten().tolist())
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        model = _unwrap(runner.model)
        norms = dict(exchange_norms(model))
        if not norms:
            return
        scalars: dict[str, float] = {}
        for layer, share in exchanged_shares(model).items():
            scalars |= _by_stream(f'exchange/{layer}', model, share.flatten().tolist())
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        if is_main_process():
            masks: dict[str, Any] = {  # by layer, (T*M, C)
                name: norm.exchange_mask().flatten(0, 1).numpy(force=True)
                for name, norm in norms.items()
            }
            path = Path(runner.work_dir, MASKS)
            with whole_file(path) as part, part.open('wb') as file:
                np.savez_compressed(file, **masks)
        # the share of a fixed or random choice is given, not learned
        chosen = [n for n in norms.values() if isinstance(n.selection, (Budget, Threshold))]
        if chosen and not self._warned:
            message = self._warning(chosen, runner.iter + 1, runner.max_iters)
            self._warned = message is not None
            if message:
                print_log(message, logger='current', level=logging.WARNING)

    def _warning(self, norms: Sequence[ExchangeNorm], iteration: int, total: int) -> str | None:
        """Return a warning, or None."""
        exchanged = sum(int(norm.exchange_mask().sum()) for norm in norms)
        possible = sum(int(norm.exchangeable.sum()) for norm in norms)
        thresholds = [n.selection.threshold for n in norms if isinstance(n.selection, Threshold)]
        if exchanged == 0 and thresholds and iteration >= self.patience * total:
            gammas = (norm.gamma().detach()[norm.exchangeable] for norm in norms)
            smallest = min(float(gamma.abs().min()) for gamma in gammas)
            return (
                f'nothing is exchanged after {iteration} iterations: the smallest |gamma| is '
                f'{smallest:.3g}, the threshold {max(thresholds):.3g}. Exchange under a budget '
                "(selection='budget' and ExchangeBudgetHook), or raise the coefficient of "
                "SparsityHook, the learning rate of the norms' scales, or the threshold"
            )
        if exchanged > self.most * possible:
            less = 'coefficient of SparsityHook or the threshold' if thresholds else 'budget'
            return (
                f'{exchanged / possible:.0%} of the channels that may be exchanged are: the '
                f'streams become alike and the ensemble adds little. Lower the {less}'
            )
        return None


def _unwrap(model: nn.Module) -> nn.Module:
    return model.get_submodule('module') if is_model_wrapper(model) else model


def _names(model: nn.Module) -> list[str]:
    """Return the names of the streams, or their indices if the model does not name them."""
    streams: Any = getattr(model, 'streams', None)
    if streams is not None:
        return list(streams)
    grid = next(norm.grid for _, norm in exchange_norms(model))
    return [f't{t}m{m}' for t in range(grid.tasks) for m in range(grid.modalities)]


def _by_stream(what: str, model: nn.Module, values: Sequence[float]) -> dict[str, float]:
    return {f'{what}/{name}': v for name, v in zip(_names(model), values, strict=True)}


def _of_budget(norms: Sequence[ExchangeNorm]) -> dict[str, float]:
    """Return wanted share, exchanged share and churn of the norms under a budget."""
    pairs = [(n, n.selection) for n in norms if isinstance(n.selection, Budget)]
    channels = sum(norm.exchangeable.numel() for norm, _ in pairs)
    if not channels:
        return {}
    exchanged = sum(int(norm.exchange_mask().sum()) for norm, _ in pairs)
    wanted = sum(budget.wanted * norm.exchangeable.numel() for norm, budget in pairs)
    moved = sum(budget.moved for _, budget in pairs)
    return {
        'budget/wanted': wanted / channels,
        'budget/met': exchanged / channels,
        'churn': moved / max(1, exchanged),
    }
