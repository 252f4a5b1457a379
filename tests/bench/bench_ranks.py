"""What ranks are worth: one rank of one thread, one rank of all cores' threads, and a rank of one thread on each core,
measured in turns; data-parallel training (batches of equal size: its share is what a rank computes) and the lookup
graph of a small search (the demo's network on Fashion-MNIST, where its files are).

    bench_ranks.py BUILD [--rows small cifar] [--rounds 3]"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import tempfile

TRAINING_TARGET, GRAPH_TARGET = 0.95, 0.975  # of the number of ranks: 1.9x and 1.95x with two
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
GRAPH = ["lug.points=8", "search.epochs=2", "search.train_images=960", "search.validation_images=960"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--rows", nargs="*", default=["small", "cifar"], help="of bench_steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of steps in a measurement")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    return parser.parse_args()


def launch(ranks, command):
    launcher = shlex.split(os.environ.get("MPIRUN", "mpirun --oversubscribe --bind-to none"))
    return subprocess.run([*launcher, "-np", str(ranks), *command], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def train(a, row, ranks, threads):
    """Images/s."""
    command = [os.path.join(a.build, "bench", "bench_steps"), "--json", "--row", row, "--threads", str(threads),
               "--seconds", str(a.seconds)]
    return json.loads(launch(ranks, command).splitlines()[-1])["images_per_s"]


def build_graph(a, data, ranks, threads):
    """Searches a minute, from the phase's start to its last search's end."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*GRAPH, f"run.output={folder}", f"data.file={data}", f"run.threads={threads}"]
        command = [os.path.join(a.build, "dcanas"), "lug", os.path.join(ROOT, "input", "demo.ini")]
        launch(ranks, command + [word for setting in settings for word in ("--set", setting)])
        with open(os.path.join(folder, "demo", "events.jsonl"), encoding="utf-8") as lines:
            events = [json.loads(line) for line in lines]
    start = next(e["time"] for e in events if e["event"] == "phase")
    ends = [e["time"] for e in events if e["event"] == "finished"]
    return 60 * len(ends) / (max(ends) - start)


def rounds(a, what, unit, measure, target, ways):
    """ways: (ranks, threads), the first of one thread, the last of one rank a core."""
    speeds = [[measure(*way) for way in ways] for _ in range(a.rounds)]
    print(f"\n{what}, {unit}")
    for i, (ranks, threads) in enumerate(ways):
        each = [s[i] for s in speeds]
        ratio = statistics.median(s[i] / s[0] for s in speeds)
        print(f"    {ranks:3d} rank{'s' if ranks > 1 else ' '} of {threads:3d} thread{'s' if threads > 1 else ' '} "
              f"{statistics.median(each):10.1f} ({min(each):.1f}-{max(each):.1f}) {ratio:6.2f}x", end="")
        wanted = target * a.cores
        print(f"   target {wanted:.2f}x {'met' if ratio >= wanted else 'MISSED'}" if (ranks, threads) == ways[-1] else "",
              flush=True)


def main():
    a = parse_arguments()
    ways = [(1, 1), (1, a.cores), (a.cores, 1)]
    print(f"\nRanks and threads, medians of {a.rounds} rounds (lowest-highest), ratio to one rank of one thread")
    for row in a.rows:
        rounds(a, f"Training, row {row}", "images/s", lambda r, t, row=row: train(a, row, r, t), TRAINING_TARGET, ways)
    if not os.path.exists(FASHION_MNIST):
        print("\nThe lookup graph is left out: no Fashion-MNIST (Debian's dataset-fashion-mnist).")
        return
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "fashion-mnist.h5")
        subprocess.run([os.path.join(a.build, "dcanas"), "data", "import", "idx", FASHION_MNIST, data], check=True,
                       stdout=subprocess.DEVNULL)
        rounds(a, "Lookup graph", "searches/min", lambda r, t: build_graph(a, data, r, t), GRAPH_TARGET, ways)


if __name__ == "__main__":
    main()
