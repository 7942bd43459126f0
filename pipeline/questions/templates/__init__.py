"""Questions for any environment, told by its own words, as versioned data files; an environment may bring better ones
(:attr:`lore_datasets.environments.Environment.templates`). Their format: :mod:`pipeline.questions.prompts`."""
