"""All tasks by their names, and the mixtures of several."""

from collections.abc import Mapping

from spade_jax.data.text_to_text.glue import AX, GLUE
from spade_jax.data.text_to_text.sotu_year import SOTU_YEAR
from spade_jax.data.text_to_text.summaries import SUMMARIES
from spade_jax.data.text_to_text.task import TextToText

TASKS: Mapping[str, TextToText] = {task.name: task for task in (*GLUE, AX, *SUMMARIES, SOTU_YEAR)}
# All nine tasks of GLUE; T5's mixture leaves WNLI out.
MIXTURES: Mapping[str, tuple[str, ...]] = {"glue": tuple(task.name for task in GLUE)}
