"""The four sets as they are distributed: through the tool, the data set, a training, evaluation."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmcen.converters import processes
from mmcen.datasets import LoadMask, RelativeDepth, SaliencyDataset, SalientRooms, SyntheticRooms
from mmcen.datasets.saliency import SETS
from mmcen.saliency import handmade_saliency, nearness
from tests.converters import command
from tests.training import ROOT

SIZE = (40, 48)
PACKAGE = ('RGB', 'depth', 'GT')
LAYOUTS = {  # folder of a split, folders in it, names of its frames
    ('njud', 'train'): ('NJU2K_TRAIN', PACKAGE, '{:06d}_left'),
    ('njud', 'test'): ('NJU2K_TEST', PACKAGE, '{:06d}_left'),
    ('nlpr', 'train'): ('NLPR_TRAIN', PACKAGE, '{}_02-02-40'),
    ('nlpr', 'test'): ('NLPR_TEST', PACKAGE, '{}_02-02-40'),
    ('stere', 'test'): ('STERE', PACKAGE, 'ABC{}'),
    ('dutlf', 'train'): (
        'DUT-RGBD/train_data', ('train_images', 'train_depth', 'train_masks'), '{:04d}'
    ),
    ('dutlf', 'test'): (
        'DUT-RGBD/test_data', ('test_images', 'test_depth', 'test_masks'), '{:04d}'
    ),
}  # fmt: skip
FRAMES = {'train': 3, 'test': 2}


def frame(seed):
    """Colour, distance in 0..1 and mask of a frame with an object."""
    rng = np.random.default_rng(seed)
    rgb = np.clip(100 + rng.normal(0, 5, (*SIZE, 3)), 0, 255)
    distance = np.broadcast_to(np.linspace(1, 0.6, SIZE[0])[:, None], SIZE).copy()
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(8, 14, 2)
    mask[top : top + 18, left : left + 18] = 255
    rgb[mask > 0] = rng.integers(0, 256, 3)
    distance[mask > 0] = 0
    return rgb.astype(np.uint8), distance, mask


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
    """All sets, a few frames each: 8-bit depth, near in NJUD high and elsewhere low."""
    root = tmp_path_factory.mktemp('rgbd_saliency')
    for k, ((name, split), (folder, parts, pattern)) in enumerate(LAYOUTS.items()):
        for i in range(FRAMES[split]):
            rgb, distance, mask = frame(10 * k + i)
            depth = np.rint(255 * (1 - distance if name == 'njud' else distance)).astype(np.uint8)
            suffixes = ('.jpg', '.bmp' if name == 'nlpr' else '.png', '.png')
            pictures = zip(parts, suffixes, (rgb[..., ::-1], depth, mask), strict=True)
            for part, suffix, picture in pictures:
                (root / folder / part).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / folder / part / f'{pattern.format(i + 1)}{suffix}'), picture)
    return root


@pytest.fixture
def copy(archives, tmp_path):
    return Path(shutil.copytree(archives, tmp_path / 'copy'))


def call(monkeypatch, capsys, root, *words, threads=True):
    """The tool, in threads, which start sooner; gives exit status and what it says."""
    if threads:
        monkeypatch.setattr(
            processes, 'ProcessPoolExecutor', lambda workers, **_: ThreadPoolExecutor(workers)
        )
    given = ('--data-root', str(root), '--workers', '1', *words)
    status = command('convert-data', 'saliency', *given)
    out = capsys.readouterr()
    return status, out.out + out.err


def load(root, name, split='train', **kwargs):
    pipeline = [dict(type='LoadModalities'), dict(type='RelativeDepth')]
    cfg = dict(type='SaliencyDataset', name=name, split=split, data_root=str(root))
    return DATASETS.build(cfg | dict(count=FRAMES[split], pipeline=pipeline) | kwargs)


@pytest.mark.parametrize(('name', 'split'), LAYOUTS)
def test_near_is_1_whichever_way_it_is_stored(archives, name, split):
    number = 10 * list(LAYOUTS).index((name, split))
    dataset = load(archives, name, split)
    for i in range(len(dataset)):
        sample = dataset[i]
        _, distance, mask = frame(number + i)
        near = sample['modalities']['depth'][..., 0]
        np.testing.assert_allclose(near, 1 - distance, atol=0.005)
        assert np.array_equal(LoadMask()(sample)['gt_seg_map'], mask // 255)
        assert sample['dataset'] == name
    assert len(dataset) == FRAMES[split]


def test_depth_at_another_size_is_resized_in_dutlf_alone(copy, monkeypatch, capsys):
    """Its usual package has depth of 256x256 beside colour of 400x600."""
    whole = load(copy, 'dutlf')[0]
    for folder in ('DUT-RGBD/train_data/train_depth', 'NLPR_TRAIN/depth'):
        for path in (copy / folder).iterdir():
            cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), 0), (32, 32)))
    for modalities in (['rgb', 'depth'], ['depth', 'rgb']):
        sample = load(copy, 'dutlf', modalities=modalities)[0]
        assert list(sample['modalities']) == modalities
        assert sample['ori_shape'] == SIZE
        depth, expected = (one['modalities']['depth'] for one in (sample, whole))
        assert depth.shape == (*SIZE, 1)
        assert np.abs(depth - expected).mean() < 0.02
    words = ('--sets', 'dutlf', '--expect', '3')
    status, text = call(monkeypatch, capsys, copy, *words)
    assert status == 0, text
    assert 'dutlf: 3 labels in' in text
    with pytest.raises(ValueError, match='modalities must be aligned'):
        load(copy, 'nlpr')[0]


def test_official_counts():
    """Table 14's text and the papers of the sets: 1,985, 1,000, 1,000 and 1,200 frames."""
    totals = {name: sum(counts[0] for counts in one.counts.values()) for name, one in SETS.items()}
    assert totals == {'njud': 1985, 'nlpr': 1000, 'stere': 1000, 'dutlf': 1200}


def test_pseudo_labels_by_the_tool(copy, monkeypatch, capsys):
    status, text = call(monkeypatch, capsys, copy, '--expect', '3', threads=False)
    assert status == 0, text
    assert 'nlpr: 3 labels in' in text
    dataset = load(copy, 'njud', pseudo='pseudo')
    for i in range(3):
        info, sample = dataset.get_data_info(i), dataset[i]
        made = handmade_saliency(sample['modalities']['rgb'], sample['modalities']['depth'][..., 0])
        stored = cv2.imread(info['pseudo_path'], cv2.IMREAD_UNCHANGED)
        assert np.abs(stored / 255 - made).max() <= 0.5 / 255 + 1e-6
        label = Compose([*dataset.pipeline.transforms, dict(type='LoadPseudoLabel')])(info)
        assert np.abs(label['gt_seg_map'] / 254 - stored / 255).max() < 0.0021
    labels = sorted(copy.glob('NJU2K_TRAIN/pseudo/*.png'))
    stamps = [path.stat().st_mtime_ns for path in labels]
    labels[1].unlink()  # as after a stop
    (copy / 'NJU2K_TRAIN/pseudo/.half.png.part').write_bytes(b'half')
    status, text = call(monkeypatch, capsys, copy, '--expect', '3', '--sets', 'njud')
    assert 'njud: 3 labels in' in text
    assert '2 frames are finished already' in text
    assert not list(copy.rglob('*.part'))
    after = [path.stat().st_mtime_ns for path in labels]
    assert after[0] == stamps[0]
    assert after[1] > stamps[1]
    mistake = ('--expect', '3', '--sets', 'njud', '--near', 'njud=low')
    status, text = call(monkeypatch, capsys, copy, *mistake)
    assert status == 1
    assert 'was made from another source or in another way' in text
    assert 'choose another --pseudo, or --overwrite' in text
    assert 'warning: njud, train: the middle is farther than the rest in 100% of frames' in text
    assert call(monkeypatch, capsys, copy, *mistake, '--overwrite')[0] == 0
    assert labels[0].stat().st_mtime_ns > stamps[0]


@pytest.mark.long
def test_a_set_that_is_turned_round_stops_the_tool(copy, monkeypatch, capsys):
    """A test set, too, though no labels of it are made."""
    for path in (copy / 'STERE' / 'depth').iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), 0))
    status, text = call(monkeypatch, capsys, copy, '--expect', '3')
    assert status == 1
    assert (
        'error: stere, test: the middle is farther than the rest in 100% of frames: if this '
        "copy's depth is inverted, give --near stere=high, and near='high' in the config, too; "
        'if not, give --near stere=low'
    ) in text
    assert not list(copy.rglob('pseudo'))
    status, text = call(monkeypatch, capsys, copy, '--expect', '3', '--near', 'stere=high')
    assert status == 0
    assert 'warning' not in text
    status, text = call(monkeypatch, capsys, copy, '--expect', '3', '--near', 'stere=low')
    assert status == 0
    assert '--near stere=low may be wrong' in text
    status, text = call(monkeypatch, capsys, copy, '--near', 'high')
    assert status == 2
    assert "'high' is not SET=low or SET=high, of ['njud', 'nlpr'" in text


def test_the_tool_says_how_good_the_labels_are(copy, monkeypatch, capsys):
    _, text = call(monkeypatch, capsys, copy, '--sets', 'stere', '--split', 'test', '--expect', '2')
    dataset, errors = load(copy, 'stere', 'test', pseudo='pseudo'), []
    for i in range(2):
        label = cv2.imread(dataset.get_data_info(i)['pseudo_path'], cv2.IMREAD_UNCHANGED) / 255
        errors.append(np.abs(label - LoadMask()(dataset[i])['gt_seg_map']).mean())
    assert f'MAE {np.mean(errors):.3f}' in text
    assert np.mean(errors) < 0.1
    next((copy / 'STERE' / 'pseudo').glob('*.png')).unlink()  # those finished before count, too
    _, text = call(monkeypatch, capsys, copy, '--sets', 'stere', '--split', 'test', '--expect', '2')
    assert f'MAE {np.mean(errors):.3f}' in text
    shutil.rmtree(copy / 'STERE' / 'GT')  # nothing needs them
    words = ('--sets', 'stere', '--split', 'test', '--expect', '2', '--overwrite')
    status, text = call(monkeypatch, capsys, copy, *words)
    assert status == 0
    assert 'MAE' not in text


def test_errors_of_archives(copy, monkeypatch, capsys):
    status, text = call(monkeypatch, capsys, copy, '--sets', 'njud')
    assert status == 1
    assert 'NJU2K_TRAIN/RGB has 3 frames, but njud has 1485: unpack it again' in text
    with pytest.raises(ValueError, match="there is no set 'stere' with split 'train'"):
        SaliencyDataset('stere', 'train')
    with pytest.raises(
        FileNotFoundError, match=r'pseudo labels: there is no folder .*TRAIN/pseudo'
    ):
        load(copy, 'njud', pseudo='pseudo')
    mask = next((copy / 'NLPR_TRAIN' / 'GT').iterdir())
    grey = np.tile(np.linspace(0, 255, SIZE[1]).astype(np.uint8), (SIZE[0], 1))
    for picture, what in (
        (grey, r'is not a mask: 5\d% of it is between black and white'),
        (grey[:20], r'has \(20, 48\) pixels \(height, width\) but .* has \(40, 48\)'),
        (np.dstack([grey, 255 - grey, grey]), 'is coloured, but depth and masks are grey'),
    ):
        cv2.imwrite(str(mask), picture)
        dataset = load(copy, 'nlpr')
        with pytest.raises(ValueError, match=what):
            [LoadMask()(dataset[i]) for i in range(3)]
    status, text = call(monkeypatch, capsys, copy, '--sets', 'nlpr', '--expect', '3')
    assert status == 1
    assert f'{mask} is coloured' in text
    mask.unlink()
    with pytest.raises(FileNotFoundError, match='labels: 1 of 3 files are missing'):
        load(copy, 'nlpr')
    assert len(load(copy, 'nlpr', masks=False)) == 3
    with pytest.raises(ValueError, match='has no mask: give the data set masks=True'):
        LoadMask()(load(copy, 'nlpr', masks=False)[0])


def test_lists_of_frames(copy):
    (copy / 'two.txt').write_text('000003_left\n000001_left\n')
    dataset = load(copy, 'njud', ann_file='two.txt', count=None)
    assert [Path(dataset.get_data_info(i)['img_path']).stem for i in (0, 1)] == [
        '000003_left', '000001_left',
    ]  # fmt: skip


def test_things_of_rooms_are_salient():
    size = dict(size=(24, 32), length=3, pipeline=[])
    for room, salient in zip(SyntheticRooms(**size), SalientRooms(**size), strict=True):
        expected = np.isin(room['gt_seg_map'], [3, 4, 5])  # box, ball, pillar
        assert np.array_equal(salient['gt_seg_map'], expected)
        metres = room['modalities']['depth']
        relative = RelativeDepth(near='low', missing=0)(room)['modalities']['depth']
        np.testing.assert_array_equal(relative[..., 0], nearness(metres[..., 0], 'low', 0))
    with pytest.raises(ValueError, match='does not say which depth is near'):
        RelativeDepth()(salient)


def test_real_config_from_archives_to_table_14(copy, tmp_path, monkeypatch, capsys):
    """Labels by the tool, training on two sets with an update in between, figures of four sets."""
    assert call(monkeypatch, capsys, copy, '--expect', '3')[0] == 0
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / 'saliency_njud-nlpr_refinenet_r50.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_cfg.update(max_epochs=3, val_interval=3)
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.decode_head.update(in_channels=[8, 16, 32, 64], channels=8, light_weight=True)
    for hook in cfg.custom_hooks:
        if hook.type == 'PseudoLabelHook':
            hook.interval = 1
            hook.pipeline[2].transforms[0].scale = (32, 32)
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'test')):
        loader.update(num_workers=0, batch_size=2 if split == 'train' else 1)
        for dataset in loader.dataset.datasets:
            dataset.update(data_root=str(copy), count=FRAMES[split])
            resize = dataset.pipeline[3 if split == 'train' else 2]
            resize.transforms[0].scale = (32, 32)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.default_hooks.checkpoint.interval = 3
    cfg.visualizer = cfg.vis_backends = None
    cfg.experiment_name = tmp_path.name
    monkeypatch.setattr(Config, 'pretty_text', '')  # its layout takes longer than all the rest
    runner = Runner.from_cfg(cfg)
    runner.train()
    written = sorted((tmp_path / 'run' / 'pseudo_labels').glob('round_1/**/*.png'))
    assert len(written) == 6
    updated = cv2.imread(str(written[0]), cv2.IMREAD_UNCHANGED)
    assert updated.shape == (32, 32)
    metrics = runner.message_hub.get_info('last_val')
    model = runner.model.eval()
    for name in SETS:
        errors = {'': [], 'rgb/': [], 'depth/': []}
        for packed in (d for d in runner.val_dataloader if d['data_samples'][0].dataset == name):
            with torch.no_grad():
                (sample,) = model.test_step(packed)
            mask = sample.gt_sem_seg.data[0].numpy()
            own = sample.outputs.semseg
            maps = {'': own.ensemble, 'rgb/': own.rgb, 'depth/': own.depth}
            for key, one in maps.items():
                values = one.seg_logits.data[0].numpy()
                values = (values - values.min()) / (values.max() - values.min())
                errors[key].append(np.abs(values - mask).sum() / mask.size)
        for key, found in errors.items():
            assert len(found) == 2
            assert metrics[f'{name}/{key}MAE'] == pytest.approx(np.mean(found), abs=1e-5)
