"""Predictions on one's own files, without a label or a data set."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS, init_default_scope
from rich.progress import track
from torch import Tensor, nn

from ..deploy import DeployedNetwork, OnnxNetwork, as_it_is, deploy, padded
from ..deploy.facts import check_pipeline
from ..models.label_map import label_map, resize_labels
from ..models.multitask import CENMultiTask
from ..models.segmentors import CENEncoderDecoder
from ..outputs import ENSEMBLE
from ..shipped import CONFIG_OF, shipped_model
from ..visualization.sheet import picture
from .frames import Frame
from .pipelines import find_loading, find_test_set, without_loaders
from .recordings import open_frames
from .results import Prediction, ResultWriter, pictures_of
from .weights import load_checkpoint, load_weights


class CENInferencer(BaseInferencer):
    """Predict on files or arrays of named modalities, in the manner of mmengine's inferencers.

    Args:
        model: config file, config, a built model, an ``.onnx`` file of ``mmcen export`` or an
            :class:`~mmcen.deploy.OnnxNetwork` of one, which takes a number of threads, or the
            name of a model that comes with mmcen: ``'nyuv2-efflite0'``, ``'nyuv2-efflite0-int8'``.
        weights: checkpoint; an ONNX file and a model that comes with mmcen have their own, a built
            model may have.
        device: such as ``'cuda:0'``; by default the best there is.
        apart: take the model apart first, see :func:`~mmcen.deploy.deploy`: the same predictions in
            less time.
        streams: predict each stream's own output besides the ensemble's, as far as an ONNX file has
            them.
        depth_unit: metres per stored unit of depth files, such as 0.001 for millimetres. By default
            as the model's data set declares it; else millimetres for whole numbers, metres for
            floating-point ones.
        size: (height, width) that the model gets; by default what it was tested at, which is the
            frame's own size where the pipeline does not resize. Predictions have the frame's size.
        treat_empty: how to handle a modality without content, in which all finite values of a
            channel are equal: ``'use'`` it as it is, or treat it as ``'absent'``. A warning names
            the first such file of a folder in either case.
        show_progress: a bar.

    Any of the model's modalities is enough: the streams of absent ones are not computed.

    Raises:
        FileNotFoundError: config or checkpoint does not exist.
        ValueError: the checkpoint is none, or of another model; the model is none of mmcen; an
            argument does not fit it.

    Examples:
        >>> inferencer = CENInferencer('nyuv2-efflite0')  # doctest: +SKIP
        >>> found = inferencer(dict(rgb='a.png', depth='b.png'))  # doctest: +SKIP
        >>> found['predictions'][0].outputs['ensemble']  # (H, W) class numbers  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | Config | nn.Module | OnnxNetwork,
        weights: str | Path | None = None,
        device: str | None = None,
        apart: bool = False,
        streams: bool = False,
        depth_unit: float | None = None,
        size: tuple[int, int] | None = None,
        treat_empty: str = 'use',
        show_progress: bool = True,
    ) -> None:
        if depth_unit is not None and not 0 < depth_unit < math.inf:
            raise ValueError(
                f'depth_unit must be metres per stored unit, above 0, got {depth_unit}'
            )
        if size is not None and min(size) < 1:
            raise ValueError(f'size {tuple(size)} must be height and width in pixels, above 0')
        if isinstance(model, str) and model in CONFIG_OF and weights is None:
            model, weights = shipped_model(model)
            if weights.suffix == '.onnx':
                model, weights = weights, None
        for file in (model, weights):
            local = isinstance(file, (str, Path)) and '://' not in str(file)
            if local and not Path(str(file)).is_file():
                raise FileNotFoundError(f'{file} does not exist')
        of_file = isinstance(model, (str, Path)) and str(model).endswith('.onnx')
        if of_file or isinstance(model, OnnxNetwork):
            if weights or apart:
                path = getattr(model, 'path', model)
                raise ValueError(f'{path} has its own weights and is apart: leave out the others')
            model, device = OnnxNetwork(str(model)) if of_file else model, 'cpu'
        self._given, cfg = _built_and_config(model)
        if self._given is None and not (weights and cfg.get('model')):
            what = 'a checkpoint' if cfg.get('model') else 'a model'
            raise ValueError(f'a config without {what} predicts nothing: give one')
        _check_device(device)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.apart, self.streams = apart, streams
        self.depth_unit, self.size, self.treat_empty = depth_unit, size, treat_empty
        super().__init__(cfg, weights and str(weights), device, 'mmseg', show_progress)

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> Any:
        self.device = device
        if isinstance(self._given, OnnxNetwork):
            self.network: Any = self._given
            self._networks: dict[tuple[str, ...], Any] = {tuple(self.network.inputs): self.network}
            self.meta = dict(self._given.facts)
            self.outputs = self._wanted(self.network)
            self._outputs = {tuple(self.network.inputs): self.outputs}
            return None
        model = self._given
        if model is None:
            model = MODELS.build(cfg.model)
            model.cfg = cfg
        if not isinstance(model, (CENEncoderDecoder, CENMultiTask)):
            raise ValueError(
                f'{type(model).__name__} is no model of mmcen: give a CENEncoderDecoder, '
                'a CENMultiTask or a CENTranslator'
            )
        if weights:
            load_weights(model, load_checkpoint(weights))
        model.to(device).eval()
        mode = (cfg.model.get('test_cfg') or {}).get('mode', 'whole')
        if mode != 'whole':
            raise ValueError(f"test_cfg.mode='{mode}' is not served: set test_cfg.mode='whole'")
        self.meta = self._meta_of(model, cfg)
        self.outputs = self._wanted(as_it_is(model))
        self.network = (deploy if self.apart else as_it_is)(model, self.outputs).to(device)
        self._networks = {tuple(self.network.inputs): self.network}
        self._outputs = {tuple(self.network.inputs): self.outputs}
        return model

    def network_of(self, present: Sequence[str] | None) -> Any:
        """The network that takes some of the model's inputs, None for all.

        Raises:
            ValueError: an ONNX file takes other inputs.
        """
        key = self._some_of(present)
        if key not in self._networks:
            outputs = self.outputs_of(key)
            make = deploy if self.apart else as_it_is
            self._networks[key] = make(self.model, outputs, key).to(self.device)
        return self._networks[key]

    def outputs_of(self, present: Sequence[str] | None) -> list[str]:
        """Names of the outputs that are asked for and that some of the inputs give."""
        key = self._some_of(present)
        if key not in self._outputs:
            self._outputs[key] = self._wanted(as_it_is(self.model, present=key))
        return self._outputs[key]

    def _some_of(self, present: Sequence[str] | None) -> tuple[str, ...]:
        """Names of some inputs, which an ONNX file must have all."""
        key = tuple(self.network.inputs if present is None else present)
        if self.model is None and key != tuple(self.network.inputs):
            missing = [name for name in self.network.inputs if name not in key]
            raise ValueError(
                f"modality '{missing[0]}' is missing, without which this file does not predict: "
                f'export another one by mmcen export --present {" ".join(key)}'
            )
        return key

    def sources_of(self, inputs: Sequence[str]) -> list[str]:
        """Modalities whose files the model's inputs are made of."""
        return list(dict.fromkeys(self.sources[name] for name in inputs))

    def _wanted(self, network: DeployedNetwork | OnnxNetwork) -> list[str]:
        names = list(network.outputs)
        ensembles = [name for name in names if name.split('/')[-1] == ENSEMBLE]
        return names if self.streams or not ensembles else ensembles

    def _meta_of(self, model: Any, cfg: Any) -> dict[str, Any]:
        """Return classes and palette, and the threshold that makes two classes of one logit.

        Classes come from the checkpoint or from the data set of the config.
        """
        meta = getattr(model, 'dataset_meta', None) or find_test_set(cfg)['metainfo']
        meta = {key: meta[key] for key in ('classes', 'palette') if meta.get(key) is not None}
        threshold = getattr(getattr(model, 'decode_head', None), 'threshold', None)
        return meta if threshold is None else meta | {'threshold': threshold}

    def about(self) -> dict[str, Any]:
        """What an ONNX file has to say of the model to be predicted with: JSON.

        A pipeline with transforms that may not come from a file is left out with a warning.
        """
        dataset = Config(find_test_set(self.cfg)).to_dict()
        dataset['pipeline'] = without_loaders(dataset.get('pipeline'))
        try:
            check_pipeline(dataset['pipeline'])
        except ValueError as error:
            warnings.warn(f'the file will not predict on files: {error}', stacklevel=2)
            return self.meta
        return self.meta | {'config': {'test_dataloader': {'dataset': dataset}}}

    def _init_visualizer(self, cfg: Any) -> None:
        return None

    def _init_collate(self, cfg: Any) -> Any:
        return pseudo_collate

    def _init_pipeline(self, cfg: Any) -> Compose:
        loading = find_loading(
            find_test_set(cfg),
            list(self.network.inputs),
            self.depth_unit,
            self.size,
            self.treat_empty,
        )
        self.modalities, self.info = loading.modalities, loading.info
        self.sources = loading.sources
        self.takes_depth = loading.takes_depth
        return loading.pipeline

    def __call__(
        self,
        inputs: Any,
        return_datasamples: bool = False,
        batch_size: int = 1,
        out_dir: str | Path | None = None,
        overlay: float = 0.5,
        sheets: bool = False,
        resume: bool = False,
        skip_incomplete: bool = False,
        max_gap: float | None = None,
        out_video: str | Path | None = None,
        rate: float | None = None,
        **kwargs: Any,
    ) -> dict[str, list]:
        """Predict.

        Args:
            inputs: as for :func:`~mmcen.apis.recordings.open_frames`: a file, an array, a picture
                of Pillow, a tensor, a folder or a video for each modality, a list of such frames,
                or one folder, list of pairs or recording. Colour is in the order red, green, blue.
            return_datasamples: not served, predictions are arrays.
            batch_size: frames at once; those of one size.
            out_dir: write ``<output>/<frame>.png`` into it, label maps or images, and keep no array
                but the files' names.
            overlay: weight 0..1 of the classes' colours over the frame's, in
                ``overlays/<output>/<frame>.png``, with the classes' names in ``legend.png``; 0
                writes none.
            sheets: write inputs and outputs side by side, ``sheets/<frame>.png``.
                ``frames.csv`` there says which modalities each frame was predicted from.
            resume: leave frames alone whose files are all there.
            skip_incomplete: leave out frames of which a folder has no file.
            max_gap: pair files of folders by the time stamps in their names, at most so many
                seconds apart; by default by name.
            out_video: write a video of the overlays, of several outputs side by side, and the
                classes' names in ``<name>.legend.png`` beside it; keep no array.
            rate: frames per second of ``out_video``; by default those of the video that is given,
                else 30.
            **kwargs: none; mmengine's other arguments are rejected.

        Returns:
            ``predictions``: a :class:`Prediction` for each frame; ``skipped``: names of the frames
            that ``resume`` left alone.

        Raises:
            ValueError, FileNotFoundError: about frames and files, which are named.
        """
        if kwargs or return_datasamples:
            raise ValueError(f'unknown arguments {[*kwargs] or ["return_datasamples"]}')
        if batch_size < 1 or not 0 <= overlay <= 1:
            raise ValueError(f'batch_size {batch_size} must be 1 or more, overlay {overlay} 0..1')
        if resume and out_video is not None:
            raise ValueError('a resumed video would lack frames: leave out resume or out_video')
        results = ResultWriter(
            None if out_dir is None else Path(out_dir),
            None if out_video is None else Path(out_video),
            overlay,
            sheets,
            self.meta,
            self.network.images,
        )
        frames, own_rate = open_frames(inputs, self.modalities, self.info, skip_incomplete, max_gap)
        listed = frames if isinstance(frames, list) else []  # those of a recording are no files
        given = [inputs] if isinstance(inputs, (str, os.PathLike)) else []
        given += [file for frame in listed for file in frame.paths()]
        results.check(given, [p for frame in listed for p in self._files(frame, results)])
        done: list[str] = []
        if out_dir is not None and resume:
            frames = self._left(frames, done, results)
        if out_dir is None and out_video is None:
            return {'predictions': list(self._predict_all(frames, batch_size)), 'skipped': done}
        predictions: list[Prediction] = []
        with results.opened((own_rate or 30) if rate is None else rate) as write:
            for found in self._predict_all(frames, batch_size):
                write(found)
                predictions.append(found)
        return {'predictions': predictions, 'skipped': done}

    def _files(self, frame: Frame, results: ResultWriter) -> Iterable[Path]:
        """Return the files of a frame, if none of its modalities is treated as absent."""
        present = [name for name, source in self.sources.items() if source in frame.files]
        return results.paths(frame.name, self.outputs_of(present), 'rgb' in frame.files).values()

    def _left(
        self, frames: Iterable[Frame], done: list[str], results: ResultWriter
    ) -> list[Frame] | Iterator[Frame]:
        """Frames that lack files; the names of others are appended to ``done``."""

        def left() -> Iterator[Frame]:
            for frame in frames:
                if all(path.is_file() for path in self._files(frame, results)):
                    done.append(frame.name)
                else:
                    yield frame

        return list(left()) if isinstance(frames, list) else left()

    def _predict_all(self, frames: Iterable[Frame], batch_size: int) -> Iterator[Prediction]:
        """Predict in batches, with a bar if there are several frames."""
        count = len(frames) if isinstance(frames, list) else None
        source = iter(frames)
        batches = iter(lambda: list(islice(source, batch_size)), [])
        if self.show_progress and count not in (0, 1):
            total = None if count is None else math.ceil(count / batch_size)
            batches = iter(track(batches, 'Predicting', total=total))
        for batch in batches:
            yield from self.predict(batch)

    def predict(self, frames: Sequence[Frame]) -> Iterator[Prediction]:
        """Predict frames, together where they have the same size and the same modalities."""
        frames = [frame.read() for frame in frames]
        packed = [self.load(frame) for frame in frames]
        for frame, one in zip(frames, packed, strict=True):
            self._check(frame, one['inputs'])
        kinds = {tuple((n, *x.shape[1:]) for n, x in one['inputs'].items()) for one in packed}
        groups = [packed] if len(kinds) == 1 else [[one] for one in packed]
        i = 0
        for group in groups:
            data = self.collate_fn(group)
            outputs = self.forward(data)
            for k, one in enumerate(group):
                yield self._prediction(frames[i], one, {n: y[k] for n, y in outputs.items()})
                i += 1

    def load(self, frame: Frame) -> dict[str, Any]:
        """Return ``inputs``, modalities ``(C_m, H, W)`` by name, and ``data_samples``."""
        return self.pipeline(self._sample(frame))

    def _check(self, frame: Frame, inputs: Mapping[str, Tensor]) -> None:
        for name, channels in self.network.inputs.items():
            if name in inputs and len(inputs[name]) != channels:
                raise ValueError(
                    f"frame '{frame.name}': modality '{name}' has {len(inputs[name])} channels, "
                    f'the model takes {channels}'
                )

    @torch.no_grad()
    def forward(self, inputs: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return outputs of a batch by name.

        They are logits ``(B, K, H, W)``, images in 0..255, or label maps ``(B, H, W)``.
        """
        network = self.network_of(self._present(inputs['inputs']))
        stacked = [
            torch.stack(list(inputs['inputs'][name])).float().to(self.device)
            for name in network.inputs
        ]
        found = padded(network, stacked)
        return {name: y.cpu() for name, y in found.items() if name in self.outputs}

    def _present(self, inputs: Mapping[str, Any]) -> list[str]:
        """Names of the model's inputs that are there."""
        return [name for name in self.network.inputs if name in inputs]

    def _sample(self, frame: Frame) -> dict:
        return {
            'img_path': frame.name,
            # a frame for several models has modalities of others
            'modality_paths': {k: v for k, v in frame.files.items() if k in self.modalities},
            'modality_origins': frame.origins,
            'modality_info': self.info,
            'known_modalities': self.modalities,
            'seg_fields': [],
            'palette': self.meta.get('palette'),
            'near': 'low',  # for what takes depth of no unit: one's own files hold distances
        }

    def _prediction(self, frame: Frame, packed: dict, outputs: dict[str, Tensor]) -> Prediction:
        shape = packed['data_samples'].ori_shape[:2]
        made = {name: self._array(name, y, shape) for name, y in outputs.items()}
        colour = None
        info = self.info.get('rgb')
        if 'rgb' in frame.files and info is not None and info.kind in ('colour', 'domain'):
            stage = self.pipeline.transforms[0]
            own = stage.transform(self._sample(frame) | {'modality_paths': {
                'rgb': frame.files['rgb']}})  # fmt: skip
            colour = own['modalities']['rgb']
        inputs = {name: picture(x) for name, x in packed['inputs'].items()}
        present = self._present(packed['inputs'])
        return Prediction(frame.name, made, colour, inputs, present)

    def _array(self, name: str, y: Tensor, shape: Sequence[int]) -> np.ndarray:
        size = (shape[0], shape[1])
        if name in self.network.labels:  # of at most 256 classes, if they are of 8 bits
            return _numbers(resize_labels(y, size), 256 if y.dtype == torch.uint8 else 2**16)
        if name not in self.network.images and len(y) > 1:
            return _numbers(label_map(y, size), len(y))
        if tuple(y.shape[1:]) != size:
            y = nn.functional.interpolate(y[None], size, mode='bilinear')[0]
        if name in self.network.images:
            return y.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return (y[0].sigmoid() > self.meta['threshold']).byte().numpy()  # one logit for two classes

    def visualize(self, inputs: list, preds: Any, show: bool = False, **kwargs: Any) -> list:
        """Outputs of predictions as pictures (H, W, 3), by name."""
        return [pictures_of(one, self.meta.get('palette', ())) for one in preds]

    def postprocess(
        self, preds: Any, visualization: list, return_datasample: bool = False, **kwargs: Any
    ) -> dict:
        """Return predictions and their pictures."""
        return {'predictions': preds, 'visualization': visualization}


def _built_and_config(model: Any) -> tuple[Any, Config]:
    """Return the network, if it is built already, and the config of its inputs."""
    if isinstance(model, OnnxNetwork):
        if 'config' not in model.facts:
            raise ValueError(f'{model.path} does not say how files are read: export it again')
        return model, Config(dict(model.facts['config'], model=dict()))
    if isinstance(model, nn.Module):
        return model, getattr(model, 'cfg', None) or Config(dict(model=dict()))
    return None, Config.fromfile(str(model)) if isinstance(model, (str, Path)) else model


def _check_device(device: str | None) -> None:
    """Raise ValueError if a device does not exist."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device '{device}' is not there ({str(error).splitlines()[0]}): leave it out to take "
            'the best there is'
        ) from error


def _numbers(labels: Tensor, classes: int) -> np.ndarray:
    """Return a map of class numbers in as few bits as a PNG needs: 8, or 16."""
    if classes > 2**16:
        raise ValueError(f'a label map has at most {2**16} classes, the model has {classes}')
    return labels.numpy().astype(np.uint8 if classes <= 256 else np.uint16)
