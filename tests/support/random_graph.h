/* Random small networks with everything that a planner may stumble over: inputs listed twice, concats in concats, sums
 * of sums, relus with several readers, branches that nothing reads, the input image read anywhere. */
#ifndef DC_TESTS_SUPPORT_RANDOM_GRAPH_H
#define DC_TESTS_SUPPORT_RANDOM_GRAPH_H

#include "graph/graph.h"

enum { RANDOM_GRAPH_CLASSES = 7 };

/* Equal seeds give equal graphs, of about 30 nodes, with losses (some with an auxiliary head). Images: 3x8x8. */
dc_graph *random_graph(uint64_t seed);

#endif
