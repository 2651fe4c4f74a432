"""Where rows come from: the micro-world, real sets by mirror, hub or address, a reader's own files.

Lives here: task, registry, dataset, sources, download; microworld, grammar, probes; own, example, handed, harness.
May import: the ground, params.
"""
