"""Channel Exchanging Networks in one file, written for reading: multimodal fusion (section 3.2).

Y. Wang, F. Sun, W. Huang, F. He and D. Tao, "Channel Exchanging Networks for Multimodal and
Multitask Dense Image Prediction", IEEE TPAMI.

M modalities of a scene, such as colour and depth, run as M streams through one network. The streams
share all convolutions, but each has its own norms. A channel whose norm has a scaling factor close
to zero carries almost no information, so the same channel of the other streams takes its place.

This file needs torch alone. It keeps the streams in a list and exchanges channel by channel, which
is slow but easy to follow; mmcen does the same for any network, with all streams in one batch, and
its tests compare it with ``exchange`` of this file.

    python examples/cen_in_one_file.py
    python examples/cen_in_one_file.py --theta 0  # without exchange

The run takes about 20 seconds on one core. With exchange, each stream ends at a mean IoU of about
90; without, at about 40, because neither modality shows all classes.

Shapes: B batch, M modalities, C channels, H W space, K classes. A list ``x`` holds the features of
all streams: M tensors (B, C, H, W).
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

# ------------------------------------------------------------------ the exchange, section 3.1


def sub_part(m, modalities, channels):
    """Channels that stream m may exchange: the m-th of M equal parts.

    The parts are disjoint, so a channel is never redundant in all streams (section 4.5).
    """
    return range(m * channels // modalities, (m + 1) * channels // modalities)


def exchange(x, gammas, parts, theta):
    """Replace channels with a small scaling factor by the mean of the other streams (Eq. 4).

    The replaced channel leaves the graph. Gradients flow to the streams that replace it.

    Args:
        x: Normalised features of M streams, each (B, C, H, W).
        gammas: Scaling factors of their norms, each (C,).
        parts: Numbers of the channels that each stream may exchange.
        theta: Threshold below which a scaling factor counts as zero.
    """
    maps = [stream.unbind(1) for stream in x]  # maps[m][c] is a feature map (B, H, W)
    result = []
    for m in range(len(x)):
        new = list(maps[m])
        for c in parts[m]:
            others = [maps[k][c] for k in range(len(x)) if k != m]
            if others and abs(gammas[m][c].item()) < theta:
                new[c] = sum(others) / len(others)
        result.append(torch.stack(new, dim=1))  # (B, C, H, W)
    return result


class PrivateNorms(nn.Module):
    """A batch norm for each stream (Eq. 3), followed by the exchange (Eq. 4)."""

    def __init__(self, modalities, channels, theta):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(modalities))
        self.parts = [sub_part(m, modalities, channels) for m in range(modalities)]
        self.theta = theta

    def forward(self, x):
        y = [norm(stream) for norm, stream in zip(self.norms, x, strict=True)]
        return exchange(y, self.gammas(), self.parts, self.theta)

    def gammas(self):
        """Scaling factors of all streams: M tensors (C,)."""
        return [norm.weight for norm in self.norms]

    def penalised(self):
        """gamma-hat of Eq. 2: the scaling factors of the channels that may be exchanged."""
        return torch.cat([g[list(part)] for g, part in zip(self.gammas(), self.parts, strict=True)])


def sparsity_penalty(network):
    """The second term of Eq. 2: the l1 norm of gamma-hat, summed over all layers and streams."""
    norms = [module for module in network.modules() if isinstance(module, PrivateNorms)]
    return sum(norm.penalised().abs().sum() for norm in norms)


def exchanged_share(network):
    """Share of the channels of all norms that are exchanged at present."""
    norms = [module for module in network.modules() if isinstance(module, PrivateNorms)]
    replaced = sum((norm.penalised().abs() < norm.theta).sum().item() for norm in norms)
    return replaced / sum(gamma.numel() for norm in norms for gamma in norm.gammas())


# ------------------------------------------------------------------ the network, section 3.2


class ConvBlock(nn.Module):
    """Shared convolution, private norms, exchange, activation."""

    def __init__(self, modalities, inputs, outputs, stride, theta):
        super().__init__()
        # one convolution for all streams: it finds the patterns that modalities have in common
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norms = PrivateNorms(modalities, outputs, theta)

    def forward(self, x):
        x = self.norms([self.conv(stream) for stream in x])
        return [F.relu(stream) for stream in x]


class CEN(nn.Module):
    """An encoder whose streams exchange channels, and one decoder for all streams.

    ``forward`` takes M frames (B, 3, H, W) and returns M logits (B, K, H, W).
    """

    def __init__(self, modalities, classes, width=16, theta=0.02):
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width]
        self.encoder = nn.ModuleList(
            ConvBlock(modalities, sizes[i], sizes[i + 1], 1 if i == 0 else 2, theta)
            for i in range(3)
        )
        self.up2 = nn.Conv2d(sizes[3], sizes[2], 3, padding=1)
        self.up1 = nn.Conv2d(sizes[2], sizes[1], 3, padding=1)
        self.classifier = nn.Conv2d(sizes[1], classes, 3, padding=1)

    def forward(self, frames):
        levels = [frames]
        for block in self.encoder:
            levels.append(block(levels[-1]))
        return [self.decode(*features) for features in zip(*levels[1:], strict=True)]

    def decode(self, full, half, quarter):
        """Logits (B, K, H, W) of one stream, from its features at full size, 1/2 and 1/4."""
        x = F.relu(half + F.interpolate(self.up2(quarter), scale_factor=2))
        x = F.relu(full + F.interpolate(self.up1(x), scale_factor=2))
        return self.classifier(x)


class Ensemble(nn.Module):
    """Weighted sum of the streams' outputs, by learned decision scores (section 3.2)."""

    def __init__(self, modalities):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(modalities))

    def scores(self):
        """Decision scores (M,): a softmax, so that they sum to 1."""
        return self.alpha.softmax(0)

    def forward(self, outputs):
        # outputs are detached as in the official code: this loss trains the scores alone
        return sum(s * out.detach() for s, out in zip(self.scores(), outputs, strict=True))


# ------------------------------------------------------------------ the training, Eq. 2


def training_step(network, ensemble, optimizer, frames, label, weight):
    """Lower the objective of Eq. 2 by one step, and return the losses of its streams, summed.

    Args:
        network: A :class:`CEN`.
        ensemble: Learns the decision scores beside it.
        optimizer: Optimizer of all parameters of both.
        frames: M tensors (B, 3, H, W).
        label: Class numbers (B, H, W); all streams predict the same label.
        weight: lambda of Eq. 2.
    """
    outputs = network(frames)  # M of (B, K, H, W)
    loss = sum(F.cross_entropy(out, label) for out in outputs)
    of_ensemble = F.cross_entropy(ensemble(outputs), label)
    optimizer.zero_grad()
    (loss + of_ensemble + weight * sparsity_penalty(network)).backward()
    optimizer.step()
    return loss.item()


# ------------------------------------------------------------------ made-up data, and a run

CLASSES = ('ground', 'paint', 'bump', 'block')


def draw_shapes(batch, size=32, shapes=5):
    """Draw boxes on a ground. Colour alone shows paint, depth alone shows bumps, both show blocks.

    Neither modality can name the classes without the other: in colour, paint looks like a block;
    in depth, a bump does.

    Returns:
        Colour and depth, both (B, 3, H, W) (depth three times), and the label (B, H, W).
    """
    place = torch.arange(size)
    colour = ground = 0.5 + 0.1 * torch.rand(batch, 3, 1, 1).expand(-1, -1, size, size)
    depth = floor = torch.linspace(1, 0.7, size).view(1, 1, size, 1).expand(batch, 3, -1, size)
    label = torch.zeros(batch, size, size, dtype=torch.long)
    for _ in range(shapes):
        kind = torch.randint(1, 4, (batch, 1, 1))
        y, x = torch.randint(0, size, (2, batch, 1))
        half = torch.randint(3, 7, (batch, 1))  # half a side
        inside = ((place - y).abs() < half)[:, :, None] & ((place - x).abs() < half)[:, None]
        label = torch.where(inside, kind, label)
        inside, kind = inside[:, None], kind[:, None]  # (B, 1, H, W) and (B, 1, 1, 1)
        painted = torch.where(kind == 2, ground, torch.rand(batch, 3, 1, 1))
        raised = torch.where(kind == 1, floor, floor - 0.1 - 0.4 * torch.rand(batch, 1, 1, 1))
        colour = torch.where(inside, painted, colour)
        depth = torch.where(inside, raised, depth)
    noise = 0.03 * torch.randn(2, batch, 3, size, size)
    return colour + noise[0], depth + noise[1], label


def mean_iou(logits, label):
    """Intersection over union of prediction and label, in percent, averaged over the classes."""
    predicted = logits.argmax(1)  # (B, H, W)
    scores = []
    for k in range(logits.shape[1]):
        both = ((predicted == k) & (label == k)).sum()
        scores.append(both / ((predicted == k) | (label == k)).sum().clamp(min=1))
    return 100 * torch.stack(scores).mean().item()


@torch.no_grad()
def evaluate(network, ensemble, frames, label):
    """Mean IoU of each stream, then of the ensemble."""
    network.eval()
    outputs = network(frames)
    network.train()
    return [mean_iou(out, label) for out in (*outputs, ensemble(outputs))]


def main(arguments=None):
    parser = argparse.ArgumentParser(description='Train a small CEN on drawn colour and depth.')
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--lr', type=float, default=1e-2, help='learning rate at the start')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--theta', type=float, default=0.02, help='threshold; 0: no exchange')
    parser.add_argument('--weight', type=float, default=5e-3, help='lambda of the penalty, Eq. 2')
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    network = CEN(modalities=2, classes=len(CLASSES), theta=options.theta)
    ensemble = Ensemble(modalities=2)
    # Adam brings gamma-hat to zero within seconds; the paper trains with SGD for 300 epochs
    optimizer = torch.optim.Adam([*network.parameters(), *ensemble.parameters()], lr=options.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, options.steps)
    *test_frames, test_label = draw_shapes(64)

    history = []
    print('step   loss  exchanged   mIoU colour  depth  ensemble   scores')
    for step in range(options.steps):
        *frames, label = draw_shapes(options.batch)
        loss = training_step(network, ensemble, optimizer, frames, label, options.weight)
        schedule.step()
        if (step + 1) % max(1, options.steps // 10) == 0:
            share = exchanged_share(network)
            iou = evaluate(network, ensemble, test_frames, test_label)
            scores = ensemble.scores().tolist()
            print(
                f'{step + 1:4}  {loss:5.2f}  {share:9.0%}  {iou[0]:12.1f}  {iou[1]:5.1f}  '
                f'{iou[2]:8.1f}   {scores[0]:.2f} {scores[1]:.2f}'
            )
            history.append((loss, share, *iou))
    return history


if __name__ == '__main__':
    main()
