"""Sheets of predictions: the pixels of every panel, and the hook in a real runner."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import nn

from mmcen.datasets import NYUv2Dataset
from mmcen.engine import SheetHook
from mmcen.outputs import outputs_of
from mmcen.visualization import prediction_sheet
from mmcen.visualization.sheet import draw_sheet

CLASSES, PALETTE = ('wall', 'floor'), [[255, 0, 0], [0, 0, 255]]
SIZE = (6, 8)


def flat(value):
    return torch.full((3, *SIZE), float(value))


def labels(value):
    return PixelData(data=torch.full((1, *SIZE), value))


def image_of(value):
    return BaseDataElement(pred=flat(value))


def classes_of(value):
    return BaseDataElement(pred_sem_seg=labels(value))


def sample_of(outputs, **fields):
    sample = SegDataSample()
    sample.set_data({'outputs': outputs_of(outputs), **fields})
    return sample


def multitask_sample():
    """An image and a class task from rgb and depth; each panel has a value of its own."""
    normal = dict(ensemble=image_of(70), rgb=image_of(50), depth_zbuffer=image_of(60))
    classes = dict(ensemble=classes_of(0), rgb=classes_of(1), depth_zbuffer=classes_of(255))
    return sample_of(
        dict(normal=normal, segment_semantic=classes),
        targets=BaseDataElement(normal=flat(80)),
        gt_sem_seg=labels(1),
    )


@pytest.fixture
def drawn(monkeypatch):
    """Title to picture of each row, as matplotlib is given them."""
    figures = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', keep)

    def rows():
        axes = np.array(figures[-1].axes)
        titles = [axis.get_title() for axis in axes if axis.get_title()]
        grid = axes.reshape(-1, len(titles))
        return [
            dict(zip(titles, [axis.images[0].get_array() for axis in row], strict=True))
            for row in grid
        ], figures[-1]

    return rows


def test_panels_of_tasks(tmp_path, drawn):
    inputs = {'rgb': flat(10), 'depth_zbuffer': flat(20), 'normal': flat(80)}
    path = prediction_sheet(
        [inputs, inputs], [multitask_sample()] * 2, tmp_path / 'new' / 'a.png', CLASSES, PALETTE
    )
    rows, figure = drawn()
    assert len(rows) == 2
    red, blue, void = PALETTE[0], PALETTE[1], [0, 0, 0]
    expected = {
        'rgb': [10] * 3,
        'depth_zbuffer': [20] * 3,
        'normal\nfrom rgb': [50] * 3,
        'normal\nfrom depth_zbuffer': [60] * 3,
        'normal\nensemble': [70] * 3,
        'normal\nground truth': [80] * 3,
        'segment_semantic\nfrom rgb': blue,
        'segment_semantic\nfrom depth_zbuffer': void,
        'segment_semantic\nensemble': red,
        'segment_semantic\nground truth': blue,
    }
    for row in rows:
        assert list(row) == list(expected)
        for title, colour in expected.items():
            assert row[title].shape == (*SIZE, 3), title
            assert (row[title] == colour).all(), title
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CLASSES)
    assert [p.name for p in path.parent.iterdir()] == ['a.png']
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        assert np.array(picture.convert('RGB')).std() > 0


def test_one_stream_is_drawn_once(tmp_path, drawn):
    ensemble = BaseDataElement(pred=torch.full((1, *SIZE), 300.0))  # one channel, out of range
    sample = sample_of(dict(reshading=dict(ensemble=ensemble, rgb=image_of(1))))
    prediction_sheet([{'rgb': flat(10)}], [sample], tmp_path / 'a.png')
    rows, figure = drawn()
    assert list(rows[0]) == ['rgb', 'reshading\nprediction']
    assert (rows[0]['reshading\nprediction'] == 255).all()
    assert rows[0]['reshading\nprediction'].shape == (*SIZE, 3)
    assert not figure.legends


def test_without_streams_all_domains_are_inputs(tmp_path, drawn):
    sample = sample_of(dict(rgb=dict(ensemble=image_of(1))), targets=BaseDataElement(rgb=flat(2)))
    prediction_sheet([{'normal': flat(3), 'rgb': flat(2)}], [sample], tmp_path / 'a.png')
    assert list(drawn()[0][0]) == ['normal', 'rgb', 'rgb\nprediction', 'rgb\nground truth']


def test_panels_of_segmentation(tmp_path, drawn):
    views = dict(ensemble=classes_of(0), rgb=classes_of(255), depth=classes_of(1))
    sample = sample_of(dict(semseg=views), gt_sem_seg=labels(1))
    depth = torch.arange(48.0).reshape(1, *SIZE)
    inputs = {'rgb': torch.full((3, *SIZE), 9, dtype=torch.uint8), 'depth': depth}
    prediction_sheet([inputs], [sample], tmp_path / 'a.png', CLASSES, PALETTE)
    row = drawn()[0][0]
    assert (row['rgb'] == 9).all()
    assert np.allclose(row['depth'], depth[0] / 47)
    expected = {
        'semseg\nfrom rgb': [0] * 3,
        'semseg\nfrom depth': PALETTE[1],
        'semseg\nensemble': PALETTE[0],
        'semseg\nground truth': PALETTE[1],
    }
    assert list(row) == ['rgb', 'depth', *expected]
    for title, colour in expected.items():
        assert (row[title] == colour).all(), title


@pytest.mark.parametrize('panels', [1, 3, 5])
def test_the_legend_stays_in_the_picture(tmp_path, drawn, panels):
    classes, palette = NYUv2Dataset.METAINFO['classes'], NYUv2Dataset.METAINFO['palette']
    row = {str(i): np.zeros((48, 64, 3), np.uint8) for i in range(panels)}
    draw_sheet([row], tmp_path / 'sheet.png', classes, palette)
    figure = drawn()[1]
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
    assert whole.y0 <= box.y0 <= box.y1 <= whole.y1


def test_errors(tmp_path):
    with pytest.raises(ValueError, match='0 inputs and 0 samples'):
        prediction_sheet([], [], tmp_path / 'a.png')
    with pytest.raises(ValueError, match='1 inputs and 2 samples: give one sample to each input'):
        prediction_sheet([{}], [SegDataSample()] * 2, tmp_path / 'a.png')
    with pytest.raises(ValueError, match="tasks \\['segment_semantic'\\] predict classes: give"):
        prediction_sheet([{'rgb': flat(1)}], [multitask_sample()], tmp_path / 'a.png')
    with pytest.raises(ValueError, match='frames must be 1 or more, got 0'):
        SheetHook(frames=0)
    assert not list(tmp_path.iterdir())


class Frames(torch.utils.data.Dataset):
    metainfo = dict(classes=CLASSES, palette=PALETTE)

    def __len__(self):
        return 5

    def __getitem__(self, i):
        inputs = {'rgb': flat(10 * i), 'depth_zbuffer': flat(10 * i + 1)}
        return {'inputs': inputs, 'data_samples': SegDataSample()}


class Doubler(BaseModel):
    """Predicts twice the red of its input; writes into the batch as mmagic's preprocessor does."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks
        self.scale = nn.Parameter(torch.ones(()))

    def train_step(self, data, optim_wrapper):
        return {'loss': self.scale.detach()}

    def val_step(self, data):
        inputs = {k: torch.stack(list(v)) for k, v in data['inputs'].items()}
        data['inputs'] = {k: v / 127.5 - 1 for k, v in inputs.items()}
        for sample, image in zip(data['data_samples'], inputs['rgb'], strict=True):
            if self.tasks:
                outputs = dict(reshading=dict(ensemble=BaseDataElement(pred=image * 2)))
            else:
                classes = PixelData(data=(image[:1] > 5).long())
                outputs = dict(semseg=dict(ensemble=BaseDataElement(pred_sem_seg=classes)))
            sample.set_data({'outputs': outputs_of(outputs)})
        return data['data_samples']

    test_step = val_step

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


def runner(folder, tasks, **hook):
    data = ConfigDict(
        batch_size=3, dataset=Frames(), sampler=dict(type='DefaultSampler', shuffle=False)
    )
    return Runner(
        Doubler(tasks),
        work_dir=str(folder),
        train_dataloader=data,
        val_dataloader=data,
        test_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg={},
        test_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[],
        test_evaluator=[],
        custom_hooks=[dict(type='SheetHook', **hook)],
        default_hooks=dict(checkpoint=None),
        experiment_name=folder.name,
    )


def test_hook_draws_the_first_frames(tmp_path, drawn):
    run = runner(tmp_path, tasks=True)
    run.train()
    sheets = tmp_path / 'sheets'
    assert sorted(p.name for p in sheets.iterdir()) == ['epoch_1.png', 'epoch_2.png']
    rows, _ = drawn()
    assert len(rows) == 4  # of 5, from batches of 3
    for i, row in enumerate(rows):
        assert list(row) == ['rgb', 'depth_zbuffer', 'reshading\nprediction']
        # as they were before the model normalised them
        assert [int(panel[0, 0, 0]) for panel in row.values()] == [10 * i, 10 * i + 1, 20 * i]
    run.test()
    assert sorted(p.name for p in sheets.iterdir()) == ['epoch_1.png', 'epoch_2.png', 'test.png']
    assert str(sheets / 'test.png') in next(tmp_path.glob('*/*.log')).read_text()


def test_hook_serves_segmentation(tmp_path, drawn):
    run = runner(tmp_path, tasks=False, frames=2)
    run.test()
    rows, figure = drawn()
    assert [list(row) for row in rows] == [['rgb', 'depth_zbuffer', 'semseg\nprediction']] * 2
    assert (rows[0]['semseg\nprediction'] == PALETTE[0]).all()
    assert (rows[1]['semseg\nprediction'] == PALETTE[1]).all()
    assert figure.legends


def test_hook_counts_iterations_or_refuses_unnamed_inputs(tmp_path):
    run = runner(tmp_path, tasks=True, by_epoch=False, frames=9)
    run.val()
    assert [p.name for p in (tmp_path / 'sheets').iterdir()] == ['iter_0.png']
    hook = SheetHook(frames=1)
    hook.before_test_iter(run, 0, {'inputs': [{'rgb': [flat(1)]}, {'rgb': [flat(2)]}]})  # TTA
    with pytest.raises(TypeError, match='SheetHook draws named modalities, the inputs are a list'):
        SheetHook().before_val_iter(run, 0, {'inputs': [flat(1)]})
