"""What PyTorch makes of the steps that dcanas' benchmark measures: the same networks, the same mathematics, on the CPU.
Nothing else should run meanwhile: PyTorch's threads spin at every barrier.

    python3 pytorch_reference.py search                        the DARTS supernet, one first-order bi-level step
    python3 pytorch_reference.py search --sharing --bottleneck --derived-cells        DCA-NAS' three speed-ups
    python3 pytorch_reference.py cifar                         target network, 36 channels, 20 cells, batch 96
    python3 pytorch_reference.py imagenet                      target network, 48 channels, 14 cells

Tuned as one would by hand: each half of a search step builds and computes only the gradients that its update needs, a
mix is accumulated by addcmul, a relu that several operations read is computed once, gradients are never zeroed,
optimizers update all parameters in one call where the version can, glibc keeps freed memory. --layout is that of
images and weights; --compile adds torch.compile, with the derived cells fixed to what the first alpha derives (else
every move of alpha compiles anew); --bf16 computes networks and losses under autocast.

One JSON line. A search step takes a batch of training images and a batch of validation images; images_per_s counts
`batch` a step for every network. Times are medians over the steps. With --serve one line for each line of input, so
that measurements can alternate with another program's. Works with torch 1.13 and newer."""
import argparse
import json
import os
import resource
import statistics
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
    "imagenet": (48, 14, 32, 224, 1000),
}
# Large tensors from the heap, which is never given back: else each is mapped and zeroed by the kernel anew.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**26)}


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
    parser.add_argument("--layout", choices=("default", "channels_last"), default="default")
    parser.add_argument("--compile", action="store_true", help="torch.compile (torch 2)")
    parser.add_argument("--bf16", action="store_true", help="torch.autocast to bfloat16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the first of them")
    parser.add_argument("--serve", action="store_true", help="measure once for each line of input")
    arguments = parser.parse_args()
    for name, value in zip(("channels", "cells", "batch", "size", "classes"), DEFAULTS[arguments.network]):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def batch_of(a):
    images = torch.randn(a.batch, 3, a.size, a.size)
    if a.layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    return images, torch.randint(a.classes, (a.batch,))


def place(network, a):
    network.train()
    if a.layout == "channels_last":
        network.to(memory_format=torch.channels_last)
    if a.compile:  # cell by cell: equal cells share what is compiled, and the whole network takes far longer
        torch._dynamo.config.recompile_limit = 64
        for cell in network.cells:
            cell.compile(dynamic=False)
    return network


def optimizer(kind, parameters, *rate, **options):
    """All parameters in one call, where this version of torch has it."""
    try:
        return kind(parameters, *rate, **options, foreach=True)
    except TypeError:
        return kind(parameters, *rate, **options)


def autocast(a):
    return torch.autocast("cpu", torch.bfloat16, enabled=a.bf16)


def search_step(a):
    """Alpha on a validation batch, then the weights on a training batch."""
    network = darts.SearchNetwork(a.channels, a.cells, a.classes, a.sharing, a.bottleneck, a.derived_cells)
    if a.compile and a.derived_cells:
        network.fixed = network.derived()
    place(network, a)
    weights, alphas = network.weights(), network.alphas()
    sgd = optimizer(torch.optim.SGD, weights, 0.025, momentum=0.9, weight_decay=3e-4)
    adam = optimizer(torch.optim.Adam, alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    train, validation = batch_of(a), batch_of(a)

    def update(parameters, others, batch, optimizer, limit=None):
        for group, wanted in ((parameters, True), (others, False)):
            for parameter in group:
                parameter.requires_grad_(wanted)
                parameter.grad = None
        with autocast(a):
            loss = F.cross_entropy(network(batch[0]), batch[1])
        loss.backward()
        if limit:  # a derived cell leaves weights out of the step
            nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], limit)
        optimizer.step()

    def step():
        update(alphas, weights, validation, adam)
        update(weights, alphas, train, sgd, 5.0)

    return network, step


def target_step(a):
    network = darts.TargetNetwork(a.network, darts.GENOTYPES[a.genotype], a.channels, a.cells, a.classes,
                                  not a.no_auxiliary, a.drop_path)
    place(network, a)
    weight_decay, smoothing = (3e-4, 0.0) if a.network == "cifar" else (3e-5, 0.1)
    sgd = optimizer(torch.optim.SGD, network.parameters(), 0.025, momentum=0.9, weight_decay=weight_decay)
    images, labels = batch_of(a)

    def step():
        sgd.zero_grad(set_to_none=True)
        with autocast(a):
            logits, side = network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            if side is not None:
                loss = loss + 0.4 * F.cross_entropy(side, labels, label_smoothing=smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return network, step


def measure(a, network, step):
    times = []
    for _ in range(a.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = statistics.median(times)
    print(json.dumps({
        "framework": f"pytorch {torch.__version__}", "network": a.network, "layout": a.layout, "compile": a.compile, "bf16": a.bf16,
        "threads": torch.get_num_threads(), "batch": a.batch, "channels": a.channels, "cells": a.cells,
        "size": a.size, "sharing": a.sharing, "bottleneck": a.bottleneck, "derived_cells": a.derived_cells,
        "params": darts.count_params(network), "step_s": round(seconds, 4), "fastest_s": round(min(times), 4),
        "steps": a.steps, "images_per_s": round(a.batch / seconds, 2), "peak_bytes": memory,
    }), flush=True)


def main():
    a = parse_arguments()
    if not MALLOC.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**MALLOC, **os.environ})
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    network, step = (search_step if a.network == "search" else target_step)(a)
    for _ in range(a.warmup):
        step()
    for _ in sys.stdin if a.serve else [None]:
        measure(a, network, step)


if __name__ == "__main__":
    main()
