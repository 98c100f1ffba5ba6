"""What is known of the norms of PyTorch, timm and OpenMMLab: kinds, channels and values."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

# also mmengine's class, of which its runner makes every SyncBatchNorm in a single process
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
STATE = ('weight', 'bias', 'running_mean', 'running_var')


def has_own_values(module: nn.Module) -> bool:
    """Whether a module has parameters or statistics, which streams could share."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) or isinstance(module, BATCH_NORMS)


def is_known(norm: nn.Module) -> bool:
    """Whether a norm has one scaling factor for each channel, and nothing else to share."""
    if isinstance(norm, (*BATCH_NORMS, *INSTANCE_NORMS)):
        return True
    own = dict(norm.named_parameters(recurse=False))
    plain = set(own) <= {'weight', 'bias'} and not list(norm.buffers(recurse=False))
    return plain and 'weight' in own and own['weight'].dim() == 1


def describe_norm(norm: nn.Module) -> tuple[int, int]:
    """Return the number of channels of a stock norm, and their dimension in the features.

    Raises:
        ValueError: If it has no scaling factor for each channel.
    """
    if isinstance(norm, (*BATCH_NORMS, *INSTANCE_NORMS)) or hasattr(norm, 'normalise_streams'):
        return norm.num_features, 1  # type: ignore[return-value]
    weight = getattr(norm, 'weight', None)
    if not isinstance(weight, Tensor) or weight.dim() != 1:
        raise ValueError(f'{type(norm).__name__} has no scaling factor for each channel')
    if isinstance(norm, nn.GroupNorm):
        return len(weight), 1
    return len(weight), -1 if _takes_channels_last(norm, len(weight)) else 1


def _takes_channels_last(norm: nn.Module, channels: int) -> bool:
    """Whether a layer norm takes (B, H, W, C): its class does not say so, and an example is run."""
    height, width = _other_sizes(channels)
    example = torch.zeros(1, height, width, channels, device=norm.weight.device)  # type: ignore
    try:
        with torch.no_grad():
            norm(example.to(norm.weight.dtype))  # type: ignore
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _other_sizes(channels: int) -> tuple[int, int]:
    """Return two sizes that differ from the number of channels."""
    first, second, *_ = (n for n in (2, 3, 5, 7) if n != channels)
    return first, second


@torch.no_grad()
def widen_norm(norm: nn.Module, streams: int) -> nn.Module:
    """Give a stock norm the parameters and statistics of several streams, in place.

    A batch or instance norm without scaling factors gets them.
    """
    if hasattr(norm, 'normalise_streams'):
        norm.widen(streams)  # type: ignore[operator]
        return norm
    if isinstance(norm, (*BATCH_NORMS, *INSTANCE_NORMS)):
        if norm.weight is None:
            norm.affine = True
            norm.weight = nn.Parameter(torch.ones(norm.num_features))
            norm.bias = nn.Parameter(torch.zeros(norm.num_features))
        norm.num_features *= streams
    for name in STATE:
        value = getattr(norm, name, None)
        if isinstance(value, nn.Parameter):
            setattr(norm, name, nn.Parameter(value.repeat(streams), value.requires_grad))
        elif isinstance(value, Tensor):
            setattr(norm, name, value.repeat(streams))
    return norm


def take_activation(norm: Any) -> nn.Module | None:
    """Remove dropout and activation from a norm of timm, and return them; None if it has none."""
    if not isinstance(getattr(norm, 'act', None), nn.Module):
        return None
    after = nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act))
    norm.drop, norm.act = nn.Identity(), nn.Identity()
    return after
