"""Predict on your own files: `mmcen predict CONFIG CHECKPOINT --input rgb=a.png depth=b.png`.
Give folders to predict on all their files, matched by name or by time stamps, or videos. No label
is needed. The model predicts without the modalities that are absent."""

import argparse
import re
import time
import warnings
from collections import Counter
from collections.abc import Sequence

from ..shipped import CONFIG_OF, shipped_model
from .common import add_model, check_model, pair, unit

DEFAULT_GAP = 0.02  # seconds, as TUM RGB-D pairs its files


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen predict', description=__doc__)
    add_model(parser)
    _add_input(parser.add_argument_group('input'))
    _add_output(parser.add_argument_group('output'))
    _add_running(parser.add_argument_group('running'))
    args = parser.parse_args(argv)
    check_model(args, parser)
    args.input = _place_or_pairs(args.input, parser)
    if args.max_gap is not None and args.pair != 'nearest':
        parser.error('--max-gap is the largest gap of --pair nearest: add it')
    if args.fps is not None and args.out_video is None:
        parser.error('--fps is the rate of --out-video: add it')
    if args.out_dir is None and args.out_video is None:
        args.out_dir = 'predictions'
    return args


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--input',
        nargs='+',
        required=True,
        metavar='MODALITY=FILE',
        help='a file, folder or video for each modality that is there, of those that the model '
        'takes; or one folder that holds them, a list of pairs (associations.txt), or a recording '
        '(.bag of a RealSense, .mkv of an Azure Kinect)',
    )
    group.add_argument(
        '--pair',
        choices=['name', 'nearest'],
        default='name',
        help='which files of folders belong together: those of one name, or those of the nearest '
        'time stamps, which the names are, in seconds (default: %(default)s)',
    )
    group.add_argument(
        '--max-gap',
        type=seconds,
        metavar='20ms',
        help='largest gap of --pair nearest (default: 20ms)',
    )
    group.add_argument(
        '--skip-incomplete',
        action='store_true',
        help='leave out frames of which a folder has no file',
    )
    group.add_argument(
        '--depth-unit',
        type=unit,
        help="of depth files: m, cm, mm, or metres per stored unit; by default the model's data "
        'set says it, else whole numbers are mm and others m',
    )
    group.add_argument(
        '--treat-empty',
        choices=['use', 'absent'],
        default='use',
        help='what becomes of a modality in which all finite values of a channel are equal; a '
        'warning comes in either case (default: %(default)s)',
    )
    group.add_argument(
        '--strict',
        action='store_true',
        help='refuse depth that can hardly be metres, and grey files as colour, instead of warning',
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--out-dir', help='default: predictions; with --out-video alone, no other file is written'
    )
    group.add_argument(
        '--out-video',
        metavar='FILE.mp4',
        help='write the overlays as a video, too: .mp4, .avi, .webm or .mkv',
    )
    group.add_argument(
        '--fps', type=float, help='of --out-video; default: those of the video given, else 30'
    )
    group.add_argument('--streams', action='store_true', help="write each stream's output, too")
    group.add_argument(
        '--sheets', action='store_true', help='write inputs and outputs side by side, too'
    )
    group.add_argument(
        '--overlay',
        type=float,
        default=0.5,
        metavar='0..1',
        help="weight of the classes' colours over the frame's; 0 writes none (default %(default)s)",
    )
    group.add_argument(
        '--resume', action='store_true', help='leave frames alone whose files are all there'
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='that the model gets; by default what it was tested at. Predictions have the size of '
        'the frame',
    )
    group.add_argument('--batch-size', type=int, default=1, help='default: %(default)s')
    group.add_argument('--device', help='such as cuda:0; by default the best there is')
    group.add_argument(
        '--apart', action='store_true', help='take the model apart first: the same, faster'
    )
    group.add_argument('--threads', type=int, default=0, help='of an .onnx file; 0: all cores')


def seconds(text: str) -> float:
    """Parse a time such as ``20ms`` into seconds."""
    match = re.fullmatch(r'(\d+\.?\d*)(ms|s)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give it as 20ms or 0.02s")
    return float(match[1]) / (1000 if match[2] == 'ms' else 1)


def _place_or_pairs(given: Sequence[str], parser: argparse.ArgumentParser) -> str | dict[str, str]:
    """One folder or file, or a file for each modality."""
    if len(given) == 1 and '=' not in given[0]:
        return given[0]
    try:
        pairs = [pair(text) for text in given]
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"modality '{name}' is given twice: give one file or folder for each")
    return dict(pairs)


def predict(args: argparse.Namespace) -> None:
    from ..apis import CENInferencer
    from ..datasets.transforms.plausible import ImplausibleWarning
    from ..deploy import OnnxNetwork

    if args.strict:
        warnings.simplefilter('error', ImplausibleWarning)
    model = args.model
    if args.threads:
        model = str(shipped_model(model)[1]) if model in CONFIG_OF else model
        if not model.endswith('.onnx'):
            raise ValueError(f'--threads is for .onnx files and not for {args.model}')
        model = OnnxNetwork(model, args.threads)
    inferencer = CENInferencer(
        model,
        args.checkpoint,
        device=args.device,
        apart=args.apart,
        streams=args.streams,
        depth_unit=args.depth_unit,
        size=tuple(args.size) if args.size else None,
        treat_empty=args.treat_empty,
    )
    if args.streams and all(name.split('/')[-1] == 'ensemble' for name in inferencer.outputs):
        raise ValueError(f'{args.model} has no stream: export it with --streams, or leave it out')
    if args.depth_unit and not inferencer.takes_depth:
        names = ' and '.join(inferencer.modalities)
        raise ValueError(f'the model takes {names}, no depth in a unit: leave --depth-unit out')
    start = time.perf_counter()
    found = inferencer(
        args.input,
        batch_size=args.batch_size,
        out_dir=args.out_dir,
        overlay=args.overlay,
        sheets=args.sheets,
        resume=args.resume,
        skip_incomplete=args.skip_incomplete,
        max_gap=None
        if args.pair == 'name'
        else DEFAULT_GAP
        if args.max_gap is None
        else args.max_gap,
        out_video=args.out_video,
        rate=args.fps,
    )
    _report(args, found, time.perf_counter() - start, len(inferencer.network.inputs))


def _report(args: argparse.Namespace, found: dict[str, list], duration: float, inputs: int) -> None:
    predictions, skipped = found['predictions'], found['skipped']
    folders = dict.fromkeys(path.parent for one in predictions for path in one.files)
    count = f'{len(predictions)} frame' + 's' * (len(predictions) != 1)
    print(f'{count} predicted' + f', {len(skipped)} were there' * bool(skipped))
    subsets = Counter(' and '.join(one.present) for one in predictions)
    for names, frames in subsets.items() if inputs > 1 else ():
        print(f'  {frames} from {names}' + ' alone' * (' and ' not in names))
    if len(predictions) > 1:
        print(f'  {len(predictions) / duration:.1f} frames per second, with reading and writing')
    for place in [*folders, *([args.out_video] if args.out_video else [])]:
        print(f'  {place}')


def main(argv: Sequence[str] | None = None) -> None:
    predict(parse_args(argv))
