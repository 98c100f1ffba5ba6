"""What of OpenMMLab, torch and mmcen works in this environment, and what mends the rest."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from .. import compat

OK, ABSENT, BROKEN = 'works', 'absent', 'broken'
PACKAGES = (
    'torch', 'torchvision', 'numpy', 'mmengine', 'onedl-mmengine', 'mmcv', 'mmcv-lite',
    'onedl-mmcv', 'mmsegmentation', 'onedl-mmsegmentation', 'mmagic', 'opencv-python',
    'torchmetrics', 'torch-fidelity', 'onnx', 'onnxruntime', 'onnxscript',
)  # fmt: skip
MMAGIC = 'pip install -r requirements/translation.txt && pip install --no-deps mmagic==1.2.0'


@dataclass(frozen=True)
class Finding:
    """One thing that works or does not.

    Args:
        name: what.
        state: 'works', 'absent' (an extra that is not installed) or 'broken'.
        detail: what was seen.
        fix: the command that mends it.
    """

    name: str
    state: str
    detail: str = ''
    fix: str = ''


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
    """Which OpenMMLab, and whether its parts go together."""
    try:
        found = compat.installed_versions()
        problem = compat.find_problem(found)
    except Exception as error:  # half-installed packages break in ways of their own
        return Finding('stack', BROKEN, f'{type(error).__name__}: {error}', _reinstall())
    if problem is not None:
        sentence, _, command = problem.rpartition(': ')
        return Finding('stack', BROKEN, sentence, command)
    forks = {True: 'upstream OpenMMLab', False: 'the OneDL forks'}
    kinds = {forks[compat.is_upstream(found, name)] for name in compat.FIRST_ONEDL}
    if len(kinds) > 1:
        return Finding('stack', BROKEN, 'upstream and OneDL packages are mixed', _reinstall())
    return Finding('stack', OK, kinds.pop())


def _reinstall() -> str:
    return 'pip install -r requirements/openmmlab.txt in a new environment'


def segmentation() -> Finding:
    """Whether a small CEN can be built and trained for a step."""
    return _try('segmentation', _segment, _reinstall())


def _segment() -> str:
    import torch
    from mmengine.registry import MODELS, init_default_scope

    import_all()
    init_default_scope('mmseg')
    norm = dict(type='CENBN')
    one = dict(mean=[0.0], std=[1.0])
    model = MODELS.build(
        dict(
            type='CENEncoderDecoder',
            data_preprocessor=dict(type='CENDataPreprocessor', modalities=dict(rgb=one, depth=one)),
            backbone=dict(
                type='CENResNet', depth=18, base_channels=4, norm_cfg=norm, in_channels=1
            ),
            decode_head=dict(
                type='RefineNetHead', in_channels=[4, 8, 16, 32], num_classes=2, light_weight=True
            ),
        )
    )
    logits = model(torch.zeros(2, 2, 32, 32))['ensemble']
    logits.sum().backward()
    return 'a small CEN was built and trained for a step'


def compiled_operators() -> Finding:
    """Whether mmcv's are there; hardly any config needs them."""
    if find_spec('mmcv') is None or compat.provide_ops():
        return Finding(
            'compiled mmcv operators',
            ABSENT,
            'this mmcv has none that load; no config of mmcen needs them',
            'pip install mmcv, built for your torch, in place of mmcv-lite',
        )
    return Finding('compiled mmcv operators', OK)


def translation() -> Finding:
    """Whether the parts of pix2pix are there."""
    if find_spec('mmagic') is None:
        return Finding('image translation', ABSENT, 'mmagic is not installed', MMAGIC)
    return _try('image translation', _translate, MMAGIC)


def _translate() -> str:
    import_all()
    import_mmagic = importlib.import_module('mmcen.models.translators.cen_translator').import_mmagic
    import_mmagic()
    return "mmagic's discriminator and losses import"


def metrics_of_features() -> Finding:
    """FID and KID."""
    name = 'FID and KID'
    missing = [part for part in ('torchmetrics', 'torch_fidelity') if find_spec(part) is None]
    if missing:
        return Finding(
            name,
            ABSENT,
            f'{" and ".join(missing)} not installed',
            'pip install -r requirements/translation.txt',
        )
    from pathlib import Path

    weights = 'checkpoints/weights-inception-2015-12-05-6726825d.pth'
    if not Path(weights).is_file():
        return Finding(
            name,
            ABSENT,
            f'the Inception weights are not at {weights}',
            "put torch-fidelity's file there, or name it by --cfg-options "
            'val_evaluator.extractor=FILE test_evaluator.extractor=FILE',
        )
    return Finding(name, OK, weights)


def onnx() -> Finding:
    missing = [p for p in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(p) is None]
    if missing:
        return Finding(
            'export', ABSENT, f'{", ".join(missing)} not installed',
            'pip install -r requirements/deploy.txt',
        )  # fmt: skip
    return _try(
        'export', lambda: importlib.import_module('onnxruntime').get_device(),
        'pip install -r requirements/deploy.txt',
    )  # fmt: skip


def gpus() -> Finding:
    def look() -> str:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ', '.join(names)

    found = _try('GPUs', look, 'pip install torch, built for your driver')
    if found.state == OK and not found.detail:
        return Finding('GPUs', ABSENT, 'torch finds none: training runs on the CPU')
    return found


def nyuv2() -> Finding:
    def look() -> str:
        from pathlib import Path

        place = importlib.import_module('mmcen.datasets.multimodal').data_place('nyudv2', 'nyuv2')
        return place if Path(place, 'splits').is_dir() else ''

    found = _try('NYUv2', look, '')
    if found.state == OK and not found.detail:
        return Finding(
            'NYUv2',
            ABSENT,
            'neither data/nyudv2 nor below MMCEN_DATA; SyntheticRooms needs no data',
            'python tools/dataset_converters/nyudv2.py nyu_depth_v2_labeled.mat',
        )
    return found


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


def import_all() -> None:
    """What ``import mmcen`` does elsewhere."""
    compat.prepare()
    for room in ('datasets', 'engine', 'evaluation', 'layers', 'models'):
        importlib.import_module(f'mmcen.{room}')


def _try(name: str, work: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(name, OK, work())
    except Exception as error:  # whatever it is, it is what is wrong
        lines = str(error).strip().splitlines() or ['']
        return Finding(name, BROKEN, f'{type(error).__name__}: {lines[0]}', fix)
