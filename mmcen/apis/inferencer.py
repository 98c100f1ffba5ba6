"""Predictions on one's own files, without a label or a data set."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from ..deploy import DeployedNetwork, OnnxNetwork, as_it_is, deploy, padded
from ..deploy.facts import check_pipeline
from ..files import whole_file
from ..models.label_map import label_map, resize_labels
from ..models.multitask import CENMultiTask
from ..models.segmentors import CENEncoderDecoder
from ..outputs import ENSEMBLE
from ..shipped import CONFIG_OF, shipped_model
from ..visualization.sheet import class_colours, draw_legend, draw_sheet, picture
from ..visualization.video import video_file
from .frames import Frame
from .loading import find_loading, find_test_set, without_loaders
from .recordings import open_frames
from .weights import load_checkpoint, load_weights


@dataclass
class Prediction:
    """What the model makes of a frame.

    Attributes:
        name: of the frame.
        outputs: class numbers (H, W) uint8 or images (H, W, 3) uint8, as large as the frame, by
            the names of :class:`~mmcen.deploy.DeployedNetwork`.
        colour: the frame's colour (H, W, 3) uint8, where it has any.
        inputs: the modalities as the model got them, (H', W', 3) or (H', W') for imshow.
        present: names of the model's inputs that it was predicted from.
        files: what was written.
    """

    name: str
    outputs: dict[str, np.ndarray]
    colour: np.ndarray | None
    inputs: dict[str, np.ndarray]
    present: list[str]
    files: list[Path]


class CENInferencer(BaseInferencer):
    """Predict on files or arrays of named modalities, in the manner of mmengine's inferencers.

    Args:
        model: config file, config, a built model, an ``.onnx`` file of ``mmcen export``, or the
            name of a model that comes with mmcen: ``'nyuv2-efflite0'``.
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
        threads: of ONNX Runtime; 0 takes all cores.
        treat_empty: how to handle a modality without content, in which all values are equal or
            not finite: ``'use'`` it as it is, or treat it as ``'absent'``. A warning names
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
        model: str | Path | Config | nn.Module,
        weights: str | Path | None = None,
        device: str | None = None,
        apart: bool = False,
        streams: bool = False,
        depth_unit: float | None = None,
        size: tuple[int, int] | None = None,
        threads: int = 0,
        treat_empty: str = 'use',
        show_progress: bool = True,
    ) -> None:
        self._given: Any = None
        if isinstance(model, str) and model in CONFIG_OF and weights is None:
            model, weights = shipped_model(model)
        for path in (model, weights):
            local = isinstance(path, (str, Path)) and '://' not in str(path)
            if local and not Path(str(path)).is_file():
                raise FileNotFoundError(f'{path} does not exist')
        if depth_unit is not None and not 0 < depth_unit < math.inf:
            raise ValueError(
                f'depth_unit must be metres per stored unit, above 0, got {depth_unit}'
            )
        if size is not None and min(size) < 1:
            raise ValueError(f'size {tuple(size)} must be height and width in pixels, above 0')
        cfg: Any = str(model) if isinstance(model, Path) else model
        if str(cfg).endswith('.onnx'):
            if weights or apart:
                raise ValueError(f'{cfg} has its own weights and is apart: leave out the others')
            self._given = OnnxNetwork(cfg, threads)
            if 'config' not in self._given.facts:
                raise ValueError(f'{cfg} does not say how files are read: export it again')
            cfg = Config(dict(self._given.facts['config'], model=dict()))
            device = 'cpu'
        elif isinstance(cfg, nn.Module):
            self._given, cfg = cfg, getattr(cfg, 'cfg', None) or Config(dict(model=dict()))
        elif isinstance(cfg, str):
            cfg = Config.fromfile(cfg)
        if self._given is None and not (weights and cfg.get('model')):
            what = 'a checkpoint' if cfg.get('model') else 'a model'
            raise ValueError(f'a config without {what} predicts nothing: give one')
        if device is not None:
            try:
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:
                raise ValueError(
                    f"device '{device}' is not there ({str(error).splitlines()[0]}): leave it out "
                    'to take the best there is'
                ) from error
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
        return model

    def network_of(self, present: Sequence[str] | None) -> Any:
        """The network that takes some of the model's inputs, None for all.

        Raises:
            ValueError: an ONNX file takes other inputs.
        """
        key = tuple(self.network.inputs if present is None else present)
        if self.model is None and key != tuple(self.network.inputs):
            missing = [name for name in self.network.inputs if name not in key]
            raise ValueError(
                f"modality '{missing[0]}' is missing, without which this file does not predict: "
                f'export another one by mmcen export --present {" ".join(key)}'
            )
        if key not in self._networks:
            outputs = self.outputs_of(key)
            make = deploy if self.apart else as_it_is
            self._networks[key] = make(self.model, outputs, key).to(self.device)
        return self._networks[key]

    def outputs_of(self, present: Sequence[str] | None) -> list[str]:
        """Names of the outputs that are asked for and that some of the inputs give."""
        if present is None or tuple(present) == tuple(self.network.inputs):
            return self.outputs
        return self._wanted(as_it_is(self.model, present=present))

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
        frames, own_rate = open_frames(inputs, self.modalities, self.info, skip_incomplete, max_gap)
        out = None if out_dir is None else Path(out_dir)
        listed = frames if isinstance(frames, list) else []  # those of a recording are no files
        self._check_out(inputs, listed, out, out_video, overlay, sheets)
        done: list[str] = []
        if out is not None and resume:
            frames = self._left(frames, done, out, overlay, sheets)
        predictions: list[Prediction] = []
        with (
            nullcontext()
            if out_video is None
            else video_file(out_video, (own_rate or 30) if rate is None else rate) as film
        ):
            for found in self._predict_all(frames, batch_size):
                predictions.append(found)
                if film is not None:
                    film(self._shown(found, overlay))
                if out is not None:
                    self._write(found, out, overlay, sheets)
                if film is not None or out is not None:
                    found.outputs, found.inputs, found.colour = {}, {}, None
        if out is not None:
            _list_frames(out / 'frames.csv', predictions)
        if predictions:
            self._write_legends(out if overlay else None, out_video)
        return {'predictions': predictions, 'skipped': done}

    def _left(
        self, frames: Iterable[Frame], done: list[str], out: Path, overlay: float, sheets: bool
    ) -> list[Frame] | Iterator[Frame]:
        """Frames that lack files; the names of others are appended to ``done``."""

        def left() -> Iterator[Frame]:
            for frame in frames:
                if self._written(frame, out, overlay, sheets):
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
        return Prediction(frame.name, made, colour, inputs, present, [])

    def _array(self, name: str, y: Tensor, shape: Sequence[int]) -> np.ndarray:
        size = (shape[0], shape[1])
        if name in self.network.labels:
            return resize_labels(y, size).byte().numpy()
        if name not in self.network.images and len(y) > 1:
            return label_map(y, size).byte().numpy()
        if tuple(y.shape[1:]) != size:
            y = nn.functional.interpolate(y[None], size, mode='bilinear')[0]
        if name in self.network.images:
            return y.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return (y[0].sigmoid() > self.meta['threshold']).byte().numpy()  # one logit for two classes

    def visualize(self, inputs: list, preds: Any, show: bool = False, **kwargs: Any) -> list:
        """Outputs of predictions as pictures (H, W, 3), by name."""
        palette = self.meta.get('palette', ())
        return [
            {
                name: value if value.ndim == 3 else class_colours(torch.from_numpy(value), palette)
                for name, value in one.outputs.items()
            }
            for one in preds
        ]

    def postprocess(
        self, preds: Any, visualization: list, return_datasample: bool = False, **kwargs: Any
    ) -> dict:
        """Return predictions and their pictures."""
        return {'predictions': preds, 'visualization': visualization}

    def _paths(self, frame: Frame, out: Path, overlay: float, sheets: bool) -> dict[str, Path]:
        """Files of a frame by what they are, if none of its modalities is treated as absent."""
        present = [name for name, source in self.sources.items() if source in frame.files]
        return self._paths_of(
            frame.name, self.outputs_of(present), frame.files, out, overlay, sheets
        )

    def _paths_of(
        self,
        frame: str,
        outputs: Sequence[str],
        given: Container[str],
        out: Path,
        overlay: float,
        sheets: bool,
    ) -> dict[str, Path]:
        """Files of some outputs of a frame by what they are."""
        paths = {name: out / name / f'{frame}.png' for name in outputs}
        classes = [name for name in outputs if name not in self.network.images]
        if overlay and 'rgb' in given:
            paths |= {f'overlay {n}': out / 'overlays' / n / f'{frame}.png' for n in classes}
        return paths | ({'sheet': out / 'sheets' / f'{frame}.png'} if sheets else {})

    def _check_out(
        self,
        inputs: Any,
        frames: Sequence[Frame],
        out: Path | None,
        video: str | Path | None,
        overlay: float,
        sheets: bool,
    ) -> None:
        """Refuse results that would take the place of inputs."""
        given = {os.path.realpath(file) for frame in frames for file in frame.paths()}
        if isinstance(inputs, (str, os.PathLike)):  # such as a recording
            given.add(os.path.realpath(inputs))
        results = [] if video is None else [Path(video), _legend_of(video)]
        if out is not None:
            results.append(out / 'legend.png')
            for frame in frames:
                results += self._paths(frame, out, overlay, sheets).values()
        for path in results:
            if os.path.realpath(path) in given:
                raise ValueError(
                    f'{path} is an input, and the result would overwrite it: choose another '
                    'out_dir (--out-dir) or out_video (--out-video)'
                )

    def _written(self, frame: Frame, out: Path, overlay: float, sheets: bool) -> bool:
        return all(p.is_file() for p in self._paths(frame, out, overlay, sheets).values())

    def _write(self, found: Prediction, out: Path, overlay: float, sheets: bool) -> None:
        (coloured,) = self.visualize([], [found])
        given = () if found.colour is None else ('rgb',)
        paths = self._paths_of(found.name, list(found.outputs), given, out, overlay, sheets)
        for what, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if what == 'sheet':
                classes = any(value.ndim == 2 for value in found.outputs.values())
                legend = (self.meta.get('classes', ()), self.meta.get('palette', ()))
                # a stream is named after its modality, whose picture is there, too
                outputs = {f'from {n}' if n in found.inputs else n: x for n, x in coloured.items()}
                draw_sheet([found.inputs | outputs], path, *(legend if classes else ()))
            elif what.startswith('overlay '):
                assert found.colour is not None  # else there is no overlay
                _save(_mix(found.colour, coloured[what.split(' ', 1)[1]], overlay), path)
            else:
                _save(found.outputs[what], path)
            found.files.append(path)

    def _shown(self, found: Prediction, overlay: float) -> np.ndarray:
        """Picture of a frame in a video: overlays, or images and colours, side by side."""
        (coloured,) = self.visualize([], [found])
        return np.hstack(
            [
                image
                if found.colour is None or not overlay or name in self.network.images
                else _mix(found.colour, image, overlay)
                for name, image in coloured.items()
            ]
        )

    def _write_legends(self, out: Path | None, video: str | Path | None) -> None:
        """Write names and colours of the classes, if the outputs are classes."""
        classes, palette = self.meta.get('classes', ()), self.meta.get('palette', ())
        if not classes or not len(palette) or set(self.outputs) <= set(self.network.images):
            return
        if out is not None:
            draw_legend(out / 'legend.png', classes, palette)
        if video is not None:
            draw_legend(_legend_of(video), classes, palette)


def _legend_of(video: str | Path) -> Path:
    return Path(video).with_suffix('.legend.png')


def _mix(colour: np.ndarray, classes: np.ndarray, weight: float) -> np.ndarray:
    return ((1 - weight) * colour + weight * classes).round().astype(np.uint8)


def _list_frames(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write which modalities each frame was predicted from, after what the list says already."""
    rows = {one.name: ' '.join(one.present) for one in predictions}
    if path.is_file():
        with path.open(newline='', encoding='utf-8') as file:
            rows = {row['frame']: row['modalities'] for row in csv.DictReader(file)} | rows
    with whole_file(path) as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerows([('frame', 'modalities'), *sorted(rows.items())])


def _save(array: np.ndarray, path: Path) -> None:
    with whole_file(path) as part:
        Image.fromarray(array).save(part, format='PNG')
