"""Made-up prompts: exact lengths, none alike, beginnings shared as asked."""

from collections import Counter

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.workloads import writer
from client.workloads.build import build_workload
from client.workloads.lengths import LengthSettings, draw_lengths
from client.workloads.limits import Limits
from client.workloads.settings import WorkloadSettings
from client.workloads.synthetic import SharedPrefixes
from client.workloads.vocabulary import ordinary_vocabulary
from tokenization import default_model_path, load_tokenizer


@pytest.fixture(scope="module")
def smollm2():
    return load_tokenizer(default_model_path())


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    """A tokenizer that merges letters across any border, so few texts keep their ids."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(first, second) for first in letters[:13] for second in letters]
    vocabulary = {token: index for index, token in enumerate([*letters, *map("".join, pairs)])}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    library.decoder = tokenizers.decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("merging")
    library.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def workload(tokenizer, count=50, seed=0, prefixes=None, limits=None, output_length=0, **lengths):
    settings = WorkloadSettings(
        kind="prefix" if prefixes else "synthetic",
        lengths=LengthSettings(**lengths),
        prefixes=prefixes,
        limits=limits or Limits(),
        output_length=output_length,
    )
    return build_workload(settings, tokenizer, count, seed)


@pytest.mark.parametrize("name", ["smollm2", "tokenizer", "merging"])
@pytest.mark.parametrize("length", [2, 3, 17, 300])
def test_texts_encode_to_the_ids_and_to_the_length_asked_for(request, name, length):
    tokenizer = request.getfixturevalue(name)
    made = workload(tokenizer, inputs=length, outputs=9)
    for prompt in made.prompts:
        assert tuple(tokenizer.encode(prompt.text)) == prompt.token_ids
        assert (len(prompt.token_ids), prompt.max_tokens) == (length, 9)
        assert prompt.ids_have_bos is tokenizer.add_bos
        assert not prompt.text_has_bos
    assert "other lengths" not in made.description


def test_the_words_of_the_merging_tokenizer_prove_nothing(merging, smollm2, tokenizer):
    assert not ordinary_vocabulary(merging).proven
    assert ordinary_vocabulary(smollm2).proven
    assert ordinary_vocabulary(tokenizer).proven


def test_words_that_merge_over_spaces_are_checked_each_time(tmp_path):
    letters = "abcdefgh"
    words = [f" {first}{second}" for first in letters for second in letters]
    starts = [f" {letter}" for letter in letters]
    tokens = [" ", *letters, *starts, *words, " aa bb"]
    merges = [
        *((" ", letter) for letter in letters),
        *((word[:2], word[2]) for word in words),
        (" aa", " bb"),
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    library.decoder = tokenizers.decoders.Fuse()
    library.save(str(tmp_path / "tokenizer.json"))
    odd = load_tokenizer(tmp_path)
    assert odd.encode(" aa bb cc") == [vocabulary[" aa bb"], vocabulary[" cc"]]
    made = workload(odd, count=30, inputs=400)
    assert not ordinary_vocabulary(odd).proven
    assert any(vocabulary[" aa bb"] in prompt.token_ids for prompt in made.prompts)
    assert all(tuple(odd.encode(p.text)) == p.token_ids for p in made.prompts)
    assert {len(prompt.token_ids) for prompt in made.prompts} == {400}


def test_a_text_that_cannot_be_exact_is_said_and_its_ids_are(tmp_path):
    # Reads seven characters or more as one "a".
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    library.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(".{7,}"), "a")
    library.decoder = tokenizers.decoders.ByteLevel()
    library.save(str(tmp_path / "tokenizer.json"))
    made = workload(load_tokenizer(tmp_path), count=3, inputs=20, outputs=4)
    assert "3 texts tokenize to other lengths; --send tokens" in made.description
    assert [len(prompt.token_ids) for prompt in made.prompts] == [20] * 3


@pytest.mark.parametrize("name", ["smollm2", "tokenizer"])
def test_prompts_differ_at_once_so_that_no_prefix_can_be_reused(request, name):
    tokenizer = request.getfixturevalue(name)
    made = workload(tokenizer, count=500, inputs=40)
    own = 2 if len(ordinary_vocabulary(tokenizer)) < 500 else 1
    beginnings = {prompt.token_ids[: own + tokenizer.add_bos] for prompt in made.prompts}
    assert len(beginnings) == 500
    assert (made.distinct, made.most_uses) == (500, 1)


def test_prompts_too_short_to_differ_are_counted(tokenizer):
    made = workload(tokenizer, count=500, inputs=2)
    assert made.distinct == len({prompt.text for prompt in made.prompts}) < 500
    assert made.most_uses == max(Counter(prompt.text for prompt in made.prompts).values()) > 1


def test_prefixes_are_shared_equally_and_no_more_than_asked(smollm2):
    made = workload(
        smollm2, count=40, inputs=10, outputs=3, prefixes=SharedPrefixes(length=30, number=4)
    )
    beginnings = Counter(prompt.token_ids[:30] for prompt in made.prompts)
    assert sorted(beginnings.values()) == [10] * 4
    assert len({prompt.token_ids[:31] for prompt in made.prompts}) == 40
    assert all(tuple(smollm2.encode(p.text)) == p.token_ids for p in made.prompts)
    assert {len(prompt.token_ids) for prompt in made.prompts} == {40}


def test_mending_leaves_the_shared_prefix_alone(merging):
    made = workload(merging, count=40, inputs=10, prefixes=SharedPrefixes(length=30, number=2))
    assert len({prompt.token_ids[:30] for prompt in made.prompts}) == 2
    assert {len(prompt.token_ids) for prompt in made.prompts} == {40}
    assert all(tuple(merging.encode(p.text)) == p.token_ids for p in made.prompts)
    assert "other lengths" not in made.description


def test_what_is_kept_stays_when_it_merges_with_the_next_word(merging):
    (merged,) = merging.encode("mn")
    m, n = merging.encode("m") + merging.encode("n")
    made = writer.Writer(merging).write("x", [m, n, n], 5, np.random.default_rng(0), keep=1)
    assert made.token_ids[0] == m != merged
    assert merging.encode(made.text) == list(made.token_ids)
    assert len(made.token_ids) == 3


def test_only_words_that_are_proven_go_unchecked(merging, monkeypatch):
    monkeypatch.setattr(writer, "_CHECKED_TOKENS", 0)
    made = workload(merging, inputs=100)
    assert all(tuple(merging.encode(p.text)) == p.token_ids for p in made.prompts)


def test_a_prefix_shorter_than_a_word_is_the_beginning_of_sequence(tokenizer):
    made = workload(tokenizer, inputs=1, prefixes=SharedPrefixes(length=1))
    assert {prompt.token_ids[0] for prompt in made.prompts} == {tokenizer.bos_id}
    assert {len(prompt.token_ids) for prompt in made.prompts} == {2}


@given(
    st.integers(1, 2000), st.floats(0, 0.99), st.integers(0, 99),
)  # fmt: skip
def test_uniform_lengths_stay_in_the_range_and_reach_its_ends(length, ratio, seed):
    settings = LengthSettings(length, length, range_ratio=ratio)
    drawn = np.array(draw_lengths(settings, 300, np.random.default_rng(seed)))
    low, high = length * (1 - ratio), length * (1 + ratio)
    assert drawn.min() >= max(low - 1e-5, 1)
    assert drawn.max() <= high + 1e-5
    if 2 <= high - low <= 10:
        assert set(np.arange(max(np.ceil(low), 1), np.floor(high) + 1)) <= set(drawn.ravel())


def test_lengths_that_are_lognormal_have_the_mean_and_sigma_asked_for():
    settings = LengthSettings(800, 200, "lognormal", sigma=0.7)
    drawn = np.array(draw_lengths(settings, 40_000, np.random.default_rng(5)))
    assert drawn.mean(axis=0) == pytest.approx([800, 200], rel=0.02)
    assert np.log(drawn).std(axis=0) == pytest.approx([0.7, 0.7], rel=0.02)


def test_lengths_that_are_fixed_are_all_alike():
    settings = LengthSettings(80, 20, "fixed")
    assert draw_lengths(settings, 3, np.random.default_rng(0)) == [(80, 20)] * 3


def test_limits_cut_prompts_and_say_how_many(tokenizer):
    made = workload(tokenizer, inputs=50, outputs=30, limits=Limits(None, 45, 60))
    assert {(len(p.token_ids), p.max_tokens) for p in made.prompts} == {(45, 15)}
    assert "50 cut to the limits" in made.description


def test_an_output_length_is_asked_of_all(tokenizer):
    made = workload(tokenizer, inputs=50, outputs=30, range_ratio=0.5, output_length=7)
    assert {prompt.max_tokens for prompt in made.prompts} == {7}


def test_a_prompt_of_nothing_but_the_beginning_of_sequence_is_refused(tokenizer):
    with pytest.raises(UsageError, match="2 or more with this tokenizer"):
        workload(tokenizer, inputs=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": 0}, "--random-input-len: 1 or more; got 0"),
        ({"outputs": 0}, "--random-output-len"),
        ({"distribution": "zipf"}, "fixed, uniform, lognormal"),
        ({"range_ratio": 1.0}, "below 1"),
        ({"range_ratio": 0.5, "distribution": "fixed"}, "uniform, not fixed"),
        ({"sigma": -1.0}, "--random-sigma"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        LengthSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"number": 0}])
def test_prefixes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match="1 or more; got 0"):
        SharedPrefixes(**wrong)
