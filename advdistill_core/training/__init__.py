"""Training a student on weighted groups of responses.

`rows` is the data, `tree` shares what a group has in common, `batching` cuts optimizer
steps into micro-batches, `loss` and `attention` are the mathematics, `trainer` the loop.
"""
