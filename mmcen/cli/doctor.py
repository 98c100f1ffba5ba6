"""Report what works in this environment; with CONFIG, what a config will train.

Exit status 0 if all that is asked for works, 1 if not."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from .. import __version__, register
from ..doctor import environment


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen doctor', description=__doc__)
    parser.add_argument('config', nargs='?', help='config whose training to describe')
    parser.add_argument(
        '--require',
        nargs='+',
        choices=list(environment.CHECKS),
        help='what must work for exit status 0 (default: stack segmentation)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override entries'
    )
    parser.add_argument(
        '--picture',
        type=Path,
        help='file for three training samples; default: work_dirs/doctor/<config>.png',
    )
    args = parser.parse_args(argv)
    if args.config is not None and args.require:
        parser.error('--require is about this environment, and a config is given: leave one out')
    if args.config is None and (args.cfg_options or args.picture):
        parser.error('--cfg-options and --picture are about a config, and none is given: name it')
    return args


def report_environment(required: list[str]) -> int:
    """Print what works, and return 0 if all required parts work."""
    environment.say('looking')
    versions = environment.versions()
    print(f'mmcen {__version__}, ' + ', '.join(f'{k} {v}' for k, v in versions.items()))
    broken = []
    for key, check in environment.CHECKS.items():
        found = check()
        line = f'{found.state:7} {found.name}' + (f': {found.detail}' if found.detail else '')
        print(line, flush=True)
        if found.state != environment.OK:
            if found.fix:
                print(f'        fix: {found.fix}')
            if key in required:
                broken.append(found.name)
    if broken:
        print(f'required, and not working: {", ".join(broken)}')
    return int(bool(broken))


def report_config(args: argparse.Namespace) -> int:
    found = environment.stack()
    if found.state != environment.OK:
        print(f'error: {found.detail}: {found.fix}', file=sys.stderr)
        return 1
    environment.say('importing OpenMMLab')
    register()
    from ..doctor.config import examine
    from ..engine.options import Options

    options = argparse.Namespace()
    if args.cfg_options:
        parser = argparse.ArgumentParser(prog='mmcen doctor')
        parser.add_argument('--cfg-options', nargs='+', action=Options)
        options = parser.parse_args(['--cfg-options', *args.cfg_options])
    path = args.picture or Path('work_dirs', 'doctor', f'{Path(args.config).stem}.png')
    try:
        report = examine(args.config, path, getattr(options, 'cfg_options', None))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for topic, lines in report.facts.items():
        print(f'{topic}')
        for line in lines:
            print(f'  {line}')
    if report.sheet:
        print(f'{environment.OK}: {report.sheet} shows three training samples')
    for problem in report.problems:
        print(f'problem: {problem}')
    if not report.problems:
        print(f'nothing is missing: mmcen train {args.config}')
    return int(bool(report.problems))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    warnings.filterwarnings('ignore')
    if args.config is not None:
        return report_config(args)
    return report_environment(args.require or ['stack', 'segmentation'])
