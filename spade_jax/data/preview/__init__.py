"""What data is like before it is trained on: `python -m spade_jax.data.preview --help`.

`seen` counts what is looked at and tells of it, `picture` draws its lengths; `text`, `classes` and
`pairs` read what pre-training, classifiers and fine-tuning learn from.
"""
