"""Writes pictures.h5: what PIL decodes from JPEGs of every kind, and what PIL and torchvision make of them.
`/usr/bin/python3 pictures.py` rewrites the file beside it; tests/unit/test_pictures.c and test_crop.c compare dcanas
with it.

A group for each picture: `jpeg`, the file; `rgb` [h][w][3]; for each resize a group `resize-N`: `box` (x, y, w, h,
integers: what PIL crops before it resizes) and `planes` [3][side][side]; `middle` [3][SIDE][SIDE]: Resize and
CenterCrop; for each change of colour a group `colour-N`: `change` (its number in COLOURS, its amount) and `planes`."""
import io
import os

import h5py
import numpy
import torch
from PIL import Image
from torchvision.transforms import functional

W, H = 93, 71
SIDE = 32  # of the middles: 36 is to it as 256 to 224
COLOURS = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation,
           functional.adjust_hue]  # in the order of dc_colour_change
AMOUNTS = [(0.6, 1.37), (0.65, 1.4), (0.7, 1.3), (-0.2, 0.07, 0.5)]
BOXES = [(0, 0, W, H, 24), (0, 0, W, H, 80), (13, 7, 61, 50, 48), (40, 31, 9, 14, 32), (5, 60, 80, 11, 20)]


def picture():
    """Smooth parts, edges and noise: what a codec and a filter can get wrong."""
    y, x = numpy.mgrid[0:H, 0:W]
    noise = numpy.random.default_rng(1).integers(-20, 20, (H, W, 3)) * (x < 30)[..., None]
    rgb = numpy.stack([120 + 100 * numpy.sin(x / 7), 2.5 * x, 255 - 3 * y + 60 * ((x // 8 + y // 8) % 2)], axis=-1)
    rgb[50:60, 20:70] = (250, 10, 30)
    return Image.fromarray((rgb + noise).clip(0, 255).astype(numpy.uint8))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def store(group, name, array):
    group.create_dataset(name, data=array, compression=9, shuffle=True)


def add(root, name, data, boxes=()):
    group = root.create_group(name)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    group["jpeg"] = numpy.frombuffer(data, dtype=numpy.uint8)
    store(group, "rgb", numpy.asarray(image))
    for i, (x, y, w, h, side) in enumerate(boxes):
        resized = image.crop((x, y, x + w, y + h)).resize((side, side), Image.BILINEAR)
        one = group.create_group(f"resize-{i}")
        one["box"] = numpy.array([x, y, w, h], dtype=numpy.int32)
        store(one, "planes", numpy.asarray(resized).transpose(2, 0, 1))
    middle = functional.center_crop(functional.resize(image, SIDE * 256 // 224), [SIDE, SIDE])
    store(group, "middle", numpy.asarray(middle).transpose(2, 0, 1))


def add_colours(root, image):
    pixels = torch.from_numpy(numpy.asarray(image).transpose(2, 0, 1).copy())
    number = 0
    for kind, (change, amounts) in enumerate(zip(COLOURS, AMOUNTS)):
        for amount in amounts:
            # PIL's hue is in whole levels; the others are PIL's as in most trainings.
            out = change(pixels, amount).numpy() if change is functional.adjust_hue else numpy.asarray(
                change(image, amount)).transpose(2, 0, 1)
            one = root.create_group(f"colour-{number}")
            one["change"] = numpy.array([kind, amount], dtype=numpy.float32)
            store(one, "planes", out)
            number += 1


def main():
    image = picture()
    with h5py.File(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pictures.h5"), "w", libver="v108") as root:
        add(root, "444", jpeg(image, quality=90, subsampling=0), BOXES)
        add(root, "422", jpeg(image, quality=80, subsampling=1))
        add(root, "420", jpeg(image, quality=75, subsampling=2))
        add(root, "progressive", jpeg(image, quality=75, subsampling=2, progressive=True))
        add(root, "grey", jpeg(image.convert("L"), quality=75), BOXES[:1])
        add_colours(root["444"], Image.fromarray(root["444/rgb"][20:44, 5:45]))
        add(root, "cmyk", jpeg(image.convert("CMYK"), quality=85))


main()
