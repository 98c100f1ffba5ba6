"""Rows of the paper's tables that fuse build models that fuse."""

import pytest
import torch
from mmengine.registry import MODELS

from projects.paper.experiments import load
from projects.paper.rivals.fusion import Fusion
from projects.paper.rows import TABLES

ROWS_THAT_FUSE = [
    (run, dataset)
    for table in TABLES.values()
    for row in table.rows.values()
    for run in row.runs.values()
    if run.fusion
    for dataset in ('nyuv2', 'nyuv2-efflite0')
    if run.fits(dataset)
]


@pytest.mark.parametrize(('run', 'dataset'), ROWS_THAT_FUSE)
def test_rows_that_fuse_do(run, dataset):
    with torch.device('meta'):
        model = MODELS.build(load(run, dataset).model)
    found = {type(m).__name__ for m in model.modules() if isinstance(m, Fusion)}
    assert found == {run.fusion.type}
