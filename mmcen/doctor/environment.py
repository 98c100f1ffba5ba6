"""Check which parts of OpenMMLab, torch and mmcen work, and how to repair the rest."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .. import compat, register

OK, ABSENT, BROKEN = 'works', 'absent', 'broken'
PACKAGES = (
    'torch', 'torchvision', 'numpy', 'mmengine', 'onedl-mmengine', 'mmcv', 'mmcv-lite',
    'onedl-mmcv', 'mmsegmentation', 'onedl-mmsegmentation', 'mmagic', 'opencv-python',
    'torchmetrics', 'torch-fidelity', 'onnx', 'onnxruntime', 'onnxscript',
)  # fmt: skip
# These write into the folders mmengine, mmcv and mmseg, over each other.
STACKS = 'mmengine mmcv mmcv-lite mmsegmentation onedl-mmengine onedl-mmcv onedl-mmsegmentation'
PACKAGE = Path(__file__).parents[1]
CLONE = PACKAGE.parent
INCEPTION = 'weights-inception-2015-12-05-6726825d.pth'
INCEPTION_FROM = f'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}'


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        name: what.
        state: 'works', 'absent' (an extra that is not installed) or 'broken'.
        detail: what was seen.
        fix: the command that mends it, to be pasted; where none does it alone, what to do besides.
    """

    name: str
    state: str
    detail: str = ''
    fix: str = ''


class Absent(Exception):
    """An extra is not installed; nothing is broken."""


def versions() -> dict[str, str]:
    """Installed distributions, and Python."""
    found = {'python': '.'.join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stack() -> Finding:
    """Check which OpenMMLab is installed, and whether its versions are compatible."""
    try:
        found = compat.installed_versions()
        problem = compat.find_problem(found)
    except Exception as error:  # half-installed packages break in ways of their own
        return Finding('stack', BROKEN, f'{type(error).__name__}: {error}', _reinstall())
    if problem is not None:
        sentence, _, command = problem.rpartition(': ')
        alone = command.startswith('pip install ') and not _installed_onedl()
        return Finding('stack', BROKEN, sentence, command if alone else _reinstall())
    forks = {True: 'upstream OpenMMLab', False: 'the OneDL forks'}
    kinds = {forks[compat.is_upstream(found, name)] for name in compat.FIRST_ONEDL}
    if len(kinds) > 1:
        return Finding('stack', BROKEN, 'upstream and OneDL packages are mixed', _reinstall())
    return Finding('stack', OK, kinds.pop())


def say(what: str) -> None:
    """Print that a check that takes seconds has started."""
    print(f'{what} ...', file=sys.stderr, flush=True)


def _install(extra: str, pinned: str) -> str:
    """The command for a set of packages: a clone has the releases that are tested."""
    file = CLONE / 'requirements' / f'{pinned}.txt'
    return f'pip install -r {_shown(file)}' if file.is_file() else f"pip install 'mmcen[{extra}]'"


def _shown(path: Path) -> str:
    return shlex.quote(os.path.relpath(path))


def _onedl() -> bool:
    """Whether the OneDL forks are installed, or are the stack for this Python."""
    return compat.NEEDS_ONEDL or _installed_onedl()


def _installed_onedl() -> bool:
    return any(name.startswith('onedl-') for name in versions())


def _reinstall() -> str:
    stack = ('onedl', 'onedl') if _onedl() else ('segmentation', 'openmmlab')
    return f'pip uninstall -y {STACKS} && {_install(*stack)}'


def segmentation() -> Finding:
    """Whether a small CEN can be built and trained for a step."""
    return _try('segmentation', _segment, _reinstall())


def _segment() -> str:
    import torch
    from mmengine.registry import MODELS, init_default_scope

    register()
    init_default_scope('mmseg')
    norm = dict(type='CENBN')
    modalities = [dict(name=name, mean=[0.0], std=[1.0]) for name in ('rgb', 'depth')]
    model = MODELS.build(
        dict(
            type='CENEncoderDecoder',
            data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities),
            backbone=dict(
                type='CENResNet', depth=18, base_channels=4, norm_cfg=norm, in_channels=1
            ),
            decode_head=dict(
                type='RefineNetHead', in_channels=[4, 8, 16, 32], num_classes=2, light_weight=True
            ),
        )
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.zeros(2, 2, 32, 32))['ensemble'].sum().backward()
    optimizer.step()
    return 'a small CEN was built and trained for a step'


def compiled_operators() -> Finding:
    """Whether mmcv's are there; hardly any config needs them."""

    def look() -> str:
        if find_spec('mmcv') is None or compat.provide_ops():
            raise Absent('this mmcv has none that load; no config of mmcen needs them')
        return ''

    return _try(
        'compiled mmcv operators',
        look,
        'pip uninstall -y mmcv-lite, then the command for your torch that '
        'https://mmcv.readthedocs.io/en/latest/get_started/installation.html has for mmcv 2.1',
    )


def translation() -> Finding:
    """Whether the parts of pix2pix are there."""
    fix = f'{_install("translation", "translation")} && pip install --no-deps mmagic==1.2.0'
    return _try('image translation', _translate, fix)


def _translate() -> str:
    if find_spec('mmagic') is None:
        raise Absent('mmagic is not installed')
    register()
    import_mmagic = importlib.import_module('mmcen.models.translators.cen_translator').import_mmagic
    import_mmagic()
    return "mmagic's discriminator and losses import"


def metrics_of_features() -> Finding:
    """FID and KID."""
    missing = [part for part in ('torchmetrics', 'torch_fidelity') if find_spec(part) is None]
    file = Path('checkpoints', INCEPTION)

    def look() -> str:
        if missing:
            raise Absent(f'{" and ".join(missing)} not installed')
        if not file.is_file():
            raise Absent(
                f'the Inception weights are not at {file} (another place: --cfg-options '
                'val_evaluator.extractor=FILE test_evaluator.extractor=FILE)'
            )
        return str(file)

    fix = f'curl -fL --create-dirs -o {file} {INCEPTION_FROM}'
    if missing:
        fix = 'pip install torchmetrics torch-fidelity'
    return _try('FID and KID', look, fix)


def onnx() -> Finding:
    def look() -> str:
        missing = [p for p in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(p) is None]
        if missing:
            raise Absent(f'{", ".join(missing)} not installed')
        return importlib.import_module('onnxruntime').get_device()

    return _try('export', look, _install('onnx', 'deploy'))


def gpus() -> Finding:
    def look() -> str:
        import torch

        count = torch.cuda.device_count()
        if not count:
            raise Absent('torch finds none: training runs on the CPU')
        return ', '.join(torch.cuda.get_device_name(i) for i in range(count))

    return _try(
        'GPUs', look, 'https://pytorch.org/get-started/locally/ has the command for a GPU of yours'
    )


def nyuv2() -> Finding:
    def look() -> str:
        place = importlib.import_module('mmcen.datasets.multimodal').data_place('nyuv2')
        if not Path(place, 'splits').is_dir():
            raise Absent('neither data/nyuv2 nor below MMCEN_DATA; SyntheticRooms needs no data')
        return place

    return _try(
        'NYUv2',
        look,
        'with nyu_depth_v2_labeled.mat, splits.mat and classMapping40.mat in this folder: '
        'mmcen convert-data nyuv2 nyu_depth_v2_labeled.mat',
    )


CHECKS: dict[str, Callable[[], Finding]] = {
    'stack': stack,
    'segmentation': segmentation,
    'translation': translation,
    'ops': compiled_operators,
    'fid': metrics_of_features,
    'export': onnx,
    'gpu': gpus,
    'data': nyuv2,
}


def _try(name: str, work: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(name, OK, work())
    except Absent as error:
        return Finding(name, ABSENT, str(error), fix)
    except Exception as error:  # whatever it is, it is what is wrong
        lines = str(error).strip().splitlines() or ['']
        return Finding(name, BROKEN, f'{type(error).__name__}: {lines[0]}', fix)
