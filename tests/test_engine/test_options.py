"""Overrides of a config: slips are named, and what is new passes."""

import re
from argparse import ArgumentParser

import pytest
from mmengine.config import Config

from mmcen.engine.options import Options, check_key, check_metrics, read_config

CFG = Config(
    dict(
        model=dict(type='M', backbone=dict(depth=18), head=[dict(channels=3)], neck=None),
        train_cfg=dict(max_epochs=2),
    )
)


@pytest.mark.parametrize(
    'key',
    [
        *('model.backbone.depth', 'model.head.0.channels', 'model.head.0.new', 'model.neck.type'),
        *('load_from', 'randomness.seed', 'model.backbone.base_channels', 'visualizer'),
    ],
)
def test_what_passes(key):
    check_key(CFG, key)


@pytest.mark.parametrize(
    'key, message',
    [
        ('modle.backbone.depth', "the config has no 'modle', did you mean 'model'?"),
        ('model.bakbone.depth', "model has no 'bakbone', did you mean 'backbone'?"),
        ('train_cfg.max_epoch', "train_cfg has no 'max_epoch', did you mean 'max_epochs'?"),
        ('resum', "the config has no 'resum', did you mean 'resume'?"),
        ('xyz', "the config has no 'xyz': look at the config"),
        ('model.head.3.channels', "model.head has no '3'"),
        ('model.head.channels', "model.head has no 'channels'"),
    ],
)
def test_slips(key, message):
    with pytest.raises(ValueError, match=re.escape(f'--cfg-options {key}: {message}')):
        check_key(CFG, key)


@pytest.mark.parametrize('key', ['val_evaluator', 'test_evaluator'])
@pytest.mark.parametrize(
    'kind, name, hint',
    [
        ('IoUMetric', 'iou_metric', " (did you mean 'iou_metrics'?)"),
        ('mmseg.IoUMetric', 'ignore_indx', " (did you mean 'ignore_index'?)"),
        ('CityscapesMetric', 'outpt_dir', " (did you mean 'output_dir'?)"),
        ('StreamIoUMetric', 'tsk', " (did you mean 'task'?)"),
        ('StreamIoUMetric', 'nan_to_nun', " (did you mean 'nan_to_num'?)"),
        ('StreamIoUMetric', 'x', ''),
    ],
)
def test_arguments_that_a_metric_would_ignore(key, kind, name, hint):
    stock = dict(type='IoUMetric', iou_metrics=['mIoU'], _scope_='mmseg')  # of a base `mmseg::`
    kinds = [stock, dict(type=kind, prefix='a', collect_device='cpu')]
    cfg = Config({key: kinds, 'default_scope': 'mmseg'})
    check_metrics(cfg)
    cfg[key][1][name] = 1
    message = f'{key}: {kind.split(".")[-1]} has no argument {name!r}{hint}: the arguments are ['
    with pytest.raises(ValueError, match=re.escape(message)):
        check_metrics(cfg)


@pytest.mark.parametrize('text', ['a.b', '=1', 'a..b=1', 'a=[dict(x=1,y=2)]'])
def test_what_is_no_option(text, capsys):
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=Options)
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(['--cfg-options', text])
    assert 'argument --cfg-options: ' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, message',
    [
        ('a = (', 'a.py cannot be read: SyntaxError: '),
        ('a = 1 / 0', 'a.py cannot be read: ZeroDivisionError: division by zero'),
        ("_base_ = 'none.py'", 'a.py cannot be read: '),
    ],
)
def test_a_config_that_is_none(tmp_path, text, message):
    path = tmp_path / 'a.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_config(str(path))
