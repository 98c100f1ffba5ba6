"""Translation keeps the promises of segmentation: several processes, resuming, mixed precision, and
the tools from training to pictures. Through the tools."""

import json
import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmcen.core import exchange_norms
from tests.command import run_python
from tests.optional import need_mmagic
from tests.training import KILLER, ROOT, load, train

need_mmagic()

# Small, without chance: no flips, no dropout. A threshold of 1 lies where the scales start, so that
# which channels are exchanged depends on every step.
CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_rgb-depth_to_semseg-normal.py'
data = dict(size=(32, 32), pipeline=[dict(type='EncodeDomains'), dict(type='PackModalities')])
train_dataloader = dict(batch_size=2, dataset=dict(length=6, **data), drop_last=False)
val_dataloader = dict(batch_size=2, dataset=dict(length=5, **data))
test_dataloader = val_dataloader
model = dict(
    network=dict(downs=4, base_channels=8, dropout_ratio=0.0, norm_cfg=dict(threshold=1.0)),
    discriminator=dict(base_channels=4),
)
sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
optim_wrapper = dict(
    _delete_=True, constructor='mmagic.MultiOptimWrapperConstructor',
    network=sgd, discriminators=sgd, ensemble=sgd)
train_cfg = dict(max_epochs=1, val_interval=10)
param_scheduler = []
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=0.01),
    dict(type='ExchangeMonitorHook', interval=1),
    dict(type='SheetHook', frames=2),
]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
"""
# As above with chance: flips in two workers, dropout; three epochs.
RANDOM = """
_base_ = 'plain.py'
custom_imports = dict(imports=['mmcen', 'killer'], allow_failed_imports=False)
train_dataloader = dict(
    num_workers=2, persistent_workers=False, worker_init_fn=dict(type='seed_worker'),
    dataset=dict(pipeline=[
        dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
        dict(type='EncodeDomains'),
        dict(type='PackModalities'),
    ]),
)
model = dict(network=dict(dropout_ratio=0.5))
train_cfg = dict(max_epochs=3)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=0.01),
    dict(type='KillOnce'),
]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'plain.py').write_text(CONFIG)
    (tmp_path / 'random_.py').write_text(RANDOM)
    (tmp_path / 'killer.py').write_text(KILLER)
    return tmp_path


def masks(folder, state):
    model = MODELS.build(Config.fromfile(folder / 'plain.py').model)
    model.load_state_dict(state)
    return {name: norm.exchange_mask() for name, norm in exchange_norms(model)}


def test_two_processes_equal_one(folder):
    """Steps of two processes with one frame each, interrupted and resumed: the parameters of one
    process with two frames."""
    train(folder, 'plain.py', '--work-dir', 'one', '--cfg-options', 'train_cfg.max_epochs=2')
    half = ('--cfg-options', 'train_dataloader.batch_size=1')
    train(folder, 'plain.py', '--work-dir', 'two', *half, processes=2)
    more = (*half, 'train_cfg.max_epochs=2')
    train(folder, 'plain.py', '--work-dir', 'two', '--resume', *more, processes=2)
    one, two = (load(folder / name / 'epoch_2.pth') for name in ('one', 'two'))
    assert one['meta']['iter'] == two['meta']['iter'] == 6
    start = MODELS.build(Config.fromfile(folder / 'plain.py').model).state_dict()
    moved = set()
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(value, two['state_dict'][name], rtol=1e-3, atol=1e-5, msg=name)
        if not torch.equal(value, start[name]):
            moved.add(name.partition('.')[0])
    assert moved == {'network', 'discriminators', 'ensemble'}
    mine, theirs = masks(folder, one['state_dict']), masks(folder, two['state_dict'])
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert any(mask.any() for mask in mine.values())


def test_killed_and_resumed_is_bit_identical(folder):
    train(folder, 'random_.py', '--work-dir', 'whole')
    (folder / 'kill').touch()
    killed = train(folder, 'random_.py', '--work-dir', 'broken', check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / 'broken' / 'epoch_2.pth').exists()
    train(folder, 'random_.py', '--work-dir', 'broken', '--resume')
    whole, broken = (load(folder / name / 'epoch_3.pth') for name in ('whole', 'broken'))
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, broken['state_dict'][name]), name
    for part in ('network', 'discriminators', 'ensemble'):
        for key, state in whole['optimizer'][part]['state'].items():
            other = broken['optimizer'][part]['state'][key]
            assert torch.equal(state['momentum_buffer'], other['momentum_buffer'])


def test_mixed_precision_then_test_and_pictures(folder):
    """bfloat16 on a CPU; the tools' metrics by name, JSON and sheets."""
    done = train(folder, 'plain.py', '--work-dir', 'amp', '--amp')
    checkpoint = load(folder / 'amp' / 'epoch_1.pth')
    assert all(
        v.dtype == torch.float32 for v in checkpoint['state_dict'].values() if v.is_floating_point()
    )
    for name in ('exchanged/normal/rgb', 'alpha/segment_semantic/depth_zbuffer', 'loss_d'):
        assert name in done.stdout
    assert (folder / 'amp' / 'sheets' / 'epoch_1.png').stat().st_size > 10_000
    words = ('plain.py', 'amp/epoch_1.pth', '--work-dir', 'tested')
    tested = run_python(ROOT / 'tools' / 'test.py', *words, cwd=folder)
    assert tested.returncode == 0, tested.stderr[-4000:]
    assert (folder / 'tested' / 'sheets' / 'test.png').stat().st_size > 10_000
    newest = max((folder / 'tested').glob('*/*.json'), key=lambda p: p.name[0].isdigit())
    found = json.loads(newest.read_text())
    streams = ('', 'rgb/', 'depth_zbuffer/')
    assert {f'normal/{s}{m}' for s in streams for m in ('MAE', 'RMSE')} <= found.keys()
    assert {f'segment_semantic/{s}mIoU' for s in streams} <= found.keys()


def test_a_domain_that_the_data_set_lacks(folder):
    """The sentence, before the first step."""
    lacking = ('--cfg-options', "train_dataloader.dataset.modalities=['rgb','normal']")
    done = train(folder, 'plain.py', '--work-dir', 'none', *lacking, check=False)
    assert done.returncode != 0
    assert "inputs ['depth_zbuffer'] are missing, the batch has ['rgb', 'normal']" in done.stderr
    assert not (folder / 'none' / 'epoch_1.pth').exists()


SINGLE = """
_base_ = 'plain.py'
tasks = [
    dict(name='segment_semantic', inputs=['rgb'], head=dict(type='ClassHead', num_classes=10)),
    dict(name='normal', inputs=['rgb']),
]
model = dict(tasks=tasks)
load_from = 'one/epoch_1.pth'
"""


def test_a_checkpoint_of_another_grid(folder):
    train(folder, 'plain.py', '--work-dir', 'one')
    (folder / 'single.py').write_text(SINGLE)
    done = train(folder, 'single.py', '--work-dir', 'two', check=False)
    assert done.returncode != 0
    assert "the checkpoint has the modalities of task 'segment_semantic' " in done.stderr
