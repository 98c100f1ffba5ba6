"""Measure the statistics of batch norms again, on the training frames and from some modalities:

python projects/paper/measure_norms.py CONFIG CHECKPOINT --present rgb --out rgb.pth

A network trained with modality dropout has averages over steps with and without exchange. The new
checkpoint shows what these cost: `mmcen test CONFIG rgb.pth --present rgb`. Statistics that these
modalities do not use stay. With `own_norms=True` in the config, those of all modalities together
stay as well, so that `--present rgb --present depth` makes one checkpoint for all subsets of two.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed
from rich.progress import track
from torch import nn

from mmcen.checkpoints import read_checkpoint
from mmcen.cli.common import exit_status
from mmcen.files import whole_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--present',
        nargs='+',
        action='append',
        required=True,
        metavar='MODALITY',
        help='modalities to measure from; may be given several times',
    )
    parser.add_argument('--out', type=Path, required=True, help='checkpoint to write')
    return parser.parse_args()


@torch.no_grad()
def measure(args: argparse.Namespace) -> None:
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    checkpoint = read_checkpoint(args.checkpoint)
    model.load_state_dict(checkpoint['state_dict'])
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    known = model.data_preprocessor.modalities
    for present in args.present:
        for norm in norms:
            norm.train()
            norm.momentum = None  # a cumulative average
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()  # the first batch replaces what was there
        places = model.data_preprocessor.places(present)
        set_random_seed(0)  # the same frames and transforms for each of them
        frames = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        for batch in track(frames, f'frames, {" and ".join(present)}'):
            inputs = model.data_preprocessor(batch, True)['inputs'].unflatten(1, (len(known), -1))
            model(inputs[:, places].flatten(1, 2), present=present)
    names = (checkpoint.get('meta') or {}).get('dataset_meta')  # and colours of the classes
    with whole_file(args.out) as part:
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=names)), part)
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(exit_status(lambda: measure(parse_args())))
