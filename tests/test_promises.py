"""Distributed, interrupted, mixed-precision and compiled training keep exchange and penalty:
through the tools."""

import json
import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmcen.core import exchange_norms
from tests.command import run_python
from tests.training import KILLER, ROOT, load, train

# Small, without chance: no flips, no dropout, frozen statistics. A threshold of 1 lies where the
# scales start, so that which channels are exchanged depends on every step.
CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
data = dict(size=(32, 48), pipeline=[dict(type='PackModalities')])
train_dataloader = dict(batch_size=2, dataset=dict(length=6, **data), drop_last=False)
val_dataloader = dict(dataset=dict(length=2, size=(32, 48)))
model = dict(
    exchange=dict(threshold=1.0),
    backbone=dict(base_channels=8, norm_eval=True),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8, dropout_ratio=0.0),
)
sgd = dict(_delete_=True, type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0)
optim_wrapper = dict(optimizer=sgd)
train_cfg = dict(max_epochs=1, val_interval=10)
param_scheduler = []
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
"""
# As above, and each step sees the modalities that are drawn, here colour, both, depth. The second
# process has a seed of its own.
DROPOUT = """
_base_ = 'plain.py'
model = dict(modality_dropout=dict(p=0.5))
randomness = dict(seed=0, diff_rank_seed=True)
"""
# As plain.py with chance: flips in two workers, dropout, statistics of the batch; three epochs.
RANDOM = """
_base_ = 'plain.py'
custom_imports = dict(imports=['mmcen', 'killer'], allow_failed_imports=False)
train_dataloader = dict(
    num_workers=2, persistent_workers=False, worker_init_fn=dict(type='seed_worker'),
    dataset=dict(pipeline=[
        dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
        dict(type='PackModalities'),
    ]),
)
model = dict(backbone=dict(norm_eval=False), decode_head=dict(dropout_ratio=0.5))
train_cfg = dict(max_epochs=3)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=0.01),
    dict(type='ExchangeMonitorHook', interval=1),
    dict(type='LastAndBestHook'),
    dict(type='KillOnce'),
]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'plain.py').write_text(CONFIG)
    (tmp_path / 'dropout.py').write_text(DROPOUT)
    (tmp_path / 'random_.py').write_text(RANDOM)
    (tmp_path / 'killer.py').write_text(KILLER)
    return tmp_path


def masks(folder, state):
    model = MODELS.build(Config.fromfile(folder / 'plain.py').model)
    model.load_state_dict(state)
    return {name: norm.exchange_mask() for name, norm in exchange_norms(model)}


def test_two_processes_equal_one(folder):
    """Three steps of two processes with one frame each: the parameters of one process with two
    frames; both drop the same modalities."""
    train(folder, 'dropout.py', '--work-dir', 'one')
    train(
        folder,
        'dropout.py',
        '--work-dir',
        'two',
        '--cfg-options',
        'train_dataloader.batch_size=1',
        processes=2,
    )
    one, two = (load(folder / name / 'epoch_1.pth') for name in ('one', 'two'))
    assert one['meta']['iter'] == two['meta']['iter'] == 3
    start = MODELS.build(Config.fromfile(folder / 'dropout.py').model).state_dict()
    moved = 0
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(value, two['state_dict'][name], rtol=1e-4, atol=1e-5, msg=name)
        moved += int(not torch.equal(value, start[name]))
    assert moved > 20
    mine, theirs = masks(folder, one['state_dict']), masks(folder, two['state_dict'])
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    exchanged = torch.cat([mask[:, :, : mask.shape[-1] // 2].flatten() for mask in mine.values()])
    assert 0 < exchanged.float().mean() < 1  # the masks say something


def test_tested_with_flips_and_by_stream(folder):
    """tools/test.py on the checkpoint, as it is and with flips: metrics by name."""
    train(folder, 'plain.py', '--work-dir', 'one')
    found = []
    for extra in ([], ['--tta']):
        words = ('plain.py', 'one/epoch_1.pth', '--work-dir', 'tested', *extra)
        done = run_python(ROOT / 'tools' / 'test.py', *words, cwd=folder)
        assert done.returncode == 0, done.stderr[-4000:]
        newest = max((folder / 'tested').glob('*/*.json'), key=lambda p: p.stat().st_mtime)
        found.append(json.loads(newest.read_text()))
    names = {f'{s}{m}' for s in ('', 'rgb/', 'depth/') for m in ('mIoU', 'mAcc', 'aAcc')}
    assert names <= found[0].keys()
    assert names <= found[1].keys()


def test_killed_and_resumed_is_bit_identical(folder):
    train(folder, 'random_.py', '--work-dir', 'whole')
    (folder / 'kill').touch()
    killed = train(folder, 'random_.py', '--work-dir', 'broken', check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / 'broken' / 'epoch_1.pth').exists()
    assert not (folder / 'broken' / 'epoch_2.pth').exists()
    train(folder, 'random_.py', '--work-dir', 'broken', '--resume')
    whole, broken = (load(folder / name / 'epoch_3.pth') for name in ('whole', 'broken'))
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, broken['state_dict'][name]), name
    for key, state in whole['optimizer']['state'].items():
        assert torch.equal(
            state['momentum_buffer'], broken['optimizer']['state'][key]['momentum_buffer']
        )


def test_mixed_precision(folder):
    """bfloat16 on a CPU: parameters stay float32, exchange and penalty work."""
    run = train(
        folder,
        'random_.py',
        '--work-dir',
        'amp',
        '--amp',
        '--cfg-options',
        'train_cfg.max_epochs=1',
    )
    checkpoint = load(folder / 'amp' / 'epoch_1.pth')
    assert all(
        v.dtype == torch.float32 for v in checkpoint['state_dict'].values() if v.is_floating_point()
    )
    assert any(mask.any() for mask in masks(folder, checkpoint['state_dict']).values())
    assert 'exchanged/rgb' in run.stdout
    assert 'alpha/depth' in run.stdout


@pytest.mark.long
def test_compiled_backbone_follows_the_scales(folder):
    """A compiled backbone exchanges what the scales say now, not what they said when it was
    compiled."""
    model = MODELS.build(Config.fromfile(folder / 'plain.py').model)
    model.train()  # frozen statistics, as the config says
    compiled = torch.compile(model.backbone, backend='aot_eager')
    x = torch.randn(4, 3, 64, 64)
    seen = []
    for threshold in (0.5, 1.5):
        for _, norm in exchange_norms(model):  # the scales move, the threshold of 1 stays
            torch.nn.init.uniform_(norm.weight, threshold, threshold + 0.4)
        results = []
        for backbone in (model.backbone, compiled):
            model.zero_grad()
            output = backbone(x)[-1]
            output.square().mean().backward()
            results.append((output, model.backbone.layer1[0].conv1.weight.grad.clone()))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        seen.append(sum(int(norm.exchange_mask().sum()) for _, norm in exchange_norms(model)))
    assert seen[0] > 0
    assert seen[1] == 0
