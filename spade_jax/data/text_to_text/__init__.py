"""Fine-tuning's data: tasks as pairs of texts, after T5.

`registry` has the tasks by name, each a `task.TextToText` whose rows `formats` write. `splits` has
what a task is read from, `tables` reads local files, `examples` makes pairs of rows. `inspection`
tells what they are like before they are used; `training_batches` and `evaluation_sets` are what a
run takes, and `vocabulary_coverage` is what a vocabulary makes of them.
"""
