"""Any network of torchvision becomes multi-stream: segment rendered rooms by colour and depth.

The method needs torch alone. This example also needs torchvision and, for the rooms, OpenMMLab,
because the rooms are a part of ``mmcen.datasets``. For other data replace ``render_rooms``,
CLASSES and PALETTE.

    python examples/torchvision_deeplab.py
    python examples/torchvision_deeplab.py --network deeplabv3_resnet50 --steps 20
    python examples/torchvision_deeplab.py --penalty 5e-3 --steps 800  # as the paper exchanges

The first command takes less than two minutes on two cores, and reaches a mean IoU of about 36 on
rooms that it has not seen. A step of DeepLabV3 takes about ten times as long, so the second one
shows no more than that it trains.

By default each stream takes a share of its channels from the other one (a budget). ``--penalty``
exchanges by the paper's rule instead: the penalty must first bring scaling factors from 1 to 0.
"""

import argparse

import torch
import torch.nn.functional as F
import torchvision
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import mmcen
from mmcen.budget import ExchangeBudget
from mmcen.core import StreamEnsemble, exchange_penalty, exchanged_share
from mmcen.datasets.rooms.sensor import Sensor
from mmcen.datasets.rooms.shot import Shot
from mmcen.datasets.synthetic_rooms import CLASSES, PALETTE

NETWORKS = ('lraspp_mobilenet_v3_large', 'deeplabv3_resnet50')


def render_rooms(count, size, seed):
    """Colour and depth (N, 3, H, W) in 0..1, and class numbers (N, H, W), of rendered rooms."""
    shots = [Shot((seed, i), size, Sensor()) for i in range(count)]
    colour = torch.stack([torch.from_numpy(shot.rgb()) for shot in shots]) / 255
    depth = torch.stack([torch.from_numpy(shot.depth_zbuffer()) for shot in shots]) / 6  # metres
    label = torch.stack([torch.from_numpy(shot.segment_semantic()) for shot in shots]).long()
    depth = depth.expand_as(colour)  # streams share the first convolution
    return TensorDataset(colour.permute(0, 3, 1, 2), depth.permute(0, 3, 1, 2), label[..., 0])


def train(network, ensemble, rooms, options):
    """Train all streams and the ensemble. Return the loss of the streams at each step."""
    grid = network.stream_grid
    budget = None if options.penalty else ExchangeBudget(network)
    optimizer = torch.optim.AdamW([*network.parameters(), *ensemble.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, options.steps)
    sampler = RandomSampler(rooms, replacement=True, num_samples=options.steps * options.batch)
    loader, losses = DataLoader(rooms, options.batch, sampler=sampler), []
    for step, (colour, depth, label) in enumerate(loader):
        logits = network(torch.cat([colour, depth]))['out']  # (M*B, K, H, W)
        loss = F.cross_entropy(logits, label.repeat(grid.size, 1, 1))
        of_ensemble = F.cross_entropy(ensemble(grid.unfold(logits))[:, 0], label)
        optimizer.zero_grad()
        (loss + of_ensemble + options.penalty * exchange_penalty(network)).backward()
        optimizer.step()
        schedule.step()
        if budget is not None:
            budget.step(step + 1, options.steps)
        losses.append(loss.item())
        if (step + 1) % max(1, options.steps // 10) == 0:
            recent = sum(losses[-10:]) / len(losses[-10:])
            share = exchanged_share(network).mean()
            print(f'step {step + 1:4}  loss {recent:.3f}  exchanged channels {share:.0%}')
    return losses


@torch.no_grad()
def predict(network, ensemble, frames, modalities):
    """Class numbers (B, H, W) by the ensemble of the modalities that are present."""
    network.eval()
    with network.stream_grid.only(modalities=modalities) as grid:
        logits = network(torch.cat([frames[m] for m in modalities]))['out']
        return ensemble(grid.unfold(logits))[:, 0].argmax(1)


def mean_iou(predicted, label):
    """Mean intersection over union, in percent, of the classes that occur."""
    k = len(CLASSES)
    counts = torch.bincount((label * k + predicted).flatten(), minlength=k * k).view(k, k)
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return 100 * (counts.diag() / union).nanmean().item()


def draw(path, colour, depth, predicted, label):
    """Save a picture: a row for each room, with its colour, depth, prediction and label."""
    palette = torch.tensor(PALETTE) / 255
    maps = [palette[classes].permute(0, 3, 1, 2) for classes in (predicted, label)]
    rows = torch.stack([colour, depth, *maps], 1).flatten(0, 1)  # (B*4, 3, H, W)
    torchvision.utils.save_image(F.interpolate(rows, scale_factor=2), path, nrow=4)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--network', choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument('--steps', type=int, default=150, help='training steps')
    parser.add_argument('--batch', type=int, default=8, help='rooms in a training step')
    parser.add_argument('--rooms', type=int, default=300, help='rooms to train on')
    parser.add_argument('--held-out', type=int, default=40, help='rooms to test on')
    parser.add_argument('--size', type=int, nargs=2, default=(64, 96), help='height and width')
    parser.add_argument('--share', type=float, default=0.3, help='exchanged share of the channels')
    parser.add_argument(
        '--penalty',
        type=float,
        default=0,
        help='lambda of the sparsity penalty (Eq. 2); exchanges by threshold instead of by --share',
    )
    parser.add_argument('--out', default='rooms.png', help='picture of the predictions')
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    build = getattr(torchvision.models.segmentation, options.network)
    network = build(weights=None, weights_backbone=None, num_classes=len(CLASSES))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 0.1  # MobileNet's 0.01 is too slow for statistics of a short training
    selection = {'threshold': 0.02} if options.penalty else {'budget': options.share}
    mmcen.convert(network, modalities=2, exchange='spatial', **selection)
    ensemble = StreamEnsemble(network.stream_grid)

    print('rendering rooms')
    rooms = render_rooms(options.rooms, options.size, seed=0)
    *frames, label = render_rooms(options.held_out, options.size, seed=1).tensors
    losses = train(network, ensemble, rooms, options)

    scores = {}
    for name, modalities in {'both': [0, 1], 'colour alone': [0], 'depth alone': [1]}.items():
        scores[name] = mean_iou(predict(network, ensemble, frames, modalities), label)
        print(f'mean IoU on held-out rooms, {name}: {scores[name]:.1f}')
    predicted = predict(network, ensemble, frames, [0, 1])
    draw(options.out, *(part[:3] for part in (*frames, predicted, label)))
    print(f'picture: {options.out}')
    return losses, scores


if __name__ == '__main__':
    main()
