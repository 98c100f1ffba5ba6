"""Write a trained model for ONNX Runtime, checked against PyTorch: `mmcen export CONFIG
CHECKPOINT`. Batch, height and width are free. The model is simplified first: the norms' statistics
are folded into the convolutions, exchange becomes a fixed choice of channels, and unused parts are
removed."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..shipped import DEFAULT_MODEL, INT8_MODEL, shipped_model


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen export', description=__doc__)
    parser.add_argument(
        'config', help=f'config file, or the model that comes with mmcen: {DEFAULT_MODEL}'
    )
    parser.add_argument('checkpoint', nargs='?', help="checkpoint of the config's model")
    parser.add_argument(
        '--out',
        type=Path,
        help='default: the checkpoint, ending in .onnx. If it ends in .safetensors, only weights '
        'are written, in half precision: a small checkpoint to share',
    )
    parser.add_argument(
        '--outputs',
        nargs='+',
        metavar='NAME',
        help='ensemble, a modality, or TASK/ensemble, TASK/MODALITY; default: the ensembles. A '
        'single stream needs fewer computations',
    )
    parser.add_argument('--streams', action='store_true', help='all outputs')
    parser.add_argument(
        '--present',
        nargs='+',
        metavar='MODALITY',
        help='modalities that the file takes; the streams of the others are left out',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=[256, 256],
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the frames for the comparison and the count; the file takes any size '
        '(default 256 256)',
    )
    parser.add_argument(
        '--whole',
        action='store_true',
        help='export the model unchanged: for fusion layers and other parts that cannot be '
        'simplified',
    )
    parser.add_argument(
        '--labels',
        action='store_true',
        help='the file gives label maps, uint8 of the size of the input, in place of logits',
    )
    _add_int8(parser)
    args = parser.parse_intermixed_args(argv)
    check_options(args, parser)
    return name_files(args, parser)


def check_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Reject options that have no effect, and too few frames."""
    if not args.int8 and (args.calibrate or args.max_loss is not None):
        parser.error('--calibrate and --max-loss are for --int8: give it, too')
    if args.frames < 4:
        parser.error(f'--frames {args.frames} is too few to calibrate and check: give 4 or more')
    for name in ('int8', 'labels', 'whole', 'outputs', 'streams', 'present'):
        if args.out and args.out.suffix == '.safetensors' and getattr(args, name):
            parser.error(f'--{name} is for an .onnx file, and {args.out} has weights: leave it out')


def name_files(args: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Find the files of a model that comes with mmcen, and name the file to write."""
    beside = Path(args.checkpoint or args.config)
    if args.checkpoint is None:
        if args.config == INT8_MODEL:
            parser.error(f'{INT8_MODEL} is an exported file: export {DEFAULT_MODEL}')
        if args.config != DEFAULT_MODEL:
            parser.error('a config needs a checkpoint: give both')
        args.config, args.checkpoint = map(str, shipped_model(args.config))
    some = f'.{"-".join(args.present)}' if args.present else ''  # not in the place of the whole
    args.out = args.out or beside.with_suffix(f'{some}.int8.onnx' if args.int8 else f'{some}.onnx')
    return args


def _add_int8(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('int8')
    group.add_argument(
        '--int8',
        action='store_true',
        help='quantise to 8 bits, and check the loss on frames that were not used for that',
    )
    group.add_argument(
        '--calibrate',
        nargs='+',
        metavar='FOLDER',
        help='frames: MODALITY=FOLDER for each modality, or one folder with a folder for each; '
        "default: the config's training set, with its labels",
    )
    group.add_argument(
        '--max-loss',
        type=float,
        help='no file is written if more is lost: points of mIoU (default 0.5); without labels '
        'per cent of the pixels that change their label (default 3)',
    )
    group.add_argument(
        '--frames',
        type=int,
        default=96,
        help='half of them calibrate, half of them check (default %(default)s)',
    )


def export(args: argparse.Namespace) -> None:
    import torch

    from ..apis import CENInferencer
    from ..core import exchange_norms
    from ..deploy import as_it_is, deploy, export_onnx
    from ..deploy.onnx import import_onnx

    if args.out.suffix == '.safetensors':
        return export_weights(args)
    import_onnx()  # before the work
    inferencer = CENInferencer(args.config, args.checkpoint, device='cpu', streams=args.streams)
    model, present = inferencer.model, args.present
    outputs = args.outputs or inferencer.outputs_of(present)
    out = args.out
    norms = [norm for _, norm in exchange_norms(model)]
    if norms:
        exchanged = sum(int(norm.exchange_mask().sum()) for norm in norms)
        channels = sum(norm.exchangeable.numel() for norm in norms)
        print(f'{exchanged / channels:.0%} of the channels of {len(norms)} norms are exchanged')
    size = (args.size[0], args.size[1])
    whole = as_it_is(model, outputs, present)
    whole.check_size(size)
    frames = tuple(torch.zeros(1, channels, *size) for channels in whole.inputs.values())
    before = multiply_adds(whole, frames)
    if not args.whole:
        with torch.no_grad():
            after = multiply_adds(deploy(model, outputs, present), frames)
        print(
            f'multiply-adds of a frame of {size[0]}x{size[1]}: {before / 1e9:.2f} G, simplified '
            f'{after / 1e9:.2f} G ({after / before - 1:+.1%})'
        )
    print('writing the file, and comparing', flush=True)  # most of a minute
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'float.onnx') if args.int8 else out
        about = inferencer.about()
        worst = export_onnx(model, file, outputs, size, args.whole, about, present, args.labels)
        print(f'ONNX Runtime and PyTorch differ by {worst:.1e} of the largest output at most')
        if args.int8:
            quantise(args, inferencer, file, out)
    print(f'written: {out} ({out.stat().st_size / 2**20:.1f} MiB), outputs {", ".join(outputs)}')
    files = ' '.join(f'{name}={name}.png' for name in inferencer.sources_of(list(whole.inputs)))
    print(f'predict: mmcen predict {out} --input {files}')


def quantise(args: argparse.Namespace, inferencer: Any, file: Path, out: Path) -> None:
    """Write a float file in int8."""
    from ..apis.calibration import frames_of_folders, frames_of_training_set
    from ..deploy import OnnxNetwork
    from ..deploy.int8 import write_int8

    inputs = list(OnnxNetwork(file).inputs)
    if args.calibrate:
        frames = frames_of_folders(inferencer, inputs, args.calibrate, args.frames)
    else:
        frames = frames_of_training_set(inferencer.cfg, inputs, args.frames)
    loss = write_int8(file, out, frames, args.max_loss, lambda text: print(text, flush=True))
    print(f'int8: {loss}')


def export_weights(args: argparse.Namespace) -> None:
    """Write the weights alone, after checking that they are the model's."""
    from ..apis import CENInferencer
    from ..checkpoints import write_weights

    model = CENInferencer(args.config, args.checkpoint, device='cpu').model
    meta = {'dataset_meta': model.dataset_meta}
    write_weights({'state_dict': model.state_dict(), 'meta': meta}, args.out)
    print(f'written: {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB)')


def multiply_adds(network: Any, frames: tuple[Any, ...]) -> int:
    """Count the multiply-adds of a network on frames."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.requires_grad_(False)(*frames)
    return counter.get_total_flops() // 2


def main(argv: Sequence[str] | None = None) -> None:
    export(parse_args(argv))
