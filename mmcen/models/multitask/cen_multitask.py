"""Any tasks from any modalities on one stream grid, each with a head (sections 3.2 to 3.5)."""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...core import StreamEnsemble
from ...outputs import ENSEMBLE, FUSED, outputs_of
from ..checkpoint_names import keep_names
from ..modality_dropout import add_modality_dropout
from .heads import to_image
from .plan import Plan

Outputs = dict[str, dict[str, Tensor]]


@MODELS.register_module()
class CENMultiTask(BaseModel):
    """Dense prediction of T tasks from M modalities each, by one network over the stream grid.

    Losses are those of each task's head, on every stream and on the ensemble of the task. The
    streams of the ensemble are detached, so its loss trains the decision scores only.

    Args:
        tasks: List of tasks, in the order of the streams: dicts with ``name``, ``inputs`` (names
            of the data set's modalities) and optionally ``head``, an :class:`ImageHead`
            or :class:`ClassHead`. They define the setting of the paper, see
            :class:`~mmcen.models.multitask.plan.Plan`.
        network: Config of the network over the grid, :class:`CENUNetGenerator` or
            :class:`CENDenseNetwork`, without ``inputs`` and ``out_channels``.
        head: Config of the head of tasks that state none, by default an ImageHead.
        data_preprocessor: Config of the preprocessor; by default a CENDataPreprocessor that scales
            0..255 to -1..1. mmagic's DataPreprocessor can be used, too.
        test_cfg: ``streams`` (default True): predict each stream's output besides the ensemble's;
            ``dropout`` (default False): keep dropout on, as pix2pix and the official code do;
            ``present`` (default None, all): names of the inputs to predict from, the others are
            treated as absent.
        modality_dropout: Arguments ``p`` and ``keep_at_least`` of
            :class:`~mmcen.models.modality_dropout.ModalityDropout`: in each training step a drawn
            subset of the inputs is present; by default all are. ``own_norms=True`` gives norms a
            second set of parameters and statistics for when one is absent.
        init_cfg: As in mmengine.

    One of the inputs is enough for a prediction. Streams of absent inputs are not computed, and
    tasks without any input are left out.

    Predictions are in ``sample.outputs`` and ``sample.targets``, see :mod:`mmcen.outputs`.

    Raises:
        ValueError: If tasks form no grid, or a domain is missing in the batch.
    """

    def __init__(
        self,
        tasks: Sequence[Mapping[str, Any]],
        network: dict,
        head: dict | None = None,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
        modality_dropout: dict | None = None,
    ) -> None:
        self.plan = Plan(tasks)
        default = head or dict(type='ImageHead')
        built = {
            task: MODELS.build(dict(self.plan.heads.get(task, default))) for task in self.plan.tasks
        }
        images = [task for task, one in built.items() if one.of_images]
        self.names = tuple(dict.fromkeys([*self.plan.domains, *images]))
        scale = dict(mean=[127.5] * 3, std=[127.5] * 3)
        super().__init__(
            data_preprocessor=data_preprocessor
            or dict(
                type='CENDataPreprocessor',
                modalities=[dict(name=name, **scale) for name in self.names],
            ),
            init_cfg=init_cfg,
        )
        self.heads: Any = nn.ModuleDict(built)
        self.network = self._build_network(network)
        # a fusion that merges streams leaves fewer of them than inputs
        grid = getattr(self.network, 'grid', self.plan.grid)
        out_grid = getattr(self.network, 'out_grid', grid)
        self.merged = out_grid.modalities < self.plan.grid.modalities
        self.ensemble = StreamEnsemble(out_grid)
        self.streams = [f'{task}/{one}' for task in self.plan.tasks for one in self.names_of(task)]
        # preprocessors of other libraries do not know modalities by name
        statistics = getattr(self.data_preprocessor, 'statistics', None)
        channels = [head.channels for head in built.values()]
        keep_names(self, self.plan.tasks, channels, statistics)
        self.test_cfg = dict(streams=True, dropout=False, present=None) | (test_cfg or {})
        add_modality_dropout(self, len(self.plan.domains), modality_dropout)

    def _build_network(self, network: dict) -> nn.Module:
        channels = [head.channels for head in self.heads.values()]
        cfg = deepcopy(dict(network))
        return MODELS.build(cfg | dict(inputs=self.plan.inputs, out_channels=channels))

    def forward(
        self,
        inputs: Tensor | dict[str, Tensor],
        data_samples: list[SegDataSample] | None = None,
        mode: str = 'tensor',
        present: Sequence[str] | None = None,
    ) -> Any:
        """Return outputs, losses or predictions, as models of mmengine do.

        Args:
            inputs: Domains by name, ``(B, 3, H, W)`` in -1..1, or all of them in the channels.
            data_samples: List of B samples.
            mode: ``'tensor'`` for outputs by task and name, ``'loss'`` or ``'predict'``.
            present: Names of the domains in the channels of ``inputs``; None for all.
        """
        domains = self._by_name(inputs, present)
        if mode == 'predict':
            return self.predict(domains, data_samples)
        if mode == 'tensor':
            return self.outputs(domains)
        targets = self.targets(domains, data_samples)
        return self.loss(self.outputs(self.drawn(domains)), targets)

    def drawn(self, domains: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the domains of a training step without those that modality dropout leaves out.

        Raises:
            ValueError: If the batch lacks an input.
        """
        missing = [name for name in self.plan.domains if name not in domains]
        if missing:
            raise ValueError(
                f'inputs {missing} are missing, the batch has {list(domains)}: add them to the '
                "dataset's modalities"
            )
        if self.modality_dropout is None or not self.training:
            return domains
        places = self.modality_dropout.draw()
        return {self.plan.domains[i]: domains[self.plan.domains[i]] for i in places}

    def outputs(self, domains: dict[str, Tensor]) -> Outputs:
        """Return activated outputs by task: ``(B, C', H, W)`` of the ensemble and each stream.

        Args:
            domains: Domains that are present, by name, ``(B, C, H, W)`` each.

        Raises:
            ValueError: If no input is present.
        """
        present = [name for name in self.plan.domains if name in domains]
        if not present:
            raise ValueError(
                f'none of the inputs {list(self.plan.domains)} is present, the batch has '
                f"{list(domains)}: add one to the dataset's modalities"
            )
        absent = torch.zeros_like(domains[present[0]])
        given = [domains.get(name, absent) for name in self.plan.domains]
        x = torch.stack(given, 1)  # (B, D, C, H, W)
        whole = len(present) == len(given)
        if whole or self.merged:  # a fusion takes all streams
            return self._outputs(x, list(self.plan.tasks), None)
        found: Outputs = {}
        for tasks, modalities in self.plan.groups(present):
            names = [list(self.plan.tasks)[t] for t in tasks]
            grid: Any = self.network.grid
            with grid.only(modalities=modalities, tasks=tasks):
                found |= self._outputs(x, names, modalities)
        return {task: found[task] for task in self.plan.tasks if task in found}

    def _outputs(self, x: Tensor, tasks: list[str], modalities: Sequence[int] | None) -> Outputs:
        """Return the outputs of the tasks and modalities that are present."""
        results = self.network(x)  # T of (B, M, C', H, W)
        activated = [
            self.heads[task].activate(y.float()) for task, y in zip(tasks, results, strict=True)
        ]
        found: Outputs = {}
        for task, y, ensemble in zip(tasks, activated, self.ensemble(activated), strict=True):
            names = self.names_of(task)
            own = names if modalities is None else [names[m] for m in modalities]
            found[task] = {ENSEMBLE: ensemble, **dict(zip(own, y.unbind(1), strict=True))}
        return found

    def names_of(self, task: str) -> tuple[str, ...]:
        """Return the names of a task's streams: its inputs, or the fused stream."""
        return (FUSED,) if self.merged else tuple(self.plan.tasks[task])

    def targets(
        self, domains: dict[str, Tensor], data_samples: list[SegDataSample] | None
    ) -> dict[str, Tensor]:
        """Return the target of each task, as its head defines it."""
        return {t: head.target(t, domains, data_samples) for t, head in self.heads.items()}

    def loss(self, outputs: Outputs, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of the heads, named ``<task>.<stream or ensemble>.<loss>``."""
        return {
            f'{task}.{name}.{key}': value
            for task, by_stream in outputs.items()
            for name, x in by_stream.items()
            for key, value in self.heads[task].loss(x, targets[task]).items()
        }

    def predict(
        self, domains: dict[str, Tensor], data_samples: list[SegDataSample] | None
    ) -> list[SegDataSample]:
        """Return samples with ``outputs``, and with those ``targets`` that the batch has."""
        with _Dropout(self.network, self.test_cfg['dropout']):
            outputs = self.outputs(self._to_predict_from(domains))
        batch = next(iter(domains.values())).shape[0]
        samples = data_samples or [SegDataSample() for _ in range(batch)]
        for i, sample in enumerate(samples):
            tasks = {task: self._predictions(task, outputs[task], i) for task in outputs}
            targets = {
                task: to_image(domains[task][i])
                for task in tasks
                if self.heads[task].of_images and task in domains
            }
            data = {'outputs': outputs_of(tasks), 'targets': BaseDataElement(**targets)}
            sample.set_data(data)
        return samples

    def _to_predict_from(self, domains: dict[str, Tensor]) -> dict[str, Tensor]:
        """The domains that ``test_cfg`` lets predictions see."""
        present: Collection[str] | None = self.test_cfg['present']
        if present is None:
            return domains
        return {name: x for name, x in domains.items() if name in present}

    def _predictions(
        self, task: str, outputs: dict[str, Tensor], i: int
    ) -> dict[str, BaseDataElement]:
        """Return the predictions of one sample, by name."""
        names = list(outputs) if self.test_cfg['streams'] else [ENSEMBLE]
        return {name: self.heads[task].predict(outputs[name][i]) for name in names}

    def _by_name(
        self, inputs: Tensor | dict[str, Tensor], present: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        if isinstance(inputs, dict):
            return inputs
        names = self.names if present is None else present
        parts = inputs.unflatten(1, (len(names), -1)).unbind(1)
        return dict(zip(names, parts, strict=True))


class _Dropout:
    """Context in which dropout works as in training, if ``on``."""

    def __init__(self, module: nn.Module, on: bool) -> None:
        self.layers = [m for m in module.modules() if isinstance(m, nn.Dropout)] if on else []
        self.before = [layer.training for layer in self.layers]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.train()

    def __exit__(self, *_: Any) -> None:
        for layer, training in zip(self.layers, self.before, strict=True):
            layer.train(training)
