"""``mmcen test CONFIG CHECKPOINT``: evaluate a checkpoint or an exported file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from ..engine import launch
from ..engine.exported import check_classes, predict_by
from ..engine.present import predict_from, treat_empty
from ..shipped import CONFIG_OF, shipped_model


def test_robustness(cfg: Config, checkpoint: str) -> None:
    """Run ``mmcen test --robust``."""
    from ..engine.robust import RobustTest

    stated = deepcopy(cfg)
    runner = launch.build_runner(cfg)
    launch.load_strictly(runner, checkpoint)
    folder = Path(cfg.work_dir, 'robust', Path(checkpoint).stem)
    RobustTest(runner, stated, checkpoint, folder).run()


def make_parser(prog: str) -> ArgumentParser:
    parser = launch.common_parser('Evaluate a checkpoint.', prog)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file, its address, or an .onnx file of `mmcen export`; none if CONFIG is '
        f'a model that comes with mmcen: {", ".join(CONFIG_OF)}',
    )
    parser.add_argument('--out', help='folder for the predicted label maps, as PNG')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show waits, default %(default)s'
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: scales and flips'
    )
    parser.add_argument(
        '--present',
        nargs='+',
        metavar='MODALITY',
        help='predict from these inputs of the model only; files of the others are not needed',
    )
    parser.add_argument(
        '--treat-empty',
        choices=['use', 'absent'],
        help='how to handle a modality without content in a frame: all finite values of a channel '
        'are equal. By default as the config states, otherwise it is used unchanged',
    )
    parser.add_argument(
        '--robust',
        action='store_true',
        help='test all subsets of the modalities and corrupted modalities, and write a table and a '
        'picture into the work directory. Run it again to continue after a stop',
    )
    return parser


def check_options(args: Namespace, parser: ArgumentParser) -> None:
    """Reject options that exclude each other."""
    others = ('out', 'show', 'show_dir', 'tta', 'present', 'treat_empty')
    given = [f'--{name.replace("_", "-")}' for name in others if getattr(args, name)]
    if args.robust and (given or args.launcher != 'none'):
        parser.error(f'--robust runs alone: leave out {(given or ["--launcher"])[0]}')
    if is_exported(args) and args.launcher != 'none':
        parser.error('--launcher needs a checkpoint, not an .onnx file')
    for option in ('robust', 'tta', 'present', 'treat_empty') if is_exported(args) else ():
        if getattr(args, option):
            parser.error(f'--{option.replace("_", "-")} needs a checkpoint, not an .onnx file')


def check_label_maps(runner: Runner) -> None:
    """Raise ValueError if classes do not fit the label maps of ``--out``, which have 8 bits."""
    classes = runner.test_dataloader.dataset.metainfo.get('classes') or ()
    if len(classes) > 256:
        raise ValueError(
            f'--out writes label maps of 8 bits, and there are {len(classes)} classes: use '
            '`mmcen predict`'
        )


def is_exported(args: Namespace) -> bool:
    return args.checkpoint.endswith('.onnx')


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    parser = make_parser(prog or 'mmcen test')
    args = parser.parse_intermixed_args(argv)
    if args.checkpoint is None:
        if args.config not in CONFIG_OF:
            parser.error('a config needs a checkpoint: give both')
        args.config, args.checkpoint = map(str, shipped_model(args.config))
    check_options(args, parser)
    cfg = launch.load_config(args, parser)
    launch.load_checkpoint(cfg, args.checkpoint, parser)
    if args.tta:
        launch.enable_tta(cfg, parser)
    with launch.in_a_sentence(parser):
        if args.present:
            predict_from(cfg, args.present)
        if args.treat_empty:
            treat_empty(cfg, args.treat_empty)
    if args.robust:
        with launch.in_a_sentence(parser):
            test_robustness(cfg, args.checkpoint)
        return
    with launch.in_a_sentence(parser):
        if args.out is not None:
            launch.write_predictions(cfg, args.out)
        if args.show or args.show_dir is not None:
            launch.draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
        if is_exported(args):
            predict_by(cfg, args.checkpoint)
        runner = launch.build_runner(cfg)
        if args.out is not None:
            check_label_maps(runner)
        if is_exported(args):
            check_classes(runner)
        else:
            launch.load_strictly(runner, args.checkpoint)
        runner.test()
    launch.finish()
