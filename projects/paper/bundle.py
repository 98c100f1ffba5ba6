#!/usr/bin/env python
"""Collect the files that a GPU machine without network needs in one folder: ``make bundle``.

The machine has Python 3.12, torch with CUDA, numpy 2, timm, opencv, h5py, scipy, matplotlib, rich
and tensorboard. The folder adds mmcen, the OneDL forks and what they need as wheels, the configs,
tests and benchmarks, ImageNet weights of EfficientNet-Lite0, and NYUv2 at 240x320. There,
``bash run.sh OUT`` measures everything. The data and the weights are research material: the folder
is not part of the repository and not for publication.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from mmcen.models.backbones.efficientnet_lite import load_from_efficientnet_lite0
from projects.paper.gpu import frames

LIMIT = 55_000_000  # bytes
FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation')
# What the forks need and the machine may lack, pure Python.
PURE = ('addict', 'ftfy', 'platformdirs', 'prettytable', 'termcolor', 'wcwidth==0.6.0', 'yapf')
TESTS = ('pytest', 'iniconfig', 'pluggy')  # and what pytest needs besides rich and matplotlib
COMPILED = ('regex',)  # installed only where it is missing
TARGET = ('--python-version', '3.12', '--implementation', 'cp', '--only-binary', ':all:',
          '--platform', 'manylinux_2_28_x86_64', '--platform', 'manylinux_2_17_x86_64',
          '--platform', 'manylinux2014_x86_64')  # fmt: skip
COPIED = ('configs', 'projects', 'tools', 'tests', 'pyproject.toml')
UNUSED = ('conv_head', 'bn2', 'classifier')  # behind the last feature
RUN = """\
#!/usr/bin/env bash
# Measure everything into a folder: bash run.sh OUT [options of repo/projects/paper/gpu_day.py]
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?name the folder for the results}
shift
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
install() {
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$@"
}
install "$here"/wheels/*.whl
"$python" -c 'import regex' 2> /dev/null || install "$here"/wheels/compiled/*.whl
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
"$python" "$here/repo/projects/paper/gpu_day.py" --out "$out" \\
  --frames "$here/nyuv2_240x320.zip" --weights "$here/efficientnet_lite0.pth" "$@"
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Make the bundle for a GPU without network.')
    parser.add_argument('--data', type=Path, required=True, help='folder of a converted NYUv2')
    parser.add_argument('--out', type=Path, default=ROOT / 'build' / 'bundle')
    parser.add_argument(
        '--frames', type=int, help='number of frames of each split, for a trial; default all'
    )
    return parser.parse_args()


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, '-m', 'pip', '-q', *arguments], check=True)


def git(*arguments: str) -> str:
    command = ['git', '-C', str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tracked(*names: str) -> list[str]:
    """Return the files of the repository below these names."""
    listed = git('ls-files', '-z', '--', *names)
    return [name for name in listed.split('\0') if name and (ROOT / name).is_file()]


def copy(names: list[str], to: Path) -> None:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)


def pinned(name: str) -> str:
    """Return a requirement as the OneDL set or the tools' set pins it, or unchanged."""
    files = [ROOT / 'requirements' / f'{kind}.txt' for kind in ('onedl', 'dev')]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return next((line for line in lines if line.startswith(f'{name}==')), name)


def make_wheels(folder: Path) -> None:
    """Collect wheels of mmcen, the forks, pytest and their requirements."""
    with tempfile.TemporaryDirectory() as place:
        # Not the clone itself: its build folder may hold old files. The weights that come with
        # mmcen would take 6.5 of the 55 MB, and nothing there reads them.
        names = [name for name in tracked('.') if not name.startswith('mmcen/weights/')]
        copy(names, Path(place))
        pip('wheel', '--no-deps', '-w', str(folder), place)
    os.environ['MMCV_WITH_OPS'] = '0'
    pip('wheel', '--no-deps', '-w', str(folder), *map(pinned, (*FORKS, *PURE, *TESTS)))
    other = [path.name for path in folder.glob('*.whl') if not path.name.endswith('none-any.whl')]
    if other:
        raise RuntimeError(f'{other[0]} is not pure Python: it would not install there')
    compiled = map(pinned, COMPILED)
    pip('download', '--no-deps', *TARGET, '-d', str(folder / 'compiled'), *compiled)


def write_weights(path: Path) -> None:
    """Write the encoder of EfficientNet-Lite0 in half precision, with timm's names."""
    state = load_from_efficientnet_lite0('efficientnet-lite0://', 'cpu')
    kept = {k: v.half() for k, v in state.items() if not k.startswith(UNUSED)}
    torch.save(kept, path)


def main() -> None:
    args = parse_args()
    if not (args.data / 'splits').is_dir():
        raise SystemExit(f'{args.data} is not a converted NYUv2: set MMCEN_DATA, or give --data')
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    copy(tracked(*COPIED), args.out / 'repo')
    (args.out / 'repo' / 'COMMIT').write_text(git('rev-parse', 'HEAD'))
    (args.out / 'run.sh').write_text(RUN)
    write_weights(args.out / 'efficientnet_lite0.pth')
    frames.pack(args.data, args.out / 'nyuv2_240x320.zip', args.frames)
    make_wheels(args.out / 'wheels')
    files = [path for path in args.out.rglob('*') if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > LIMIT:
        raise SystemExit(f'{args.out} has {size / 1e6:.1f} MB, the limit is {LIMIT / 1e6:.0f} MB')
    print(f'{args.out}: {size / 1e6:.1f} MB, {len(files)} files. There: bash run.sh OUT')


if __name__ == '__main__':
    main()
