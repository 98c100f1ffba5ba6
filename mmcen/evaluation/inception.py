"""The Inception network that FID and KID are defined by, from a file that the user names."""

import hashlib
import logging
import pickle
from io import BytesIO
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

WEIGHTS = 'weights-inception-2015-12-05-6726825d.pth'
ALIAS = 'pt_inception-2015-12-05-6726825d.pth'
SHA256 = '6726825d'  # first digits, which both names end with


class Inception(nn.Module):
    """torch-fidelity's FeatureExtractorInceptionV3 up to pool3, ``(B, 3, H, W)`` uint8 to
    ``(B, 2048)``.

    The file is read as tensors only (``weights_only``), and nothing is ever downloaded.

    Args:
        weights: The file, torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``
            (pytorch-fid gives it as ``pt_inception-2015-12-05-6726825d.pth``).

    Attributes:
        source: Name of the file.
        sha256: First 8 hexadecimal digits of its hash.
        resize: How images come to the network's size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
        ImportError: torch-fidelity is not installed.
    """

    resize = 'bilinear as in TensorFlow 1, not antialiased, to 299x299'

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no extractor file at '{path}': {_advice()}")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError(
                'FID and KID need torch-fidelity: pip install -r requirements/translation.txt'
            ) from error
        content = path.read_bytes()
        self.source = path.name
        self.sha256 = hashlib.sha256(content).hexdigest()[:8]
        try:
            state = torch.load(BytesIO(content), map_location='cpu', weights_only=True)
            # torch-fidelity unpickles whatever its file holds: it gets what was found to be tensors
            harmless = BytesIO()
            torch.save(state, harmless)
            harmless.seek(0)
            self.network = FeatureExtractorInceptionV3('inception-v3-compat', ['2048'], harmless)
        except (RuntimeError, TypeError, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(
                f"'{path}' holds no weights of the Inception network of FID: {_advice()}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def build_extractor(extractor: str | Path | nn.Module | None) -> nn.Module:
    """:class:`Inception` from a file, or a module as it is; frozen.

    Raises:
        ValueError: None, or as Inception.
        FileNotFoundError, ImportError: As Inception.
    """
    if extractor is None:
        raise ValueError(f'FID and KID need the weights of their Inception network: {_advice()}')
    if not isinstance(extractor, nn.Module):
        extractor = Inception(extractor)
        if extractor.sha256 != SHA256:
            print_log(
                f"'{extractor.source}' has the hash {extractor.sha256}, the published network "
                f'{SHA256}: FID and KID will not compare with published ones',
                'current',
                logging.WARNING,
            )
    return extractor.eval().requires_grad_(False)


def provenance(extractor: nn.Module) -> dict[str, str]:
    """What belongs to every published FID or KID."""
    if isinstance(extractor, Inception):
        keys = ('source', 'sha256', 'resize')
        return {key: getattr(extractor, key) for key in keys}
    return {'source': type(extractor).__name__}


def _advice() -> str:
    return (
        f"name torch-fidelity's {WEIGHTS} (pytorch-fid calls it {ALIAS}) as extractor=<file>; "
        'MAE, MSE and RMSE need none'
    )
