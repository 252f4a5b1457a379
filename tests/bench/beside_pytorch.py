"""The rows of bench_steps beside PyTorch's fastest variant, on the same cores: the newest and Debian's PyTorch (each
Python that is given), both memory layouts, eager and compiled. First each variant is measured once; then the fastest
and dcanas are measured in turns, and the ratio of each pair counts.

    beside_pytorch.py PATH/bench_steps [--pythons python3 /path/to/python] [--rows dca-nas ...] [--pairs 5]

With --precision bf16 the faster of PyTorch's float and autocast counts.
A compiler's time is not counted, but waited for: minutes a row, at most --compile-minutes. --no-compile leaves it
out."""
import argparse
import itertools
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile

TARGETS = {"dca-nas": 8, "darts": 5, "cifar": 4, "imagenet": 2.5, "small": 8}  # ratios that are wanted
MEMORY_TARGETS = {"darts": 3 * 2**30}
STEPS = {"cifar": 2, "imagenet": 1}  # that PyTorch measures at once
REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pytorch_reference.py")
MIB = 2**20


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_steps")
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="that have PyTorch")
    parser.add_argument("--rows", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of dcanas' steps in a pair")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=("float", "bf16"), default="float", help="of dcanas")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--compile-minutes", type=float, default=30)
    return parser.parse_args()


class Variant:
    """A PyTorch that runs a row's step and waits, with its threads asleep, to be asked for a measurement."""

    def __init__(self, python, arguments, layout, bf16, compiled, steps):
        self.python, self.layout, self.bf16, self.compiled = python, layout, bf16, compiled
        command = [python, REFERENCE, *arguments, "--layout", layout, "--steps", str(steps), "--serve"]
        self.messages = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command + ["--bf16"] * bf16 + ["--compile"] * compiled, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.messages, text=True,
                                        start_new_session=True)
        self.result = self.failure = None

    def measure(self, limit_s=None):
        """Images/s; None when PyTorch gave up or took longer, with the reason in self.failure."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            os.killpg(self.process.pid, signal.SIGKILL)  # the compiler's workers too
            self.failure = f"not ready after {limit_s / 60:.0f} minutes"
            return None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.messages.seek(0)
            lines = self.messages.read().strip().splitlines()
            self.failure = lines[-1] if lines else f"ended with status {status} (out of memory?)"
            return None
        self.result = json.loads(line)
        return self.result["images_per_s"]

    def close(self):
        try:
            self.process.communicate()
        except BrokenPipeError:
            pass
        self.messages.close()

    def name(self):
        version = self.result["framework"].split("+")[0] if self.result else self.python
        return f"{version}, {self.layout}, {'bf16, ' * self.bf16}{'compiled' if self.compiled else 'eager'}"


def can_compile(python):
    check = "import torch, sys; sys.exit(not hasattr(torch, 'compile'))"
    return subprocess.run([python, "-c", check], check=False).returncode == 0


def fastest_variant(a, row, arguments):
    """Only the faster layout and precision of each Python is compiled."""
    best = None

    def try_out(python, layout, bf16, compiled):
        nonlocal best
        variant = Variant(python, arguments, layout, bf16, compiled, STEPS.get(row, 3))
        speed = variant.measure(60 * a.compile_minutes if compiled else None)
        told = f"{speed:.1f} images/s" if speed else f"failed: {variant.failure[:80]}"
        print(f"    {variant.name():<48} {told}", flush=True)
        if speed and (not best or speed > best.result["images_per_s"]):
            best, variant = variant, best
        if variant:
            variant.close()
        return speed or 0

    for python in a.pythons:
        kinds = itertools.product(("default", "channels_last"), (False, True) if a.precision == "bf16" else (False,))
        fastest = max(kinds, key=lambda kind: try_out(python, *kind, False))
        if not a.no_compile and can_compile(python):
            try_out(python, *fastest, True)
    return best


def measure_ours(a, row):
    command = [a.bench_steps, "--json", "--threads", str(a.threads), "--seconds", str(a.seconds), "--row", row,
               "--precision", a.precision]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def run_row(a, row):
    """The row's line of the summary."""
    ours = measure_ours(a, row)
    print(f"\n{ours['title'].strip()}", flush=True)
    theirs = fastest_variant(a, row, [*ours["pytorch"].split(), "--threads", str(a.threads)])
    if not theirs:
        return f"{row:<10} no PyTorch ran it"
    ratios, speeds = [], []
    for _ in range(a.pairs):
        ours, speed = measure_ours(a, row), theirs.measure()
        ratios.append(ours["images_per_s"] / speed)
        speeds.append((ours["images_per_s"], speed))
        print(f"    dcanas {speeds[-1][0]:9.1f}   PyTorch {speed:8.1f}   {ratios[-1]:6.2f}x", flush=True)
    theirs.close()
    target, memory = TARGETS[row], MEMORY_TARGETS.get(row, ours["peak_bytes"])
    ratio, (mine, other) = statistics.median(ratios), [statistics.median(s) for s in zip(*speeds)]
    return (f"{row:<10} {mine:9.1f} {other:9.1f} {ratio:7.2f}x {min(ratios):6.2f}-{max(ratios):.2f} {target:7g}x "
            f"{'met' if ratio >= target and ours['peak_bytes'] <= memory else 'MISSED':<7} {100 * ours['floor_s'] / ours['step_s']:4.0f}% "
            f"{ours['plan_bytes'] / MIB:7.0f} {ours['peak_bytes'] / MIB:7.0f} {theirs.result['peak_bytes'] / MIB:8.0f}  "
            f"{theirs.name()}"
            f"{f'; at most {memory // MIB} MiB' if row in MEMORY_TARGETS else ''}")


def main():
    a = parse_arguments()
    print(f"\ndcanas beside PyTorch, {a.threads} threads, {a.pairs} pairs of measurements a row")
    lines = [run_row(a, row) for row in a.rows]
    print(f"\n{'images/s':<10} {'dcanas':>9} {'PyTorch':>9} {'ratio':>8} {'min-max':>11} {'target':>8} {'':<7} "
          f"{'floor':>5} {'plan':>7} {'RSS':>7} {'PyTorch':>8}  MiB; PyTorch's fastest variant")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
