#!/usr/bin/env python
"""Train a model: ``python tools/train.py CONFIG``."""

import sys
from pathlib import Path

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcen.engine import launch


def main() -> None:
    parser = launch.common_parser('Train a model.')
    parser.add_argument(
        '--resume', action='store_true', help='continue from the last checkpoint in the work dir'
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU'
    )
    args = parser.parse_args()
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


if __name__ == '__main__':
    main()
