"""What is learned, and from what: for each objective its batch and what is made of it.

`batch`, `config` and each objective's batch need no framework: `data` makes batches by them.
"""
