"""Draw the paper's figures for any checkpoint or log:

features      averaged feature maps by channel category (Fig. 3)
predictions   models side by side on your own frames (Figs. 4 to 6)
proportions   scaling factors of the streams, channel by channel, in each layer (Figs. 7 and 12)
scales        scaling factors of a layer over training, from its checkpoints (Fig. 8)
exchange      exchanged share of each layer over training, from its log
mask          which channels of each layer are exchanged
curves        trainings side by side: losses, scores or shares, from their logs
sensitivity   a metric against lambda and theta, from the table of `run.py run figure9` (Fig. 9)
cost          a metric against the multiply-adds of the deployed networks, from a table of run.py
robust        models with failing sensors side by side, from tables of `mmcen test --robust`
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track

from mmcen.cli.common import exit_status, pair, unit

Add = Callable[..., argparse.ArgumentParser]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    figures = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')

    def add(name: str, what: str, of_model: bool = False) -> argparse.ArgumentParser:
        one = figures.add_parser(name, help=what, description=what)
        if of_model:
            one.add_argument('config', help='config file')
            one.add_argument('checkpoint', help='checkpoint')
        one.add_argument('--out', type=Path, default=Path(f'{name}.png'), help='%(default)s')
        return one

    add_figures_of_frames(add)
    add_figures_of_scales(add)
    add_figures_of_logs(add)
    return parser.parse_args()


def add_inputs(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        '--input', nargs='+', type=pair, required=True, metavar='MODALITY=FILE',
        help='a file for each modality; predictions: or a folder',
    )  # fmt: skip
    one.add_argument('--depth-unit', type=unit, help='m, cm, mm, or metres per stored unit')


def add_figures_of_frames(add: Add) -> None:
    one = add('features', 'averaged feature maps by channel category (Fig. 3)', True)
    add_inputs(one)
    one.add_argument('--layer', help='name of an exchanging norm; default: one in the middle')
    one = add('predictions', 'models side by side (Figs. 4 to 6)')
    add_inputs(one)
    one.add_argument(
        '--model', nargs=3, action='append', required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'), help='give it once for each model',
    )  # fmt: skip
    one.add_argument('--label', type=Path, help='a folder or file of label maps, classes from 0')
    one.add_argument(
        '--reduce-zero-label', action='store_true',
        help="label maps' classes start at 1, and 0 is no class, as NYUv2's masks",
    )  # fmt: skip
    one.add_argument('--frames', type=int, default=4, help='rows, default %(default)s')
    one.add_argument(
        '--alone', action='store_true', help='also each model from each of its modalities alone'
    )


def add_figures_of_scales(add: Add) -> None:
    one = add('proportions', 'scaling factors channel by channel (Figs. 7 and 12)', True)
    one.add_argument('--layers', nargs='+', help='names of exchanging norms; default all')
    one = add('scales', 'scaling factors over training (Fig. 8)')
    one.add_argument('config', help='config file')
    one.add_argument(
        'work_dir', type=Path, help='folder of checkpoints epoch_<n>.pth or iter_<n>.pth'
    )
    one.add_argument('--layer', help='name of an exchanging norm; default: one in the middle')
    one.add_argument('--stream', help='default: the first')
    one = add('mask', 'which channels of each layer are exchanged', True)
    one.add_argument('--layers', nargs='+', help='names of exchanging norms; default all')


def add_figures_of_logs(add: Add) -> None:
    one = add('exchange', 'exchanged share by layer over training')
    one.add_argument('work_dir', type=Path, help='work directory of a training')
    one = add('curves', 'trainings side by side')
    one.add_argument(
        '--run', nargs=2, action='append', required=True, metavar=('NAME', 'WORK_DIR'),
        help='give it once for each training',
    )  # fmt: skip
    one.add_argument(
        '--scalars', nargs='+', default=['loss'], metavar='SCALAR',
        help='names of logged values, a panel each, such as mIoU exchanged/rgb; default loss',
    )  # fmt: skip
    one = add('sensitivity', 'a metric by lambda and theta (Fig. 9)')
    one.add_argument('table', type=Path, help='figure9.csv of projects/paper/run.py')
    one.add_argument('--metric', default='mIoU', help='default %(default)s')
    one = add('cost', 'a metric by multiply-adds of the deployed networks')
    one.add_argument('table', type=Path, help='a .csv table of projects/paper/run.py')
    one.add_argument('--metric', default='mIoU', help='default %(default)s')
    one.add_argument('--rows', nargs='+', metavar='ROW', help='rows of the table, default all')
    one = add('robust', 'models with failing sensors side by side, and their table')
    one.add_argument(
        '--model', nargs=2, action='append', required=True, metavar=('NAME', 'TABLE'),
        help='its name and the robust.csv of mmcen test --robust; once for each',
    )  # fmt: skip
    one.add_argument('--metric', default='mIoU', help='default %(default)s')


def load(config, checkpoint, **kwargs):
    print(f'loading {config} ...', file=sys.stderr, flush=True)
    from mmcen.apis import CENInferencer

    return CENInferencer(config, checkpoint, device='cpu', show_progress=False, **kwargs)


def by_name(given: list[list[str]], what: str) -> dict[str, list[str]]:
    """Return the arguments after each NAME on the command line."""
    found = {name: rest for name, *rest in given}
    if len(found) < len(given):
        raise ValueError(f'{len(given)} {what} have {len(found)} names: give each its own')
    return found


def norms_of(model, wanted=None) -> dict:
    """Return exchanging norms by name: the given ones, or all."""
    from mmcen.core import exchange_norms

    norms = dict(exchange_norms(model))
    if not norms:
        raise ValueError('no norm of this model exchanges: there is nothing to draw')
    unknown = [name for name in wanted or () if name not in norms]
    if unknown:
        raise ValueError(f'no exchanging norm is called {unknown[0]}: there are {list(norms)}')
    return {name: norms[name] for name in wanted or norms}


def middle(norms: dict) -> str:
    return list(norms)[len(norms) // 2]


def stream_names(model) -> list[str]:
    return list(model.streams)


def draw_features(args) -> Figure:
    from mmcen.apis.frames import find_frames
    from mmcen.visualization.figures import feature_categories

    inferencer = load(args.config, args.checkpoint, depth_unit=args.depth_unit)
    norms = norms_of(inferencer.model)
    layer = args.layer or middle(norms)
    norm = norms_of(inferencer.model, [layer])[layer]
    seen = []
    # the layer's features as they are before its exchange; an activation may overwrite them
    norm.exchange = False
    handle = norm.register_forward_hook(lambda module, given, y: seen.append(y.clone()))
    (frame,) = find_frames(dict(args.input), inferencer.modalities)[:1]
    (found,) = inferencer.predict([frame])
    handle.remove()
    norm.exchange = True
    features = norm.grid.unfold(seen[0])[0].flatten(0, 1)  # (S, C, h, w)
    mask = norm.exchange_mask().flatten(0, 1)  # (S, C)
    streams = stream_names(inferencer.model)
    kinds = {f'{name} ~ 0': mask[s] for s, name in enumerate(streams)}
    kinds['all > 0'] = ~mask.any(0)
    averages = {
        name: {
            kind: features[s][channels].mean(0).numpy() if channels.any() else None
            for kind, channels in kinds.items()
        }
        for s, name in enumerate(streams)
    }
    pictures = {name: found.inputs[name.rsplit('/', 1)[-1]] for name in streams}
    counts = {kind: int(channels.sum()) for kind, channels in kinds.items()}
    print(f'{layer}: ' + ', '.join(f'{kind}: {n} channels' for kind, n in counts.items()))
    return feature_categories(pictures, averages, counts)


def draw_predictions(args) -> Figure:
    from PIL import Image

    from mmcen.apis.frames import Frame, find_frames
    from mmcen.visualization.sheet import class_colours, sheet

    models = {
        name: load(*files, depth_unit=args.depth_unit)
        for name, files in by_name(args.model, 'models').items()
    }
    # all models get the same frames, and each reads its own modalities
    modalities = list(dict.fromkeys(key for one in models.values() for key in one.modalities))
    frames = find_frames(dict(args.input), modalities)[: args.frames]
    inputs: list[dict] = [{} for _ in frames]
    outputs: list[dict] = [{} for _ in frames]
    legend: tuple = ()
    for name, inferencer in models.items():
        for i, frame in enumerate(track(frames, name)):
            (found,) = inferencer.predict([frame])
            inputs[i] |= found.inputs
            shown = {name: found}
            for own in inferencer.modalities if args.alone else ():
                one = Frame(frame.name, {own: frame.files[own]})
                (shown[f'{name}, {own} alone'],) = inferencer.predict([one])
            for title, prediction in shown.items():
                (pictures,) = inferencer.visualize([], [prediction])
                outputs[i] |= {
                    f'{title}\n{output}': picture for output, picture in pictures.items()
                }
        if any(value.ndim == 2 for value in found.outputs.values()):
            legend = (inferencer.meta.get('classes', ()), inferencer.meta.get('palette', ()))
    if args.label:
        for frame, row in zip(frames, outputs, strict=True):
            path = args.label if args.label.is_file() else args.label / f'{frame.name}.png'
            label = torch.from_numpy(np.array(Image.open(path)))  # 8 bits: 0 becomes 255
            row['label'] = class_colours(
                label - 1 if args.reduce_zero_label else label, legend[1] if legend else ()
            )
    return sheet([x | y for x, y in zip(inputs, outputs, strict=True)], *legend)


def draw_proportions(args) -> Figure:
    from mmcen.visualization.figures import scale_proportions

    model = load(args.config, args.checkpoint).model
    norms = norms_of(model, args.layers)
    gammas = {
        name: norm.gamma().detach().abs().flatten(0, 1).numpy() for name, norm in norms.items()
    }
    thresholds = {name: threshold_of(norm) or 0.0 for name, norm in norms.items()}
    return scale_proportions(gammas, thresholds, stream_names(model))


def threshold_of(norm) -> float | None:
    """Return theta, or None for another selection."""
    return getattr(norm.selection, 'threshold', None)


def draw_mask(args) -> Figure:
    from mmcen.visualization.figures import mask_by_layer

    model = load(args.config, args.checkpoint).model
    norms = norms_of(model, args.layers)
    masks = {name: norm.exchange_mask().flatten(0, 1).numpy() for name, norm in norms.items()}
    return mask_by_layer(masks, stream_names(model))


def draw_scales(args) -> Figure:
    from mmcen.visualization.figures import scales_over_training

    paths = {
        int(match[1]): path
        for path in args.work_dir.glob('*.pth')
        if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name))
    }
    if len(paths) < 2:
        raise ValueError(
            f'{args.work_dir} has {len(paths)} checkpoints epoch_<n>.pth, it takes two or more: '
            'train with --cfg-options default_hooks.checkpoint.interval=1 '
            'default_hooks.checkpoint.max_keep_ckpts=-1'
        )
    steps = sorted(paths)
    model = load(args.config, paths[steps[-1]]).model
    norms, streams = norms_of(model), stream_names(model)
    layer, stream = args.layer or middle(norms), args.stream or streams[0]
    if stream not in streams:
        raise ValueError(f'no stream is called {stream}: there are {streams}')
    norm, s = norms_of(model, [layer])[layer], streams.index(stream)
    gammas = []
    for step in steps:
        state = torch.load(paths[step], map_location='cpu', weights_only=True)['state_dict']
        if f'{layer}.norm.weight' not in state:
            raise ValueError(
                f'{paths[step]} has no {layer}: keep checkpoints of one training in {args.work_dir}'
            )
        gammas.append(state[f'{layer}.norm.weight'].view(-1, norm.num_features)[s].numpy())
    threshold = threshold_of(norm)
    if threshold is None:
        mask = norm.exchange_mask().flatten(0, 1)[s].numpy()
        groups = {'exchanged at the end': mask, 'not exchanged': ~mask}
    else:
        within = norm.penalised.flatten(0, 1)[s].numpy()
        groups = {
            'within the sparsity constraint': within, 'beyond the sparsity constraint': ~within
        }  # fmt: skip
    title = f'{layer}, {stream}'
    return scales_over_training(steps, np.stack(gammas), groups, threshold, title)


def draw_exchange(args) -> Figure:
    from mmcen.visualization.figures import exchange_by_layer
    from mmcen.visualization.run_log import RunLog

    exchange = RunLog(args.work_dir).exchange
    if not exchange:
        raise ValueError(f'{args.work_dir} has logged no exchange: train with ExchangeMonitorHook')
    return exchange_by_layer(exchange)


def draw_curves(args) -> Figure:
    from mmcen.visualization.figures import curves
    from mmcen.visualization.run_log import RunLog

    logs = {name: RunLog(Path(place)) for name, (place,) in by_name(args.run, 'runs').items()}
    found = {name: log.training | log.validation for name, log in logs.items()}
    groups = {
        scalar: {name: series[scalar] for name, series in found.items() if scalar in series}
        for scalar in args.scalars
    }
    for scalar, lines in groups.items():
        if not lines:
            there = ', '.join(sorted(set().union(*found.values())))
            raise ValueError(f'no run has logged {scalar}: there are {there}')
    return curves(groups)


def sweeps(table: Path, metric: str) -> dict[str, dict[str, list]]:
    """What :func:`~mmcen.visualization.figures.sensitivity` draws, of figure9.csv."""
    points: dict[str, dict[str, list]] = {}
    with table.open() as file:
        for line in csv.DictReader(file):
            kind, how, sweep = line['row'].split('+')
            name, _, factor = sweep.partition('-x')
            mean = line.get(f'{metric} mean')
            if not mean:
                continue
            share = float(line.get('exchanged % mean') or 'nan')
            point = (
                float(factor or 1), float(mean), float(line[f'{metric} deviation'] or 0), share
            )  # fmt: skip
            # the default is the centre of both sweeps
            for parameter in ('lambda', 'theta') if name == 'default' else (name,):
                points.setdefault(f'{kind}, {parameter}', {}).setdefault(how, []).append(point)
    return points


def draw_sensitivity(args) -> Figure:
    from mmcen.visualization.figures import sensitivity

    try:
        points = sweeps(args.table, args.metric)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # as rows turn out
        raise ValueError(
            f'{args.table} is not the figure9.csv that projects/paper/run.py run figure9 writes: '
            'give that'
        ) from error
    if not points:
        raise ValueError(
            f'{args.table} has no figure of {args.metric}: run '
            'projects/paper/run.py run figure9 first, or name another --metric'
        )
    return sensitivity(points, args.metric)


def draw_cost(args) -> Figure:
    from mmcen.visualization.figures import cost

    points = {}
    with args.table.open() as file:
        for line in csv.DictReader(file):
            mean, count = line.get(f'{args.metric} mean'), line.get('deployed_multiply_adds')
            if mean and count and line['row'] in (args.rows or [line['row']]):
                deviation = float(line[f'{args.metric} deviation'] or 0)
                points[line['row']] = (float(count) / 1e9, float(mean), deviation)
    if not points:
        raise ValueError(
            f'{args.table} has no figure of {args.metric} with multiply-adds: give a .csv table of '
            'projects/paper/run.py run, or name another --metric or other --rows'
        )
    return cost(points, args.metric)


def draw_robust(args) -> Figure:
    from mmcen.visualization.figures import robustness

    scores: dict[str, dict[str, float]] = {}
    for name, (table,) in by_name(args.model, 'models').items():
        with open(table) as file:
            lines = [line for line in csv.DictReader(file) if line.get(args.metric)]
        groups = [line['group'] for line in lines]
        scores[name] = {line['case']: float(line[args.metric]) for line in lines}
        if not lines or list(scores[name]) != list(next(iter(scores.values()))):
            raise ValueError(
                f'{table} has not the same cases as the first table, or no {args.metric}: give '
                'robust.csv files of one test set, or name another --metric'
            )
    print(f'| case | {" | ".join(scores)} |\n| --- |{" ---: |" * len(scores)}')
    for group, case in zip(groups, scores[name], strict=True):
        row = ' | '.join(f'{own[case]:.2f}' for own in scores.values())
        print(f'| {group}: {case} | {row} |')
    return robustness(scores, groups, args.metric)


DRAW = {
    'features': draw_features,
    'predictions': draw_predictions,
    'proportions': draw_proportions,
    'scales': draw_scales,
    'exchange': draw_exchange,
    'mask': draw_mask,
    'curves': draw_curves,
    'sensitivity': draw_sensitivity,
    'cost': draw_cost,
    'robust': draw_robust,
}


def draw(args: argparse.Namespace) -> None:
    from mmcen.visualization.sheet import save_figure

    save_figure(DRAW[args.figure](args), args.out)
    print(f'written: {args.out}')


def main() -> int:
    args = parse_args()
    return exit_status(lambda: draw(args))


if __name__ == '__main__':
    sys.exit(main())
