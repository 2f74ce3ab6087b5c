"""Arrays for full attention."""

from arrays import normal

# Of a head: what all hardware takes.
SIZE = 16
# More than two tiles of the least size, and no whole number of them.
QUERIES, KEYS = 37, 50


def inputs(queries, keys, batch=2, heads=2, size=SIZE):
    """Queries, keys and values; the queries are scaled."""
    lengths = (queries, keys, keys)
    query, key, value = (normal((batch, n, heads, size), (n, i)) for i, n in enumerate(lengths))
    return query * size**-0.5, key, value
