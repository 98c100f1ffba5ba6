"""Predictions on a user's own files are those of the test, whatever runs the model."""

import pickle
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

from mmcen.apis import CENInferencer
from mmcen.apis.frames import find_frames
from mmcen.checkpoints import write_weights
from mmcen.datasets import SyntheticRooms
from mmcen.datasets.transforms import plausible
from mmcen.deploy import Labelled, as_it_is
from mmcen.layers import ExchangeNorm
from tests.converters import command
from tests.training import ROOT

SIZE = (60, 80)
SEGMENTATION = f"""
_base_ = '{ROOT}/configs/cen/nyud_lwrefinenet_r18_cpu.py'
model = dict(
    backbone=dict(base_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8),
)
test_dataloader = dict(dataset=dict(data_root='data'))
"""
PLAIN = """
_base_ = 'seg.py'
model = dict(decode_head=dict(
    _delete_=True, type='FCNHead', in_channels=16, in_index=1, channels=8, num_convs=1,
    concat_input=False, num_classes=40, align_corners=False))
"""
MULTITASK = """
custom_imports = dict(imports=['mmcen'])
model = dict(
    type='CENMultiTask',
    tasks=[
        dict(
            name='segment_semantic',
            inputs=['rgb', 'depth_zbuffer'],
            head=dict(type='ClassHead', num_classes=10),
        ),
        dict(name='normal', inputs=['rgb', 'depth_zbuffer']),
    ],
    network=dict(type='CENUNetGenerator', downs=4, base_channels=8),
)
pack = [dict(type='EncodeDomains'), dict(type='PackModalities')]
domains = ['rgb', 'depth_zbuffer', 'normal']
test_dataloader = dict(
    dataset=dict(type='SyntheticRooms', size=(32, 48), modalities=domains, pipeline=pack))
"""


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Three frames in NYUv2's layout, configs and checkpoints of a segmenter, of one with a
    plain head and of a multitask model."""
    root = tmp_path_factory.mktemp('made')
    torch.manual_seed(0)
    init_default_scope('mmseg')
    rooms = SyntheticRooms(modalities=('rgb', 'depth'), size=SIZE, length=3, pipeline=[])
    for part in ('rgb', 'depth', 'masks', 'splits'):
        (root / 'data' / part).mkdir(parents=True)
    for i in range(3):
        frame = rooms.prepare_data(i)
        depth = (frame['modalities']['depth'][..., 0] * 1000).round().astype(np.uint16)
        Image.fromarray(frame['modalities']['rgb']).save(root / f'data/rgb/{i:06d}.png')
        cv2.imwrite(f'{root}/data/depth/{i:06d}.png', depth)
        Image.fromarray(frame['gt_seg_map'] + 1).save(root / f'data/masks/{i:06d}.png')
    (root / 'data/splits/test.txt').write_text('\n'.join(f'{i:06d}' for i in range(3)))
    for name, text in (('seg', SEGMENTATION), ('plain', PLAIN), ('tasks', MULTITASK)):
        (root / f'{name}.py').write_text(text)
        model = MODELS.build(Config.fromfile(root / f'{name}.py').model)
        with torch.no_grad():
            for norm in (m for m in model.modules() if isinstance(m, ExchangeNorm)):
                norm.weight.uniform_(-0.02, 1)
        torch.save(dict(state_dict=model.state_dict(), meta={}), root / f'{name}.pth')
    return root


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of ``made``, which is the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def infer(name='seg', **kwargs):
    return CENInferencer(f'{name}.py', f'{name}.pth', show_progress=False, **kwargs)


def files(i=0, **more):
    return dict(rgb=f'data/rgb/{i:06d}.png', depth=f'data/depth/{i:06d}.png') | more


FOLDERS = dict(rgb='data/rgb', depth='data/depth')


@pytest.mark.parametrize('apart', [False, True])
def test_predictions_are_those_of_the_test(folder, apart):
    cfg = Config.fromfile('seg.py')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    inferencer = infer(apart=apart, streams=True)
    wanted = inferencer.model.test_step(pseudo_collate([dataset[i] for i in range(3)]))
    found = inferencer(FOLDERS, batch_size=2)['predictions']
    assert [one.name for one in found] == ['000000', '000001', '000002']
    for one, sample in zip(found, wanted, strict=True):
        assert set(one.outputs) == {'ensemble', 'rgb', 'depth'}
        same = [one.outputs['ensemble'] == sample.pred_sem_seg.data[0].numpy()]
        same += [
            one.outputs[name] == sample.outputs.semseg.get(name).pred_sem_seg.data[0].numpy()
            for name in ('rgb', 'depth')
        ]
        # taken apart, a pixel between two classes may fall to the other
        assert min(np.mean(part) for part in same) > (0.999 if apart else 0.99999)
        assert one.outputs['ensemble'].shape == SIZE


def test_a_checkpoint_in_half_precision(folder):
    """It is written without the training, and is a checkpoint like any other."""
    checkpoint = torch.load('seg.pth', weights_only=True)
    checkpoint['meta'] = dict(dataset_meta=dict(classes=[f'class {i}' for i in range(40)]))
    torch.save(checkpoint, 'seg.pth')
    assert command('export', 'seg.py', 'seg.pth', '--out', 'seg.safetensors') == 0
    assert Path('seg.safetensors').stat().st_size < 0.6 * Path('seg.pth').stat().st_size
    small = CENInferencer('seg.py', 'seg.safetensors', show_progress=False)
    assert small.meta['classes'] == tuple(checkpoint['meta']['dataset_meta']['classes'])
    for name, value in small.model.state_dict().items():
        wanted = checkpoint['state_dict'][name]
        assert torch.equal(value, wanted.half().float() if value.is_floating_point() else wanted)
    assert len(small(FOLDERS)['predictions']) == 3


def test_a_value_above_half_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'scale' has values above 65504, the largest number"):
        write_weights(dict(state_dict=dict(scale=torch.tensor([1e5]))), tmp_path / 'a.safetensors')
    assert not list(tmp_path.iterdir())


def test_tasks_are_those_of_the_model(folder):
    """Class maps and images, at the size that the model was tested at, brought back to the
    frame's."""
    inferencer = infer('tasks', streams=True)
    rgb = np.asarray(Image.open('data/rgb/000000.png'))
    depth = cv2.imread('data/depth/000000.png', cv2.IMREAD_UNCHANGED)
    with pytest.raises(ValueError, match="modality 'depth' is none of the model: the model takes"):
        inferencer(dict(rgb=rgb, depth=depth, depth_zbuffer=depth))
    (one,) = infer('tasks', streams=True, depth_unit=0.001)(dict(rgb=rgb, depth_zbuffer=depth))[
        'predictions'
    ]
    from mmcen.datasets.encodings import to_image

    small = cv2.resize(rgb, (48, 32), interpolation=cv2.INTER_AREA)
    metres = cv2.resize(depth * np.float32(0.001), (48, 32), interpolation=cv2.INTER_NEAREST)
    frames = [
        torch.from_numpy(to_image(name, array)).permute(2, 0, 1)
        for name, array in (('rgb', small), ('depth_zbuffer', metres[..., None]))
    ]
    x = {n: (f[None] - 127.5) / 127.5 for n, f in zip(inferencer.modalities, frames, strict=True)}
    with torch.no_grad():
        wanted = inferencer.model.outputs(x)
    resize = torch.nn.functional.interpolate
    for stream in ('ensemble', 'rgb', 'depth_zbuffer'):
        logits = resize(wanted['segment_semantic'][stream], SIZE, mode='bilinear')[0]
        own = one.outputs[f'segment_semantic/{stream}']
        assert np.mean(own == logits.argmax(0).numpy()) > 0.999
        image = resize((wanted['normal'][stream] + 1) * 127.5, SIZE, mode='bilinear')[0]
        difference = np.abs(one.outputs[f'normal/{stream}'] - image.permute(1, 2, 0).numpy())
        assert difference.max() <= 0.51


def test_pictures_and_tensors_are_arrays(folder):
    rgb = np.asarray(Image.open('data/rgb/000000.png'))
    depth = cv2.imread('data/depth/000000.png', cv2.IMREAD_UNCHANGED)
    inferencer = infer()
    (wanted,) = inferencer(dict(rgb=rgb, depth=depth))['predictions']
    for given in (
        dict(rgb=Image.fromarray(rgb), depth=Image.fromarray(depth)),
        dict(
            rgb=torch.from_numpy(rgb).permute(2, 0, 1),
            depth=torch.from_numpy(depth)[None],
        ),
    ):
        (found,) = inferencer(given)['predictions']
        np.testing.assert_array_equal(found.outputs['ensemble'], wanted.outputs['ensemble'])
        np.testing.assert_array_equal(found.inputs['depth'], wanted.inputs['depth'])
    with pytest.raises(TypeError, match="modality 'rgb' is a list: give a file, a folder, an arr"):
        inferencer(dict(rgb=rgb.tolist(), depth=depth))
    with pytest.raises(TypeError, match='inputs are a NoneType: give a dict of files, folders or'):
        inferencer(None)
    with pytest.raises(
        ValueError, match=r'size \(0, 0\) must be height and width in pixels, above'
    ):
        infer(size=(0, 0))


def test_sizes_that_do_not_fit(folder):
    """A U-Net halves its input; frames are filled up and cut back."""
    inferencer = infer('tasks', depth_unit=0.001, size=(37, 50))
    (one,) = inferencer(dict(rgb='data/rgb/000000.png', depth_zbuffer='data/depth/000000.png'))[
        'predictions'
    ]
    assert one.inputs['rgb'].shape == (37, 50, 3)
    assert one.outputs['segment_semantic/ensemble'].shape == SIZE
    assert one.outputs['normal/ensemble'].shape == (*SIZE, 3)


def test_frames_of_different_sizes(folder):
    cfg = Config.fromfile('seg.py')
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackModalities')]
    inferencer = CENInferencer(cfg, 'seg.pth', show_progress=False)
    frames = [
        dict(rgb=np.full((h, w, 3), 90, np.uint8), depth=np.full((h, w), 1000, np.uint16))
        for h, w in ((32, 64), (64, 32), (64, 32))
    ]
    together = inferencer(frames, batch_size=3)['predictions']
    assert [one.outputs['ensemble'].shape for one in together] == [(32, 64), (64, 32), (64, 32)]
    (alone,) = inferencer(frames[1])['predictions']
    np.testing.assert_array_equal(together[1].outputs['ensemble'], alone.outputs['ensemble'])


def test_units(folder):
    """Metres, millimetres and a unit of one's own are the same depth."""
    (stored,) = infer()(files())['predictions']
    rgb, depth = files()['rgb'], cv2.imread(files()['depth'], cv2.IMREAD_UNCHANGED)
    np.save('metres.npy', depth.astype(np.float32) * np.float32(0.001))
    for value, unit in (('metres.npy', None), (depth, None), (2 * depth, 0.0005)):
        (one,) = infer(depth_unit=unit)(dict(rgb=rgb, depth=value))['predictions']
        np.testing.assert_array_equal(one.outputs['ensemble'], stored.outputs['ensemble'])
    (other,) = infer(depth_unit=0.01)(files())['predictions']
    assert (other.outputs['ensemble'] != stored.outputs['ensemble']).any()


def test_a_built_model(folder):
    from mmengine.registry import init_default_scope

    cfg = Config.fromfile('seg.py')
    model = MODELS.build(cfg.model)
    init_default_scope('mmseg')
    model.load_state_dict(torch.load('seg.pth', weights_only=True)['state_dict'])
    rgb = np.asarray(Image.open(files()['rgb']))
    (one,) = CENInferencer(model, show_progress=False, size=(120, 160))(files())['predictions']
    assert one.outputs['ensemble'].shape == SIZE
    assert one.colour is not None
    np.testing.assert_array_equal(one.colour, rgb)
    fresh = MODELS.build(cfg.model)
    (same,) = CENInferencer(fresh, 'seg.pth', show_progress=False, size=(120, 160))(files())[
        'predictions'
    ]
    np.testing.assert_array_equal(same.outputs['ensemble'], one.outputs['ensemble'])
    heat = CENInferencer(of_modalities(rgb=3, heat=1), show_progress=False)
    message = "frame '0': modality 'heat' has 3 channels, the model takes 1"
    with pytest.raises(ValueError, match=message):
        heat(dict(rgb=rgb, heat=rgb))


def of_modalities(**channels):
    model = Config.fromfile('seg.py').model
    model.data_preprocessor.modalities = [
        dict(name=name, mean=[0.0] * n, std=[1.0] * n) for name, n in channels.items()
    ]
    return MODELS.build(model)


def one_channel(config, **head):
    """A small model with one logit a pixel, its config and its checkpoint."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.decode_head.update(in_channels=[8, 16, 32, 64], channels=8, **head)
    model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)
    torch.save(dict(state_dict=model.state_dict()), 'one.pth')
    return cfg, model


def test_saliency_is_a_grey_image(folder):
    """Of files whose depth is a distance; the first of several test sets says how it is loaded."""
    cfg, model = one_channel(ROOT / 'configs/cen/saliency_njud-nlpr_refinenet_r50.py')
    inferencer = CENInferencer(cfg, 'one.pth', show_progress=False)
    (found,) = inferencer(files())['predictions']
    assert found.outputs['ensemble'].shape == (*SIZE, 3)
    packed = inferencer.pipeline(inferencer._sample(find_frames(files(), ['rgb', 'depth'])[0]))
    assert packed['inputs']['depth'].shape == (1, 352, 352)
    assert 0 <= packed['inputs']['depth'].min() < 0.1
    assert packed['inputs']['depth'].max() == 1
    depth = cv2.imread(files()['depth'], cv2.IMREAD_UNCHANGED)
    place = np.array(np.unravel_index(depth.argmin(), SIZE))
    nearest = ((place + 0.5) * 352 / np.array(SIZE)).astype(int)
    assert packed['inputs']['depth'][0, nearest[0], nearest[1]] > 0.8
    (sample,) = model.test_step(pseudo_collate([packed]))
    wanted = sample.seg_logits.data[0].detach().numpy()
    assert wanted.std() > 0.01
    for channel in range(3):
        difference = found.outputs['ensemble'][..., channel] / 255 - wanted
        assert np.abs(difference).max() < 0.01


def test_one_logit_of_two_classes(folder):
    cfg, model = one_channel('seg.py', num_classes=2, out_channels=1, threshold=0.5)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    (sample,) = model.test_step(pseudo_collate([dataset[0]]))
    threshold = float(sample.seg_logits.data.median())
    cfg.model.decode_head.threshold = model.decode_head.threshold = threshold
    (sample,) = model.test_step(pseudo_collate([dataset[0]]))
    (found,) = CENInferencer(cfg, 'one.pth', show_progress=False)(files())['predictions']
    assert 0.3 < found.outputs['ensemble'].mean() < 0.7
    same = found.outputs['ensemble'] == sample.pred_sem_seg.data[0].numpy()
    assert same.mean() > 0.999


def predict(monkeypatch, capsys, *args):
    """``mmcen predict`` in this process: its status and what it printed."""
    status = command('predict', *args)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


GIVEN = ('--input', 'rgb=data/rgb', 'depth=data/depth')


def test_files_are_written_and_resumed(folder, monkeypatch, capsys):
    args = ('seg.py', 'seg.pth', *GIVEN, '--out-dir', 'out', '--streams', '--sheets')
    titles = []
    monkeypatch.setattr(Axes, 'set_title', lambda _, title, **kwargs: titles.append(title))
    status, printed = predict(monkeypatch, capsys, *args)
    assert status == 0
    assert titles[:5] == ['rgb', 'depth', 'ensemble', 'from rgb', 'from depth']
    assert '3 frames predicted' in printed
    written = sorted(path.relative_to('out') for path in Path('out').rglob('*.png'))
    kinds = ['', 'overlays/']
    wanted = [f'{k}{n}' for k in kinds for n in ('ensemble', 'rgb', 'depth')] + ['sheets']
    frames = [Path(w, f'{i:06d}.png') for w in wanted for i in range(3)]
    assert written == sorted([*frames, Path('legend.png')])
    (one,) = infer()(files(1))['predictions']
    label = np.asarray(Image.open('out/ensemble/000001.png'))
    np.testing.assert_array_equal(label, one.outputs['ensemble'])
    overlay = np.asarray(Image.open('out/overlays/ensemble/000001.png')).astype(float)
    palette = np.array(infer().meta['palette'])
    mixed = 0.5 * one.colour + 0.5 * palette[label]
    assert np.abs(overlay - mixed).max() <= 0.5

    Path('out/overlays/rgb/000002.png').unlink()
    before = Path('out/ensemble/000000.png').stat().st_mtime_ns
    status, printed = predict(monkeypatch, capsys, *args, '--resume')
    assert '1 frame predicted, 2 were there' in printed
    assert Path('out/overlays/rgb/000002.png').is_file()
    assert Path('out/ensemble/000000.png').stat().st_mtime_ns == before


@pytest.mark.parametrize('suffix', ['mp4', 'avi', 'webm'])
def test_a_video_in_and_a_video_out(folder, monkeypatch, capsys, suffix):
    """The same as of the video's frames as arrays."""
    writer = cv2.VideoWriter('clip.avi', cv2.VideoWriter.fourcc(*'MJPG'), 12, SIZE[::-1])
    for i in range(3):
        writer.write(cv2.imread(f'data/rgb/{i:06d}.png'))
    writer.release()
    given = ('--input', 'color=clip.avi', 'depth=data/depth', '--out-video', f'out/film.{suffix}')
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *given, '--streams')
    assert status == 0, printed
    assert "'color' is taken as 'rgb'\n" in printed
    assert re.search(r'3 from rgb and depth\n +\d+\.\d frames per second, with rea', printed)
    assert {path.name for path in Path('out').iterdir()} == {f'film.{suffix}', 'film.legend.png'}
    assert not Path('predictions').exists()
    reader = cv2.VideoCapture(f'out/film.{suffix}')
    assert reader.get(cv2.CAP_PROP_FPS) == 12
    clip, inferencer = cv2.VideoCapture('clip.avi'), infer(streams=True)
    for i in range(3):
        colour = clip.read()[1][..., ::-1].copy()
        (one,) = inferencer(files(i, rgb=colour))['predictions']
        (pictures,) = inferencer.visualize([], [one])
        wanted = 0.5 * np.hstack([colour] * 3) + 0.5 * np.hstack(list(pictures.values()))
        film = cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB)
        assert film.shape == wanted.shape
        assert np.abs(film - wanted).mean() < 15  # these formats lose
    assert not reader.read()[0]


def test_one_folder_as_the_config_states_it(folder, monkeypatch, capsys):
    """The data root itself; one frame needs no bar."""
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', '--input', 'data')
    assert status == 0, printed
    assert 'Predicting' in printed
    found = np.asarray(Image.open('predictions/ensemble/000002.png'))
    (wanted,) = infer()(files(2))['predictions']
    np.testing.assert_array_equal(found, wanted.outputs['ensemble'])
    one = ('--input', *(f'{name}={file}' for name, file in files().items()))
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *one)
    assert status == 0
    assert 'Predicting' not in printed


def test_the_list_of_frames_is_complete_after_a_stop(folder, monkeypatch, capsys):
    broken = Path('data/rgb/000002.png')
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    args = ('--input', 'rgb=data/rgb', 'depth=data/depth', '--batch-size', '1')
    status, _ = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *args)
    assert status != 0
    rows = ['frame,modalities', '000000,rgb depth', '000001,rgb depth', '000002,rgb depth']
    assert Path('predictions/frames.csv').read_text().splitlines() == rows[:3]
    broken.write_bytes(whole)
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *args, '--resume')
    assert '1 frame predicted, 2 were there' in printed
    assert Path('predictions/frames.csv').read_text().splitlines() == rows


def test_a_modality_that_is_absent_is_done_without(folder, monkeypatch, capsys):
    """One command on folders with a hole; the subset's answer is that of a test on it."""
    Path('data/depth/000001.png').unlink()
    args = ('--input', 'rgb=data/rgb', 'depth=data/depth', '--streams', '--batch-size', '2')
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *args)
    assert status == 0, printed
    assert re.search(r'2 from rgb and depth\n +1 from rgb alone\n', printed)
    rows = Path('predictions/frames.csv').read_text().splitlines()
    assert rows == ['frame,modalities', '000000,rgb depth', '000001,rgb', '000002,rgb depth']
    assert Path('predictions/depth/000000.png').is_file()
    assert not Path('predictions/depth/000001.png').exists()
    model = infer().model
    cfg = Config.fromfile('seg.py')
    cfg.test_dataloader.dataset.modalities = ['rgb']
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    (wanted,) = model.test_step(pseudo_collate([dataset[1]]))
    found = np.asarray(Image.open('predictions/ensemble/000001.png'))
    np.testing.assert_array_equal(found, wanted.pred_sem_seg.data[0])
    status, printed = predict(monkeypatch, capsys, 'seg.py', 'seg.pth', *args, '--resume')
    assert '0 frames predicted, 3 were there' in printed
    for apart in (False, True):
        (alone,) = infer(apart=apart)(dict(rgb='data/rgb/000001.png'))['predictions']
        assert alone.present == ['rgb']
        assert np.mean(alone.outputs['ensemble'] == found) > 0.999
        (depth,) = infer(apart=apart)(dict(depth='data/depth/000000.png'))['predictions']
        assert depth.present == ['depth']
        (task,) = infer('tasks', apart=apart)(dict(rgb='data/rgb/000000.png'))['predictions']
        assert set(task.outputs) == {'segment_semantic/ensemble', 'normal/ensemble'}


@pytest.mark.parametrize('fill', ['zero', 'constant', 'nan'])
def test_a_modality_that_says_nothing(folder, fill):
    depth = dict(
        zero=np.zeros(SIZE, np.uint16),
        constant=np.full(SIZE, 2000, np.uint16),
        nan=np.full(SIZE, np.nan, np.float32),
    )[fill]
    Path('dead').mkdir()
    np.save('dead/000000.npy', depth)
    given = files(depth='dead/000000.npy')
    with pytest.warns(UserWarning, match='dead/000000.npy has no content, all its pixels are'):
        (kept,) = infer()(given)['predictions']
    assert kept.present == ['rgb', 'depth']
    (dropped,) = infer(treat_empty='absent')(given)['predictions']
    (wanted,) = infer()(dict(rgb=given['rgb']))['predictions']
    assert dropped.present == ['rgb']
    np.testing.assert_array_equal(dropped.outputs['ensemble'], wanted.outputs['ensemble'])
    plausible._told.cache_clear()


def test_frames_of_one_name_are_told_apart(folder):
    for i in (0, 1):
        Path(f'{i}').mkdir()
        for name in ('rgb', 'depth'):
            Path(f'{i}/{name}.png').write_bytes(Path(files(i)[name]).read_bytes())
    frames = [dict(rgb=f'{i}/rgb.png', depth=f'{i}/depth.png') for i in (0, 1)]
    assert [frame.name for frame in find_frames(frames, ['rgb', 'depth'])] == ['rgb_0', 'rgb_1']


@pytest.mark.parametrize(
    'args, message',
    [
        (('no.py', 'seg.pth', *GIVEN), 'error: no.py does not exist'),
        (('seg.py', 'no.pth', *GIVEN), 'error: no.pth does not exist'),
        (('seg.py', *GIVEN), 'a config needs a checkpoint: give both, an .onnx file'),
        (('seg.py', 'tasks.pth', *GIVEN),
         "error: the checkpoint has the tasks ['segment_semantic', 'normal'], the model has"),
        (('seg.py', 'names.pth', *GIVEN), 'error: stream_names of the checkpoint cannot be read ('),
        (('seg.py', 'evil.pth', *GIVEN), 'error: evil.pth is no checkpoint of tensors and numbers'),
        (('seg.py', 'wide.pth', *GIVEN), 'the checkpoint was made for another number of streams'),
        (('seg.py', 'seg.pth', '--input', 'rgb=data/masks', 'depth=data/other'),
         "error: no frame of 'rgb' is in another folder, its first one is '000000', theirs '"),
        (('seg.py', 'seg.pth', '--input', 'rgb=data/rgb', 'depth=data/depth', 'ir=x'),
         "error: modality 'ir' is none of the model: the model takes rgb=... depth=..."),
        (('seg.py', 'seg.pth', '--input', 'rgb=no.png', 'depth=data/depth/000000.png'),
         "error: modality 'rgb': there is no file or folder no.png"),
        (('seg.py', 'seg.pth', '--input', 'rgb=nowhere', 'depth=data/depth'),
         "error: modality 'rgb': there is no file or folder nowhere"),
        (('seg.py', 'seg.pth', '--input', 'rgb=data/rgb', 'depth=data/depth/000000.png'),
         "error: ['rgb'] are folders and ['depth'] are not: give one kind for all"),
        (('seg.py', 'seg.pth', '--input', 'rgb=data/splits', 'depth=data/depth'),
         "error: modality 'rgb': data/splits has no picture: looked for .png"),
        (('seg.py', 'seg.pth', '--input', 'rgb=data/depth', 'depth=data/rgb'),
         'but colour is uint8 of shape (H, W, 3)'),
        (('seg.py', 'seg.pth', '--input', 'rgb'), "'rgb' is not MODALITY=FILE, such as rgb=a.png"),
        (('seg.py', 'seg.pth', *GIVEN, '--depth-unit', 'ft'), "'ft' is not a unit: give m, cm, mm"),
        (('seg.py', 'seg.pth', *GIVEN, '--depth-unit', '0'),
         'error: depth_unit must be metres per stored unit, above 0, got 0.0'),
        (('seg.py', 'seg.pth', *GIVEN, '--overlay', '2'), 'overlay 2.0 0..1'),
        (('seg.py', 'seg.pth', *GIVEN, '--threads', '1'), 'error: --threads is for .onnx files'),
        (('bad.onnx', *GIVEN, '--threads', '1'), 'error: bad.onnx is no ONNX file that runs'),
        (('bad.onnx', *GIVEN), 'error: bad.onnx is no ONNX file that runs here ('),
        (('bad.onnx', 'seg.pth', *GIVEN), 'error: bad.onnx has its own weights and is apart'),
        (('seg.py', 'half.pth', *GIVEN),
         'error: half.pth is no checkpoint of tensors and numbers, or is damaged ('),
        (('seg.py', 'list.pth', *GIVEN), 'list.pth holds a list, but a checkpoint is a dict'),
        (('seg.py', 'seg.pth', *GIVEN, '--device', 'gpu'), "error: device 'gpu' is not there ("),
        (('seg.py', 'seg.pth', *GIVEN, '--device', 'cuda:77'), "device 'cuda:77' is not there ("),
        (('stock.py', 'seg.pth', *GIVEN),
         'error: EncoderDecoder is no model of mmcen: give a CENEncoderDecoder'),
        (('rgb.py', 'rgb.pth', '--input', 'rgb=data/rgb', '--depth-unit', 'mm'),
         'error: the model takes rgb, no depth in a unit: leave --depth-unit out'),
        (('none.py', 'seg.pth', *GIVEN), 'error: a config without a model predicts nothing'),
        (('seg.py', 'seg.pth', *GIVEN, 'rgb=data/depth'), "modality 'rgb' is given twice"),
        (('seg.py', 'seg.pth', *GIVEN, '--pair', 'nearest', '--max-gap', '20'),
         "'20' is no time: give it as 20ms or 0.02s"),
        (('seg.py', 'seg.pth', *GIVEN, '--max-gap', '20ms'), '--max-gap is the largest gap of'),
        (('seg.py', 'seg.pth', *GIVEN, '--out-video', 'out.gif'),
         'error: out.gif is no video: choose one of the suffixes .mp4, .avi, .webm, .mkv'),
        (('seg.py', 'seg.pth', *GIVEN, '--out-video', 'out.mp4', '--resume'),
         'error: a resumed video would lack frames'),
    ],
)  # fmt: skip
def test_what_is_wrong_takes_one_line(folder, monkeypatch, capsys, args, message):
    Path('evil.pth').write_bytes(pickle.dumps(Path('x')))
    Path('bad.onnx').write_text('no protobuf')
    Path('data/other').mkdir()
    Path('data/other/color_1.png').touch()
    Path('half.pth').write_bytes(Path('seg.pth').read_bytes()[:10_000])
    torch.save([1.0], 'list.pth')
    rgb = dict(type='CENDataPreprocessor', modalities=[dict(name='rgb', mean=[0.0], std=[1.0])])
    alone = Config.fromfile('seg.py')
    alone.model.data_preprocessor = rgb
    alone.dump('rgb.py')
    torch.save(MODELS.build(alone.model).state_dict(), 'rgb.pth')
    Path('none.py').write_text('work_dir = None')
    stock = dict(type='EncoderDecoder', backbone=dict(type='MobileNetV2'))
    stock['decode_head'] = dict(type='FCNHead', in_channels=1280, channels=8, num_classes=2)
    Config(dict(model=stock)).dump('stock.py')
    state = torch.load('seg.pth', weights_only=True)['state_dict']
    twice = {name: torch.cat([v, v]) for name, v in state.items() if v.dim()}
    torch.save(state | twice | {'stream_names': state['stream_names']}, 'wide.pth')
    torch.save(state | {'stream_names': twice['stream_names']}, 'names.pth')
    status, printed = predict(monkeypatch, capsys, *args)
    assert status in (1, 2)
    assert message in printed
    assert 'Traceback' not in printed


def test_slide_inference_is_refused(folder):
    cfg = Config.fromfile('seg.py')
    cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    message = "test_cfg.mode='slide' is not served: set test_cfg.mode='whole'"
    with pytest.raises(ValueError, match=re.escape(message)):
        CENInferencer(cfg, 'seg.pth')


@pytest.mark.parametrize('inputs', [dict(rgb='out/rgb', depth='out/depth'), files()])
def test_results_never_take_the_place_of_inputs(folder, inputs):
    """The streams' results are called as the modalities are."""
    shutil.copytree('data', 'out')
    out = 'out' if inputs['rgb'].startswith('out') else 'data'
    before = {path: path.read_bytes() for path in Path(out).rglob('*.png')}
    with pytest.raises(ValueError, match=r'is an input, and the result would overwrite it: choose'):
        infer(streams=True)(inputs, out_dir=out)
    assert before == {path: path.read_bytes() for path in Path(out).rglob('*.png')}


def test_a_folder_that_cannot_be_written_is_refused_before_the_prediction(folder, monkeypatch):
    inferencer = infer()
    monkeypatch.setattr(inferencer, 'predict', None)
    Path('file').touch()
    Path('out').mkdir()
    for results, message in (
        (dict(out_dir='file'), 'file is a file and not a folder: choose another out_dir'),
        (dict(out_dir='file/out'), 'file is a file and not a folder: choose another out_dir'),
        (dict(out_video='file/a.mp4'), 'file is a file and not a folder: choose another out_dir'),
    ):
        with pytest.raises(ValueError, match=message):
            inferencer(files(), **results)
    for text in (b'', b'frame,size\n1,2\n', b'frame,modalities\n1\n', b'\x80\x00', b'"'):
        Path('out/frames.csv').write_bytes(text)
        with pytest.raises(ValueError, match=r'out/frames.csv is no list of predicted frames \('):
            inferencer(files(), out_dir='out')


def test_more_classes_than_8_bits_hold(folder):
    cfg = Config.fromfile('seg.py')
    cfg.model.decode_head.num_classes = 300
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    model.cfg = cfg
    inferencer = CENInferencer(model, show_progress=False)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    (wanted,) = inferencer.model.test_step(pseudo_collate([dataset[0]]))
    wanted = wanted.pred_sem_seg.data[0].numpy()
    assert wanted.max() > 255
    inferencer(files(), out_dir='out', sheets=True)
    np.testing.assert_array_equal(np.asarray(Image.open('out/ensemble/000000.png')), wanted)
    labels = Labelled(as_it_is(inferencer.model, ['ensemble']))
    labels.facts = dict(inferencer.meta)
    inferencer.network = labels
    inferencer._networks = {tuple(labels.inputs): labels}
    (found,) = inferencer(files())['predictions']
    assert np.mean(found.outputs['ensemble'] == wanted) > 0.9  # labels are resized, not logits


def test_a_video_never_takes_the_place_of_a_recording(folder):
    Path('a.mkv').write_bytes(b'recording')
    with pytest.raises(ValueError, match='a.mkv is an input, and the result would overwrite it'):
        infer()('a.mkv', out_video='a.mkv')
    assert Path('a.mkv').read_bytes() == b'recording'


@pytest.fixture
def export(folder, capsys):
    """The command, in the folder: exit status and what it says."""
    pytest.importorskip('onnxruntime')

    def call(*args):
        status = command('export', *args)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def test_export(export, monkeypatch):
    """ONNX Runtime predicts what PyTorch does, from a file that says all that is needed."""
    status, printed = export('plain.py', 'plain.pth', '--size', '64', '96', '--streams')
    assert status == 0, printed
    assert 'simplified' in printed
    difference = float(re.search(r'differ by (\S+) of', printed)[1])
    assert difference < 1e-4
    wanted = infer('plain', streams=True)(FOLDERS, batch_size=3)['predictions']
    onnx = CENInferencer('plain.onnx', streams=True, show_progress=False)
    assert onnx.model is None
    found = onnx(FOLDERS, batch_size=2)['predictions']
    for one, other in zip(wanted, found, strict=True):
        for name in ('ensemble', 'rgb', 'depth'):
            assert np.mean(one.outputs[name] == other.outputs[name]) > 0.999
    np.testing.assert_array_equal(onnx.meta['palette'], infer('plain').meta['palette'])
    # it takes ONNX Runtime alone, and not the data set's class
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    monkeypatch.setattr(DATASETS, 'get', None)
    (same,) = CENInferencer('plain.onnx', show_progress=False)(files())['predictions']
    np.testing.assert_array_equal(same.outputs['ensemble'], found[0].outputs['ensemble'])


def test_what_is_not_exported(export):
    diverged = torch.load('seg.pth', weights_only=True)
    diverged['state_dict']['backbone.conv1.weight'][0] = float('nan')
    torch.save(diverged, 'nan.pth')

    for args, message in (
        (('seg.py', 'seg.pth', '--present', 'ir'),
         "error: modalities ['ir'] are unknown: choose of ['rgb', 'depth']"),
        (('seg.py', 'seg.pth', '--outputs', 'ir'), "error: outputs ['ir'] are unknown: choose of"),
        (('tasks.py', 'tasks.pth', '--size', '50', '64'),
         'error: size (50, 64) must be multiples of 16, and at least twice that'),
        (('seg.py', 'tasks.pth'), 'error: the checkpoint has the tasks'),
        (('seg.py', 'nan.pth'), 'has values that are not finite: use an older checkpoint'),
    ):  # fmt: skip
        status, printed = export(*args)
        assert (status, message in printed) == (1, True), printed
    assert not list(Path().rglob('*.part'))


@pytest.mark.long
def test_export_of_one_modality(export, monkeypatch, capsys):
    status, printed = export(
        'seg.py', 'seg.pth', '--size', '64', '64', '--out', 'rgb.onnx', '--present', 'rgb'
    )
    assert status == 0, printed
    assert 'predict: mmcen predict rgb.onnx --input rgb=rgb.png\n' in printed
    assert CENInferencer('rgb.onnx', show_progress=False).network.inputs == {'rgb': 3}
    (one,) = CENInferencer('rgb.onnx', show_progress=False)(dict(rgb=files()['rgb']))['predictions']
    (other,) = infer()(dict(rgb=files()['rgb']))['predictions']
    assert np.mean(one.outputs['ensemble'] == other.outputs['ensemble']) > 0.999

    given = ('--input', f'rgb={files()["rgb"]}', '--streams')
    status, printed = predict(monkeypatch, capsys, 'rgb.onnx', *given)
    assert 'error: rgb.onnx has no stream: export it with --streams' in printed


@pytest.mark.long
def test_export_of_a_task_of_a_whole_model(folder):
    pytest.importorskip('onnxruntime')
    status = command(
        'export', 'tasks.py', 'tasks.pth', '--outputs', 'normal/rgb', '--out', 'out/normal.onnx',
        '--size', '64', '64', '--whole',
    )  # fmt: skip
    assert status == 0
    given = dict(rgb='data/rgb', depth_zbuffer='data/depth')
    (first, *_) = CENInferencer('out/normal.onnx', depth_unit=0.001, show_progress=False)(given)[
        'predictions'
    ]
    (own, *_) = infer('tasks', streams=True, depth_unit=0.001)(given)['predictions']
    assert set(first.outputs) == {'normal/rgb'}
    apart = np.abs(first.outputs['normal/rgb'].astype(int) - own.outputs['normal/rgb'])
    assert apart.max() <= 1


def test_a_missing_extra_is_named(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    assert command('export', 'seg.py', 'seg.pth') == 1
    assert 'error: onnxruntime is not installed, which ONNX needs: pip install' in (
        capsys.readouterr().err
    )
