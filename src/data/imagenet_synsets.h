/* The 1000 classes of ImageNet (ILSVRC 2012) in the order of their own numbers, by which ground truth files and the
 * downsampled ImageNet call them. */
#ifndef DC_DATA_IMAGENET_SYNSETS_H
#define DC_DATA_IMAGENET_SYNSETS_H

enum { DC_IMAGENET_CLASSES = 1000, DC_IMAGENET16_CLASSES = 120 };

/* WordNet numbers: class i (from 0) is "n%08d". */
extern const int dc_imagenet_synsets[DC_IMAGENET_CLASSES];

#endif
