"""ROUGE against values computed by hand, and against rouge-score where that reads the text."""

import itertools
import re

import pytest

from spade_jax.data.metrics import score

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def one(metric: str, targets, predictions, labels=()) -> float:
    return score([metric], targets, predictions, labels)[metric]


def rouge(target: str, prediction: str) -> tuple[float, ...]:
    return tuple(score(ROUGE, [target], [prediction]).values())


# An F-measure is 2 hits / (items of the target + items of the prediction).


def test_rouge_of_one_word_replaced():
    values = rouge("the cat sat on the mat", "the cat is on the mat")
    # 5 of 6 words; "the cat", "on the" and "the mat" of 5 pairs; "the cat … on the mat".
    assert values == pytest.approx((5 / 6, 3 / 5, 5 / 6, 5 / 6))


def test_rouge_of_a_repeated_word():
    values = rouge("the cat sat on the mat", "the the cat")
    # "the" twice and "cat"; "the cat" of 5 and 2 pairs; "the cat" in order.
    assert values == pytest.approx((2 * 3 / (6 + 3), 2 * 1 / (5 + 2), 4 / 9, 4 / 9))
    values = rouge("cat", "cat cat cat")
    assert values == pytest.approx((2 / 4, 0, 2 / 4, 2 / 4))  # The target has it only once.


@pytest.mark.parametrize("end", [". ", "! ", "? ", ".\n", "\n", " . ", "?!  "])
def test_rouge_lsum_matches_sentences_in_any_order(end):
    values = rouge(f"Dogs bark{end}Cats meow.", f"Cats meow{end}Dogs bark.")
    # Both orders share 4 words and 2 of 3 pairs; in order there are 2 words in common, but
    # each sentence of 2 words is found whole.
    assert values == pytest.approx((1, 2 / 3, 2 / 4, 1))


@pytest.mark.parametrize("no_end", [".", ", ", "; ", "\t", " "])
def test_rouge_lsum_keeps_together_what_does_not_end_a_sentence(no_end):
    values = rouge(f"Dogs bark{no_end}Cats meow", f"Cats meow{no_end}Dogs bark")
    assert values == pytest.approx((1, 2 / 3, 2 / 4, 2 / 4))


def test_rouge_lsum_unites_what_a_sentence_shares_with_several():
    target = "w1 w2 w3 w4 w5"
    prediction = "w1 w2 w6 w7 w8. w1 w3 w8 w9 w5."
    # Lin's example (2004, section 3.2): w1 w2 and w1 w3 w5 unite to 4 words of 5 and of 10.
    assert one("rougeLsum", [target], [prediction]) == pytest.approx(2 * 4 / (5 + 10))
    # As one sentence w1 w2 w3 w5, no less; with the sentences exchanged, only w1 w2 or w3 w5.
    exchanged = "w3 w8 w9 w5. w1 w2 w6 w7 w8."
    assert one("rougeL", [target], [exchanged]) == pytest.approx(2 * 2 / (5 + 9))
    assert one("rougeLsum", [target], [exchanged]) == pytest.approx(2 * 4 / (5 + 9))


def test_rouge_reads_stems_without_case_and_punctuation():
    assert rouge("Running dogs, barking!", "runs dog -- Barked") == (1, 1, 1, 1)
    # Words of three letters stay as they are.
    assert one("rouge1", ["gas was"], ["ga wa"]) == 0.0


def test_the_stemmer_needs_no_data_of_nltk(monkeypatch):
    import nltk

    def refuse(*args, **kwargs):
        raise AssertionError(f"nltk data asked for: {args}")

    for name in ("find", "load"):
        monkeypatch.setattr(nltk.data, name, refuse)
    monkeypatch.setattr(nltk, "download", refuse)
    assert rouge("Generously. Nationally!", "generous\nnational") == (1, 1, 1, 1)


def test_rouge_is_the_mean_over_examples():
    targets = ["the cat sat on the mat"] * 3
    predictions = ["the cat is on the mat", "the the cat", ""]
    values = score(ROUGE, targets, predictions)
    expected = {
        "rouge1": (5 / 6 + 6 / 9 + 0) / 3,
        "rouge2": (3 / 5 + 2 / 7 + 0) / 3,
        "rougeL": (5 / 6 + 4 / 9 + 0) / 3,
        "rougeLsum": (5 / 6 + 4 / 9 + 0) / 3,
    }
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("prediction", ["", "?", "…"])
def test_rouge_of_predictions_without_words_is_0(prediction):
    assert rouge("a cat", prediction) == (0, 0, 0, 0)


SCRIPTS = {
    "Latin": "L'été à Nîmes était très chaud.",
    "Cyrillic": "Река поднялась, мост закрыт.",
    "Greek": "Ο ποταμός ανέβηκε ψηλά.",
    "Armenian": "Գետը բարձրացավ։ Կամուրջը փակ է։",
    "Georgian": "მდინარე ადიდდა.",
    "Hebrew": "הנהר עלה על גדותיו.",
    "Arabic": "ارتفع النهر، والجسر مغلق.",
    "Devanagari": "नदी चढ़ गई। पुल बंद है।",
    "Bengali": "নদী বেড়েছে। সেতু বন্ধ।",
    "Tamil": "ஆறு பெருகியது.",
    "Telugu": "నది పొంగింది.",
    "Thai": "แม่น้ำสูงขึ้น",
    "Lao": "ແມ່ນ້ຳຂຶ້ນ",
    "Khmer": "ទន្លេឡើង។",
    "Myanmar": "မြစ်ရေတက်သည်။",
    "Tibetan": "གཙང་པོ་འཕེལ་སོང་།",
    "Ethiopic": "ወንዙ ሞላ።",
    "Han": "河水上涨了。桥关闭了。",
    "Japanese": "川が増水した。橋は閉鎖。",
    "Hangul": "강물이 불어났다. 다리는 닫혔다.",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_rouge_of_identical_texts_is_1_in_any_script(script):
    text = SCRIPTS[script]
    assert rouge(text, text) == (1, 1, 1, 1)
    others = [SCRIPTS[name] for name in SCRIPTS if name not in (script, "Han", "Japanese")]
    assert all(rouge(text, other) == (0, 0, 0, 0) for other in others)


def test_rouge_keeps_the_letters_of_a_word_together():
    assert rouge("été", "t") == (0, 0, 0, 0)
    assert one("rouge1", ["мост открыт"], ["мост закрыт"]) == 1 / 2
    # 今天 of 4 and 4 characters.
    assert one("rouge1", ["今天很好"], ["今天不行"]) == 2 / 4
    assert one("rouge1", ["한국어"], ["\u1112\u1161\u11ab국어"]) == 1  # Decomposed Korean.


def test_rouge_lsum_matches_sentences_that_no_space_follows():
    values = rouge("狗叫了。猫来吧。", "猫来吧。狗叫了。")
    assert values == pytest.approx((1, 4 / 5, 3 / 6, 1))


def test_rouge_of_the_shipped_prose_is_that_of_rouge_score_to_the_bit():
    from rouge_score.rouge_scorer import RougeScorer

    from spade_jax.data.config import SourceConfig
    from spade_jax.data.sources import iterate_documents

    text = next(iterate_documents(SourceConfig(), "validation")).decode()
    assert len(text) > 10_000
    ends = re.compile(r"(?<=[.!?])\s+")
    texts = [text[i : i + 700] for i in range(0, 9_000, 450)]
    assert all(t.isascii() for t in texts)
    scorer = RougeScorer(ROUGE, use_stemmer=True)
    for target, prediction in itertools.pairwise(texts):
        expected = scorer.score(ends.sub("\n", target), ends.sub("\n", prediction))
        assert rouge(target, prediction) == tuple(expected[name].fmeasure for name in ROUGE)
        assert expected["rouge1"].fmeasure > 0.3
