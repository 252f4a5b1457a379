"""Writes the golden values: what PyTorch computes, in float64, for operations, cells, networks, a supernet step and
optimizers. `python3 generate.py` rewrites the *.h5 files beside it; tests/unit/test_golden.c compares dcanas with them.

Parameters and images are not stored: both sides draw them from the same hash of their names (`hashed`). A file holds a
group per case with two datasets: `index`, lines of text "kind name count form offset", and `values`, float32. form is
`full`, or `sketch` for large arrays: their norm and PROJECTIONS dot products with signs drawn from the hash, which
estimate the norm of a difference without bias.

A relu or a maximum is a switch that rounding may throw, and one thrown switch moves a small gradient by more than the
tolerance. So the images of a case are those of the first seed for which every switch keeps a distance (`MARGIN`)."""
import os
import sys

import h5py
import numpy
import torch
import torch.nn as nn
import torch.nn.functional as F

import darts

FULL = {"updated": 32}  # kind: largest number of elements that is stored in full
FULL_OTHERWISE = 100
PROJECTIONS = 16
MARGIN = 1e-5
MARGIN_OF_MANY = 3e-6  # a whole supernet has so many switches that no seed keeps the other
CLIP = 5.0
HERE = os.path.dirname(os.path.abspath(__file__))


# ---- numbers both sides know -----------------------------------------------------------------------------------------
def hashed(name, count):
    """count numbers in [-0.5, 0.5): splitmix64 of FNV-1a of the name, its upper 24 bits."""
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 % 2**64
    x = numpy.uint64(h) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9e3779b97f4a7c15)
    x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xbf58476d1ce4e5b9)
    x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94d049bb133111eb)
    x ^= x >> numpy.uint64(31)
    return (x >> numpy.uint64(40)).astype(numpy.float64) / 2**24 - 0.5


def drawn(name, *shape):
    return torch.from_numpy(hashed(name, int(numpy.prod(shape)))).reshape(shape)


def images(seed, n, c, size):
    return 4 * drawn(f"images.{seed}", n, c, size, size)


def labels(seed, n, classes):
    return ((drawn(f"labels.{seed}", n) + 0.5) * classes).long()


def tensors(network):
    """(name, tensor, starts at one) of every parameter and running statistic."""
    for prefix, module in network.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name != "num_batches_tracked":
                one = isinstance(module, nn.BatchNorm2d) and name in ("weight", "running_var")
                yield (f"{prefix}.{name}" if prefix else name), tensor, one


def fill(network):
    for name, tensor, one in tensors(network):
        tensor.data.copy_(drawn(name, *tensor.shape) + (1 if one else 0))
    return network


# ---- switches --------------------------------------------------------------------------------------------------------
class Margin:
    """The smallest distance of any relu or max-pool from its switch, in units of its input's rms."""

    def __init__(self, network):
        self.hooks = [m.register_forward_pre_hook(self.look) for m in network.modules()
                      if isinstance(m, (nn.ReLU, nn.MaxPool2d))]

    def __enter__(self):
        self.least = float("inf")
        return self

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()

    def look(self, module, inputs):
        x = inputs[0].detach()
        distance = x.abs()
        if isinstance(module, nn.MaxPool2d):
            windows = F.pad(x, [module.padding] * 4, value=-1e9).unfold(2, module.kernel_size, module.stride)
            windows = windows.unfold(3, module.kernel_size, module.stride).flatten(4)
            top = windows.topk(2, dim=-1).values
            distance = top[..., 0] - top[..., 1]
        self.least = min(self.least, (distance.min() / x.pow(2).mean().sqrt()).item())


def first_seed(make, run, least=MARGIN):
    """The first seed whose images keep every switch of run(network, seed) at a distance."""
    for seed in range(1000):
        network = make()
        with Margin(network) as margin:
            run(network, seed)
        if margin.least >= least:
            return seed
    raise SystemExit("no seed keeps the margin")


# ---- files -----------------------------------------------------------------------------------------------------------
class Case:
    def __init__(self, file, name):
        self.group, self.lines, self.parts, self.offset = file.create_group(name), [], [], 0

    def add(self, kind, name, tensor):
        x = torch.as_tensor(tensor, dtype=torch.float64).detach().flatten().numpy()
        form, stored = "full", x
        if x.size > FULL.get(kind, FULL_OTHERWISE):
            signs = [numpy.where(hashed(f"projection.{k}", x.size) < 0, -1.0, 1.0) for k in range(PROJECTIONS)]
            form, stored = "sketch", numpy.array([numpy.linalg.norm(x)] + [sign @ x for sign in signs])
        self.lines.append(f"{kind} {name} {x.size} {form} {self.offset}\n")
        self.parts.append(stored.astype(numpy.float32))
        self.offset += stored.size

    def add_params(self, kind, network, prefix=""):
        """kind: 'grad' of every parameter that has one, 'updated' values of those, 'state' running statistics."""
        for name, tensor, _ in tensors(network):
            if isinstance(tensor, nn.Parameter):
                if kind != "state" and tensor.grad is not None:
                    self.add(kind, prefix + name, tensor.grad if kind == "grad" else tensor)
            elif kind == "state":
                self.add(kind, prefix + name, tensor)

    def write(self):
        for name, array in (("index", numpy.frombuffer("".join(self.lines).encode(), dtype=numpy.uint8)),
                            ("values", numpy.concatenate(self.parts))):
            self.group.create_dataset(name, data=array, compression=9 if array.size > 4000 else None,
                                      shuffle=True if array.size > 4000 else None)


# ---- operations ------------------------------------------------------------------------------------------------------
class Operation(nn.Module):
    """images -> pre (1x1 convolution) -> op -> head (linear over all features) -> cross entropy."""
    BATCH, CHANNELS, CLASSES = 18, 4, 5

    def __init__(self, op, size):
        super().__init__()
        self.size = size
        self.pre = darts.conv(3, self.CHANNELS, 1)
        self.op = op
        with torch.no_grad():
            features = op.eval()(torch.zeros(1, self.CHANNELS, size, size)).numel()
        self.head = nn.Linear(features, self.CLASSES)

    def forward(self, x):
        self.before = self.pre(x)
        self.after = self.op(self.before)
        return self.head(self.after.flatten(1))


class Mix(nn.Module):
    """Two convolutions, the second used twice, mixed by one row of a softmax."""

    def __init__(self, c):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(2, 3))
        self.a, self.b = darts.conv(c, c, 1), darts.conv(c, c, 1)

    def forward(self, x):
        p, a, b = F.softmax(self.alpha, -1), self.a(x), self.b(x)
        return p[1, 0] * a + p[1, 2] * b + p[0, 1] * b


class Join(nn.Module):
    """Two convolutions, added or concatenated."""

    def __init__(self, c, add):
        super().__init__()
        self.a, self.b, self.add = darts.conv(c, c, 1), darts.conv(c, c, 1), add

    def forward(self, x):
        return self.a(x) + self.b(x) if self.add else torch.cat([self.a(x), self.b(x), x], 1)


def operations(c):
    """name -> (factory, image size, label smoothing)"""
    conv, norm = darts.conv, nn.BatchNorm2d
    odd = {
        "conv_1x1": lambda: conv(c, 6, 1),
        "conv_3x3": lambda: conv(c, 6, 3, pad=1),
        "conv_3x3_stride_2": lambda: conv(c, 6, 3, 2, 1),
        "conv_2x2": lambda: conv(c, 6, 2),
        "conv_grouped": lambda: conv(c, 6, 3, pad=1, groups=2),
        "conv_depthwise_3x3": lambda: conv(c, c, 3, pad=1, groups=c),
        "conv_depthwise_5x5_stride_2": lambda: conv(c, c, 5, 2, 2, groups=c),
        "conv_dilated": lambda: conv(c, 6, 3, pad=2, dilation=2),
        "conv_depthwise_5x5_dilated": lambda: conv(c, c, 5, pad=4, dilation=2, groups=c),
        "conv_depthwise_3x3_dilated_stride_2": lambda: conv(c, c, 3, 2, 2, 2, c),
        "relu_conv": lambda: darts.named(relu=nn.ReLU(), conv=conv(c, 6, 3, pad=1)),
        "batch_norm": lambda: norm(c, affine=False),
        "batch_norm_affine": lambda: norm(c),
        "relu": nn.ReLU,
        "max_pool": lambda: nn.MaxPool2d(3, 1, 1),
        "max_pool_stride_2": lambda: nn.MaxPool2d(3, 2, 1),
        "avg_pool": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        "avg_pool_stride_2": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        "avg_pool_5x5_stride_3": lambda: nn.AvgPool2d(5, 3, 0, count_include_pad=False),
        "global_avg_pool": lambda: nn.AdaptiveAvgPool2d(1),
        "add": lambda: Join(c, True),
        "concat": lambda: Join(c, False),
        "mix": lambda: Mix(c),
    }
    for affine in (False, True):
        suffix = "_affine" if affine else ""
        for kind in ("sep_conv", "dil_conv"):
            for kernel in (3, 5):
                for stride in (1, 2):
                    odd[f"{kind}_{kernel}x{kernel}_stride_{stride}{suffix}"] = (
                        lambda kind=kind, kernel=kernel, stride=stride, affine=affine:
                        getattr(darts, kind)(c, kernel, stride, affine))
    cases = {name: (make, 7, 0.0) for name, make in odd.items()}
    cases["cross_entropy_smoothed"] = (lambda: conv(c, 6, 1), 3, 0.1)
    cases["factorized_reduce"] = (lambda: darts.FactorizedReduce(c, 6, False), 8, 0.0)
    cases["factorized_reduce_affine"] = (lambda: darts.FactorizedReduce(c, 6, True), 8, 0.0)
    return cases


def write_operations(file):
    shape = Operation
    for name, (make_op, size, smoothing) in operations(shape.CHANNELS).items():
        def make():
            return fill(Operation(make_op(), size).double().train())

        def run(network, seed):
            return network(images(seed, shape.BATCH, 3, size))

        seed = first_seed(make, run)
        network = make()
        logits = run(network, seed)
        network.before.retain_grad()
        truth = labels(seed, shape.BATCH, shape.CLASSES)
        loss = F.cross_entropy(logits, truth, label_smoothing=smoothing)
        loss.backward()
        case = Case(file, name)
        case.add("seed", "images", seed)
        case.add("value", "op", network.after)
        case.add("value", "head", logits)
        case.add("loss", "train", loss)
        case.add("value_grad", "pre", network.before.grad)
        case.add_params("grad", network)
        case.add_params("state", network)
        with torch.no_grad():
            logits = run(network.eval(), seed)
            case.add("inference", "head", logits)
            case.add("loss", "inference", F.cross_entropy(logits, truth, label_smoothing=smoothing))
        case.write()


# ---- networks --------------------------------------------------------------------------------------------------------
def write_target(file, batch=5, channels=4, cells=5, classes=10):
    """A training step of the CIFAR target network, and its inference with the statistics that it leaves."""
    def make():
        return fill(darts.TargetNetwork("cifar", darts.GENOTYPES["DARTS_V2"], channels, cells, classes).double().train())

    def run(network, seed):
        return network(images(seed, batch, 3, 32))

    seed = first_seed(make, run)
    network = make()
    truth = labels(seed, batch, classes)
    logits, side = run(network, seed)
    loss, side_loss = F.cross_entropy(logits, truth), F.cross_entropy(side, truth)
    (loss + 0.4 * side_loss).backward()
    case = Case(file, "cifar_darts_v2")
    case.add("seed", "images", seed)
    case.add("value", "logits", logits)
    case.add("value", "auxiliary_logits", side)
    case.add("loss", "train", loss)
    case.add("loss", "auxiliary", side_loss)
    case.add_params("grad", network)
    parameters = list(network.parameters())
    case.add("norm", "grad", nn.utils.clip_grad_norm_(parameters, CLIP))
    torch.optim.SGD(parameters, 0.025, momentum=0.9, weight_decay=3e-4).step()
    case.add_params("updated", network)
    case.add_params("state", network)
    with torch.no_grad():
        logits, _ = run(network.eval(), seed)
        case.add("inference", "logits", logits)
        case.add("loss", "inference", F.cross_entropy(logits, truth))
    case.write()


def write_supernet_step(file, name, make_network, batch, size, classes=10, margin=MARGIN):
    """One first-order DARTS step: alpha on a validation batch, then the weights on a training batch."""
    def make():
        return fill(make_network().double().train())

    def step(network, seed, case=None):
        def loss_of(which):
            logits = network(images(f"{which}.{seed}", batch, 3, size))
            loss = F.cross_entropy(logits, labels(f"{which}.{seed}", batch, classes))
            if case:
                case.add("value", f"logits.{which}", logits)
                case.add("loss", which, loss)
            return loss

        alphas, weights = network.alphas(), network.weights()
        for alpha, grad in zip(alphas, torch.autograd.grad(loss_of("validation"), alphas)):
            alpha.grad = grad
        if case:
            case.add_params("grad", network.alpha, "alpha.")
        torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3).step()
        if case:
            case.add_params("updated", network.alpha, "alpha.")
        network.zero_grad(set_to_none=True)
        # A derived cell's operation that its genotype leaves out has no gradient and is not updated.
        loss = loss_of("train")
        for weight, grad in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True)):
            weight.grad = grad
        if case:
            case.add_params("grad", network)
        norm = nn.utils.clip_grad_norm_(weights, CLIP)
        torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4).step()
        if case:
            case.add("norm", "grad", norm)
            case.add_params("updated", network)
            case.add_params("state", network)

    seed = first_seed(make, step, margin)
    case = Case(file, name)
    case.add("seed", "images", seed)
    step(make(), seed, case)
    case.write()


def write_supernet(file):
    write_supernet_step(file, "darts", lambda: darts.SearchNetwork(4, 5, 10), batch=4, size=16,
                        margin=MARGIN_OF_MANY)


def write_cells(file):
    """One normal and two reduction cells: as in DARTS, and with DCA-NAS' sharing, bottleneck and derived cells."""
    write_supernet_step(file, "darts", lambda: darts.SearchNetwork(4, 3, 10), batch=6, size=8)
    write_supernet_step(file, "shared", lambda: darts.SearchNetwork(4, 3, 10, sharing=True), batch=6, size=8)
    write_supernet_step(file, "narrow", lambda: darts.SearchNetwork(8, 3, 10, bottleneck=True), batch=6, size=8)
    write_supernet_step(file, "derived", lambda: darts.SearchNetwork(
        8, 5, 10, True, True, True, darts.GENOTYPES["DARTS_V2"]), batch=6, size=8)


# ---- optimizers ------------------------------------------------------------------------------------------------------
def write_optimizers(file, count=37, steps=5):
    for name, make in {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
        "sgd_nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
        "sgd_plain": lambda p: torch.optim.SGD(p, 0.1),
        "adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.999), weight_decay=1e-2),
    }.items():
        case = Case(file, name)
        value = nn.Parameter(drawn("value", count))
        optimizer = make([value])
        for step in range(1, steps + 1):
            value.grad = drawn(f"grad.{step}", count)
            optimizer.step()
            case.add("updated", f"step.{step}", value)
        case.write()


def write_schedules(file, rate=0.4, least=0.01, epochs=20, warmup=4):
    """The rate of each epoch; `_warmup`: the first ones rise from 0 along a line."""
    schedulers = torch.optim.lr_scheduler
    for name, make in {
        "cosine": lambda o, n: schedulers.CosineAnnealingLR(o, n, least),
        "linear": lambda o, n: schedulers.LinearLR(o, 1.0, least / rate, n),
        "step": lambda o, n: schedulers.StepLR(o, 3, 0.5),
    }.items():
        case = Case(file, name)
        for kind, rising in (("plain", 0), ("warmup", warmup)):
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate)
            # As in DARTS' ImageNet training, steps are counted from the first epoch, warm-up or not.
            behind = rising if name != "step" else 0
            schedule, rates = make(optimizer, epochs - behind), []
            for epoch in range(epochs):
                if epoch >= behind + 1:
                    optimizer.step()
                    schedule.step()
                rates.append(rate * epoch / rising if epoch < rising else optimizer.param_groups[0]["lr"])
            case.add("rate", kind, rates)
        case.write()


def main():
    torch.set_num_threads(2)
    writers = {
        "operations": write_operations,
        "target": write_target,
        "cells": write_cells,
        "supernet": write_supernet,
        "optimizers": write_optimizers,
        "schedules": write_schedules,
    }
    for name in sys.argv[1:] or writers:
        with h5py.File(os.path.join(HERE, f"{name}.h5"), "w", libver="latest") as file:
            writers[name](file)


if __name__ == "__main__":
    main()
