"""Compute FID and KID of features, and errors of images, by torchmetrics.

The networks of torchmetrics are not used, nor its synchronisation, which would wait for processes
that do not compute.
"""

import warnings

import torch
from torch import Tensor, nn

DEGREE = 3  # of KID's polynomial kernel, (x y / F + 1)^3


class _Given(nn.Module):
    """Placeholder for the network, for given features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Compute FID: ``|mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))``, covariances over N - 1.

    Args:
        real: Features ``(N, F)``, N >= 2.
        fake: Features ``(N', F)``, N' >= 2.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(_Given(real.shape[1]), sync_on_compute=False)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> float:
    """Compute KID: mean over random subsets of the unbiased squared MMD with a cubic kernel.

    It may be negative. The same seed draws the same subsets. The generators of the caller do not
    change.

    Args:
        real: Features ``(N, F)``.
        fake: Features ``(N', F)``.
        subsets: Number of subsets.
        subset_size: Number of images of each kind in a subset, at most N and N', at least 2.
        seed: Seed of the subsets.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the memory for features
        metric = KernelInceptionDistance(
            _Given(real.shape[1]), subsets, subset_size, DEGREE, sync_on_compute=False
        )
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return float(metric.compute()[0])


def pixel_errors(image: Tensor, truth: Tensor) -> dict[str, float]:
    """Return MAE, MSE and number of all values of an image in 0..255, scaled to -1..1."""
    from torchmetrics.functional import mean_absolute_error, mean_squared_error

    # torchmetrics cannot read images of a network in channels_last
    found, wanted = ((x.double() / 127.5 - 1).contiguous() for x in (image, truth))
    return {
        'MAE': float(mean_absolute_error(found, wanted)),
        'MSE': float(mean_squared_error(found, wanted)),
        'values': image.numel(),
    }
