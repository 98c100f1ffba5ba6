"""``mmcen test CONFIG CHECKPOINT``: evaluate a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine import launch


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    parser = launch.common_parser('Evaluate a checkpoint.', prog or 'mmcen test')
    parser.add_argument('checkpoint', help='checkpoint file, or its address')
    parser.add_argument('--out', help='folder for the predicted label maps, as PNG')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show waits, default %(default)s'
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: scales and flips'
    )
    args = parser.parse_args(argv)
    cfg = launch.load_config(args, parser)
    launch.load_checkpoint(cfg, args.checkpoint, parser)
    if args.tta:
        launch.enable_tta(cfg, parser)
    with launch.in_a_sentence(parser):
        if args.out is not None:
            launch.write_predictions(cfg, args.out)
        if args.show or args.show_dir is not None:
            launch.draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
        runner = launch.build_runner(cfg)
        launch.load_strictly(runner, args.checkpoint)
        runner.test()
    launch.finish()
