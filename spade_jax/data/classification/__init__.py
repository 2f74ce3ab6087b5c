"""Classification's data: sequences of tokens or pixels, each of one class.

`rows` reads examples of all sources (`images`, `cifar10` and `folders` help), `encoders` make
sequences of them, `examples` holds them in memory, and `batches` is what a run takes. `config` says
all of it.
"""
