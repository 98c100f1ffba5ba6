"""The rows of the paper's tables, and of two of our own: the trainings that give our figures.

The paper's figures are in ``published.yaml``; this module has the trainings. A row without a
training states the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .experiments import DATASETS, FusionSpec, Run

PUBLISHED = Path(__file__).with_name('published.yaml')
SEGMENTER = 'nyud_refinenet_r101.py'
EXCHANGE = 'model.exchange'
TASKONOMY = 'taskonomy.py'
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
        published: Figures of the paper by column, None if it has none.
        runs: Trainings by prefix of their columns, '' for all columns.
        why: Reason why the row, or a part of it, cannot be run.
        at_home: Whether each run is only for the data set of its config.
    """

    published: Published
    runs: Mapping[str, Run] = field(default_factory=dict)
    why: str = ''
    at_home: bool = False

    def runs_on(self, dataset: str) -> dict[str, Run]:
        """Return the runs that a data set supports."""
        return {
            part: run
            for part, run in self.runs.items()
            if (dataset == run.home if self.at_home else run.fits(dataset))
        }

    @property
    def kind(self) -> str:
        """Kind of the runs of a row that has some."""
        return next(iter(self.runs.values())).kind

    def datasets(self) -> list[str]:
        """Return the data sets on which the row can be run."""
        return [name for name in DATASETS if self.runs_on(name)]

    def shows(self, column: str, metric: str) -> bool:
        """Whether a measured figure is shown: published ones, and errors of translated tasks."""
        if metric == EXCHANGED:
            return True
        of_task = metric.count('/') == 1 and metric.endswith(('/MAE', '/RMSE'))
        return self.published.get(column) is not None or column in ('mIoU', 'MAE') or of_task


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        name: Name, such as table1.
        title: Title.
        page: Page in the paper; '' if the paper has no such table.
        dataset: Data that the paper used.
        rows: Rows by name.
    """

    name: str
    title: str
    page: int | str
    dataset: str
    rows: Mapping[str, Row]

    def brackets(self, dataset: str) -> str:
        """Return a sentence that says what published figures are to runs on a data set."""
        if not any(row.published for row in self.rows.values()):
            return 'The paper has no such table.'
        homes = {run.home for row in self.rows.values() for run in row.runs.values()}
        published = f'In brackets: published, on {self.dataset}'
        if dataset in homes:
            return f'{published}.'
        if any(dataset.startswith(f'{home}-') for home in homes):
            return f'{published} with larger networks: compare the order of the rows.'
        return f'{published}, other data than {dataset}: compare the order of the rows only.'


def fused(run: Run, method: str, merge: bool) -> Run:
    """Return a run with a fusion baseline, such as 'concat-early', instead of exchange."""
    kind, _, stage = method.rpartition('-')
    return replace(run, fusion=FusionSpec(FUSIONS[kind], stage, merge))


def of_options(config: str, by_key: Mapping[str, Options]) -> Callable[[str, Published], Row]:
    """Return a maker of rows that change settings of one config."""
    return lambda key, published: Row(published, {'': Run(config, by_key[key])})


UNSHARED: Options = {'model.type': 'UnsharedEncoderDecoder'}
PRIVATE_CONVS: Options = UNSHARED | {'model.convs': 'private'}
NO_EXCHANGE: Options = {f'{EXCHANGE}.after': None}
PENALTY_ALONE: Options = {f'{EXCHANGE}.threshold': 0.0}
ALL_CHANNELS: Options = {f'{EXCHANGE}.region': 'all', f'{EXCHANGE}.penalty_region': 'all'}
VERSIONS: dict[str, Options] = {
    'unshared': PRIVATE_CONVS | NO_EXCHANGE,
    'shared': UNSHARED | {'model.norms': 'shared', EXCHANGE: dict(_delete_=True)},
    'private-norms': NO_EXCHANGE,
    'fixed': {f'{EXCHANGE}.selection': 'fixed'},
    'random': {f'{EXCHANGE}.selection': 'random'},
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
        return Row(published, {'': Run(SEGMENTER, modalities=(key,))})
    if key == 'cen':
        return Row(published, {'': Run(SEGMENTER)})
    runs = {'common': fused(Run(SEGMENTER), key, True), '': fused(Run(SEGMENTER), key, False)}
    return Row(published, runs)


def table3(key: str, published: Published) -> Row:
    if key in ('cen-refinenet-r101', 'cen-refinenet-r152'):
        return Row(published, why=f'several scales: mmcen test --tta on {key}-single')
    runs = {}
    for column, prefix in (('nyuv2', 'nyud'), ('sunrgbd', 'sunrgbd')):
        segmenter = Run(f'{prefix}_refinenet_r101.py')
        made = {
            'refinenet-r101-rgb': replace(segmenter, modalities=('rgb',)),
            'ssma-r101': fused(segmenter, 'selfatt-all', False),
            'cbn-r101': fused(segmenter, 'cbn-all', False),
            'cen-refinenet-r101-single': segmenter,
            'cen-refinenet-r152-single': Run(f'{prefix}_refinenet_r152.py'),
            'cen-pspnet-r152': Run(f'{prefix}_pspnet_r152.py'),
        }
        if key not in made:
            return Row(published, why=CITED)
        runs[column] = made[key]
    return Row(published, runs, at_home=True)


def case_of(case: str, options: Options | None = None) -> Run:
    """A run on Taskonomy."""
    return Run(TASKONOMY, options or {}, case=case)


def table4(key: str, published: Published) -> Row:
    case, _, method = key.partition('+')
    run = case_of(case)
    return Row(published, {'': run if method == 'cen' else fused(run, method, True)})


def table5(key: str, published: Published) -> Row:
    return Row(published, {'': case_of(f'{key}_to_rgb')})


NETWORK = 'model.network'
ENCODER, DECODER = f'{NETWORK}.encoder', f'{NETWORK}.decoder'
ONE_DECODER: Options = {f'{DECODER}.groups': 'shared', f'{DECODER}.exchange': False}
DECODERS: Options = ONE_DECODER | {f'{DECODER}.groups': 'task'}
CYCLES: dict[str, Options] = {  # Table 6
    'cycle': ONE_DECODER,
    'decx3': DECODERS,
    'independent': DECODERS | {f'{ENCODER}.groups': 'task'},
    'random': DECODERS | {'model.train_cfg.flow': 'random'},
}
NO_ENCODER: Options = {f'{ENCODER}.exchange': False}
NO_DECODER: Options = {f'{DECODER}.exchange': False}
INDIVIDUAL: Options = NO_DECODER | {f'{ENCODER}.groups': 'task'}
ADAM = dict(type='Adam', betas=(0.5, 0.999))
XTC: Options = {
    'model.type': 'XTCTranslator',
    'model.consistency': dict(
        type='CrossTaskConsistency', network=dict(base_channels=16), weight=100.0
    ),
    'optim_wrapper.consistency': dict(
        type='OptimWrapper', optimizer=dict(ADAM, lr=2e-4, fused=True)
    ),
}
# Each task learns which of two copies of an encoder layer it uses.
ADASHARE: Options = NO_DECODER | {
    'model.type': 'AdaShareTranslator',
    f'{NETWORK}.type': 'AdaShareUNet',
    f'{NETWORK}.copies': 2,
    'optim_wrapper.policy': dict(type='OptimWrapper', optimizer=dict(ADAM, lr=1e-2)),
    'custom_hooks': [
        dict(type='EpochSeedHook'),
        dict(type='PolicyHook'),
        dict(type='LastAndBestHook', key=None, rule='less'),
        dict(type='SheetHook'),
    ],
}
# The last two tasks share an encoder; task_grouping.py finds groups from trainings of subsets.
GROUPED: Options = {f'{ENCODER}.groups': [0, 1, 1]}
MULTITASK: dict[str, Options] = {  # Tables 7 and 8
    'cen': {},
    'indiv': INDIVIDUAL,
    'shared-encoder': NO_DECODER,
    'xtc': XTC | NO_DECODER,
    'cen-xtc': XTC,
    'adashare': ADASHARE,
    'tg': GROUPED | NO_DECODER,
    'cen-tg': GROUPED,
}
MULTIMODAL: dict[str, Options] = {  # Table 9
    'cen': {},
    'indiv': INDIVIDUAL | NO_ENCODER,
    'enc': NO_DECODER,
    'dec': NO_ENCODER,
}


def by_method(methods: Mapping[str, Options], prefix: str = '') -> Callable[[str, Published], Row]:
    """Rows ``case+method``.

    Args:
        methods: Options by method.
        prefix: Prefix of the names of the cases.
    """

    def row(key: str, published: Published) -> Row:
        case, _, method = key.partition('+')
        return Row(published, {'': case_of(prefix + case, methods[method])})

    return row


FOUR = 'depth-normal-texture-shade_to_rgb'
RUNNING: Options = NO_ENCODER | {f'{NETWORK}.norm_cfg.track_running_stats': True}
UNSHARED_NET: Options = NO_ENCODER | {f'{NETWORK}.type': 'UnsharedUNet'}
ABLATED: Options = {f'{NETWORK}.type': 'AblatedUNet'}
SHARING: dict[str, Options] = {
    'unshared': UNSHARED_NET | {f'{NETWORK}.convs': 'private'},
    'shared': UNSHARED_NET
    | {
        f'{NETWORK}.norms': 'shared',
        f'{NETWORK}.norm_cfg': dict(_delete_=True, type='IN2d', affine=True),
    },
    'private-norms': NO_ENCODER,
    'private-statistics': ABLATED | RUNNING | {f'{NETWORK}.shared': 'affine'},
    'private-affine': ABLATED | RUNNING | {f'{NETWORK}.shared': 'statistics'},
    'cen': {},
}


def sharing(key: str, published: Published) -> Row:
    """Tables 10 and 11."""
    case, _, method = key.partition('+')
    inputs = FOUR if case == 'shade-texture-depth-normal' else f'{case}_to_rgb'
    return Row(published, {'': case_of(inputs, SHARING[method])})


def of_inputs(options: Callable[[str], Options], published: Published, key: str) -> Row:
    """Tables 12 and 13: a row is trained with two, three and four inputs."""
    runs = {}
    for case in ('depth-normal', 'depth-normal-texture', 'depth-normal-texture-shade'):
        if published.get(f'{case}/rgb/FID') is not None:
            runs[case] = case_of(f'{case}_to_rgb', options(key))
    return Row(published, runs)


def table12(key: str, published: Published) -> Row:
    def replaced(word: str) -> Options:
        word = word.replace('-', '_')
        return {} if word == 'cen' else ABLATED | {f'{NETWORK}.replace': word}

    return of_inputs(replaced, published, key)


def table13(key: str, published: Published) -> Row:
    everywhere = {f'{NETWORK}.norm_cfg.{name}': 'all' for name in ('region', 'penalty_region')}
    return of_inputs(lambda word: {} if word == 'cen' else everywhere, published, key)


def figure9(key: str, published: Published) -> Row:
    kind, how, sweep = key.split('+')
    run, zero = {
        'segmentation': (
            Run(SEGMENTER),
            {'model.type': 'AblatedEncoderDecoder', 'model.replace': 'zero'},
        ),
        'translation': (case_of('shade-texture_to_rgb'), ABLATED | {f'{NETWORK}.replace': 'zero'}),
    }[kind]
    name, _, factor = sweep.partition('-x')
    times = {name: float(factor)} if factor else {}
    options = zero if how == 'zero' else {}
    return Row(published, {'': replace(run, options=options, times=times)})


def table14(key: str, published: Published) -> Row:
    if key != 'cen':
        return Row(published, why=CITED)
    return Row(published, {'': Run('saliency_njud-nlpr_refinenet_r50.py')})


BUDGET = 'budget'  # the tables of our own: what is exchanged, by which rule
SHARE = 0.3  # of its channels that each stream takes from others
# Arguments of ExchangeBudgetHook by row
CRITERIA: dict[str, Options] = {
    'movement': dict(criterion='movement'),
    'movement-network': dict(criterion='movement', scope='network'),
    'gamma': dict(criterion='gamma'),
    'ratio': dict(criterion='ratio'),
    'gates': dict(criterion='gates'),
    'shrink': dict(criterion='gamma', schedule=dict(first='none', shrink=20)),
    'fixed': dict(criterion='fixed'),
}


def under_budget(norms: str, hook: Options) -> Options:
    """Options of an exchange under a budget, without a penalty.

    Args:
        norms: Key of the options of the norms.
        hook: Arguments of ``ExchangeBudgetHook``.
    """
    hooks = [
        dict(type='EpochSeedHook'),
        dict(type='ExchangeBudgetHook', **hook),
        dict(type='ExchangeMonitorHook', interval=25),
        dict(type='LastAndBestHook'),
    ]
    if norms != EXCHANGE:
        hooks[-1].update(key=None, rule='less')  # errors
    return {f'{norms}.budget': SHARE, 'custom_hooks': hooks}


def own_tables() -> dict[str, Table]:
    """Exchange under a budget against the paper's rule, no exchange and fusion layers."""
    segmenter, translator = Run(SEGMENTER), case_of('shade-texture_to_rgb')
    concat = fused(segmenter, 'concat-all', False)
    segmenters = {
        'no-exchange': replace(segmenter, options=NO_EXCHANGE),
        'cen': segmenter,
        **{
            name: replace(segmenter, options=under_budget(EXCHANGE, hook))
            for name, hook in CRITERIA.items()
        },
        'concat-all': concat,
        'selfatt-all': fused(segmenter, 'selfatt-all', False),
        'concat-all+movement': replace(
            concat, options=under_budget(EXCHANGE, CRITERIA['movement'])
        ),
    }
    translators = {
        'no-exchange': replace(translator, options=NO_ENCODER),
        'cen': translator,
        **{
            name: replace(translator, options=under_budget(f'{NETWORK}.norm_cfg', CRITERIA[name]))
            for name in ('movement', 'fixed')
        },
        'concat-all': fused(translator, 'concat-all', True),
    }
    return {
        name: Table(name, title, '', data, {key: Row({}, {'': run}) for key, run in runs.items()})
        for name, title, data, runs in (
            (BUDGET, 'exchange under a budget', 'NYUv2', segmenters),
            (
                f'{BUDGET}-translation',
                f'{BUDGET}, shade and texture to RGB',
                'Taskonomy',
                translators,
            ),
        )
    }


MAKERS: dict[str, Callable[[str, Published], Row]] = {
    'table1': of_options(SEGMENTER, VERSIONS),
    'table2': table2,
    'table3': table3,
    'table4': table4,
    'table5': table5,
    'table6': by_method(CYCLES, 'cycle_'),
    'table7': by_method(MULTITASK),
    'table8': by_method(MULTITASK),
    'table9': by_method(MULTIMODAL),
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
        tables[name] = Table(name, data['title'], data['page'], data['dataset'], rows)
    return tables


TABLES = read_tables() | own_tables()
