"""``mmcen train CONFIG``: train a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..datasets.transforms.plausible import ImplausibleWarning
from ..engine import launch


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    parser = launch.common_parser('Train a model.', prog or 'mmcen train')
    parser.add_argument(
        '--resume', action='store_true', help='continue from the last checkpoint in the work dir'
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on a CPU that has instructions for it',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse depth that can hardly be metres, and grey files as colour, instead of warning',
    )
    args = parser.parse_args(argv)
    if args.strict:
        warnings.simplefilter('error', ImplausibleWarning)
    cfg = launch.load_config(args, parser)
    if args.amp:
        launch.enable_amp(cfg, parser)
    with launch.in_a_sentence(parser):
        launch.lock_work_dir(cfg.work_dir)
        if args.resume:
            launch.resume(cfg)
        runner = launch.build_runner(cfg)
        runner.train()
    launch.report_training(runner, args.config)
    launch.finish()
