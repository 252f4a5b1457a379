"""What PyTorch makes of the steps that dcanas' benchmark measures: the same networks, the same mathematics, on the
CPU, in PyTorch's faster memory layout. Nothing else should run meanwhile: PyTorch's threads spin at every barrier.

    python3 pytorch_reference.py search                        the DARTS supernet, one first-order bi-level step
    python3 pytorch_reference.py search --sharing --bottleneck --derived-cells        DCA-NAS' three speed-ups
    python3 pytorch_reference.py cifar                         target network, 36 channels, 20 cells, batch 96
    python3 pytorch_reference.py imagenet                      target network, 48 channels, 14 cells

One JSON line for each layout and, at the end, one for the best. A search step takes a batch of training images and a
batch of validation images; images_per_s counts `batch` a step for every network. Times are medians over the steps.
Works with torch 1.13 and newer."""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import darts  # noqa: E402

DEFAULTS = {  # channels, cells, batch, image size, classes
    "search": (16, 8, 64, 32, 10),
    "cifar": (36, 20, 96, 32, 10),
    "imagenet": (48, 14, 16, 224, 1000),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=DEFAULTS)
    for name, help_text in (("channels", "of a node in the first cell"), ("cells", None), ("batch", "images in a step"),
                            ("size", "of the square images"), ("classes", None)):
        parser.add_argument(f"--{name}", type=int, help=help_text)
    parser.add_argument("--genotype", choices=darts.GENOTYPES, default="DARTS_V2")
    parser.add_argument("--sharing", action="store_true", help="search: operations shared by all edges of a source")
    parser.add_argument("--bottleneck", action="store_true", help="search: operations on a quarter of the channels")
    parser.add_argument("--derived-cells", action="store_true", help="search: only the first cell of each type mixes")
    parser.add_argument("--no-auxiliary", action="store_true", help="target network without its auxiliary head")
    parser.add_argument("--drop-path", type=float, default=0.2, help="rate in the target network")
    parser.add_argument("--layout", choices=("default", "channels_last", "best"), default="best")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5, help="measured steps")
    parser.add_argument("--warmup", type=int, default=1, help="steps before them")
    arguments = parser.parse_args()
    for name, value in zip(("channels", "cells", "batch", "size", "classes"), DEFAULTS[arguments.network]):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def batch_of(a, layout):
    images = torch.randn(a.batch, 3, a.size, a.size)
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    return images, torch.randint(a.classes, (a.batch,))


def search_step(a, layout):
    """Alpha on a validation batch, then the weights on a training batch. Each backward computes only the gradients that
    its update needs."""
    network = darts.SearchNetwork(a.channels, a.cells, a.classes, a.sharing, a.bottleneck, a.derived_cells)
    network = place(network, a, layout)
    weights, alphas = network.weights(), network.alphas()
    sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    train, validation = batch_of(a, layout), batch_of(a, layout)

    def update(parameters, batch, optimizer, limit=None):
        loss = F.cross_entropy(network(batch[0]), batch[1])
        # A derived cell leaves weights out of the step.
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
            parameter.grad = grad
        if limit:
            nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], limit)
        optimizer.step()

    def step():
        update(alphas, validation, adam)
        update(weights, train, sgd, 5.0)

    return network, step


def target_step(a, layout):
    network = darts.TargetNetwork(a.network, darts.GENOTYPES[a.genotype], a.channels, a.cells, a.classes,
                                  not a.no_auxiliary, a.drop_path)
    network = place(network, a, layout)
    weight_decay, smoothing = (3e-4, 0.0) if a.network == "cifar" else (3e-5, 0.1)
    sgd = torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=weight_decay)
    images, labels = batch_of(a, layout)

    def step():
        sgd.zero_grad(set_to_none=True)
        logits, side = network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if side is not None:
            loss = loss + 0.4 * F.cross_entropy(side, labels, label_smoothing=smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return network, step


def place(network, a, layout):
    return network.train().to(memory_format=torch.channels_last) if layout == "channels_last" else network.train()


def measure(a, layout):
    torch.manual_seed(0)
    network, step = (search_step if a.network == "search" else target_step)(a, layout)
    times = []
    for i in range(a.warmup + a.steps):
        start = time.perf_counter()
        step()
        if i >= a.warmup:
            times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = statistics.median(times)
    return {
        "framework": f"pytorch {torch.__version__}", "network": a.network, "layout": layout,
        "threads": torch.get_num_threads(), "batch": a.batch, "channels": a.channels, "cells": a.cells,
        "size": a.size, "sharing": a.sharing, "bottleneck": a.bottleneck, "derived_cells": a.derived_cells,
        "params": darts.count_params(network), "step_s": round(seconds, 4), "fastest_s": round(min(times), 4),
        "steps": a.steps, "images_per_s": round(a.batch / seconds, 2), "peak_bytes": memory,
    }


def main():
    a = parse_arguments()
    if a.layout != "best":
        torch.set_num_threads(a.threads)
        print(json.dumps(measure(a, a.layout)), flush=True)
        return
    results = []
    for layout in ("default", "channels_last"):  # each in a process of its own, for its peak memory
        line = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--layout", layout], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        print(line, end="", flush=True)
        results.append(json.loads(line))
    print(json.dumps({**max(results, key=lambda r: r["images_per_s"]), "best": True}), flush=True)


if __name__ == "__main__":
    main()
