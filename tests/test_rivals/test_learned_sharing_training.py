"""AdaShare through the tools: several processes learn one policy, a resumed training goes on."""

import json

import pytest
import torch

from tests.optional import need_mmagic
from tests.training import ROOT, load, train

need_mmagic()

# No chance but the draws of the policy, whose seed is the same in all processes.
CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_rgb_to_semseg-depth.py'
custom_imports = dict(imports=['mmcen', 'projects.paper.rivals'], allow_failed_imports=False)
tasks = [
    dict(name='segment_semantic', inputs=['rgb'], head=dict(type='ClassHead', num_classes=10)),
    dict(name='depth_zbuffer', inputs=['rgb']),
    dict(name='normal', inputs=['rgb']),
]
domains = ['rgb', 'depth_zbuffer', 'normal']
data = dict(
    size=(32, 32), modalities=domains,
    pipeline=[dict(type='EncodeDomains'), dict(type='PackModalities')])
train_dataloader = dict(batch_size=2, dataset=dict(length=6, **data), drop_last=False)
val_dataloader = dict(batch_size=2, dataset=dict(length=5, **data))
test_dataloader = val_dataloader
model = dict(
    type='AdaShareTranslator',
    tasks=tasks,
    network=dict(type='AdaShareUNet', downs=4, base_channels=8, dropout_ratio=0.0, copies=2),
    discriminator=dict(base_channels=4),
)
sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
optim_wrapper = dict(
    _delete_=True, constructor='mmagic.MultiOptimWrapperConstructor',
    network=sgd, discriminators=sgd, ensemble=sgd,
    policy=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=20.0)))
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
randomness = dict(seed=3)
custom_hooks = [
    dict(type='SparsityHook', coefficient=0.01),
    dict(type='ExchangeMonitorHook', interval=1),
    dict(type='PolicyHook', interval=1),
]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=1))
"""
SEEDED = """
_base_ = 'plain.py'
custom_hooks = [dict(type='EpochSeedHook'), dict(type='PolicyHook', decay=0.5, interval=1)]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'plain.py').write_text(CONFIG)
    (tmp_path / 'seeded.py').write_text(SEEDED)
    return tmp_path


def test_two_processes_learn_the_policy_of_one(folder):
    """Two frames in one process, one frame in each of two; the second of three steps is the
    policy's."""
    train(folder, 'plain.py', '--work-dir', 'one')
    half = ('--cfg-options', 'train_dataloader.batch_size=1')
    train(folder, 'plain.py', '--work-dir', 'two', *half, processes=2)
    one, two = (load(folder / name / 'epoch_1.pth')['state_dict'] for name in ('one', 'two'))
    assert one['policy.logits'].abs().max() > 0.1
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-5, msg=name)


def test_resumed_is_bit_identical(folder):
    """Turns, temperature and choices go on where they were, epochs of three steps."""
    train(folder, 'seeded.py', '--work-dir', 'whole', '--cfg-options', 'train_cfg.max_epochs=2')
    train(folder, 'seeded.py', '--work-dir', 'parts')
    more = ('--cfg-options', 'train_cfg.max_epochs=2')
    train(folder, 'seeded.py', '--work-dir', 'parts', '--resume', *more)
    whole, parts = (load(folder / name / 'epoch_2.pth') for name in ('whole', 'parts'))
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, parts['state_dict'][name]), name
    log = next((folder / 'whole').glob('*/vis_data/scalars.json')).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    found = [line['policy/temperature'] for line in lines if 'policy/temperature' in line]
    assert found[0] == 5.0
    assert min(found) < 5.0
    assert all('policy/copy0' in line for line in lines if 'policy/temperature' in line)
