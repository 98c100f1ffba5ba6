"""The benchmark: the rival computes what mmcen does, and the tool reports what it promises."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmcen.layers import ExchangeNorm
from projects.paper import benchmark
from projects.paper.benchmarking import measure, memory
from projects.paper.benchmarking.list_of_streams import ListOfStreams
from projects.paper.benchmarking.workload import Workload
from tests.command import run_python

ROOT = Path(__file__).parents[2]
CONFIG = """
custom_imports = dict(imports=['mmcen'])
norm_cfg = dict(type='CENBN')
head = dict(type='FCNHead', in_channels=32, in_index=3, channels=4, num_convs=1, num_classes=5,
            dropout_ratio=0, norm_cfg=norm_cfg, concat_input=False)
model = dict(
    type='CENEncoderDecoder',
    data_preprocessor=dict(
        type='CENDataPreprocessor',
        modalities=[
            dict(name='rgb', mean=[0.0] * 3, std=[1.0] * 3),
            dict(name='depth', mean=[0.0], std=[1.0])]),
    backbone=dict(
        type='CENResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    decode_head=head,
    auxiliary_head=[head],
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, momentum=0.9), accumulative_counts=4)
custom_hooks = [dict(type='SparsityHook', coefficient=5e-3)]
"""
REFINENET = dict(
    _delete_=True,
    type='RefineNetHead',
    in_channels=[4, 8, 16, 32],
    num_classes=5,
    dropout_ratio=0,
    light_weight=True,
)


def workload(streams=2, **options):
    cfg = Config.fromstring(CONFIG, '.py')
    cfg.merge_from_dict(options)
    names = ['rgb', 'depth', 'normal', 'edge'][:streams]
    spec = dict(mean=[0.0] * 3, std=[1.0] * 3)
    cfg.model.data_preprocessor.modalities = [dict(name=name, **spec) for name in names]
    return Workload(cfg, (64, 64), 2, 'cpu', 'fp32', False, 1)


def randomised(model):
    """Statistics and shifts as after training; in double precision, so that no ReLU is in doubt."""
    for module in model.modules():
        if isinstance(module, ExchangeNorm):
            nn.init.normal_(module.norm.bias, 0, 0.1)
            nn.init.normal_(module.norm.running_mean, 0, 0.1)
            nn.init.uniform_(module.norm.running_var, 0.2, 1)
            large = module.weight.detach().abs() > 2e-2  # the threshold
            module.weight.data[large] *= 3
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.1)  # no ties between classes where all channels are 0
    nn.init.normal_(model.ensemble.alpha)
    return model.double()


def assert_same(actual, expected, name):
    """Equal to 1e-6 of the largest value."""
    difference = (actual - expected).abs().max()
    assert difference <= 1e-6 * expected.abs().max(), name


def by_stream(name, value, model):
    """One of our tensors under the names that it has in the list of streams."""
    owner, _, kind = name.rpartition('.norm.')
    if not owner:
        return {name: value}
    parts = value.chunk(model.grid.modalities) if value.dim() else [value] * model.grid.modalities
    return {f'{owner}.{m}.{kind}': part for m, part in enumerate(parts)}


BACKBONES = {
    'basic': {},
    'bottleneck': {'model.backbone.depth': 50},
    'all': {'model.backbone.norm_cfg': dict(type='CENBN', region='all')},
    'deep': {
        'model.backbone.deep_stem': True,
        'model.backbone.avg_down': True,
        'model.backbone.stem_channels': 8,
    },
    'refinenet': {'model.decode_head': REFINENET},
}


@pytest.mark.parametrize(
    'streams, kind, frozen',
    [
        *((streams, 'basic', frozen) for streams in (1, 2, 3, 4) for frozen in (True, False)),
        *((2, 'bottleneck', frozen) for frozen in (True, False)),
        *((streams, kind, True) for streams in (2, 3) for kind in ('all', 'deep', 'refinenet')),
    ],
)
def test_list_of_streams_equals_ours(streams, kind, frozen):
    """Losses, gradients, a step with penalty, statistics and predictions."""
    options = {'model.backbone.norm_eval': frozen, **BACKBONES[kind]}
    if kind == 'bottleneck':
        options['model.decode_head.in_channels'] = 128
        options['model.auxiliary_head'] = None
    work = workload(streams, **options)
    ours = randomised(work.build_model())
    rival = ListOfStreams(ours)
    inputs, samples = work.random_batch(ours)
    inputs = inputs.double()
    results = []
    for model in (ours.train(), rival.train()):
        losses = model.loss(inputs, samples)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((losses, gradients, dict(model.named_buffers())))
    (losses, gradients, buffers), (their_losses, their_gradients, their_buffers) = results
    for name, loss in losses.items():
        assert_same(their_losses[name], loss, name)
    for name, gradient in gradients.items():
        assert gradient.any() or (name, streams) == ('ensemble.alpha', 1), name
        for their_name, expected in by_stream(name, gradient, ours).items():
            assert_same(their_gradients.pop(their_name), expected, their_name)
    assert not their_gradients
    for name in (name for name in buffers if 'running' in name):
        for their_name, expected in by_stream(name, buffers[name], ours).items():
            assert_same(their_buffers[their_name], expected, their_name)
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        expected = ours.eval().encode_decode(inputs, metas)
        assert_same(rival.eval().encode_decode(inputs, metas), expected, 'logits')
        for norm in (m for m in ours.modules() if isinstance(m, ExchangeNorm)):
            norm.exchange = False
        off = ours.encode_decode(inputs, metas)
    changed = (off - expected).abs().max() / expected.abs().max()
    assert (changed > 0.01) == (streams > 1), changed  # channels are exchanged indeed


def test_list_of_streams_owns_its_weights_and_counts_each_once():
    ours = workload().build_model()
    rival = ListOfStreams(ours)
    assert not {p.data_ptr() for p in ours.parameters()} & {
        p.data_ptr() for p in rival.parameters()
    }
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, rival)]
    assert count[0] == count[1]


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'model.backbone.type': 'ResNet', 'model.backbone.zero_init_residual': False},
            'mirrors CENResNet, the backbone is ResNet: leave it out of --compare',
        ),
        ({'model.backbone.with_cp': True}, 'has no with_cp, the backbone has with_cp=True'),
        (
            {'model.exchange': dict(private=['conv1'])},
            r'shares all layers but norms, the model has copies of backbone\.conv1',
        ),
    ],
)
def test_what_the_list_of_streams_cannot_mirror(options, message):
    with pytest.raises(ValueError, match=message):
        workload(**options).check(['list_of_streams'])
    workload(**options).check(['exchange_off'])


def test_penalty_and_step_are_the_same():
    """The loss term of the rival is what SparsityHook adds; every train step is a real one."""
    work = workload()
    ours, rival = (work.build(name) for name in ('ours', 'list_of_streams'))
    gamma = ours.model.backbone.layer1[0].bn1.gamma()[0]  # (M, C)
    before = gamma.detach().clone()
    for _ in range(2):
        for variant in (ours, rival):
            variant.prepare('train_step')
            variant.run('train_step')
    state = {}
    for name, value in ours.model.state_dict().items():
        state.update(by_stream(name, value, ours.model))
    for name, value in rival.model.state_dict().items():
        torch.testing.assert_close(value, state.pop(name), rtol=1e-4, atol=1e-6, msg=name)
    assert list(state) == ['stream_names']
    # momentum 0.9: two steps move a penalised gamma by lr * lambda * (1 + 1.9), and more or less
    moved = (gamma.detach() - before) * -before.sign()
    assert moved[0, :2].min() > moved[0, 2:].max()
    assert moved[1, 2:].min() > moved[1, :2].max()


def test_no_hook_no_penalty():
    work = workload(custom_hooks=[])
    assert work.build('list_of_streams').coefficient == 0
    assert workload().build('list_of_streams').coefficient == 5e-3


class Fake:
    """Stands for a variant; a task takes no time and ``mebibytes`` of memory, twice over."""

    def __init__(self, name='', log=None, value=1.0, mebibytes=0):
        self.name, self.log, self.value, self.mebibytes = name, log, value, mebibytes
        self.model = nn.Linear(256, 1024, bias=False)  # 1 MiB
        self.inputs = torch.zeros(0)
        self.work = SimpleNamespace(device='cpu')
        self.optimizers = [torch.optim.SGD(self.model.parameters(), lr=0.1)]

    def prepare(self, task):
        pass

    def run(self, task):
        if self.log is not None:
            self.log.append(self.name)
        first = torch.zeros(self.mebibytes, 2**18)
        second = first + 1
        del first
        third = second + 1  # never more than two at a time
        del second, third
        return torch.tensor(self.value)


def test_runs_alternate():
    log, ticks = [], []
    variants = {name: Fake(name, log) for name in 'abc'}
    clock = iter(range(100)).__next__
    times = measure.time_in_turn(variants, 'inference', 2, 1, clock, lambda: ticks.append(1))
    assert log == list('abc' * 3)
    assert len(ticks) == 9
    assert times == {name: [1, 1] for name in 'abc'}


def test_figures_of_nan_are_refused():
    with pytest.raises(ValueError, match='train_step of a is not finite in round 1: lower the'):
        measure.time_in_turn(
            {'a': Fake(value=float('nan'))}, 'train_step', 1, 0, time.perf_counter, lambda: None
        )


def test_statistics_by_hand():
    # rounds slow down alike: the ratio of medians would be 3 / 4, the pairs say 1 / 2 and more
    assert measure.ratios([1, 3, 9], [2, 4, 9]) == {'q1': 0.625, 'median': 0.75, 'q3': 0.875}
    row = measure.summary([1.0, 2.0, 3.0])
    assert (row['median'], row['p95'], row['times']) == (2, pytest.approx(2.9), [1, 2, 3])
    two = {'times': [3.0, 5.0, 4.0], 'memory': {'tensors': 9}}
    one = {'times': [1.0, 1.0, 1.0], 'memory': {'tensors': 4}}
    assert measure.added(two, one) == {
        'added': {'q1': 2.5, 'median': 3, 'q3': 3.5},
        'added_memory': 5,
    }


def test_peak_of_tensors_by_hand():
    peak = memory.on_cpu(Fake(mebibytes=8), 'inference', None)
    assert peak['alive'] == 2**20
    assert peak['tensors'] == pytest.approx(17 * 2**20, rel=1e-4)
    assert peak['process'] is None


@pytest.fixture
def config(tmp_path):
    file = tmp_path / 'tiny.py'
    file.write_text(CONFIG)
    return str(file)


@pytest.mark.long
def test_command_line(config, tmp_path):
    """One run of everything: tables for people, all promised figures for programs."""
    out = tmp_path / 'result.json'
    command = ['projects/paper/benchmark.py', config, '--out', out]
    command += ['--cfg-options', 'model.backbone.norm_eval=False', '--shape', '32', '64']
    command += ['--batch', '2', '--runs', '2', '--warmup', '1', '--threads', '1', '--device', 'cpu']
    command += ['--compare', 'list_of_streams', 'fp32']
    command += ['--streams', '1', '3', '--precision', 'bf16']
    done = run_python(*command)
    assert done.returncode == 0, done.stderr
    assert 'train step, list_of_streams' in done.stdout
    assert 'train step by number of streams' in done.stdout
    result = json.loads(out.read_text())
    setting = result['setting']
    expected = dict(shape=[32, 64], batch=2, runs=2, warmup=1, device='cpu', precision='bf16')
    expected.update(threads=1, channels_last=False, torch=torch.__version__, config=config)
    assert expected.items() <= setting.items()
    assert setting['cfg_options'] == {'model.backbone.norm_eval': 'False'}
    assert {'device_name', 'commit', 'python', 'mmseg', 'weights', 'memory'} <= set(setting)
    assert result['comparison']['difference'] < 0.05  # bfloat16
    for task in ('train_step', 'inference'):
        rows = result['comparison']['tasks'][task]
        assert list(rows) == ['ours', 'list_of_streams', 'fp32']
        for row in rows.values():
            assert len(row['times']) == 2
            assert 0 < row['median'] <= row['p95']
            assert 0 < row['memory']['alive'] < row['memory']['tensors']
        ratio = rows['list_of_streams']['ratio']
        assert 0 < ratio['q1'] <= ratio['median'] <= ratio['q3']
        assert rows['list_of_streams']['memory_ratio'] > 0
    streams = result['streams']
    assert list(streams) == ['1', '3']
    assert streams['3']['memory']['tensors'] > streams['1']['memory']['tensors']
    assert 'added' not in streams['3']  # to two streams, which were not measured


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nowhere.py'], 'config nowhere.py does not exist: see configs/cen/'),
        (['CONFIG', '--compare'], 'nothing to measure: name a rival after --compare, or give'),
        (['CONFIG', '--batch', '0'], 'argument --batch: 0 is not positive'),
        (['CONFIG', '--streams', '2', 'x'], "argument --streams: invalid positive value: 'x'"),
        (['CONFIG', '--out', 'no/such/folder.json'], '--out: the folder no/such does not exist'),
        (
            ['CONFIG', '--compare', 'magic'],
            '--compare: magic is none of exchange_off, list_of_streams',
        ),
        (
            ['CONFIG', '--cfg-options', 'model.backbone.with_cp=True'],
            'list_of_streams has no with_cp, the backbone has with_cp=True: leave it out of',
        ),
        (
            ['CONFIG', '--cfg-options', 'model.type=EncoderDecoder'],
            'the model is EncoderDecoder, only CENEncoderDecoder is measured',
        ),
    ],
)
def test_complaints(arguments, message, config, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments])
    sys.argv[1] = sys.argv[1].replace('CONFIG', config)
    with pytest.raises(SystemExit):
        benchmark.main()
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='a machine without GPU')
def test_no_gpu(config, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', config, '--device', 'cuda'])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert '--device cuda: PyTorch finds no GPU here, use --device cpu' in capsys.readouterr().err


def test_a_config_without_an_optimizer():
    work = workload()
    work.cfg.pop('optim_wrapper')
    with pytest.raises(ValueError, match='the config has no optim_wrapper: give one that trains'):
        work.check([])
