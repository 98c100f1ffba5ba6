"""What all tests share: the scope, seeds and the place of the real data."""

from __future__ import annotations

import gc
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

import tests.plain_configs  # noqa: F401
from mmcen.datasets.multimodal import data_place


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--gpu-tests-on',
        choices=('cuda', 'cpu'),
        default='cuda',
        help='where the tests marked gpu run; they are skipped where there is no CUDA',
    )
    parser.addoption('--long', action='store_true', help='run the tests marked long, too')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption('--long'):
        return
    for item in items:
        if item.get_closest_marker('long'):
            item.add_marker(pytest.mark.skip(reason='takes long: make test-long'))


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    """Small tensors are fastest on one thread, and sums come out the same in every run."""
    torch.set_num_threads(1)


_frozen = {'modules': 0}


@pytest.fixture(autouse=True)
def quick_collection() -> None:
    """Keep what imports made out of garbage collection, which every data set of mmengine starts."""
    if len(sys.modules) > _frozen['modules'] + 50:
        gc.collect()
        gc.freeze()
        _frozen['modules'] = len(sys.modules)


@pytest.fixture(autouse=True)
def fresh_state() -> None:
    """The same seeds for each test, and mmseg's scope, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)  # the transforms of mmcv draw from it
    torch.manual_seed(0)
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of the real NYUv2, which ``data/nyuv2`` is or ``MMCEN_DATA`` names."""
    root = Path(data_place('nyuv2'))
    if not (root / 'splits').is_dir():
        pytest.skip(f'no NYUv2 at {root}: set MMCEN_DATA to the folder that holds it')
    return root
