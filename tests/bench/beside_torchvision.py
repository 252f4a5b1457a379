"""dcanas' loader beside torchvision's: the same pictures (JPEG files of full size), decoded, cropped at random to 224x224,
mirrored, with and without changes of colour, normalised, in batches; measured in turns, with as many threads here as
workers there. torchvision's files and dcanas' data set both lie in the page cache.

    beside_torchvision.py PATH/dcanas [--pictures ../shared/data/imagenet-sample-200.tar.gz] [--pairs 3]

Two ratios: of the speeds, and of images per second of processor time, which what else runs hardly changes. Fails when
the median of the latter is below the target."""
import argparse
import glob
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

import torch
from PIL import Image
from torchvision import transforms

TARGET = 2
SIDE, BATCH = 224, 32
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
CONFIG = """[data]
file = {file}
image_size = {side}
[target]
batch = {batch}
crop_padding = 0
cutout = 0
random_resized_crop = yes
"""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dcanas")
    parser.add_argument("--pictures", default=os.path.join(ROOT, "..", "shared", "data", "imagenet-sample-200.tar.gz"),
                        help="an archive of class folders")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of a measurement")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, min(2, os.cpu_count())}))
    return parser.parse_args()


class Pictures(torch.utils.data.Dataset):
    """The files again and again: n of them."""

    def __init__(self, files, n, colours):
        steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
        steps += [transforms.ColorJitter(**COLOURS)] if colours else []
        steps += [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        self.files, self.n, self.transform = files, n, transforms.Compose(steps)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        path = self.files[i % len(self.files)]
        with open(path, "rb") as file:
            return self.transform(Image.open(file).convert("RGB")), i


def cpu_seconds():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage,
                                                    (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def measure_torchvision(files, n, workers, colours):
    """(images/s, images per second of processor time), with the start of the workers left out of the former."""
    loader = torch.utils.data.DataLoader(Pictures(files, n, colours), BATCH, shuffle=True, num_workers=workers)
    begun_cpu = cpu_seconds()
    batches = iter(loader)
    next(batches)
    begun = time.monotonic()
    for _ in batches:
        pass
    seconds = time.monotonic() - begun
    del batches, loader  # the workers end
    return (n - BATCH) / seconds, n / (cpu_seconds() - begun_cpu)


def measure_dcanas(a, config, threads, colours):
    settings = [f"data.decode_threads={threads}"]
    settings += [f"target.{name}={strength}" for name, strength in COLOURS.items()] if colours else []
    command = [a.dcanas, "bench-data", config, "--json", "--time", f"{a.seconds}s"]
    text = subprocess.run(command + [word for s in settings for word in ("--set", s)], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(text)
    return result["images_per_second"], result["images_per_core_second"]


def compare(a, files, config, cores, colours):
    """The median ratio of processor time."""
    ways = [cores] if cores > 1 else [0, 1]  # workers; 0: in the process itself
    speed = max((measure_torchvision(files, 2 * BATCH, w, colours)[0], w) for w in ways)
    n = max(2 * BATCH, int(a.seconds * speed[0]) // BATCH * BATCH)
    pairs = [(measure_dcanas(a, config, cores, colours), measure_torchvision(files, n, speed[1], colours))
             for _ in range(a.pairs)]
    rates = [ours[0] / theirs[0] for ours, theirs in pairs]
    of_core = [ours[1] / theirs[1] for ours, theirs in pairs]

    def middle(side, kind):
        return statistics.median(pair[side][kind] for pair in pairs)

    print(f"  {cores} {'colours' if colours else 'plain':8} {middle(0, 0):9.0f} {middle(1, 0):11.0f} "
          f"{statistics.median(rates):6.1f}   {middle(0, 1):9.0f} {middle(1, 1):11.0f} "
          f"{statistics.median(of_core):6.1f}  ({min(of_core):.1f} to {max(of_core):.1f})", flush=True)
    return statistics.median(of_core)


def main():
    a = parse_arguments()
    if not os.path.exists(a.pictures):
        print(f"SKIPPED: no pictures at {a.pictures} (--pictures: an archive of class folders of JPEG files)")
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, config = os.path.join(folder, "pictures.h5"), os.path.join(folder, "pictures.ini")
        with tarfile.open(a.pictures) as archive:
            archive.extractall(folder)
        files = sorted(f for f in glob.glob(os.path.join(folder, "**"), recursive=True)
                       if f.lower().endswith((".jpeg", ".jpg")))
        subprocess.run([a.dcanas, "data", "import", "folders", a.pictures, data, "--held-out", "0"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(file=data, side=SIDE, batch=BATCH))
        print(f"{len(files)} pictures to {SIDE}x{SIDE}, batches of {BATCH}; torch {torch.__version__}")
        print("                       images/s              images/s of a core")
        print("  cores         dcanas torchvision  ratio      dcanas torchvision  ratio")
        ratios = [compare(a, files, config, cores, colours) for cores in a.cores for colours in (False, True)]
    if min(ratios) < TARGET:
        print(f"below the target of {TARGET}x per core: {min(ratios):.2f}x")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
