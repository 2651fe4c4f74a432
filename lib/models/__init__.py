"""How models are made: encoders, the training loop, losses, and each way to compress.

Lives here: make and recipes (what is made), families (of which encoders), loop, batches, losses (how), a module for
each compression; classifiers and inspection (what others made).
May import: the ground, params, tasks. Never analysis: the two meet in the predictions table.
"""
