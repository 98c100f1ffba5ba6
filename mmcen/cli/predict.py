"""Predict on your own files: `mmcen predict CONFIG CHECKPOINT --input rgb=a.png depth=b.png`.
Give folders to predict on all their files, matched by name. No label is needed. Modalities
that are absent are done without."""

import argparse
import warnings
from collections import Counter
from collections.abc import Sequence

from .common import add_model, check_model, pair, unit


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen predict', description=__doc__)
    add_model(parser)
    parser.add_argument(
        '--input',
        nargs='+',
        type=pair,
        required=True,
        metavar='MODALITY=FILE',
        help='a file or a folder for each modality that is there, of those that the model takes',
    )
    parser.add_argument('--out-dir', default='predictions', help='default: %(default)s')
    parser.add_argument('--streams', action='store_true', help="write each stream's output, too")
    parser.add_argument(
        '--sheets', action='store_true', help='write inputs and outputs side by side, too'
    )
    parser.add_argument(
        '--overlay',
        type=float,
        default=0.5,
        metavar='0..1',
        help="weight of the classes' colours over the frame's; 0 writes none (default %(default)s)",
    )
    parser.add_argument(
        '--depth-unit',
        type=unit,
        help="of depth files: m, cm, mm, or metres per stored unit; by default the model's data "
        'set says it, else whole numbers are mm and others m',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='that the model gets; by default what it was tested at. Predictions have the size of '
        'the frame',
    )
    parser.add_argument('--batch-size', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--device', help='such as cuda:0; by default the best there is')
    parser.add_argument(
        '--apart', action='store_true', help='take the model apart first: the same, faster'
    )
    parser.add_argument('--threads', type=int, default=0, help='of an .onnx file; 0: all cores')
    parser.add_argument(
        '--resume', action='store_true', help='leave frames alone whose files are all there'
    )
    parser.add_argument(
        '--skip-incomplete',
        action='store_true',
        help='leave out frames of which a folder has no file',
    )
    parser.add_argument(
        '--treat-empty',
        choices=['use', 'absent'],
        default='use',
        help='what becomes of a modality whose values are all equal or not finite; a warning comes '
        'in either case (default: %(default)s)',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse depth that can hardly be metres, and grey files as colour, instead of warning',
    )
    args = parser.parse_args(argv)
    check_model(args, parser)
    twice = {name for name, _ in args.input if [n for n, _ in args.input].count(name) > 1}
    if twice:
        parser.error(f"modality '{twice.pop()}' is given twice: give one file or folder for each")
    return args


def predict(args: argparse.Namespace) -> None:
    from ..apis import CENInferencer
    from ..datasets.transforms.plausible import ImplausibleWarning

    if args.strict:
        warnings.simplefilter('error', ImplausibleWarning)
    inferencer = CENInferencer(
        args.model,
        args.checkpoint,
        device=args.device,
        apart=args.apart,
        streams=args.streams,
        depth_unit=args.depth_unit,
        size=tuple(args.size) if args.size else None,
        threads=args.threads,
        treat_empty=args.treat_empty,
    )
    if args.streams and all(name.split('/')[-1] == 'ensemble' for name in inferencer.outputs):
        raise ValueError(f'{args.model} has no stream: export it with --streams, or leave it out')
    if args.depth_unit and not inferencer.takes_depth:
        names = ' and '.join(inferencer.modalities)
        raise ValueError(f'the model takes {names}, no depth in a unit: leave --depth-unit out')
    found = inferencer(
        dict(args.input),
        batch_size=args.batch_size,
        out_dir=args.out_dir,
        overlay=args.overlay,
        sheets=args.sheets,
        resume=args.resume,
        skip_incomplete=args.skip_incomplete,
    )
    predictions, skipped = found['predictions'], found['skipped']
    folders = dict.fromkeys(path.parent for one in predictions for path in one.files)
    count = f'{len(predictions)} frame' + 's' * (len(predictions) != 1)
    print(f'{count} predicted' + f', {len(skipped)} were there' * bool(skipped))
    subsets = Counter(' and '.join(one.present) for one in predictions)
    for names, frames in subsets.items() if len(inferencer.network.inputs) > 1 else ():
        print(f'  {frames} from {names}' + ' alone' * (' and ' not in names))
    for folder in folders:
        print(f'  {folder}')


def main(argv: Sequence[str] | None = None) -> None:
    predict(parse_args(argv))
