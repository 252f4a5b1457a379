/* The version of the program: printed, and kept in results and checkpoints. */
#ifndef DC_BASE_VERSION_H
#define DC_BASE_VERSION_H

#define DC_VERSION "0.1.0"

#endif
