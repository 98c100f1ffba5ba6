"""``mmcen convert-data``: original archives and official checkpoints to ours."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

CONVERTERS = {
    'nyuv2': ('nyuv2', 'NYU Depth v2, from the official archives'),
    'sunrgbd': ('sunrgbd', 'SUN RGB-D, from the official archives'),
    'cityscapes': ('cityscapes', 'Cityscapes with disparity, from the official archives'),
    'taskonomy': ('taskonomy', 'Taskonomy: draw and check the lists of frames'),
    'saliency': ('rgbd_saliency', 'RGB-D saliency: write pseudo labels'),
    'derive-domains': ('derive_domains', "Taskonomy's domains from any RGB-D data set"),
    'official-segmenter': ('official_segmenter', 'checkpoint of the official segmenter'),
    'official-generator': ('official_generator', 'checkpoint of the official generator'),
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the converter that the first argument names."""
    names = '\n'.join(f'  {name:20}{what}' for name, (_, what) in CONVERTERS.items())
    parser = argparse.ArgumentParser(
        prog='mmcen convert-data',
        usage='mmcen convert-data NAME [ARGUMENTS]',
        description=f'Convert original archives and official checkpoints:\n{names}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'name', metavar='NAME', choices=CONVERTERS, help='`mmcen convert-data NAME --help` explains'
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='arguments of the converter')
    args = parser.parse_args(argv)
    module = importlib.import_module(f'mmcen.converters.{CONVERTERS[args.name][0]}')
    return module.main(args.arguments)
