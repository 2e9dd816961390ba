"""Stop strings, however the text is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from server.api.stops import StopFilter

letters = st.text("ab", max_size=20)
stops = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


def plain(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first; the plain twin of StopFilter."""
    for end in range(len(text) + 1):
        ending = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(ending)], True
    return text, False


@given(st.lists(letters, max_size=8), stops)
def test_the_text_before_the_first_stop_string_passes(pieces, stops):
    found = StopFilter(stops)
    sent = "".join(found.push(piece) for piece in pieces) + found.flush()
    assert (sent, found.met) == plain("".join(pieces), stops)


@given(st.lists(letters, max_size=8), stops)
def test_no_more_is_held_back_than_may_become_a_stop_string(pieces, stops):
    found = StopFilter(stops)
    sent, text = "", ""
    for piece in pieces:
        text += piece
        sent += found.push(piece)
        held = text[len(sent) :]
        if not found.met:
            assert not held or any(stop.startswith(held) for stop in stops)
