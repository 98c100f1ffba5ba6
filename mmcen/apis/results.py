"""Write predictions as files: label maps, images, overlays, sheets and a video."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files import whole_file
from ..visualization.sheet import class_colours, draw_legend, draw_sheet
from ..visualization.video import video_file

COLUMNS = ['frame', 'modalities']  # of frames.csv


@dataclass
class Prediction:
    """Outputs of the model on one frame.

    Attributes:
        name: Name of the frame.
        outputs: Class numbers (H, W) uint8, uint16 if there are more than 256 classes, or images
            (H, W, 3) uint8, as large as the frame, by the names of
            :class:`~mmcen.deploy.DeployedNetwork`.
        colour: The frame's colour (H, W, 3) uint8, or None if it has none.
        inputs: The modalities as the model got them, (H', W', 3) or (H', W') for imshow.
        present: Names of the model's inputs that it was predicted from.
        files: Files that were written.
    """

    name: str
    outputs: dict[str, np.ndarray]
    colour: np.ndarray | None
    inputs: dict[str, np.ndarray]
    present: list[str]
    files: list[Path] = field(default_factory=list)


def pictures_of(found: Prediction, palette: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Return the outputs of a prediction as pictures (H, W, 3), by name."""
    return {
        name: y if y.ndim == 3 else class_colours(torch.from_numpy(y.astype(np.int32)), palette)
        for name, y in found.outputs.items()
    }


@dataclass(frozen=True)
class ResultWriter:
    """Files of the predictions of one call.

    Args:
        folder: Folder to write into; None writes no pictures.
        video: Video to write; None writes none.
        overlay: Weight 0..1 of the classes' colours over the frame's; 0 writes no overlays.
        sheets: Whether to write inputs and outputs side by side.
        meta: ``classes`` and ``palette`` of class maps.
        images: Names of the outputs that are images.
    """

    folder: Path | None
    video: Path | None
    overlay: float
    sheets: bool
    meta: Mapping[str, Any]
    images: Container[str]

    @property
    def palette(self) -> Sequence[Sequence[int]]:
        """Colours of the classes."""
        return self.meta.get('palette', ())

    def paths(self, frame: str, outputs: Sequence[str], colour: bool) -> dict[str, Path]:
        """Return the files of a frame in the folder, by what they show.

        Args:
            frame: Name of the frame.
            outputs: Names of its outputs.
            colour: Whether it has colour to lay class maps over.
        """
        out = self.folder
        if out is None:
            return {}
        paths = {name: out / name / f'{frame}.png' for name in outputs}
        if self.overlay and colour:
            classes = [name for name in outputs if name not in self.images]
            paths |= {f'overlay {n}': out / 'overlays' / n / f'{frame}.png' for n in classes}
        return paths | ({'sheet': out / 'sheets' / f'{frame}.png'} if self.sheets else {})

    def check(self, inputs: Iterable[str | os.PathLike], planned: Iterable[Path]) -> None:
        """Check before the first prediction that the results can be written.

        Args:
            inputs: Files that are read.
            planned: Files of frames that will be written.

        Raises:
            ValueError: If a result would overwrite an input, the folder is a file, or its list of
                frames cannot be continued.
        """
        given = set(map(os.path.realpath, inputs))
        own = [] if self.folder is None else [self.folder / 'legend.png', self._list]
        for path in [*planned, *own, *([self.video, self._video_legend] if self.video else [])]:
            if os.path.realpath(path) in given:
                raise ValueError(
                    f'{path} is an input, and the result would overwrite it: choose another '
                    'out_dir (--out-dir) or out_video (--out-video)'
                )
        for folder in [self.folder, self.video and self.video.parent]:
            existing = folder and next(
                p for p in (folder, *folder.absolute().parents) if p.exists()
            )
            if existing and not existing.is_dir():
                raise ValueError(
                    f'{existing} is a file and not a folder: choose another out_dir (--out-dir) or '
                    'out_video (--out-video)'
                )
        self._listed()

    @contextmanager
    def opened(self, rate: float) -> Iterator[Callable[[Prediction], None]]:
        """Yield a function that writes a prediction and then drops its arrays.

        Legends, the video and the list of frames are complete when the context ends, the list also
        if it ends with an error.

        Args:
            rate: Frames per second of the video.
        """
        written: list[Prediction] = []
        legends = False
        with ExitStack() as stack:
            film = stack.enter_context(video_file(self.video, rate)) if self.video else None

            def write(found: Prediction) -> None:
                nonlocal legends
                pictures = pictures_of(found, self.palette)
                if film is not None:
                    film(self._shown(found, pictures))
                if self.folder is not None:
                    self._write(found, pictures)
                if not legends and any(value.ndim == 2 for value in found.outputs.values()):
                    self._write_legends()
                    legends = True
                found.outputs, found.inputs, found.colour = {}, {}, None
                written.append(found)

            done = False
            try:
                yield write
                done = True
            finally:
                if self.folder is not None and (done or written):
                    self._list_frames(written)

    def _write(self, found: Prediction, pictures: Mapping[str, np.ndarray]) -> None:
        paths = self.paths(found.name, list(found.outputs), found.colour is not None)
        for what, path in paths.items():
            if what == 'sheet':
                self._draw_sheet(found, pictures, path)
            elif what.startswith('overlay '):
                _save(self._mix(found, pictures[what.removeprefix('overlay ')]), path)
            else:
                _save(found.outputs[what], path)
            found.files.append(path)

    def _draw_sheet(
        self, found: Prediction, pictures: Mapping[str, np.ndarray], path: Path
    ) -> None:
        # a stream is named after its modality, whose picture is there, too
        outputs = {f'from {n}' if n in found.inputs else n: x for n, x in pictures.items()}
        classes = any(value.ndim == 2 for value in found.outputs.values())
        legend = (self.meta.get('classes', ()), self.palette)
        draw_sheet([found.inputs | outputs], path, *(legend if classes else ()))

    def _mix(self, found: Prediction, picture: np.ndarray) -> np.ndarray:
        """Lay the colours of a class map over the frame's colour."""
        assert found.colour is not None
        mixed = (1 - self.overlay) * found.colour + self.overlay * picture
        return mixed.round().astype(np.uint8)

    def _shown(self, found: Prediction, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a frame of the video: overlays, or images and colours, side by side."""
        plain = found.colour is None or not self.overlay
        return np.hstack(
            [
                picture if plain or name in self.images else self._mix(found, picture)
                for name, picture in pictures.items()
            ]
        )

    @property
    def _video_legend(self) -> Path:
        assert self.video is not None
        return self.video.with_suffix('.legend.png')

    def _write_legends(self) -> None:
        """Write names and colours of the classes, if they are known."""
        classes = self.meta.get('classes', ())
        if not classes or not len(self.palette):
            return
        if self.folder is not None and self.overlay:
            draw_legend(self.folder / 'legend.png', classes, self.palette)
        if self.video is not None:
            draw_legend(self._video_legend, classes, self.palette)

    @property
    def _list(self) -> Path:
        assert self.folder is not None
        return self.folder / 'frames.csv'

    def _listed(self) -> dict[str, str]:
        """Return the modalities of the frames that are in the list already.

        Raises:
            ValueError: If the file is no such list.
        """
        if self.folder is None or not self._list.is_file():
            return {}
        try:
            with self._list.open(newline='', encoding='utf-8') as file:
                head, *rows = csv.reader(file)
                if head != COLUMNS:
                    raise ValueError(f'its first line is {",".join(head)!r}')
                return dict(rows)
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f'{self._list} is no list of predicted frames ({error}): move it away, or choose '
                'another out_dir (--out-dir)'
            ) from error

    def _list_frames(self, predictions: Sequence[Prediction]) -> None:
        """Write which modalities each frame was predicted from, and keep what was listed."""
        rows = self._listed() | {one.name: ' '.join(one.present) for one in predictions}
        with whole_file(self._list) as part, part.open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([COLUMNS, *sorted(rows.items())])


def _save(array: np.ndarray, path: Path) -> None:
    with whole_file(path) as part:
        Image.fromarray(array).save(part, format='PNG')
