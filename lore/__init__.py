"""The learner: DreamerV3 and the three paths by which stored advice enters it. No language model, no Prefect."""
