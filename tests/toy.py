"""A model, data and a metric small enough to train in a test through mmengine's runner."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import Dataset

CONFIG = """
custom_imports = dict(imports=['tests.toy'], allow_failed_imports=False)
default_scope = 'mmseg'
model = dict(type='ToyModel')
loader = dict(batch_size=4, num_workers=0, dataset=dict(type='ToyDataset'),
              collate_fn=dict(type='default_collate'))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), **loader)
val_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg, test_cfg = dict(), dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='error', rule='less'))
randomness = dict(seed=3)
"""


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Pairs (x, y) with y the sum of x."""

    def __init__(self, length: int = 16, pipeline: list | None = None) -> None:
        self.inputs = torch.randn(length, 3, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict:
        return {'inputs': self.inputs[index], 'data_samples': self.inputs[index].sum()}


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs, data_samples, mode='tensor'):
        output = self.linear(inputs)[:, 0]
        if mode == 'predict':
            return [{'error': error} for error in (output - data_samples).abs()]
        return {'loss': (output - data_samples).square().mean()}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results += [sample['error'].item() for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return {'error': np.mean(results)}
