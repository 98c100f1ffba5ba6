"""The rows of the paper's tables: published figures, and the trainings that give ours.

What the paper prints is in ``published.yaml``; here is what to run for it. A row without a training
says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .experiments import DATASETS, Fusion, Run

PUBLISHED = Path(__file__).with_name('published.yaml')
SEGMENTER = 'nyud_refinenet_r101.py'
NORM = 'model.backbone.norm_cfg'
CITED = "others' method: its figures are quoted by the paper, and it is not here"
FUSIONS = {
    'concat': 'ConcatFusion',
    'average': 'AverageFusion',
    'align': 'AlignFusion',
    'selfatt': 'SelfAttentionFusion',
    'cbn': 'CBNFusion',
}
EXCHANGED = 'exchanged %'  # of the channels of the norms that exchange
Published = Mapping[str, float | None]
Options = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        published: by column, None where the paper prints nothing.
        runs: trainings by the prefix of the columns they fill, '' for the whole row.
        why: why it, or a part of it, cannot be run.
        at_home: whether each run makes sense on the data set of its config alone.
    """

    published: Published
    runs: Mapping[str, Run] = field(default_factory=dict)
    why: str = ''
    at_home: bool = False

    def runs_on(self, dataset: str) -> dict[str, Run]:
        """Those that a data set serves."""
        return {
            part: run
            for part, run in self.runs.items()
            if (dataset == run.home if self.at_home else run.fits(dataset))
        }

    def datasets(self) -> list[str]:
        """Where the row can be run."""
        return [name for name in DATASETS if self.runs_on(name)]

    def shows(self, column: str, metric: str) -> bool:
        """Whether a measured figure has a place: published, or an error of a translated task."""
        if metric == EXCHANGED:
            return True
        of_task = metric.count('/') == 1 and metric.endswith(('/MAE', '/RMSE'))
        return self.published.get(column) is not None or column in ('mIoU', 'MAE') or of_task


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        name: table1 and so on.
        title: what it is about.
        page: of the paper.
        rows: by name.
    """

    name: str
    title: str
    page: int | str
    rows: Mapping[str, Row]


def fused(config: str, method: str, merge: bool) -> Run:
    """A fusion baseline, 'concat-early' and so on, in place of exchange."""
    kind, _, stage = method.rpartition('-')
    return Run(config, fusion=Fusion(FUSIONS[kind], stage, merge))


def of_options(config: str, by_key: Mapping[str, Options]) -> Callable[[str, Published], Row]:
    """Rows that change settings of one config."""
    return lambda key, published: Row(published, {'': Run(config, by_key[key])})


PRIVATE_CONVS: Options = {'model.convs': 'private'}
NO_EXCHANGE: Options = {f'{NORM}.exchange': False}
PENALTY_ALONE: Options = {f'{NORM}.threshold': 0.0}
ALL_CHANNELS: Options = {f'{NORM}.region': 'all', f'{NORM}.penalty_region': 'all'}
VERSIONS: dict[str, Options] = {
    'unshared': PRIVATE_CONVS | NO_EXCHANGE,
    'shared': {'model.norms': 'shared', NORM: dict(_delete_=True, type='BN')},
    'private-norms': NO_EXCHANGE,
    'fixed': {f'{NORM}.selection': 'fixed'},
    'random': {f'{NORM}.selection': 'random'},
    'unshared-all': PRIVATE_CONVS | ALL_CHANNELS | PENALTY_ALONE,
    'unshared-all-exchange': PRIVATE_CONVS | ALL_CHANNELS,
    'shared-all': ALL_CHANNELS | PENALTY_ALONE,
    'shared-all-exchange': ALL_CHANNELS,
    'unshared-half': PRIVATE_CONVS | PENALTY_ALONE,
    'unshared-half-exchange': PRIVATE_CONVS,
    'shared-half': PENALTY_ALONE,
    'cen': {},
}


def table2(key: str, published: Published) -> Row:
    if key in ('rgb', 'depth'):
        return Row(published, {'': Run(f'nyud_refinenet_r101_{key}.py')})
    if key == 'cen':
        return Row(published, {'': Run(SEGMENTER)})
    runs = {'common': fused(SEGMENTER, key, True), '': fused(SEGMENTER, key, False)}
    return Row(published, runs)


def table3(key: str, published: Published) -> Row:
    if key in ('cen-refinenet-r101', 'cen-refinenet-r152'):
        return Row(published, why=f'several scales: tools/test.py --tta on {key}-single')
    runs = {}
    for column, prefix in (('nyudv2', 'nyud'), ('sunrgbd', 'sunrgbd')):
        segmenter = f'{prefix}_refinenet_r101.py'
        made = {
            'refinenet-r101-rgb': Run(f'{prefix}_refinenet_r101_rgb.py'),
            'ssma-r101': fused(segmenter, 'selfatt-all', False),
            'cbn-r101': fused(segmenter, 'cbn-all', False),
            'cen-refinenet-r101-single': Run(segmenter),
            'cen-refinenet-r152-single': Run(f'{prefix}_refinenet_r152.py'),
            'cen-pspnet-r152': Run(f'{prefix}_pspnet_r152.py'),
        }
        if key not in made:
            return Row(published, why=CITED)
        runs[column] = made[key]
    return Row(published, runs, at_home=True)


def table4(key: str, published: Published) -> Row:
    case, _, method = key.partition('+')
    config = f'taskonomy_{case}.py'
    return Row(published, {'': Run(config) if method == 'cen' else fused(config, method, True)})


def table5(key: str, published: Published) -> Row:
    return Row(published, {'': Run(f'taskonomy_{key}_to_rgb.py')})


def by_suffix(prefix: str, default: str) -> Callable[[str, Published], Row]:
    """Rows ``case+method`` with a config each, whose name ends with the method.

    Args:
        prefix: of the names.
        default: the method that is not named.
    """

    def row(key: str, published: Published) -> Row:
        case, _, method = key.partition('+')
        end = '' if method == default else f'_{method}'
        return Row(published, {'': Run(f'taskonomy_{prefix}{case}{end}.py')})

    return row


def table7(key: str, published: Published) -> Row:
    return by_suffix('', 'cen')(key.replace('+shared-encoder', '+noexchange'), published)


FOUR = 'taskonomy_depth-normal-texture-shade_to_rgb.py'
CASES = {
    'shade-texture': Run('taskonomy_shade-texture_to_rgb.py'),
    'shade-texture-depth': Run('taskonomy_shade-texture-depth_to_rgb.py'),
    'shade-texture-depth-normal': Run(FOUR),
    'depth-normal': Run('taskonomy_depth-normal_to_rgb.py'),
    'depth-normal-texture': Run('taskonomy_depth-normal-texture_to_rgb.py'),
    'depth-normal-texture-shade': Run(FOUR),
}
NETWORK = 'model.network'
PLAIN: Options = {f'{NETWORK}.encoder': dict(exchange=False)}
RUNNING: Options = PLAIN | {f'{NETWORK}.norm_cfg.track_running_stats': True}
SHARING: dict[str, Options] = {
    'unshared': PLAIN | {f'{NETWORK}.convs': 'private'},
    'shared': PLAIN | {f'{NETWORK}.norm_cfg': dict(_delete_=True, type='IN2d', affine=True)},
    'private-norms': PLAIN,
    'private-statistics': RUNNING | {f'{NETWORK}.norm_cfg.shared': 'affine'},
    'private-affine': RUNNING | {f'{NETWORK}.norm_cfg.shared': 'statistics'},
    'cen': {},
}


def sharing(key: str, published: Published) -> Row:
    """Tables 10 and 11."""
    case, _, method = key.partition('+')
    return Row(published, {'': Run(CASES[case].config, SHARING[method])})


def of_inputs(options: Callable[[str], Options], published: Published, key: str) -> Row:
    """Tables 12 and 13: a row is trained with two, three and four inputs."""
    runs = {}
    for case in ('depth-normal', 'depth-normal-texture', 'depth-normal-texture-shade'):
        if published.get(f'{case}/rgb/FID') is not None:
            runs[case] = Run(CASES[case].config, options(key))
    return Row(published, runs)


def table12(key: str, published: Published) -> Row:
    def replace(word: str) -> Options:
        word = word.replace('-', '_')
        return {} if word == 'cen' else {f'{NETWORK}.norm_cfg.replace': word}

    return of_inputs(replace, published, key)


def table13(key: str, published: Published) -> Row:
    everywhere = {f'{NETWORK}.norm_cfg.{name}': 'all' for name in ('region', 'penalty_region')}
    return of_inputs(lambda word: {} if word == 'cen' else everywhere, published, key)


def figure9(key: str, published: Published) -> Row:
    kind, how, sweep = key.split('+')
    config, norm = {
        'segmentation': (SEGMENTER, NORM),
        'translation': ('taskonomy_shade-texture_to_rgb.py', f'{NETWORK}.norm_cfg'),
    }[kind]
    options = {f'{norm}.replace': 'zero'} if how == 'zero' else {}
    name, _, factor = sweep.partition('-x')
    times = {name: float(factor)} if factor else {}
    return Row(published, {'': Run(config, options, times=times)})


def table14(key: str, published: Published) -> Row:
    if key != 'cen':
        return Row(published, why=CITED)
    return Row(published, {'': Run('saliency_njud-nlpr_refinenet_r50.py')})


MAKERS: dict[str, Callable[[str, Published], Row]] = {
    'table1': of_options(SEGMENTER, VERSIONS),
    'table2': table2,
    'table3': table3,
    'table4': table4,
    'table5': table5,
    'table6': by_suffix('cycle_', 'cycle'),
    'table7': table7,
    'table8': by_suffix('', 'cen'),
    'table9': by_suffix('', 'cen'),
    'table10': sharing,
    'table11': sharing,
    'table12': table12,
    'table13': table13,
    'figure9': figure9,
    'table14': table14,
}


def read_tables() -> dict[str, Table]:
    """All tables of ``published.yaml`` with what is run for them."""
    tables = {}
    for name, data in yaml.safe_load(PUBLISHED.read_text())['tables'].items():
        rows = {
            key: MAKERS[name](key, dict(zip(data['columns'], values, strict=True)))
            for key, values in data['rows'].items()
        }
        tables[name] = Table(name, data['title'], data['page'], rows)
    return tables


TABLES = read_tables()
