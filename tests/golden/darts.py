"""The DARTS space in PyTorch, written from the paper (Liu, Simonyan, Yang 2019) and the published networks' semantics.

Nothing here is used by dcanas itself: it is the other side of the golden values (generate.py) and of the benchmark
(../bench/pytorch_reference.py). Parameters have the names that they have in dcanas. Works with torch 1.13 and newer.
"""
from collections import namedtuple, OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F

Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")

OPERATIONS = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
              "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
NODES = 4
EDGES = [(node, source) for node in range(NODES) for source in range(2 + node)]

GENOTYPES = {
    "DARTS_V2": Genotype(
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
         ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)], [2, 3, 4, 5],
        [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
         ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)], [2, 3, 4, 5]),
    "PC_DARTS_cifar": Genotype(
        [("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
         ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1)], [2, 3, 4, 5],
        [("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
         ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2)], [2, 3, 4, 5]),
    "PDARTS": Genotype(
        [("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1),
         ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4)], [2, 3, 4, 5],
        [("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
         ("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3)], [2, 3, 4, 5]),
}


def named(**modules):
    return nn.Sequential(OrderedDict(modules))


def conv(c_in, c_out, kernel, stride=1, pad=0, dilation=1, groups=1):
    return nn.Conv2d(c_in, c_out, kernel, stride, pad, dilation, groups, bias=False)


class FactorizedReduce(nn.Module):
    """Halves the resolution without losing positions: even ones in the first half of the channels, odd ones in the
    second."""

    def __init__(self, c_in, c_out, affine):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = conv(c_in, c_out // 2, 1, stride=2)
        self.conv2 = conv(c_in, c_out // 2, 1, stride=2)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def reduce(self, x):
        return self.bn(torch.cat([self.conv1(x), self.conv2(x[:, :, 1:, 1:])], 1))

    def forward(self, x):
        return self.reduce(self.relu(x))


def relu_conv_bn(c_in, c_out, affine):
    return named(relu=nn.ReLU(), conv=conv(c_in, c_out, 1), bn=nn.BatchNorm2d(c_out, affine=affine))


def sep_conv(c, kernel, stride, affine):
    return named(relu1=nn.ReLU(), depthwise1=conv(c, c, kernel, stride, kernel // 2, groups=c),
                 pointwise1=conv(c, c, 1), bn1=nn.BatchNorm2d(c, affine=affine),
                 relu2=nn.ReLU(inplace=True), depthwise2=conv(c, c, kernel, 1, kernel // 2, groups=c),
                 pointwise2=conv(c, c, 1), bn2=nn.BatchNorm2d(c, affine=affine))


def dil_conv(c, kernel, stride, affine):
    return named(relu=nn.ReLU(), depthwise=conv(c, c, kernel, stride, 2 * (kernel // 2), dilation=2, groups=c),
                 pointwise=conv(c, c, 1), bn=nn.BatchNorm2d(c, affine=affine))


def operation(name, c, stride, affine, search):
    """A candidate operation; None for 'none'. In search, pooling is followed by a batch norm without affine."""
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine)
    kernel = int(name[-1])
    if name.startswith("sep_conv"):
        return sep_conv(c, kernel, stride, affine)
    if name.startswith("dil_conv"):
        return dil_conv(c, kernel, stride, affine)
    pool = (nn.MaxPool2d(3, stride, 1) if name == "max_pool_3x3" else
            nn.AvgPool2d(3, stride, 1, count_include_pad=False))
    return named(pool=pool, bn=nn.BatchNorm2d(c, affine=False)) if search else pool


def rectified_of(cache, op, source, x):
    """relu(x) for a module that starts with it: once for all readers of the same source."""
    if source not in cache:
        cache[source] = op.relu1(x) if hasattr(op, "relu1") else op.relu(x)
    return cache[source]


def apply(op, source, x, cache):
    """op(x), where a leading relu is taken from `cache`, by source."""
    if isinstance(op, FactorizedReduce):
        return op.reduce(rectified_of(cache, op, source, x))
    if not isinstance(op, nn.Sequential) or not isinstance(op[0], nn.ReLU):
        return op(x)
    x = rectified_of(cache, op, source, x)
    for layer in list(op)[1:]:
        x = layer(x)
    return x


def preprocess(c_in, c, halve, affine):
    return FactorizedReduce(c_in, c, affine) if halve else relu_conv_bn(c_in, c, affine)


def drop_path(x, rate):
    """Zeroes whole images with probability rate and scales the others up."""
    keep = 1.0 - rate
    return x * (torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep).to(x.dtype).div_(keep)


class Cell(nn.Module):
    """A cell of a derived network: each of four nodes sums two operations."""

    def __init__(self, genotype, c_before_last, c_last, c, reduction, reduced_before):
        super().__init__()
        self.preprocess0 = preprocess(c_before_last, c, reduced_before, True)
        self.preprocess1 = preprocess(c_last, c, False, True)
        choice = genotype.reduce if reduction else genotype.normal
        self.concat = list(genotype.reduce_concat if reduction else genotype.normal_concat)
        self.multiplier = len(self.concat)
        self.choice = [choice[2 * node:2 * node + 2] for node in range(NODES)]
        self.node = nn.ModuleList()
        for pair in self.choice:
            self.node.append(nn.ModuleDict({"edge": nn.ModuleList(
                nn.ModuleDict({name: operation(name, c, 2 if reduction and source < 2 else 1, True, False)})
                for name, source in pair)}))

    def forward(self, s0, s1, drop_path_rate):
        states, rectified = [self.preprocess0(s0), self.preprocess1(s1)], {}
        for node, choice in zip(self.node, self.choice):
            pair = []
            for edge, (name, source) in zip(node["edge"], choice):
                y = apply(edge[name], source, states[source], rectified)
                if self.training and drop_path_rate > 0 and not isinstance(edge[name], nn.Identity):
                    y = drop_path(y, drop_path_rate)
                pair.append(y)
            states.append(pair[0] + pair[1])
        return torch.cat([states[i] for i in self.concat], 1)


def auxiliary_head(c, classes, stride, last_norm):
    """The published ImageNet head lacks the second batch norm."""
    layers = OrderedDict(relu1=nn.ReLU(), pool=nn.AvgPool2d(5, stride, 0, count_include_pad=False),
                         conv1=conv(c, 128, 1), bn1=nn.BatchNorm2d(128), relu2=nn.ReLU(),
                         conv2=conv(128, 768, 2))
    if last_norm:
        layers["bn2"] = nn.BatchNorm2d(768)
    layers.update(relu3=nn.ReLU(), flatten=nn.Flatten(), classifier=nn.Linear(768, classes))
    return nn.Sequential(layers)


class TargetNetwork(nn.Module):
    """A derived network: kind 'cifar' (3x3 stem) or 'imagenet' (two-stage stride-2 stem)."""

    def __init__(self, kind, genotype, c, cells, classes, auxiliary=True, drop_path_rate=0.0):
        super().__init__()
        self.kind, self.drop_path_rate = kind, drop_path_rate
        if kind == "cifar":
            self.stem = named(conv=conv(3, 3 * c, 3, pad=1), bn=nn.BatchNorm2d(3 * c))
            c0 = c1 = 3 * c
        else:
            self.stem0 = named(conv1=conv(3, c // 2, 3, 2, 1), bn1=nn.BatchNorm2d(c // 2), relu=nn.ReLU(),
                               conv2=conv(c // 2, c, 3, 2, 1), bn2=nn.BatchNorm2d(c))
            self.stem1 = named(relu=nn.ReLU(), conv=conv(c, c, 3, 2, 1), bn=nn.BatchNorm2d(c))
            c0 = c1 = c
        reduced = kind == "imagenet"
        self.cells = nn.ModuleList()
        self.auxiliary_cell = 2 * cells // 3
        for i in range(cells):
            reduction = i in (cells // 3, 2 * cells // 3)
            c *= 2 if reduction else 1
            cell = Cell(genotype, c0, c1, c, reduction, reduced)
            self.cells.append(cell)
            reduced = reduction
            c0, c1 = c1, cell.multiplier * c
            if i == self.auxiliary_cell:
                c_auxiliary = c1
        self.auxiliary = (auxiliary_head(c_auxiliary, classes, 3 if kind == "cifar" else 2, kind == "cifar")
                          if auxiliary else None)
        self.classifier = nn.Linear(c1, classes)

    def forward(self, x):
        if self.kind == "cifar":
            s0 = s1 = self.stem(x)
        else:
            s0 = self.stem0(x)
            s1 = self.stem1(s0)
        side = None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path_rate)
            if i == self.auxiliary_cell and self.auxiliary is not None and self.training:
                side = self.auxiliary(s1)
        return self.classifier(s1.mean((2, 3))), side


class SearchCell(nn.Module):
    """A cell of the supernet.

    sharing: an operation on a source is computed once for all of the cell's nodes (DCA-NAS Eq 5); else every edge has
    its own. bottleneck: operations work on c/4 channels, between a 1x1 convolution per source and one per node."""

    def __init__(self, c_before_last, c_last, c, reduction, reduced_before, sharing, bottleneck):
        super().__init__()
        self.sharing = sharing
        self.preprocess0 = preprocess(c_before_last, c, reduced_before, False)
        self.preprocess1 = preprocess(c_last, c, False, False)
        width = c // 4 if bottleneck else c

        def operations(source):
            stride = 2 if reduction and source < 2 else 1
            return nn.ModuleDict({name: operation(name, width, stride, False, True) for name in OPERATIONS[1:]})

        def resize(c_in, c_out):
            return named(conv=conv(c_in, c_out, 1), bn=nn.BatchNorm2d(c_out, affine=False))

        self.source = nn.ModuleList(operations(j) if sharing else nn.ModuleDict() for j in range(1 + NODES))
        self.node = nn.ModuleList(nn.ModuleDict() for _ in range(NODES))
        if not sharing:
            for i, node in enumerate(self.node):
                node["edge"] = nn.ModuleList(operations(j) for j in range(2 + i))
        if bottleneck:
            for source in self.source:
                source["reduce"] = resize(c, width)
            for node in self.node:
                node["restore"] = resize(width, c)
        self.bottleneck = bottleneck

    def forward(self, s0, s1, weights, derived=None):
        """weights: 14 * 8 scalars, after the softmax; derived: per node [(source, operation name), ...] instead of the
        mix."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        narrow, rectified, features = {}, {}, {}

        def source(j):
            if not self.bottleneck:
                return states[j]
            if j not in narrow:
                narrow[j] = self.source[j]["reduce"](states[j])
            return narrow[j]

        def feature(node, j, name):
            if not self.sharing:
                return apply(self.node[node]["edge"][j][name], j, source(j), rectified)
            if (j, name) not in features:
                features[j, name] = apply(self.source[j][name], j, source(j), rectified)
            return features[j, name]

        for node in range(NODES):
            first = EDGES.index((node, 0))
            if derived is not None:
                (j, name), (k, other) = derived[node]
                y = feature(node, j, name) + feature(node, k, other)
            else:
                y = weighted_sum([(weights[(first + j) * len(OPERATIONS) + o], feature(node, j, name))
                                  for j in range(2 + node) for o, name in enumerate(OPERATIONS) if o > 0])
            states.append(self.node[node]["restore"](y) if self.bottleneck else y)
        return torch.cat(states[2:], 1)


def weighted_sum(terms):
    """The mix: one pass over memory for each term (a sum of products would take two, and keep the products)."""
    y = terms[0][0] * terms[0][1]
    for weight, x in terms[1:]:
        y = torch.addcmul(y, weight, x)
    return y


def derive(weights):
    """The DARTS rule: per node the two incoming edges with the strongest operation other than 'none'."""
    choice, first = [], 0
    for node in range(NODES):
        best, which = weights[first:first + 2 + node, 1:].max(1)
        pair = best.topk(2).indices.tolist()
        choice.append([(j, OPERATIONS[int(which[j]) + 1]) for j in pair])
        first += 2 + node
    return choice


class SearchNetwork(nn.Module):
    """The supernet. All switches off: first-order DARTS. derived_cells: only the first cell of each type mixes all
    operations, the others run `genotype` or, without one, what alpha would derive now."""

    def __init__(self, c, cells, classes, sharing=False, bottleneck=False, derived_cells=False, genotype=None):
        super().__init__()
        self.stem = named(conv=conv(3, 3 * c, 3, pad=1), bn=nn.BatchNorm2d(3 * c))
        self.derived_cells = derived_cells
        self.fixed = genotype and {
            kind: [[(j, name) for name, j in choice[2 * node:2 * node + 2]] for node in range(NODES)]
            for kind, choice in (("normal", genotype.normal), ("reduce", genotype.reduce))}
        reductions = (cells // 3, 2 * cells // 3)
        self.engines = (min(set(range(cells)) - set(reductions)), min(reductions))
        c0 = c1 = 3 * c
        reduced = False
        self.reductions = reductions
        self.cells = nn.ModuleList()
        for i in range(cells):
            reduction = i in reductions
            c *= 2 if reduction else 1
            self.cells.append(SearchCell(c0, c1, c, reduction, reduced, sharing, bottleneck))
            reduced = reduction
            c0, c1 = c1, NODES * c
        self.classifier = nn.Linear(c1, classes)
        self.alpha = nn.ParameterDict({kind: nn.Parameter(1e-3 * torch.randn(len(EDGES), len(OPERATIONS)))
                                       for kind in ("normal", "reduce")})

    def weights(self):
        return [p for name, p in self.named_parameters() if not name.startswith("alpha.")]

    def alphas(self):
        return [self.alpha["normal"], self.alpha["reduce"]]

    def derived(self):
        """What alpha derives now, by type of cell."""
        return {kind: derive(F.softmax(alpha.detach(), -1)) for kind, alpha in self.alpha.items()}

    def forward(self, x):
        scalars = {kind: F.softmax(self.alpha[kind], -1).flatten().unbind() for kind in ("normal", "reduce")}
        derived = (self.fixed or self.derived()) if self.derived_cells else None
        s0 = s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            kind = "reduce" if i in self.reductions else "normal"
            choice = derived[kind] if self.derived_cells and i not in self.engines else None
            s0, s1 = s1, cell(s0, s1, scalars[kind], choice)
        return self.classifier(s1.mean((2, 3)))


def count_params(network):
    """Weights without the auxiliary head and alpha."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith(("auxiliary.", "alpha.")))


def count_macs(network, size):
    """Multiply-accumulates of convolutions and linear layers for one 3 x size x size image, in inference."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules()]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total
