"""Cross-entropy of logits and larger labels, and the losses of mmseg's heads by it.

mmseg up-samples the logits of the whole batch, then runs log-softmax, the loss and ``topk`` over
them, and keeps the intermediate results at full resolution for the backward pass. Here one image at
a time goes through all steps, including the gradient of its small logits, so that no tensor of full
resolution is kept. On a CPU one image also fits into the cache. Its classes are adjacent in memory
unless there are few, because torch's up-sampling is fastest in that layout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EPS = torch.finfo(torch.float32).eps  # what mmseg adds to both denominators
MANY_CLASSES = 8  # one vector register of float32


def resized_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    avg_non_ignore: bool = False,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute mean cross-entropy and accuracy of logits up-sampled to their labels' size.

    Equal to mmseg's bilinear ``resize``, ``cross_entropy`` and ``accuracy`` up to rounding. Two
    differences: a label's logit that ties with the largest counts as correct, and with
    ``class_weight`` an ignored label that is not a class has weight 0, where mmseg raises
    IndexError.

    Computes in float32, or in float64 for logits of float64. The gradient is computed together with
    the loss; the loss can be differentiated once.

    Args:
        logits: ``(B, K, h, w)``, of any layout; ``channels_last`` is the fastest.
        label: Integer labels ``(B, H, W)`` or ``(B, 1, H, W)``.
        ignore_index: Label without loss.
        class_weight: Weight of each class, ``(K,)``.
        avg_non_ignore: Whether to average over the pixels that are not ignored instead of all.
        align_corners: As in :func:`torch.nn.functional.interpolate`.

    Returns:
        The loss, a scalar, and the percentage of correct pixels among those not ignored, of shape
        (1,) as mmseg gives it.

    Raises:
        ValueError: If a label is neither a class nor ``ignore_index``.

    Examples:
        >>> label = torch.zeros(1, 4, 4, dtype=torch.long)
        >>> loss, accuracy = resized_cross_entropy(torch.zeros(1, 2, 2, 2), label)
        >>> round(loss.item(), 4)
        0.6931
    """
    label = label.squeeze(1) if label.dim() == 4 else label  # (B, H, W)
    valid = label != ignore_index
    label = label.long().masked_fill(~valid, 0)
    _check(label, logits.shape[1])
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if class_weight is None:
        weight = valid.to(dtype)
        total = valid.sum() if avg_non_ignore else valid.numel()
    else:
        class_weight = class_weight.to(logits.device, dtype)
        weight = class_weight[label] * valid
        total = weight.sum()
        if not avg_non_ignore and 0 <= ignore_index < logits.shape[1]:
            total = total + class_weight[ignore_index] * (~valid).sum()
    differentiate = torch.is_grad_enabled() and logits.requires_grad
    loss, correct = _ResizedCrossEntropy.apply(
        logits, label, valid, weight / (total + EPS), align_corners, differentiate
    )
    return loss, (correct + EPS) * (100.0 / (valid.sum() + EPS))


def _check(label: Tensor, classes: int) -> None:
    """Reject labels that are not a class."""
    for value in map(int, label.aminmax()) if label.numel() else ():
        if not 0 <= value < classes:
            raise ValueError(
                f'label {value} is not in 0..{classes - 1}: set num_classes of the head, or map '
                'the label to ignore_index'
            )


class _ResizedCrossEntropy(Function):
    """Weighted sum of the pixels' losses, and the number of correct pixels, of shape (1,).

    The backward pass multiplies the gradient, which the forward pass has computed, by the incoming
    scalar. The gradient is kept in float32, so that a loss scaler is applied before it is rounded
    to the logits' type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        label: Tensor,
        valid: Tensor,
        weight: Tensor,
        align_corners: bool,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(logits, dtype=weight.dtype) if differentiate else None
        # the cache holds one image; other devices are busy with the whole batch only
        step = 1 if logits.device.type == 'cpu' else max(len(logits), 1)
        size = label.shape[1:]
        dim, layout = _layout(logits, size)
        loss, correct = weight.new_zeros(()), weight.new_zeros(1)
        for start in range(0, len(logits), step):
            part = slice(start, start + step)
            x = logits[part].to(weight.dtype).contiguous(memory_format=layout)
            target, scale = label[part].unsqueeze(dim), weight[part].unsqueeze(dim)
            scores = _upsample(x, size, align_corners, dim)
            prob = scores.softmax(dim)
            own = prob.gather(dim, target)
            loss += _nll(scores, own, target, dim).mul_(scale).sum()
            hits = own == prob.amax(dim, keepdim=True)
            correct += hits.logical_and_(valid[part].unsqueeze(dim)).sum()
            if gradient is not None:
                # scale * (prob - one_hot), in place of prob
                d_scores = prob.mul_(scale).scatter_(dim, target, (own - 1) * scale)
                gradient[part] = _upsample_adjoint(d_scores.movedim(dim, 1), x, align_corners)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_loss).to(ctx.dtype), None, None, None, None, None


def _layout(logits: Tensor, size: torch.Size) -> tuple[int, torch.memory_format]:
    """Dimension of the classes in the scores, last or first after the batch, and their layout.

    Adjacent classes are faster if they fill a vector register, unless all scores, not only the
    small logits, would have to be moved.
    """
    moved = logits.shape[2:] == size and logits.stride(1) != 1
    if logits.shape[1] >= MANY_CLASSES and not moved:
        return 3, torch.channels_last
    return 1, torch.contiguous_format


def _upsample(x: Tensor, size: torch.Size, align_corners: bool, dim: int) -> Tensor:
    """Logits (b, K, h, w) to scores of every pixel, (b, H, W, K) or (b, K, H, W) by ``dim``."""
    if x.shape[2:] != size:
        x = F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
    return x.movedim(1, dim).contiguous()


def _upsample_adjoint(d_scores: Tensor, x: Tensor, align_corners: bool) -> Tensor:
    """Gradient (b, K, H, W) of the scores to that of the logits ``x``, (b, K, h, w)."""
    size = d_scores.shape[2:]
    if size == x.shape[2:]:
        return d_scores
    return torch.ops.aten.upsample_bilinear2d_backward(d_scores, size, x.shape, align_corners)


def _nll(scores: Tensor, own: Tensor, label: Tensor, dim: int) -> Tensor:
    """Negative log likelihoods, with one entry in ``dim``, of the labels' probabilities ``own``."""
    nll = own.log().neg_()
    # a probability that underflows has no logarithm
    finfo = torch.finfo(own.dtype)
    lost = (own < finfo.tiny / finfo.eps).squeeze(dim)  # (b, H, W)
    if lost.any():
        rows = scores.movedim(dim, -1)[lost].log_softmax(-1)  # (N, K)
        nll.squeeze(dim)[lost] = -rows.gather(1, label.squeeze(dim)[lost][:, None])[:, 0]
    return nll


def losses_of_head(
    head: BaseDecodeHead, logits: Tensor, data_samples: list[SegDataSample]
) -> dict[str, Tensor]:
    """Compute ``head.loss_by_feat``, by :func:`resized_cross_entropy` if that is equal."""
    own = getattr(head.loss_by_feat, '__func__', None) is not BaseDecodeHead.loss_by_feat
    if own or head.sampler is not None or not is_plain(head.loss_decode, logits):
        return head.loss_by_feat(logits, data_samples)
    label = head._stack_batch_gt(data_samples)
    loss, accuracy = _apply(head.loss_decode, logits, label, head.ignore_index, head.align_corners)
    return {head.loss_decode.loss_name: loss, 'acc_seg': accuracy}


def loss_of_classes(criterion: nn.Module, x: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Compute a loss of mmseg of logits (B, K, H, W) and labels (B, H, W), fast if possible."""
    if x.dim() == 4 and x.shape[2:] == label.shape[1:] and is_plain(criterion, x):
        return _apply(criterion, x, label, ignore_index)[0]
    return criterion(x, label.long(), ignore_index=ignore_index)


def is_plain(criterion: nn.Module, logits: Tensor) -> bool:
    """Whether the loss is mmseg's softmax cross-entropy, averaged, and runs on a CPU.

    Other devices have not been measured, so they use mmseg's implementation.
    """
    return (
        type(criterion) is CrossEntropyLoss
        and not (criterion.use_sigmoid or criterion.use_mask)
        and criterion.reduction == 'mean'
        and logits.device.type == 'cpu'
    )


def _apply(
    criterion: CrossEntropyLoss,
    logits: Tensor,
    label: Tensor,
    ignore_index: int,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Loss, weighted, and accuracy by the settings of mmseg's criterion."""
    weight = criterion.class_weight
    loss, accuracy = resized_cross_entropy(
        logits,
        label,
        ignore_index=ignore_index,
        class_weight=None if weight is None else torch.as_tensor(weight),
        avg_non_ignore=criterion.avg_non_ignore,
        align_corners=align_corners,
    )
    return criterion.loss_weight * loss, accuracy
