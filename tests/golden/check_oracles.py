"""Checks darts.py against the published sizes: parameters without auxiliary head, and multiply-accumulates."""
from darts import GENOTYPES, SearchNetwork, TargetNetwork, count_macs, count_params

ORACLES = {  # genotype: (CIFAR-10, 36 channels, 20 cells), (ImageNet, 48 channels, 14 cells)
    "DARTS_V2": ((3349342, 528359040), (4718752, 529911552)),
    "PC_DARTS_cifar": ((3634678, 556670592), (5270560, 571137408)),
    "PDARTS": ((3433798, 532174464), (4944352, 542819328)),
}

for name, (cifar, imagenet) in ORACLES.items():
    small = TargetNetwork("cifar", GENOTYPES[name], 36, 20, 10)
    large = TargetNetwork("imagenet", GENOTYPES[name], 48, 14, 1000)
    assert (count_params(small), count_macs(small, 32)) == cifar, name
    assert (count_params(large), count_macs(large, 224)) == imagenet, name
    if name == "DARTS_V2":
        assert sum(p.numel() for p in small.parameters()) == 3825768
assert count_params(SearchNetwork(16, 8, 10)) == 1930618
print("the sizes agree")
