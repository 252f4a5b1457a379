/* The phases of a run, each restartable at any moment: what is complete is taken from its files, not computed again. */
#ifndef DC_APP_PHASES_H
#define DC_APP_PHASES_H

#include "app/pipeline.h"

/* Whether the search is held to budgets: then there is a lookup graph. */
bool dc_pipeline_constrained(const dc_pipeline *p);

/* Builds, or extends, the lookup graph: p->lug on every rank. Of a part (p->parts) only its searches are made, and stay
 * in their checkpoints, from which the phase without parts takes them. Collective, as all of these. */
dc_status dc_phase_lug(dc_pipeline *p);

/* The lookup graph as it is, without any search: empty when there is none. */
dc_status dc_phase_load_lug(dc_pipeline *p);

/* Searches at the K' of the budget; runs: settings.runs entries, the caller's to free. Without a lookup graph that
 * covers the budgets' metrics K' is K itself. */
dc_status dc_phase_search(dc_pipeline *p, dc_lug_entry **runs);

/* Candidates within the budget, compared by a short training. *candidates: the caller's to free. */
dc_status dc_phase_select(dc_pipeline *p, const dc_lug_entry *runs, int *n, dc_candidate **candidates, int *best);

/* Writes the chosen genotype to genotype.txt. */
dc_status dc_phase_keep_genotype(dc_pipeline *p, const dc_genotype *genotype);

/* Writes the genotype to genotype.txt and trains it on all training images, evaluated on the test images. */
dc_status dc_phase_train(dc_pipeline *p, const dc_genotype *genotype, dc_train_result *result);

#endif
