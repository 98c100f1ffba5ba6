"""The Inception network of FID and KID, from a file."""

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
    """Inception network of torch-fidelity up to pool3, ``(B, 3, H, W)`` uint8 to ``(B, 2048)``.

    The file is read as tensors only (``weights_only``). There is no download.

    Args:
        weights: Path of torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``
            (in pytorch-fid ``pt_inception-2015-12-05-6726825d.pth``).

    Attributes:
        source: Name of the file.
        sha256: First 8 hexadecimal digits of its hash.
        resize: How images are resized for the network.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it holds other content.
        ImportError: If torch-fidelity is not installed.
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
            # torch-fidelity unpickles its file, so it gets the tensors that were read safely
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
    """Return :class:`Inception` from a file, or a given module, frozen.

    Raises:
        ValueError: If ``extractor`` is None, or as for Inception.
        FileNotFoundError: As for Inception.
        ImportError: As for Inception.
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
    """Return the facts that must be published with every FID or KID."""
    if isinstance(extractor, Inception):
        keys = ('source', 'sha256', 'resize')
        return {key: getattr(extractor, key) for key in keys}
    return {'source': type(extractor).__name__}


def _advice() -> str:
    return (
        f"name torch-fidelity's {WEIGHTS} (pytorch-fid calls it {ALIAS}) as extractor=<file>; "
        'MAE, MSE and RMSE need none'
    )
