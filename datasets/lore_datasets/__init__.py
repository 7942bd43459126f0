"""The contract between the two phases: types, vocabularies, keys, skills, schemas and the versioned store. No torch,
no Prefect."""
