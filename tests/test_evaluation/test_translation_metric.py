"""Image metrics by task and stream, against NumPy and SciPy on the same features, and by hand."""

import json
import pickle
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from scipy.linalg import sqrtm
from torch import nn

from mmcen.evaluation import TranslationMetric
from mmcen.evaluation.distances import pixel_errors
from mmcen.outputs import outputs_of

pytest.importorskip('torchmetrics', reason='TranslationMetric needs torchmetrics')

NAMES = ('reshading', 'edge_texture')


class Tiny(nn.Module):
    """6 features of an image, random but fixed; counts the images it has seen."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.seen = 0

    def forward(self, images):
        assert images.dtype == torch.uint8
        self.seen += len(images)
        return self.conv(images.float() / 64 - 2).relu().mean((2, 3))


def sample(seed, task='rgb', names=NAMES, size=(12, 16)):
    """As a model predicts it and mmengine's Evaluator hands it over."""
    rng = torch.Generator().manual_seed(seed)

    def image():
        return torch.rand(3, *size, generator=rng) * 255

    truth = image()
    views = {name: BaseDataElement(pred=truth * 0.5 + image() * 0.5) for name in names}
    views = {'ensemble': BaseDataElement(pred=truth * 0.8 + image() * 0.2), **views}
    result = SegDataSample()
    targets = BaseDataElement(**{task: truth})
    result.set_data({'outputs': outputs_of({task: views}), 'targets': targets})
    return result.to_dict()


def images(samples, view):
    """Images of a view, '' the ensemble, 'gt' the truth."""
    if view == 'gt':
        return [s['targets']['rgb'] for s in samples]
    return [s['outputs']['rgb'][view or 'ensemble']['pred'] for s in samples]


def flat_sample(task, pred, target):
    """An ensemble without streams."""
    return {'outputs': {task: {'ensemble': {'pred': pred}}}, 'targets': {task: target}}


def features(samples, view):
    """Of a view, (N, 6) float64."""
    batch = torch.stack(images(samples, view)).round().to(torch.uint8)
    with torch.no_grad():
        return Tiny()(batch).double().numpy()


def frechet(x, y):
    """FID by its definition."""
    sigma, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(sigma @ other)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sigma + other - 2 * root.real)


def squared_mmd(x, y):
    """Unbiased estimate with the kernel (x y / F + 1)^3, by loops over pairs."""
    n = len(x)

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    pairs = [(i, j) for i in range(n) for j in range(n)]
    own = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j)
    return own / (n * (n - 1)) - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / n**2


def evaluate(metric, samples):
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


def test_fid_and_kid_equal_their_definitions():
    samples = [sample(i) for i in range(40)]
    metric = TranslationMetric(dict(rgb=['FID', 'KID']), extractor=Tiny())
    found = evaluate(metric, samples)
    real = features(samples, 'gt')
    for view in ('', *NAMES):
        prefix = f'rgb/{view}/' if view else 'rgb/'
        fake = features(samples, view)
        assert found[f'{prefix}FID'] == pytest.approx(frechet(real, fake), rel=1e-5)
        assert found[f'{prefix}KID'] == pytest.approx(100 * squared_mmd(real, fake), rel=1e-5)
    # streams are further from the truth than the ensemble, so that nothing above can be mixed up
    assert found['rgb/FID'] < min(found[f'rgb/{name}/FID'] for name in NAMES)
    assert found['rgb/FID_images'] == found['rgb/KID_images'] == 40
    assert len(found) == 3 * 2 + 2


def test_kid_draws_its_subsets_reproducibly():
    samples = [sample(i) for i in range(30)]
    metric = TranslationMetric(
        dict(rgb=['KID']), streams=False, extractor=Tiny(), kid_subsets=5, kid_subset_size=8
    )
    state = torch.get_rng_state()
    found = evaluate(metric, samples)
    assert torch.equal(state, torch.get_rng_state())  # training goes on as without evaluation
    assert evaluate(metric, samples) == found
    real, fake = features(samples, 'gt'), features(samples, '')
    torch.manual_seed(0)
    expected = []
    for _ in range(5):
        x, y = real[torch.randperm(30)[:8]], fake[torch.randperm(30)[:8]]
        expected.append(squared_mmd(x, y))
    assert found['rgb/KID'] == pytest.approx(100 * np.mean(expected), rel=1e-5)
    assert np.std(expected) > 0


def test_pixel_errors_by_hand():
    """Off by a tenth, then by three tenths of the range, which is 2: MAE 0.4, MSE 0.2."""
    truth = torch.full((3, 2, 2), 51.0)
    samples = [flat_sample('depth_zbuffer', truth + error, truth) for error in (25.5, 76.5)]
    metric = TranslationMetric(dict(depth_zbuffer=['MAE', 'MSE', 'RMSE']))
    found = evaluate(metric, samples)
    assert found == pytest.approx(
        {
            'depth_zbuffer/MAE': 40.0,
            'depth_zbuffer/MSE': 20.0,
            'depth_zbuffer/RMSE': 100 * 0.2**0.5,
        }
    )


def test_pixel_errors_of_images_with_channels_last():
    image, truth = 255 * torch.rand(2, 3, 4, 5)
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert pixel_errors(last, truth) == pytest.approx(pixel_errors(image, truth))


def test_pixel_errors_of_images_of_different_sizes():
    samples = [sample(0, size=(4, 5)), sample(1, size=(12, 20)), sample(2, size=(7, 3))]
    found = evaluate(TranslationMetric(dict(rgb=['RMSE', 'MAE'])), samples)
    assert list(found) == ['rgb/RMSE', 'rgb/MAE'] + [
        f'rgb/{name}/{metric}' for name in NAMES for metric in ('RMSE', 'MAE')
    ]
    for view in ('', *NAMES):
        pairs = zip(images(samples, view), images(samples, 'gt'), strict=True)
        error = np.concatenate([((p - t) / 127.5).double().flatten().numpy() for p, t in pairs])
        prefix = f'rgb/{view}/' if view else 'rgb/'
        assert found[f'{prefix}MAE'] == pytest.approx(100 * np.abs(error).mean(), rel=1e-6)
        assert found[f'{prefix}RMSE'] == pytest.approx(100 * np.sqrt((error**2).mean()), rel=1e-6)


def test_root_is_what_the_papers_pairs_allow():
    """The docstring's claim: MSE <= 2 MAE and RMSE >= MAE, for any images in -1..1."""
    truth = torch.zeros(3, 8, 8)
    pred = torch.rand(3, 8, 8) ** 4 * 255
    found = evaluate(
        TranslationMetric(dict(normal=['MAE', 'MSE', 'RMSE'])),
        [flat_sample('normal', pred, truth)],
    )
    assert found['normal/MSE'] <= 2 * found['normal/MAE'] <= 2 * found['normal/RMSE']
    assert 25.09 > 2 * 11.23  # Table 4, RGB+Shade to Normal


def test_each_real_image_is_extracted_once():
    extractor = Tiny()
    metric = TranslationMetric(dict(rgb=['FID', 'KID', 'MAE']), extractor=extractor)
    found = evaluate(metric, [sample(i) for i in range(5)])
    assert extractor.seen == 5 * (1 + 1 + len(NAMES))
    assert len(found) == 3 * 3 + 2
    extractor.seen = 0
    metric = TranslationMetric(dict(rgb=['FID']), streams=False, extractor=extractor)
    assert set(evaluate(metric, [sample(i) for i in range(5)])) == {'rgb/FID', 'rgb/FID_images'}
    assert extractor.seen == 5 * 2


def add(one, other):
    """The tasks of another sample."""
    for key in ('outputs', 'targets'):
        one[key].update(other[key])


def test_tasks_are_apart():
    both = [sample(i) for i in range(6)]
    for i, one in enumerate(both):
        add(one, sample(100 + i, task='normal', names=('rgb',)))
    found = evaluate(TranslationMetric(dict(rgb=['FID'], normal=['MAE']), extractor=Tiny()), both)
    alone = evaluate(
        TranslationMetric(dict(normal=['MAE'])),
        [sample(100 + i, task='normal', names=('rgb',)) for i in range(6)],
    )
    assert {key: value for key, value in found.items() if key.startswith('normal')} == alone
    assert set(alone) == {'normal/MAE', 'normal/rgb/MAE'}
    assert found['rgb/FID'] == pytest.approx(
        frechet(features(both, 'gt'), features(both, '')), abs=1e-5
    )


def build():
    return TranslationMetric(
        dict(rgb=['FID', 'KID', 'MAE', 'RMSE']),
        extractor=Tiny(),
        kid_subsets=3,
        kid_subset_size=5,
    )


def work(rank, port, count, path):
    """One of two processes, with the indices mmengine's DefaultSampler gives it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    metric = build()
    padded = [*range(count), *range(count % 2)]
    for i in padded[rank::2]:
        metric.process({}, [sample(i)])
    found = metric.evaluate(count)
    path.with_suffix(f'.{rank}').write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    count = 11  # odd: the sampler repeats a frame
    alone = evaluate(build(), [sample(i) for i in range(count)])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    args = (port, count, tmp_path / 'found')
    mp.start_processes(work, args, nprocs=2, start_method='fork')  # spawning imports all again
    for rank in (0, 1):
        assert pickle.loads((tmp_path / f'found.{rank}').read_bytes()) == alone
    assert alone['rgb/FID_images'] == count


def test_file_says_how_values_came_to_be(tmp_path):
    path = tmp_path / 'new' / 'scores.json'
    metric = TranslationMetric(
        dict(rgb=['FID', 'KID'], normal=['MAE']), extractor=Tiny(), out_file=path
    )
    samples = [sample(i) for i in range(4)]
    for one in samples:
        add(one, sample(7, task='normal'))
    found = evaluate(metric, samples)
    record = json.loads(path.read_text())
    assert record['metrics'] == found
    assert record['images'] == 4
    assert record['extractor'] == {'source': 'Tiny'}
    assert record['KID'] == {'subsets': 1, 'subset_size': 4}
    assert 'times 100' in record['scale']
    assert [p.name for p in path.parent.iterdir()] == ['scores.json']


def test_few_images_are_said_once(tmp_path):
    log = tmp_path / 'run.log'
    MMLogger.get_instance('few', logger_name='few', log_file=str(log))
    metric = TranslationMetric(dict(rgb=['FID', 'KID']), extractor=Tiny())
    for _ in range(2):
        evaluate(metric, [sample(i) for i in range(3)])
    text = log.read_text()
    assert text.count('FID of 3 images, fewer than 2048') == 1
    assert text.count('KID of 3 images takes all of them once in place of 50 subsets of') == 1
    assert '"images": 3' in text
    assert '"source": "Tiny"' in text
    # no out_file given: beside the log
    assert json.loads((tmp_path / 'translation_metric.json').read_text())['images'] == 3


@pytest.mark.parametrize(
    'settings, error, text',
    [
        (dict(metrics={}), ValueError, 'nothing to measure'),
        (dict(metrics=['FID']), ValueError, 'nothing to measure'),
        (dict(metrics=dict(rgb='FID')), ValueError, 'must be a list out of'),
        (dict(metrics=dict(rgb=['SSIM'])), ValueError, "metrics of 'rgb' must be a list out of"),
        (dict(metrics=dict(rgb=['KID']), kid_subset_size=1), ValueError, '50 of 1'),
        (dict(metrics=dict(rgb=['KID'])), ValueError, 'weights-inception-2015-12-05-6726825d.pth'),
        (dict(metrics=dict(rgb=['FID'])), ValueError, 'MAE, MSE and RMSE need none'),
        (
            dict(metrics=dict(rgb=['FID']), extractor='no/such.pth'),
            FileNotFoundError,
            "no extractor file at 'no/such.pth': name torch-fidelity's weights-inception",
        ),
    ],
)
def test_errors_at_construction(settings, error, text):
    with pytest.raises(error, match=text):
        METRICS.build(dict(type='TranslationMetric', **settings))


def test_errors_at_evaluation():
    metric = TranslationMetric(dict(normal=['MAE']))
    with pytest.raises(
        ValueError, match="'normal' predicts no image, the sample has tasks \\['rgb'"
    ):
        metric.process({}, [sample(0)])
    one = sample(0, task='normal')
    del one['targets']['normal']
    with pytest.raises(ValueError, match="task 'normal' has no target, only \\[\\] have"):
        metric.process({}, [one])
    one = sample(0, task='normal')
    one['outputs']['normal']['reshading']['pred'] = torch.zeros(3, 2, 2)
    with pytest.raises(ValueError, match="'reshading' and ground truth \\(3, 12, 16\\) differ"):
        metric.process({}, [one])
    with pytest.raises(ValueError, match='FID and KID need 2 images or more, got 1'):
        evaluate(TranslationMetric(dict(rgb=['FID']), extractor=Tiny()), [sample(0)])
    flat = flat_sample('rgb', torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="task 'rgb' has 1 channels"):
        TranslationMetric(dict(rgb=['FID']), extractor=Tiny()).process({}, [flat])


class Stub(BaseModel):
    steps = 0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        Stub.steps += 1
        return {'loss': self.scale * 1.0}


@pytest.mark.parametrize('in_a_list', [True, False])
def test_missing_weights_stop_before_the_first_step(tmp_path, in_a_list):
    data = dict(batch_size=1, dataset=[{'inputs': 0}], sampler=dict(type='DefaultSampler'))
    metric = dict(type='TranslationMetric', metrics=dict(rgb=['FID']))
    runner = Runner(
        Stub(),
        work_dir=str(tmp_path),
        train_dataloader=data,
        val_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        val_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[metric] if in_a_list else metric,
        experiment_name=f'weights{in_a_list}',
    )
    with pytest.raises(ValueError, match='FID and KID need the weights'):
        runner.train()
    assert Stub.steps == 0
