"""The official segmenter (2020) written anew for reading: lists of streams, names as published.

Independent of mmcen: a converted checkpoint is held against this. Variables in the plural are lists
with one tensor (B, C, H, W) per stream. Depth and width are free so that tests can be small.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Shared(nn.Module):
    """One layer for all streams; the official names have a ``.module`` for it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, xs):
        return [self.module(x) for x in xs]


class Norms(nn.Module):
    """One batch norm per stream: bn_0, bn_1, ..."""

    def __init__(self, channels, streams):
        super().__init__()
        for i in range(streams):
            self.add_module(f'bn_{i}', nn.BatchNorm2d(channels))

    def forward(self, xs):
        return [norm(x) for norm, x in zip(self.children(), xs, strict=True)]


def conv(cin, cout, size=3, stride=1, bias=False):
    return Shared(nn.Conv2d(cin, cout, size, stride, padding=size // 2, bias=bias))


def add(xs, ys):
    return [x + y for x, y in zip(xs, ys, strict=True)]


def relu_(xs):
    """In place, as the official code: whoever else holds these tensors sees them rectified."""
    return [F.relu_(x) for x in xs]


def upsample(xs, like):
    return [F.interpolate(x, like[0].shape[2:], mode='bilinear', align_corners=True) for x in xs]


def exchange(xs, norms, threshold):
    """Replace *any* channel with small |gamma| by the mean over the other streams."""
    result = []
    for i, norm in enumerate(norms.children()):
        others = [x for k, x in enumerate(xs) if k != i]
        small = (norm.weight.abs() < threshold).view(1, -1, 1, 1)
        result.append(torch.where(small, sum(others) / len(others), xs[i]))
    return result


class Bottleneck(nn.Module):
    def __init__(self, cin, width, streams, threshold, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(cin, width, 1), Norms(width, streams)
        self.conv2, self.bn2 = conv(width, width, 3, stride), Norms(width, streams)
        self.conv3, self.bn3 = conv(width, width * 4, 1), Norms(width * 4, streams)
        if stride != 1 or cin != width * 4:
            layers = conv(cin, width * 4, 1, stride), Norms(width * 4, streams)
            self.downsample = nn.Sequential(*layers)
        self.streams, self.threshold = streams, threshold

    def forward(self, xs):
        ys = relu_(self.bn1(self.conv1(xs)))
        ys = self.bn2(self.conv2(ys))
        if self.streams > 1:
            ys = exchange(ys, self.bn2, self.threshold)
        ys = self.bn3(self.conv3(relu_(ys)))
        return relu_(add(ys, self.downsample(xs) if hasattr(self, 'downsample') else xs))


class RCU(nn.ModuleDict):
    """Residual unit; its in-place ReLU also rectifies the residual."""

    def __init__(self, width, blocks):
        super().__init__()
        for i in range(1, blocks + 1):
            self[f'{i}_conv'] = conv(width, width, bias=True)
            self[f'{i}_conv_relu_varout_dimred'] = conv(width, width)

    def forward(self, xs):
        for i in range(1, len(self) // 2 + 1):
            residual = xs
            ys = self[f'{i}_conv'](relu_(xs))
            ys = self[f'{i}_conv_relu_varout_dimred'](relu_(ys))
            xs = add(ys, residual)
        return xs


class CRP(nn.ModuleDict):
    """Chained residual pooling."""

    def __init__(self, width):
        super().__init__({f'{i}_outvar_dimred': conv(width, width) for i in (1, 2, 3, 4)})

    def forward(self, xs):
        link = xs
        for layer in self.values():
            link = layer([F.max_pool2d(x, 5, 1, 2) for x in link])
            xs = add(xs, link)
        return xs


class OfficialSegmenter(nn.Module):
    """ResNet encoder with exchange, RefineNet decoder, ensemble scores alpha.

    Returns the logits of every stream and, last, of the ensemble, at stride 4.
    """

    def __init__(self, layers, streams=2, num_classes=40, threshold=2e-2, width=64):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(streams))
        self.conv1, self.bn1 = conv(3, width, 7, 2), Norms(width, streams)
        cin = width
        for i, blocks in enumerate(layers):
            w = width * 2**i
            stage = []
            for b in range(blocks):
                stage.append(Bottleneck(cin, w, streams, threshold, stride=2 if i and not b else 1))
                cin = w * 4
            self.add_module(f'layer{i + 1}', nn.Sequential(*stage))
        for k in (1, 2, 3, 4):  # decoder stages count from the coarsest
            inner = width * (8 if k == 1 else 4)
            self._add_decoder_stage(k, width * 4 * 2 ** (4 - k), inner, width * 4)
        self.clf_conv = conv(width * 4, num_classes, bias=True)
        self.dropout = Shared(nn.Dropout(0.5))

    def _add_decoder_stage(self, k, cin, width, cout):
        self.add_module(f'p_ims1d2_outl{k}_dimred', conv(cin, width))
        self.add_module(f'adapt_stage{k}_b', nn.Sequential(RCU(width, 2)))
        if k > 1:
            self.add_module(f'adapt_stage{k}_b2_joint_varout_dimred', conv(width, width))
        self.add_module(f'mflow_conv_g{k}_pool', nn.Sequential(CRP(width)))
        self.add_module(f'mflow_conv_g{k}_b', nn.Sequential(RCU(width, 3)))
        if k < 4:
            self.add_module(f'mflow_conv_g{k}_b3_joint_varout_dimred', conv(width, cout))

    def encode(self, xs):
        """Features of stride 4, 8, 16, 32, each a list of streams."""
        xs = relu_(self.bn1(self.conv1(xs)))
        xs = [F.max_pool2d(x, 3, 2, 1) for x in xs]
        features = []
        for i in (1, 2, 3, 4):
            xs = getattr(self, f'layer{i}')(xs)
            features.append(xs)
        return features

    def decode(self, l1, l2, l3, l4):
        """Logits of every stream."""
        l4, l3 = self.dropout(l4), self.dropout(l3)
        ys = None
        for k, xs in enumerate((l4, l3, l2, l1), start=1):
            xs = getattr(self, f'p_ims1d2_outl{k}_dimred')(xs)
            xs = getattr(self, f'adapt_stage{k}_b')(xs)
            if k > 1:
                xs = getattr(self, f'adapt_stage{k}_b2_joint_varout_dimred')(xs)
                xs = add(xs, upsample(ys, like=xs))
            xs = getattr(self, f'mflow_conv_g{k}_pool')(relu_(xs))
            ys = getattr(self, f'mflow_conv_g{k}_b')(xs)
            if k < 4:
                ys = getattr(self, f'mflow_conv_g{k}_b3_joint_varout_dimred')(ys)
        return self.clf_conv(self.dropout(ys))

    def forward(self, xs):
        logits = self.decode(*self.encode(xs))
        scores = self.alpha.softmax(0)
        ensemble = sum(score * y.detach() for score, y in zip(scores, logits, strict=True))
        return [*logits, ensemble]


def randomised(model, generator, small=0.3):
    """Random norms and scores; a share ``small`` of the gammas lies below the threshold 0.02."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            gamma = 1 + 0.2 * torch.randn(module.num_features, generator=generator)
            tiny = 0.01 * torch.randn(module.num_features, generator=generator).clamp(-1.9, 1.9)
            pick = torch.rand(module.num_features, generator=generator) < small
            module.weight.data = torch.where(pick, tiny, gamma)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(7)
    model.alpha.data.normal_(generator=generator)
    return model


class InstanceNorms(nn.Module):
    """One instance norm per stream: insnorm_0, insnorm_1, ...; never in eval mode."""

    def __init__(self, channels, streams):
        super().__init__()
        for i in range(streams):
            norm = nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)
            self.add_module(f'insnorm_{i}', norm)

    def forward(self, xs):
        return [norm.train()(x) for norm, x in zip(self.children(), xs, strict=True)]


class GeneratorLayer(nn.Module):
    """A (transposed) convolution of every stream; whether the norms are called is the generator's
    choice."""

    def __init__(self, name, layer, streams):
        super().__init__()
        channels = layer.out_channels
        self.add_module(name, Shared(layer))
        self.add_module(f'insnorm_{name}', InstanceNorms(channels, streams))

    def forward(self, xs):
        return next(self.children())(xs)

    @property
    def norms(self):
        return list(self.children())[1]


class OfficialGenerator(nn.Module):
    """U-Net of 8 layers with exchange after the encoder's norms; alpha scores the ensemble.

    Returns the images of every stream and, last, of the ensemble. Dropout is left out: it is
    compared without.
    """

    def __init__(self, streams=2, threshold=1e-2, width=64):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(streams))
        self.streams, self.threshold = streams, threshold
        cin = 3
        for i in range(1, 9):
            cout = width * min(2 ** (i - 1), 8)
            layer = GeneratorLayer('conv', nn.Conv2d(cin, cout, 4, 2, 1), streams)
            self.add_module(f'conv{i}', layer)
            cin = cout
        for i in range(1, 9):
            cout = 3 if i == 8 else width * min(2 ** (7 - i), 8)
            layer = GeneratorLayer('deconv', nn.ConvTranspose2d(cin, cout, 4, 2, 1), streams)
            self.add_module(f'deconv{i}', layer)
            cin = cout * 2

    def forward(self, xs):
        features = []
        for i in range(1, 9):
            layer = getattr(self, f'conv{i}')
            xs = layer(xs if i == 1 else [F.leaky_relu_(x, 0.2) for x in xs])
            if 1 < i < 8:
                xs = layer.norms(xs)
                if self.streams > 1:
                    xs = exchange(xs, layer.norms, self.threshold)
            features.append(xs)
        features.pop()
        for i in range(1, 9):
            layer = getattr(self, f'deconv{i}')
            xs = layer(relu_(xs))
            if i < 8:
                pairs = zip(layer.norms(xs), features.pop(), strict=True)
                xs = [torch.cat(pair, 1) for pair in pairs]
        xs = [x.tanh() for x in xs]
        scores = self.alpha.softmax(0)
        return [*xs, sum(score * x.detach() for score, x in zip(scores, xs, strict=True))]
