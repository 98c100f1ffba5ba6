"""The U-Net of pix2pix with channel exchange, written for reading: lists of streams, one at a time.

Independent of mmcen but for the weights, which are copied from the generator under test; every
stream has its own instance norms, every layer is called once per stream.
"""

import torch
from torch import nn

from mmcen.core import Selection

from .oracle import exchange


class ListUNet(nn.Module):
    """``forward`` takes D inputs (B, C, H, W) and gives ``outputs[t][m]``."""

    def __init__(self, ours, exchange_encoder, exchange_decoder):
        super().__init__()
        m = ours.grid.modalities
        self.inputs = [ours.inputs[i : i + m] for i in range(0, len(ours.inputs), m)]
        self.exchanges = {'modalities': exchange_encoder, 'tasks': exchange_decoder}
        selections = [m for m in ours.modules() if isinstance(m, Selection)]
        self.threshold = selections[0].threshold if selections else 0
        self.downs = nn.ModuleList(self.copy_convs(layer) for layer in ours.down_convs)
        self.ups = nn.ModuleList(self.copy_convs(layer) for layer in ours.up_convs)
        self.last = self.copy_convs(ours.output)
        self.down_norms = nn.ModuleList(self.copy_norms(layer) for layer in ours.down_norms)
        self.up_norms = nn.ModuleList(self.copy_norms(layer) for layer in ours.up_norms)

    def copy_convs(self, layer):
        """The convolution of each task; tasks of one group have the same object."""
        copies = []
        for conv in layer.copies:
            sizes = conv.in_channels, conv.out_channels, 4, 2, 1
            stock = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
            copies.append(stock(*sizes))
            copies[-1].load_state_dict(conv.state_dict())
        return nn.ModuleList(copies[group] for group in layer.groups)

    def copy_norms(self, layer):
        if isinstance(layer, nn.Identity):
            return nn.Identity()
        tasks, modalities, channels = layer.exchangeable.shape
        norms = nn.ModuleList()
        for t in range(tasks):
            norms.append(nn.ModuleList())
            for m in range(modalities):
                norm = nn.InstanceNorm2d(channels, affine=True)
                with torch.no_grad():
                    norm.weight.copy_(layer.gamma()[t, m])
                    norm.bias.copy_(layer.bias.view(tasks, modalities, channels)[t, m])
                norms[-1].append(norm)
        return norms

    def normalise(self, x, norms, axis):
        if isinstance(norms, nn.Identity):
            return x
        y = [
            [norm(v) for norm, v in zip(*rows, strict=True)] for rows in zip(norms, x, strict=True)
        ]
        gammas = [[norm.weight for norm in row] for row in norms]
        threshold = self.threshold if self.exchanges[axis] else 0
        return exchange(y, gammas, axis, threshold)

    def forward(self, domains):
        x = [[domains[d] for d in row] for row in self.inputs]
        skips = []
        for i, (convs, norms) in enumerate(zip(self.downs, self.down_norms, strict=True)):
            if i:
                x = [[nn.functional.leaky_relu(v, 0.2) for v in row] for row in x]
                skips.append(x)
            x = [[conv(v) for v in row] for conv, row in zip(convs, x, strict=True)]
            x = self.normalise(x, norms, 'modalities')
        for convs, norms in zip(self.ups, self.up_norms, strict=True):
            x = [[conv(v.relu()) for v in row] for conv, row in zip(convs, x, strict=True)]
            x = self.normalise(x, norms, 'tasks')
            for row, others in zip(x, skips.pop(), strict=True):
                row[:] = [torch.cat(pair, 1) for pair in zip(row, others, strict=True)]
        return [[conv(v.relu()) for v in row] for conv, row in zip(self.last, x, strict=True)]
