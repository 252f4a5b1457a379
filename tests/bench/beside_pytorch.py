"""The rows of bench_steps beside PyTorch's, measured in turns on the same cores: images/s of both, and their ratio.
usage: beside_pytorch.py PATH/bench_steps [ROW...]        (all rows that have a PyTorch counterpart of their own)"""
import json
import os
import subprocess
import sys

ROWS = ("dca-nas", "darts", "cifar", "small")
REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pytorch_reference.py")


def last_json(command):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main():
    print(f"\n{'':<52} {'dcanas':>9} {'PyTorch':>9} {'ratio':>7}   PyTorch's best layout, peak MiB (dcanas)")
    for row in sys.argv[2:] or ROWS:
        ours = last_json([sys.argv[1], "--json", "--row", row])
        theirs = last_json([sys.executable, REFERENCE, *ours["pytorch"].split(), "--threads", str(ours["threads"]),
                            "--steps", "3"])
        print(f"{ours['title'].strip():<52} {ours['images_per_s']:9.1f} {theirs['images_per_s']:9.1f} "
              f"{ours['images_per_s'] / theirs['images_per_s']:6.1f}x   {theirs['layout']}, "
              f"{theirs['peak_bytes'] / 2**20:.0f} ({ours['peak_bytes'] / 2**20:.0f})", flush=True)


if __name__ == "__main__":
    main()
